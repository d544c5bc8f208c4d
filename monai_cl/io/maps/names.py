"""Names of maps as outputs show them: labels of BIDS, which are pseudonyms, and keyed hashes for other names."""

import functools
import logging
import os
import re
from pathlib import Path

from monai_cl.io.suffixes import stem
from monai_cl.privacy.hidden_paths import PREFIX, HiddenPath, alias_of
from monai_cl.privacy.plain import SUFFIX, is_plain
from monai_cl.privacy.pseudonyms import KEY_VARIABLE, Key, find_or_make_key

logger = logging.getLogger(__name__)

_BIDS = re.compile(r"(sub|ses)-[a-zA-Z0-9]+(_[a-zA-Z]+-[a-zA-Z0-9]+)*(_[a-zA-Z0-9]+)?")
_FOLDERS = ("derivatives", "rawdata", "sourcedata")
_PSEUDONYM = re.compile(r"sub-[0-9a-f]{12}(_.*)?")


class MapNames:
    """Pseudonyms of a study of maps, under the key of ``monai-cl scan``, which is made where something must be hidden.

    Names of BIDS are kept where their labels are words of imaging and short numbers. Where the key can be neither read
    nor made, names are numbered in the order in which they come.

    Args:
        folder: The folder of the maps, in which the key must not lie.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers: dict[str, int] = {}

    @functools.cached_property
    def _key(self) -> Key | None:
        try:
            return find_or_make_key(outside=self._folder)
        except OSError as error:
            logger.warning(
                "names that are not of BIDS are replaced by numbers: the key of pseudonyms can be neither read nor "
                "made (%s); set %s to a file that can be written",
                error.strerror, KEY_VARIABLE,
            )  # fmt: skip
            return None

    def case(self, name: str) -> str:
        """A subject and session, ``sub-01_ses-2``, or the pseudonym of a name that is not of BIDS."""
        if self._is_bids(name):
            return name
        return f"subject-{self._number(name):03d}" if self._key is None else self._key.subject(f"name:{name}")

    def subject(self, name: str) -> str:
        """Subject by a name of subject and session, or a pseudonym for any other name."""
        return self.case(name).split("_")[0]

    def file(self, path: str | os.PathLike[str]) -> HiddenPath:
        """File with the path to show for it, relative to the folder."""
        real = Path(path)
        below = real.relative_to(self._folder) if real.is_relative_to(self._folder) else Path(real.name)
        return HiddenPath(str(real), self.path(below.as_posix()))

    def path(self, path: str) -> str:
        """Path as outputs show it: parts that are of BIDS, folders of words of imaging, hashes of all others."""
        *folders, name = path.split("/")
        known = [part if part in _FOLDERS or is_plain(part) else self._part(part) for part in folders]
        return "/".join([*known, self._part(name)])

    def _part(self, part: str) -> str:
        if part in ("", ".", "..") or self._is_bids(stem(part)):
            return part
        if self._key is not None:
            return alias_of(part, self._key)
        suffix = SUFFIX.search(part)
        return f"{PREFIX}{self._number(part):03d}{suffix.group().lower() if suffix else ''}"

    def _is_bids(self, name: str) -> bool:
        return bool(_BIDS.fullmatch(name)) and bool(_PSEUDONYM.fullmatch(name) or is_plain(name))

    def _number(self, name: str) -> int:
        return self._numbers.setdefault(name, len(self._numbers) + 1)
