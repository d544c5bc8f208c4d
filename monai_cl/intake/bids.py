"""Masks of a BIDS tree: derivatives are paired with the raw image of the same subject, session and other entities."""

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai_cl._files import read_json
from monai_cl.intake._findings import Findings
from monai_cl.intake.decathlon import LABEL_SUFFIXES, Claim
from monai_cl.io.bids_names import BidsName, bids_name
from monai_cl.io.grid import Grid, on_one_grid
from monai_cl.io.suffixes import stem
from monai_cl.privacy.quoting import Quoting

_MASKS = ("dseg", "mask")
_SHARES = "probseg"


def bids_claims(
    paths: Iterable[str], grids: Mapping[str, Grid], folder: Path, findings: Findings
) -> tuple[list[Claim], list[str]]:
    """Pair the masks of a BIDS tree with its images, and give all other files back.

    A mask (``_dseg``, ``_mask``) is of the raw image that its sidecar names as its source, else of the one image of the
    same subject, session, acquisition and so on that lies on its grid.

    Args:
        paths: NIfTI files relative to the scanned folder.
        grids: Their grids.
        folder: The scanned folder.
        findings: Receives masks of several images, second masks of one, and files that are no images.

    Returns:
        Claims of images with a mask, and the other files.
    """
    names = {path: bids_name(path) for path in sorted(paths)}
    no_images = (*_MASKS, _SHARES, *(suffix.strip("_") for suffix in LABEL_SUFFIXES))
    images = {path: name for path, name in names.items() if name and name.suffix not in no_images}
    labels: dict[str, str] = {}
    settled = set()
    for path, name in names.items():
        if name is None or name.suffix not in (*_MASKS, _SHARES):
            continue
        if name.suffix == _SHARES:
            settled.add(path)
            findings.leave_out([path], "share of a tissue, no image", Quoting("a `probseg` of BIDS"))
            continue
        result = _images_of(path, name, images, grids, folder)
        if not result:
            continue
        settled.add(path)
        if len(result) > 1:
            detail = f"{len(result)} images lie on its grid; name its own as `Sources` in the JSON beside the mask"
            findings.leave_out([path], "label of several images", Quoting(detail), mentions=result[:1])
        elif result[0] in labels:
            detail = "another mask of the same image comes first; keep the one that is to be learned"
            findings.leave_out([path], "second mask of an image", Quoting(detail), mentions=result)
        else:
            labels[result[0]] = path
    claims = [Claim("training", image, label) for image, label in labels.items()]
    return claims, [path for path in names if path not in settled and path not in labels]


def with_sessions(claims: Sequence[Claim]) -> list[Claim]:
    """Claims with the session of each image that has a name of BIDS, where one of them has any."""
    names = [bids_name(claim.image) if isinstance(claim.image, str) else None for claim in claims]
    if not any(name.session for name in names if name):
        return list(claims)
    return [
        replace(claim, fields={**claim.fields, "session": name.session}) if name else claim
        for claim, name in zip(claims, names, strict=True)
    ]


def _images_of(
    path: str, name: BidsName, images: Mapping[str, BidsName], grids: Mapping[str, Grid], folder: Path
) -> list[str]:
    alike = [image for image, other in images.items() if other.raw == name.raw and other.entities == other.raw]
    sources = _sources(folder, path)
    named = [image for image in alike if any(source.endswith(posixpath.basename(image)) for source in sources)]
    return named or [image for image in alike if on_one_grid(grids[image], grids[path])]


def _sources(folder: Path, path: str) -> list[str]:
    """Images that the sidecar of a mask names."""
    sidecar = folder / posixpath.dirname(path) / f"{stem(path)}.json"
    try:
        content: Any = read_json(sidecar)
    except (OSError, ValueError):
        return []
    sources = content.get("Sources") if isinstance(content, dict) else None
    listed = sources if isinstance(sources, list) else [sources]
    return [one for one in listed if isinstance(one, str)]
