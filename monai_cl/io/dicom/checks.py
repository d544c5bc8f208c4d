"""Checks of the files of a series: pictures, whole, and of a compression that is decoded here."""

import math
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import combinations, pairwise

from monai_cl.io.dicom.lookup import shown_units
from monai_cl.io.dicom.pixels import OTHER_SIZE
from monai_cl.io.dicom.slices import ENHANCED, NO_PICTURES, UNCOMPRESSED, SliceHeader
from monai_cl.io.dicom.tags import DEFLATED, EXPLICIT
from monai_cl.io.errors import UnusableImageError
from monai_cl.io.memory import check_memory
from monai_cl.io.threads import without_warnings_of_dicom
from monai_cl.privacy.quoting import Quoting

_LARGEST_SLICE = 1 << 26  # pixels: 8192 x 8192
_RLE = "1.2.840.10008.1.2.5"
_MODALITIES = ("CR", "CT", "DX", "MG", "MR", "NM", "OT", "PT", "US", "XA")
# words of ImageType for pictures that are made of the same echoes: Dixon, and parts of complex values
_CONTRASTS = frozenset({
    *("WATER", "FAT", "W", "F", "IN_PHASE", "OUT_PHASE", "OPP_PHASE", "IN", "OPP", "IP", "OP"),
    *("M", "P", "R", "I", "MAGNITUDE", "PHASE", "PHASE MAP", "REAL", "IMAGINARY"),
})  # fmt: skip
_SLICES = ENHANCED | {"1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"}


def check_single_image(header: SliceHeader) -> None:
    """Refuse a file without pictures: an index, a report, a segmentation or a header whose pixels are gone."""
    if header.sop_class in _SLICES and not (header.rows and header.columns):
        raise UnusableImageError("cut short", "the file ends inside its header; copy it again")
    if header.modality in NO_PICTURES or not (header.rows and header.columns):
        kind = f"modality {header.modality}" if header.modality in NO_PICTURES else "no picture in it"
        raise UnusableImageError("DICOM object that is not an image", f"{kind}; it cannot be a slice of a volume")
    if header.pixels == "none":
        raise UnusableImageError("no pixel data", "the header announces a picture that is missing; export it again")


def check_one_picture(headers: Sequence[SliceHeader]) -> None:
    """Refuse sorted slices of several pictures in one stack: modalities, units, echoes, contrasts and others."""
    _check_units([header for header in headers if not header.value_table])
    modalities = {header.modality for header in headers}
    if len(modalities) > 1:  # a name may stand in place of one
        listed = " and ".join(sorted({one if one in _MODALITIES else "another kind" for one in modalities}))
        raise UnusableImageError("mixed modalities", f"one series holds images of modality {listed}; split it")
    _check_time_points([header.facts.get("temporal_position", "") for header in headers])
    _check_contrasts([_CONTRASTS.intersection(header.image_type) for header in headers])
    for fact, name, unit, noise in (("te", "echo times", "ms", 0.5), ("b_value", "b-values", "s/mm2", 5)):
        values = [value for header in headers if (value := _number(header.facts.get(fact, ""))) is not None]
        if values and max(values) > 1.1 * min(values) + noise:
            listed = f"{name} from {min(values):g} to {max(values):g} {unit}"
            raise UnusableImageError(f"mixed {name}", f"one series holds images of {listed}; split it")


def _check_contrasts(words: Sequence[frozenset[str]]) -> None:
    """Refuse parts of different pictures, such as water and fat; one that lacks a word of the other is no other."""
    for one, other in combinations(sorted(set(words), key=sorted), 2):
        if one - other and other - one:
            listed = " and ".join("\\".join(sorted(kind)) for kind in (one, other))
            raise UnusableImageError("mixed contrasts", f"one series holds images of ImageType {listed}; split it")


def _check_time_points(points: Sequence[str]) -> None:
    """Refuse time points that follow each other along a stack; one that changes from slice to slice is a number."""
    count, changes = len(set(points)), sum(one != other for one, other in pairwise(points))
    if 1 < count <= len(points) / 2 and changes == count - 1:
        detail = f"slices of {count} time points (TemporalPositionIdentifier) lie one behind the other; split it"
        raise UnusableImageError("mixed time points", detail)


def check_concatenation(headers: Sequence[SliceHeader]) -> None:
    """Refuse a volume over several files of which some are missing: what they leave may be even all the same."""
    parts = {header.part for header in headers if header.concatenation}
    total = max((number for part in parts for number in part), default=0)
    if missing := total - len({number for number, _ in parts}):
        detail = f"{missing} of {total} files of one volume (ConcatenationUID) are missing; add them"
        raise UnusableImageError("incomplete concatenation", detail)


