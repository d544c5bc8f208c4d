"""Names of BIDS: entities and suffix."""

import posixpath
import re
from collections.abc import Mapping
from typing import NamedTuple

from monai_cl.io.suffixes import stem

_NAME = re.compile(r"(?P<entities>(?:[a-z]+[0-9]?-[A-Za-z0-9+]+_)+)(?P<suffix>[A-Za-z0-9]+)")
# Entities that a derivative adds to those of its raw image.
_ADDED = frozenset({"space", "desc", "res", "den", "label", "hemi", "atlas", "seg", "from", "to", "mode"})


class BidsName(NamedTuple):
    """Entities and suffix of a name: ``{"sub": "01", "ses": "2"}`` and ``T1w``."""

    entities: Mapping[str, str]
    suffix: str

    @property
    def session(self) -> str:
        """Session, ``ses-2``, or nothing."""
        return f"ses-{self.entities['ses']}" if "ses" in self.entities else ""

    @property
    def raw(self) -> Mapping[str, str]:
        """Entities that a derivative shares with its raw image."""
        return {key: value for key, value in self.entities.items() if key not in _ADDED}


def bids_name(path: str) -> BidsName | None:
    """Entities and suffix of a file, or ``None`` for a name that is not of BIDS.

    Example:
        >>> bids_name("sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz")
        BidsName(entities={'sub': '01', 'ses': '2'}, suffix='T1w')
        >>> bids_name("sub-01/scan.nii.gz")
    """
    match = _NAME.fullmatch(stem(path))
    if match is None:
        return None
    pairs = [part.partition("-") for part in match["entities"].rstrip("_").split("_")]
    entities = {key: value for key, _, value in pairs}
    folders = posixpath.dirname(path).split("/")
    whole = f"sub-{entities.get('sub')}" in folders and next(iter(entities)) == "sub" and len(entities) == len(pairs)
    return BidsName(entities, match["suffix"]) if whole else None
