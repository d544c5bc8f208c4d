"""Slices of one volume that an export or an anonymiser has given a series identifier each."""

from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from monai_cl.io.dicom.slices import SliceHeader

_NUMBERS = ("series_number", "instance_number")
_TURN = 5e-3  # by which direction cosines may differ before they are rounded alike
_SCALE = 5e-3  # the same of spacings, as a share


def stacks_of(singles: Iterable[SliceHeader]) -> list[list[SliceHeader]]:
    """Group slices that are each alone in their series by the volume they could be of.

    Slices of one group share patient, study, frame of reference, modality, matrix, kind of image, direction, pixel
    spacing, and all that describes the picture: texts, echo, b-value, time point. A series number that several of them
    share separates series. Their places are not compared.

    Args:
        singles: One header a series.

    Returns:
        Groups in the order of their first slices.
    """
    groups: dict[Hashable, list[SliceHeader]] = {}
    for header in singles:
        groups.setdefault(_picture(header), []).append(header)
    return [part for group in groups.values() for plane in _by_plane(group) for part in _by_number(plane)]


def is_one_stack(headers: Sequence[SliceHeader]) -> bool:
    """Return whether slices, each alone in its series, could be one volume by their headers."""
    return len({header.series for header in headers}) == len(headers) and len(stacks_of(headers)) == 1


def _picture(header: SliceHeader) -> Hashable:
    facts = tuple(sorted((name, text) for name, text in header.facts.items() if name not in _NUMBERS))
    owner = (header.patient, header.study or header.series)  # without a study nothing links two of them
    kind = (header.modality, header.sop_class, header.image_type, header.kind, header.photometric)
    return (*owner, *kind, header.rows, header.columns, header.frame is None or header.path, facts)


def _by_plane(headers: Sequence[SliceHeader]) -> list[list[SliceHeader]]:
    planes: list[list[SliceHeader]] = []
    for header in headers:
        fitting = (plane for plane in planes if _same_plane(plane[0], header))
        plane = next(fitting, None)
        if plane is None:
            planes.append([header])
        else:
            plane.append(header)
    return planes


def _same_plane(one: SliceHeader, other: SliceHeader) -> bool:
    turned = np.abs(np.array(one.orientation) - np.array(other.orientation)).max()
    sides = np.array(one.pixel_spacing), np.array(other.pixel_spacing)
    return bool(turned <= _TURN and np.abs(sides[0] - sides[1]).max() <= _SCALE * sides[0].max())


def _by_number(headers: list[SliceHeader]) -> list[list[SliceHeader]]:
    """Series by their numbers, unless these are as careless as the identifiers: another one for each slice."""
    numbers: dict[str, list[SliceHeader]] = {}
    for header in headers:
        numbers.setdefault(header.facts.get("series_number", ""), []).append(header)
    return [headers] if len(numbers) == len(headers) else list(numbers.values())
