"""Places of masks and the scans they are of, known to the user of this machine, and not to who gets the masks."""

import os
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from monai.data import FolderLayoutBase

from monai_cl.privacy.hidden_paths import shown
from monai_cl.privacy.mask_record import REGISTER, Note, hash_of, note_mask, read_notes, scans_of

if TYPE_CHECKING:
    from monai_cl.transforms.mask_writers import MaskWriter

__all__ = ["REGISTER", "MaskFiles", "scans_of"]


class Placed(NamedTuple):
    """A scan and the place of its mask.

    Args:
        scan: Its files, one or a list.
        place: Names the mask, below the folder of masks and without its end; also in messages.
    """

    scan: Any
    place: str


class MaskFiles(FolderLayoutBase):
    """Names of masks after the ``"place"`` of each scan: ``folder_layout`` of :class:`~monai_cl.transforms.SaveMaskd`.

    A mask is ``OUTPUT_DIR/PLACE_POSTFIX.EXTENSION``. With ``hide_names`` each mask and its scan are noted in
    ``masks.csv`` beside the key of pseudonyms, which only this user can read: :func:`scans_of` looks there.

    Args:
        data: Items as from :func:`monai_cl.intake.new_scans.find_images`.
        output_dir: Folder of the masks.
        postfix: End of each name.
        extension: Suffix of each name.
        hide_names: Whether the places hide names, so that it must be noted which mask is whose.
        writer: Form of the masks, which gives place, end and suffix of each name.

    Raises:
        ValueError: If masks of two scans would be one file, or one would lie outside of ``output_dir``.
    """

    def __init__(
        self,
        data: Iterable[Mapping[str, Any]],
        output_dir: str | os.PathLike[str],
        *,
        postfix: str = "seg",
        extension: str = ".nii.gz",
        hide_names: bool = True,
        writer: "MaskWriter | None" = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.postfix, self.extension = postfix, extension
        if writer is not None:
            self.postfix, self.extension = writer.postfix, writer.extension
        self._place_of: Callable[[str], str] = str if writer is None else writer.place
        self._note = hide_names
        self._noted: dict[str, Note] | None = None
        self._placed: dict[str, Placed] = {}  # by each file of a scan
        self._written: list[Note] = []  # the mask that is being written, with the bytes noted of it before, if any
        weakref.finalize(self, _note_bytes, self._written)  # also when the interpreter ends
        taken: dict[str, Mapping[str, Any]] = {}
        self.items = list(data)
        for item in self.items:
            self._take(item, taken)

    def _take(self, item: Mapping[str, Any], taken: dict[str, Mapping[str, Any]]) -> None:
        """Give an item its place, unless another has it: a mask must never take that of another scan's."""
        place, name = os.path.normpath(self._place_of(str(item["place"]))), _scan(item)
        if os.path.isabs(place) or place.split(os.sep)[0] == os.pardir:
            raise ValueError(f"masks must lie below {self.output_dir}, that of {name} would not; give it another place")
        image = item["image"]
        for file in map(_real, image if isinstance(image, list) else [image]):
            other = self._placed.setdefault(file, Placed(image, place)).place
            if other != place:
                raise ValueError(
                    f"a scan must have one mask, got a file that is part of two items, {place} and {other}; "
                    "list it once"
                )
        if taken.setdefault(place, item) is not item:
            raise ValueError(
                f"each scan must have a mask of its own, got one name for those of {_scan(taken[place])} and {name}: "
                f"{place}_{self.postfix}{self.extension}; give one of the files another name, or leave hide_names on"
            )

    def placed(self, subject: str | os.PathLike[str]) -> Placed:
        """A scan and the place of its mask, by the file that the metadata of its volume name.

        Raises:
            ValueError: If it is none of the items.
        """
        result = self._placed.get(_real(subject))
        if result is None:
            raise ValueError(
                "a mask must be of one of the items that were looked for, this one is not; "
                "keep `filename_or_obj` in the metadata of the volumes"
            )
        return result

    def filename(self, subject: str | os.PathLike[str], idx: Any = None, **_: Any) -> str:
        """The file for the mask of a scan; its folder is made.

        Args:
            subject: The scan, as the metadata of its volume name it (``filename_or_obj``).
            idx: Number of a patch, as MONAI passes it on.

        Raises:
            ValueError: If it is none of the items.
        """
        place = self.placed(subject).place
        number = "" if idx is None else f"_{idx}"
        path = self.output_dir / f"{place}_{self.postfix}{number}{self.extension}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._note:
            self._enter(Note(os.path.abspath(path), _real(subject)))
        return str(path)

    def note_bytes(self) -> None:
        """Note the bytes of the mask that was written last, by which it is known again under another name.

        :class:`~monai_cl.transforms.SaveMask` calls it after each mask. Where another writer takes the names, the
        bytes are noted with the next mask, or when this object goes.
        """
        _note_bytes(self._written)

    def _enter(self, note: Note) -> None:
        """Note a mask before it is written, and the bytes of the one before."""
        self.note_bytes()
        if self._noted is None:
            self._noted = {known.mask: known for known in read_notes()}
        known = self._noted.get(note.mask)
        if known is None or known.scan != note.scan:
            note_mask(note)
            known = note
        self._noted[note.mask] = known
        self._written.append(known)


def _note_bytes(written: list[Note]) -> None:
    """Note the bytes of masks, by which they are known again under another name."""
    while written:
        note = written.pop()
        if os.path.isfile(note.mask) and (result := hash_of(note.mask)) != note.sha256:
            note_mask(note._replace(sha256=result))


def _scan(item: Mapping[str, Any]) -> str:
    image = item["image"]
    return str(item.get("case") or shown(image[0] if isinstance(image, list) else image))


def _real(path: str | os.PathLike[str]) -> str:
    return os.path.abspath(os.path.expanduser(os.fspath(path)))
