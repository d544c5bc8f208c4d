"""Names in the output of a scan: ids, plain names, or names as they are on disk."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from monai_cl.datalist import first_image
from monai_cl.intake._concealment import HIDDEN, Concealer
from monai_cl.intake._findings import Findings, Item, LeftOut
from monai_cl.intake._left_out import one_a_series
from monai_cl.io.suffixes import stem
from monai_cl.privacy.hand_made import class_names, plain_fields, section_name
from monai_cl.privacy.ids import is_token
from monai_cl.privacy.naming import PlainNames, without_parts
from monai_cl.privacy.plain import PSEUDONYM, is_plain_path, is_plain_text, is_plain_value, plain_or
from monai_cl.privacy.pseudonyms import Key
from monai_cl.privacy.quoting import Quoting

HideNames = bool | Literal["strict"]
_KINDS = {"CT": "ct", "MR": "mr"}
_OWN = ("image", "label", "subject")
_LEFT_ASIDE = "{} that might name somebody, left out or replaced"
_PARTS = re.compile(r"([\s\\/;,]+)")
# what DICOM calls modalities and kinds of images, beside the plain words
_TERMS = frozenset(
    """
    average composed cpr cr csa density diffusion dis2d dis3d dx ecg editor es fa ffe imaginary io ip ivus m_ffe m_se
    magnitude mfsplit mg min missing nd nm norm number oct op opt ot projection pt px quantity real reformatted rendered
    rf rg save sc screen sm subtract surview tracew water xc
    """.split()  # noqa: SIM905 - a list of literals is harder to read
)


class ScanNames:
    """Names for the results of a scan.

    Args:
        key: Key of the ids.
        hide: ``True`` names every file by an id, ``"strict"`` those of names that are not plain, ``False`` none.
        concealer: Holds words of headers that name persons.
    """

    def __init__(self, key: Key, hide: HideNames, concealer: Concealer) -> None:
        self._plain, self._hide, self._concealer = PlainNames(lambda: key), hide, concealer
        self._known: dict[str, str] = {}  # id of the image that starts with this file
        self._lost: Counter[str] = Counter()

    @property
    def files(self) -> Mapping[str, str | Sequence[str]]:
        """Files behind each token, for the table."""
        return self._plain.files

    def path(self, path: str) -> str:
        """Path below the scanned folder as outputs show it."""
        if not self._hide:
            return path
        if path in self._known:
            return self._known[path]
        if self._hide == "strict":
            return self._plain.path(path)
        return path if path in ("", ".") else self._plain.token("file", path)

    def items(self, sections: Mapping[str, Sequence[Item]]) -> dict[str, list[Item]]:
        """Items by section as they are written."""
        if not self._hide:
            return {section: [dict(item) for item in items] for section, items in sections.items()}
        return {
            section_name(section, self._plain): [self._item(item) for item in items]
            for section, items in sections.items()
        }

    def left_out(self, entries: Iterable[LeftOut]) -> list[LeftOut]:
        """Rows of what was left out, as they are written."""
        return sorted(map(self._left_out, one_a_series(entries)), key=lambda entry: (entry.reason, entry.paths))

    def notes(self, findings: Findings) -> dict[str, list[str]]:
        """Notes with what they concern, and what was left aside itself."""
        notes = {
            self._note(text): sorted(self._subject_or_path(text, one) for one in paths)
            for text, paths in findings.notes.items()
        }
        notes |= {_LEFT_ASIDE.format(what): [what] * count for what, count in self._lost.items() if count}
        return {text: notes[text] for text in sorted(notes)}

    def folder(self, folder: str) -> str:
        """The scanned folder as it may be printed."""
        return folder if not self._hide or is_plain_path(folder.strip("/")) else "the folder"

    def listing(self, path: str) -> str:
        """A ``dataset.json`` as errors may name it."""
        return self._plain.path(path) if self._hide else path

    def name(self, *candidates: Any) -> str:
        """The first candidate for the name of the data set that is plain."""
        usable = [str(one) for one in candidates if one and (not self._hide or is_plain_text(str(one)))]
        return usable[0] if usable else "study"

    def value(self, value: Any) -> Any:
        """A value of a foreign JSON file; ``None`` where it might name somebody."""
        if not self._hide or is_plain_value(value):
            return value
        self._lost["texts of dataset.json"] += 1
        return None

    def labels(self, labels: Mapping[str, Any]) -> dict[str, Any]:
        """Names of classes by number."""
        return class_names(labels, self._lost) if self._hide else dict(labels)

    def _left_out(self, one: LeftOut) -> LeftOut:
        paths = tuple(map(self.path, one.paths))
        if self._hide is True and len(paths) > 1:  # one id for the files of a series
            paths = (self._plain.token("file", one.paths),)
        series = f"series-{self._plain.key.digest('series', one.series)}" if one.series else ""
        detail = self._detail(one.detail, (*one.paths, *one.mentions))
        return LeftOut(paths, one.reason, detail, series=series, files=one.count)

    def _item(self, item: Item) -> Item:
        named: Item = {}
        image = item["image"]
        if self._hide == "strict":
            named["image"] = [self.path(one) for one in image] if isinstance(image, list) else self.path(image)
        else:
            token = self._plain.token(_KINDS.get(str(item.get("modality")), "image"), image)
            named["image"] = f"{self._subject(item['subject'])}/{token}"
            self._known[first_image(image)] = named["image"]
        if label := item.get("label"):
            label_id = f"{self._subject(item['subject'])}/{self._plain.token('label', label)}"
            named["label"] = self.path(label) if self._hide == "strict" else label_id
        named["subject"] = self._subject(item["subject"])
        return named | plain_fields({key: one for key, one in item.items() if key not in _OWN}, self._lost)

    def _note(self, text: str) -> str:
        """A note whose quotes are sections, the names of which a foreign file may have given."""
        if not self._hide or not isinstance(text, Quoting):
            return text
        return text.with_quotes(lambda quote: section_name(quote, self._plain))

    def _subject_or_path(self, text: str, concerned: str) -> str:
        return str(self._subject(concerned)) if text.startswith("subject ") else self.path(concerned)

    def _subject(self, subject: Any) -> Any:
        if not self._hide or PSEUDONYM.fullmatch(str(subject)):
            return subject
        if self._hide == "strict" and is_plain_value(subject):
            return subject
        return self._plain.key.subject(f"name:{subject}")

    def _detail(self, detail: str, paths: Sequence[str]) -> str:
        """A detail with nothing of these paths and no free text in its quotes; one of unknown make is all a quote."""
        return Quoting("{}", detail).with_quotes(lambda quote: self._quote(quote, paths)) if self._hide else detail

    def _quote(self, text: str, paths: Sequence[str]) -> str:
        if text in paths:  # whole, before parts of it that other paths share
            return self.path(text)
        for path in paths:
            if any(part in text for part in (stem(path), *path.split("/")) if part not in ("", ".", "..")):
                text = without_parts(text, path, self.path(path))
        parts = _PARTS.split(self._concealer.text(text))
        return "".join(part if number % 2 else _shown(part) for number, part in enumerate(parts))


def _shown(part: str) -> str:
    """A part of a quote that is an id, a plain name or a term of DICOM; free text may name anybody."""
    return part if is_token(part) or part.casefold() in _TERMS else plain_or(part, HIDDEN)