def _check_units(headers: Sequence[SliceHeader]) -> None:
    for name, tag, absent in (("slope", "RescaleSlope", 1), ("intercept", "RescaleIntercept", 0)):
        without = sum(name not in header.rescale for header in headers)
        if without and any(name in header.rescale and getattr(header, name) != absent for header in headers):
            detail = f"{without} of {len(headers)} images have no {tag}, the others have"
            raise UnusableImageError("mixed units", f"{detail}; export the series again, or split it")


def _number(text: str) -> float | None:
    try:
        result = float(text)
    except ValueError:
        return None
    return result if math.isfinite(result) else None


def check_pixels(headers: Iterable[SliceHeader]) -> None:
    """Refuse slices in several units, or with pixel data that is cut short, not decodable or larger than memory."""
    headers = list(headers)
    if len(tables := sorted({header.value_table or "none" for header in headers})) > 1:
        listed = ", ".join(shown_units(table) if table != "none" else table for table in tables)
        raise UnusableImageError("mixed units", f"one series holds images with Modality LUTs of {listed}; split it")
    _check_rescale([header for header in headers if not header.value_table])
    _check_size(headers)
    for header in headers:
        name = header.path.name
        _check_bits(header)
        if header.pixels == "cut short":
            detail = "the pixel data of {} ends early (truncated); copy the file again"
            raise UnusableImageError("cut short", Quoting(detail, name))
        if header.pixels == OTHER_SIZE:
            detail = "the compressed picture of {} is of another size than its header states; export it again"
            raise UnusableImageError("unreadable", Quoting(detail, name))
        if header.by_pydicom and (remedy := _remedy(header.transfer_syntax)):
            detail = f"{{}} is stored as {_compression(header.transfer_syntax)}; {{}}"
            raise UnusableImageError("unsupported compression", Quoting(detail, name, remedy))


def _check_rescale(headers: Sequence[SliceHeader]) -> None:
    """Check that stored values can be rescaled."""
    for header in headers:
        if not (math.isfinite(header.slope) and header.slope and math.isfinite(header.intercept)):
            fault = "RescaleSlope is 0" if header.slope == 0 else "RescaleSlope or RescaleIntercept is no single number"
            detail = f"{fault} in {{}}; a finite number with a decimal point is read, the slope not 0, export it again"
            raise UnusableImageError("invalid rescale", Quoting(detail, header.path.name))


def _check_bits(header: SliceHeader) -> None:
    """Check that the bits of a value lie inside of those allocated to it, and can be reached."""
    allocated, stored, high = header.bits
    if header.samples != 1:  # colour, which is left out by that name
        return
    if not 1 <= stored <= high + 1 <= allocated or (allocated != 1 and allocated % 8):
        listed = f"BitsAllocated {allocated}, BitsStored {stored}, HighBit {high}"
        detail = (
            f"{{}} states {listed}: values of whole bytes are read, the stored bits inside of them; export it again"
        )
    elif header.low_bit and header.transfer_syntax not in (*UNCOMPRESSED, _RLE):
        detail = f"{{}} keeps values above bit {header.low_bit} of compressed ones; decompress it first"
    else:
        return
    raise UnusableImageError("invalid bits", Quoting(detail, header.path.name))


def _check_size(headers: Sequence[SliceHeader]) -> None:
    """Check sizes that compressed data can claim without being as long."""
    for header in headers:
        if header.rows * header.columns > _LARGEST_SLICE:
            size = f"{header.columns} x {header.rows} pixels, slices have {_LARGEST_SLICE} at most"
            raise UnusableImageError(
                "implausible size", Quoting(f"{{}} announces {size}; repair the header", header.path.name)
            )
    if headers:
        check_memory((headers[0].columns, headers[0].rows, len(headers)))


def _compression(syntax: str) -> str:
    """Name of a transfer syntax in messages: one of the standard's, since a text of any kind may stand in its place."""
    from pydicom import uid

    return uid.UID_dictionary[syntax][0] if syntax in uid.UID_dictionary else "an unknown transfer syntax"


@cache
def _remedy(syntax: str) -> Quoting:
    """Remedy for a transfer syntax that the packages installed here do not decode; empty where they do."""
    from pydicom import pixels

    if syntax == DEFLATED:
        syntax = EXPLICIT
    try:
        with without_warnings_of_dicom():
            known = pixels.get_decoder(syntax)
    except NotImplementedError:  # videos, images whose pixels are on a server
        return Quoting("no package that monai_cl reads with decodes it, export it uncompressed")
    return Quoting("" if known.is_available else "pip install 'monai_cl[dicom]', or decompress it first")
