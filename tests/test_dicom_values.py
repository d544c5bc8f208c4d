"""Values of DICOM in the units of their modality: lookup tables, padding, and both ways to decode them."""

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from dicom_series import multi_frame, slice_dataset
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless, RLELossless

from monai_cl.data import PreparedDataset, scan
from monai_cl.intake._middle_slice import DARK, LIFTED, PADDING_KEPT, WRAPPED
from monai_cl.intake.dicom import PADDED, SCALED_APART
from monai_cl.intake.scan import ScanResult
from monai_cl.transforms import LoadVolume, LoadVolumed

Change = Callable[[Dataset, int], object]
PIXELS = np.random.default_rng(3).integers(100, 1150, (5, 40, 48)).astype("<u2")
HU = {"RescaleSlope": 1, "RescaleIntercept": -1024}
CT = {"Modality": "CT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "PixelRepresentation": 0}


def series(folder: Path, change: Change = lambda ds, k: None, *, pixels: np.ndarray = PIXELS, **tags: object) -> Path:
    folder.mkdir(parents=True)
    for k, plane in enumerate(pixels):
        dataset = slice_dataset(k, "1.2.77", Rows=40, Columns=48, **tags)
        dataset.PixelData = plane.tobytes()
        change(dataset, k)
        dataset.save_as(folder / f"{k}.dcm", enforce_file_format=True)
    return folder


def table(entries: object, first: int = 0, bits: int = 16, kind: str = "HU", vr: str = "OW") -> Dataset:
    values = np.asarray(entries, dtype="<u2")
    item = Dataset()
    item.LUTDescriptor, item.ModalityLUTType = [len(values) % 65536, first, bits], kind
    item.add_new(0x00283006, vr, values.tobytes() if vr == "OW" else values.tolist())
    return item


def scanned(folder: Path) -> ScanResult:
    return scan(folder, folder.parent / "out/study.json", pictures=True)


def values(folder: Path) -> np.ndarray:
    return LoadVolume()(folder)[0].numpy().transpose(2, 1, 0)  # slice, row, column


def with_table(item: Dataset, **tags: object) -> Change:
    def change(dataset: Dataset, k: int) -> None:
        dataset.ModalityLUTSequence = [item]
        for name, value in tags.items():
            setattr(dataset, name, value)

    return change


@pytest.mark.parametrize(("entries", "vr"), [(2048, "OW"), (2048, "US"), (65536, "OW")])
def test_modality_lut_is_applied(tmp_path: Path, entries: int, vr: str) -> None:
    lookup = (np.arange(entries) * 3 % 4000).astype("<u2")
    folder = series(tmp_path / "data", with_table(table(lookup, vr=vr)), **CT)
    assert np.array_equal(values(folder), lookup[PIXELS])


def test_values_before_and_behind_a_table_take_its_ends(tmp_path: Path) -> None:
    folder = series(tmp_path / "data", with_table(table(np.arange(300) * 2, first=500)), **CT)
    assert np.array_equal(values(folder), 2 * np.clip(PIXELS.astype(int) - 500, 0, 299))


def test_a_table_of_signed_values_begins_below_zero(tmp_path: Path) -> None:
    signed = (PIXELS.astype(int) - 600).astype("<i2")

    def change(dataset: Dataset, k: int) -> None:
        item = table(np.arange(3000))
        item["LUTDescriptor"].VR = "SS"
        item.LUTDescriptor = [3000, -1000, 16]
        dataset.ModalityLUTSequence = [item]

    folder = series(tmp_path / "data", change, pixels=signed)
    assert np.array_equal(values(folder), signed + 1000)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, RLELossless, JPEGLSLossless])
def test_tables_are_applied_in_any_transfer_syntax(tmp_path: Path, syntax: str) -> None:
    def change(dataset: Dataset, k: int) -> None:
        with_table(table(np.arange(2048) * 2))(dataset, k)
        if syntax == ImplicitVRLittleEndian:
            dataset.file_meta.TransferSyntaxUID = syntax
        else:
            dataset.compress(syntax, generate_instance_uid=False)

    folder = series(tmp_path / "data", change, **CT)
    assert scanned(folder).counts["unlabelled"] == 1
    assert np.array_equal(values(folder), 2 * PIXELS.astype(int))


def test_units_of_a_table_that_are_not_hounsfield_are_noted(tmp_path: Path) -> None:
    result = scanned(series(tmp_path / "data", with_table(table(np.arange(2048), kind="US")), **CT))
    assert any("gives other units (US) than Hounsfield" in note for note in result.notes)


def test_a_name_in_the_place_of_units_is_not_shown(tmp_path: Path) -> None:
    result = scanned(series(tmp_path / "data", with_table(table(np.arange(2048), kind="Doe^Jane")), **CT))
    assert any("gives other units (no defined term) than Hounsfield" in note for note in result.notes)


def test_a_table_goes_before_a_rescale_and_says_so(tmp_path: Path) -> None:
    folder = series(tmp_path / "data", with_table(table(np.arange(2048) * 2), **HU), **CT)
    assert np.array_equal(values(folder), 2 * PIXELS.astype(int))
    assert "Modality LUT beside a rescale: the table is applied, the rescale is not" in scanned(folder).notes


def test_real_world_values_are_no_modality_lut(tmp_path: Path) -> None:
    def change(dataset: Dataset, k: int) -> None:
        item = Dataset()
        item.RealWorldValueFirstValueMapped, item.RealWorldValueLastValueMapped = 0, 2047
        item.RealWorldValueSlope, item.RealWorldValueIntercept = 0.5, 7.0
        dataset.RealWorldValueMappingSequence = [item]

    folder = series(tmp_path / "data", change, **CT, **HU)
    assert np.array_equal(values(folder), PIXELS.astype(int) - 1024)


def shortened(dataset: Dataset, k: int) -> None:
    dataset.ModalityLUTSequence = [table(np.arange(2048))]
    dataset.ModalityLUTSequence[0].LUTDescriptor = [4096, 0, 16]


def without_data(dataset: Dataset, k: int) -> None:
    dataset.ModalityLUTSequence = [table(np.arange(2048))]
    del dataset.ModalityLUTSequence[0].LUTData


def without_anything(dataset: Dataset, k: int) -> None:
    dataset.ModalityLUTSequence = [Dataset()]


@pytest.mark.parametrize("change", [shortened, without_data, without_anything])
def test_tables_that_cannot_be_applied_are_left_out_by_name(tmp_path: Path, change: Change) -> None:
    series(tmp_path / "data/bad", change, **CT)
    series(tmp_path / "data/good", SeriesInstanceUID="1.2.78")
    assert scanned(tmp_path / "data").reasons == {"lookup table that cannot be applied": len(PIXELS)}
    item = {"image": str(tmp_path / "data/bad"), "case": "bad"}
    good = {"image": str(tmp_path / "data/good"), "case": "good"}
    faults = PreparedDataset([item, good], LoadVolumed("image"), max_faults=0.5).faults
    assert len(faults) == 1
    assert "lookup table that cannot be applied" in faults[0][1]


def test_an_empty_sequence_is_no_table(tmp_path: Path) -> None:
    folder = series(tmp_path / "data", lambda ds, k: setattr(ds, "ModalityLUTSequence", []), **CT, **HU)
    assert np.array_equal(values(folder), PIXELS.astype(int) - 1024)


def test_series_with_a_table_in_some_slices_are_split(tmp_path: Path) -> None:
    change = with_table(table(np.arange(2048)))
    series(tmp_path / "data/mixed", lambda ds, k: change(ds, k) if k % 2 else None, **CT)
    series(tmp_path / "data/good", SeriesInstanceUID="1.2.78")
    assert scanned(tmp_path / "data").reasons == {"mixed units": 1}


def test_frames_with_tables_of_their_own_are_left_out(tmp_path: Path) -> None:
    path = multi_frame(tmp_path / "data/enhanced.dcm", [(1, 0)] * 5)
    dataset = pydicom.dcmread(path)
    for group in dataset.PerFrameFunctionalGroupsSequence:
        group.PixelValueTransformationSequence[0].ModalityLUTSequence = [table(np.arange(900))]
    dataset.save_as(path)
    series(tmp_path / "data/good")
    assert scanned(tmp_path / "data").reasons == {"lookup table that cannot be applied": 1}


def test_a_table_of_an_enhanced_file_holds_for_all_its_frames(tmp_path: Path) -> None:
    path = multi_frame(tmp_path / "data/enhanced.dcm", [(1, 0)] * 5)
    before = LoadVolume()(path).numpy()
    dataset = pydicom.dcmread(path)
    dataset.ModalityLUTSequence = [table(np.arange(900) * 2)]
    dataset.save_as(path)
    assert np.array_equal(LoadVolume()(path).numpy(), 2 * before)


def padded(value: int, kind: type = np.uint16) -> np.ndarray:
    """Slices with padding in their corners."""
    found = PIXELS.astype("<i4")
    found[:, :6, :6] = found[:, -6:, -6:] = value
    return found.astype(np.dtype(kind).newbyteorder("<"))


@pytest.mark.parametrize(
    ("value", "kind", "tags", "background"),
    [
        (-2000, np.int16, CT | {"PixelRepresentation": 1} | HU, -1024),
        (32767, np.int16, CT | {"PixelRepresentation": 1} | HU, -1024),
        (65535, np.uint16, CT | HU, -1024),
        (0, np.uint16, CT | HU, -1024),  # air already
        (40, np.uint16, CT | HU, -984),  # air already, and stays
        (0, np.uint16, CT, 100),  # not in Hounsfield units
        (-2000, np.int16, {}, 100),
        (4095, np.int16, {}, 100),
    ],
)
def test_padding_becomes_background(tmp_path: Path, value: int, kind: type, tags: dict, background: float) -> None:
    pixels = padded(value, kind)
    pixels[0, 20, 20] = 100
    change = lambda ds, k: setattr(ds, "PixelPaddingValue", value)  # noqa: E731
    folder = series(tmp_path / "data", change, pixels=pixels, **tags)
    found = values(folder)
    corner = pixels == value
    assert np.unique(found[corner]).tolist() == [background]
    intercept = tags.get("RescaleIntercept", 0)
    assert np.array_equal(found[~corner], pixels[~corner].astype(int) + intercept)
    assert PADDED in scanned(folder).notes


@pytest.mark.parametrize("value", [-2000, -3024, -32768])
def test_values_far_darker_than_air_are_air_in_ct_alone(tmp_path: Path, value: int) -> None:
    pixels, signed = padded(value, np.int16), {"PixelRepresentation": 1}
    pixels[pixels > 0] -= 1024
    pixels[:, 10, 10] = -1100  # noise of air
    ct = series(tmp_path / "ct/data", pixels=pixels, **CT | signed)
    assert np.array_equal(values(ct), np.where(pixels == value, -1024, pixels))
    assert list(scanned(ct).notes) == [LIFTED]
    mr = series(tmp_path / "mr/data", pixels=pixels, **signed)
    assert np.array_equal(values(mr), pixels)


@pytest.mark.parametrize("tags", [{}, HU])
def test_signed_ct_with_an_unsigned_header_is_noted_and_refused(tmp_path: Path, tags: dict) -> None:
    """A value of -1000 reads as 64,536, of -1000 HU stored above an intercept of -1024 nothing is amiss."""
    pixels = padded(-2000, np.int16)
    pixels[pixels > 0] -= 0 if tags else 1024
    folder = series(tmp_path / "data", pixels=pixels, **CT | tags)
    with pytest.raises(ValueError, match=r"at most 30710 HU .* got up to 6\d\d\d\d .*; set its PixelRepresentation"):
        values(folder)
    assert WRAPPED in scanned(folder).notes
    signed = series(tmp_path / "signed/data", pixels=pixels, **CT | tags | {"PixelRepresentation": 1})
    assert values(signed).min() == -1024
    assert WRAPPED not in scanned(signed).notes


def test_metal_and_announced_padding_are_no_signed_values(tmp_path: Path) -> None:
    pixels = PIXELS.copy()
    pixels[:, 20:24, 20:24] = 31_734  # 30,710 HU
    pixels[0, 0, 0] = 65_000
    assert values(series(tmp_path / "metal", pixels=pixels, **CT | HU)).max() == 65_000 - 1024
    announced = lambda ds, k: setattr(ds, "PixelPaddingValue", 63_536)  # noqa: E731
    assert values(series(tmp_path / "padded", announced, pixels=padded(63_536), **CT | HU)).min() == -1024
    mr = series(tmp_path / "mr", pixels=padded(63_536), PixelRepresentation=0)
    assert values(mr).max() == 63_536


def test_ct_of_other_units_keeps_its_dark_values(tmp_path: Path) -> None:
    pixels = padded(-2000, np.int16)
    folder = series(tmp_path / "data", pixels=pixels, **CT | {"PixelRepresentation": 1})
    assert np.array_equal(values(folder), pixels)


def test_values_far_darker_than_air_in_a_nifti_file_are_noted(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    volume = padded(-3024, np.int16).T
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([2.0, 2.0, 3.0, 1.0])), tmp_path / "data/ct_one.nii")
    assert DARK in scanned(tmp_path / "data").notes


def test_a_range_of_padding_becomes_background(tmp_path: Path) -> None:
    pixels = padded(-2000, np.int16)
    pixels[:, :3, :3] = -1990

    def change(dataset: Dataset, k: int) -> None:
        dataset.PixelPaddingValue, dataset.PixelPaddingRangeLimit = -1980, -2000

    assert values(series(tmp_path / "data", change, pixels=pixels)).min() == 100


@pytest.mark.parametrize("value", [600, 1064])
def test_a_padding_value_among_those_of_the_body_is_noted_alone(tmp_path: Path, value: int) -> None:
    folder = series(
        tmp_path / "data", lambda ds, k: setattr(ds, "PixelPaddingValue", value), pixels=padded(value), **CT, **HU
    )
    assert np.array_equal(values(folder), padded(value).astype(int) - 1024)
    pixels = padded(value)
    pixels[:, 20, 20] = 5  # air, so that nothing else is worth a remark
    folder = series(
        tmp_path / "more/data", lambda ds, k: setattr(ds, "PixelPaddingValue", value), pixels=pixels, **CT, **HU
    )
    assert PADDING_KEPT in scanned(folder).notes


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
@pytest.mark.parametrize("rescale", [(1, -1024), (0.731, -17.3)])
def test_padding_is_found_in_compressed_slices_as_well(tmp_path: Path, syntax: str, rescale: tuple) -> None:
    tags = CT | {"RescaleSlope": rescale[0], "RescaleIntercept": rescale[1]}

    def change(dataset: Dataset, k: int) -> None:
        dataset.PixelPaddingValue = 0
        dataset.compress(syntax, generate_instance_uid=False)

    plain = series(tmp_path / "plain", lambda ds, k: setattr(ds, "PixelPaddingValue", 0), pixels=padded(0), **tags)
    packed = series(tmp_path / "packed", change, pixels=padded(0), **tags)
    assert np.abs(values(packed) - values(plain)).max() < 1e-3


@pytest.mark.parametrize("signed", [0, 1])
def test_bits_beside_the_stored_ones_are_no_part_of_a_value(tmp_path: Path, signed: int) -> None:
    stored = (PIXELS.astype(int) - (600 if signed else 0)) & 0xFFF
    pixels = (stored | 0xA000).astype("<u2")  # what old files keep overlays in
    tags = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": signed}
    folder = series(tmp_path / "data", pixels=pixels, **tags)
    assert np.array_equal(values(folder), PIXELS.astype(int) - (600 if signed else 0))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
@pytest.mark.parametrize("signed", [0, 1])
def test_values_in_the_upper_bits_are_read_without_the_lower_ones(tmp_path: Path, signed: int, syntax: str) -> None:
    expected = PIXELS.astype(int) - (600 if signed else 0)
    pixels = (((expected & 0xFFF) << 3) | 0x8005).astype("<u2")  # old scanners, with overlays on both sides
    change = lambda ds, k: syntax != RLELossless or ds.compress(syntax, generate_instance_uid=False)  # noqa: E731
    tags = {"BitsStored": 12, "HighBit": 14, "PixelRepresentation": signed}
    folder = series(tmp_path / "data", change, pixels=pixels, **tags)
    assert scanned(folder).reasons == {}
    assert np.array_equal(values(folder), expected)


def test_values_in_the_upper_bits_of_compressed_slices_are_left_out(tmp_path: Path) -> None:
    change = lambda ds, k: ds.compress(JPEGLSLossless, generate_instance_uid=False)  # noqa: E731
    folder = series(tmp_path / "data/bad", change, pixels=PIXELS << 4, BitsStored=12, HighBit=15)
    series(tmp_path / "data/good", SeriesInstanceUID="1.2.78")
    (left_out, *_) = scanned(tmp_path / "data").left_out
    assert (left_out.reason, left_out.detail.rpartition(" ")[0]) == (
        "invalid bits",
        "0.dcm keeps values above bit 4 of compressed ones; decompress it",
    )
    with pytest.raises(ValueError, match=r"0\.dcm keeps values above bit 4 of compressed ones"):
        LoadVolume()(folder)


@pytest.mark.parametrize(("allocated", "stored", "high"), [(16, 16, 11), (16, 0, 0), (16, 20, 19), (12, 12, 11)])
def test_bits_that_cannot_be_are_left_out_by_name(tmp_path: Path, allocated: int, stored: int, high: int) -> None:
    series(tmp_path / "data/bad", BitsAllocated=allocated, BitsStored=stored, HighBit=high)
    series(tmp_path / "data/good", SeriesInstanceUID="1.2.78")
    result = scanned(tmp_path / "data")
    assert result.reasons == {"invalid bits": 1}
    assert f"BitsAllocated {allocated}, BitsStored {stored}, HighBit {high}: val" in result.left_out[0].detail


@pytest.mark.parametrize("length", [70_000, 1_000_000])
@pytest.mark.parametrize("tag", [0x00100010, 0x0008103E, 0x00200011, 0x00280106])
def test_long_values_take_no_more_memory_than_short_ones(tmp_path: Path, length: int, tag: int) -> None:
    import tracemalloc

    def change(dataset: Dataset, k: int) -> None:
        dataset.add_new(tag, "UN", b"Ab" * (length // 2))

    folder = series(tmp_path / "data", change)
    tracemalloc.start()
    result = scanned(folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.counts["unlabelled"] == 1
    assert peak < 24e6 + 2 * length


@pytest.mark.parametrize("tag", [0x00281053, 0x00281052])
@pytest.mark.parametrize("value", [b"1,5 ", b"NaN ", b"1\\2 ", b"-1024 HU", np.float64(2).tobytes()])
def test_a_rescale_that_is_no_number_is_not_taken_for_none(tmp_path: Path, tag: int, value: bytes) -> None:
    def change(dataset: Dataset, k: int) -> None:
        if k == 2:
            dataset[tag] = RawDataElement(Tag(tag), "DS", len(value), value, 0, False, True)

    folder = series(tmp_path / "data/bad", change, **CT, **HU)
    series(tmp_path / "data/good", SeriesInstanceUID="1.2.78")
    assert scanned(tmp_path / "data").reasons == {"invalid rescale": 1}
    with pytest.raises(ValueError, match=r"no single number in 2\.dcm; a finite number with a decimal point is read"):
        LoadVolume()(folder)


def test_a_slope_of_0_is_refused_and_an_empty_one_is_none(tmp_path: Path) -> None:
    series(tmp_path / "data/zero", lambda ds, k: setattr(ds, "RescaleSlope", 0), **CT, **HU, SeriesInstanceUID="1.2.78")
    empty = series(tmp_path / "data/empty", lambda ds, k: setattr(ds, "RescaleSlope", None), **CT, **HU)
    result = scanned(tmp_path / "data")
    assert result.reasons == {"invalid rescale": 1}
    assert "RescaleSlope is 0 in" in result.left_out[0].detail
    assert np.array_equal(values(empty), PIXELS - 1024.0)


def test_a_rescale_in_some_slices_alone_is_refused(tmp_path: Path) -> None:
    def change(dataset: Dataset, k: int) -> None:
        if k < 2:
            del dataset.RescaleSlope, dataset.RescaleIntercept

    series(tmp_path / "data/mixed", change, **CT, **HU)
    series(tmp_path / "data/same", change, RescaleSlope=1, RescaleIntercept=0, SeriesInstanceUID="1.2.78")
    result = scanned(tmp_path / "data")
    assert (result.reasons, result.counts["unlabelled"]) == ({"mixed units": 1}, 1)
    assert "2 of 5 images have no RescaleIntercept, the others have" in result.left_out[0].detail


@pytest.mark.parametrize(("tag", "rescale"), [("RescaleSlope", (2, 0)), ("RescaleIntercept", (1, -1024))])
def test_one_half_of_a_rescale_in_some_slices_alone_is_refused(tmp_path: Path, tag: str, rescale: tuple) -> None:
    change = lambda ds, k: k or delattr(ds, tag)  # noqa: E731
    tags = {"RescaleSlope": rescale[0], "RescaleIntercept": rescale[1]}
    series(tmp_path / "data/mixed", change, **CT, **tags)
    series(tmp_path / "data/same", change, RescaleSlope=1, RescaleIntercept=0, SeriesInstanceUID="1.2.78")
    result = scanned(tmp_path / "data")
    assert (result.reasons, result.counts["unlabelled"]) == ({"mixed units": 1}, 1)
    assert f"1 of 5 images have no {tag}, the others have" in result.left_out[0].detail


def test_frames_that_lack_the_slope_of_the_others_are_refused(tmp_path: Path) -> None:
    path = multi_frame(tmp_path / "data/enhanced.dcm", [(2, 0)] * 5)
    dataset = pydicom.dcmread(path)
    del dataset.PerFrameFunctionalGroupsSequence[2].PixelValueTransformationSequence[0].RescaleSlope
    dataset.save_as(path)
    with pytest.raises(ValueError, match="mixed units: 1 of 5 images have no RescaleSlope, the others have"):
        LoadVolume()(path)


@pytest.mark.parametrize(
    ("kind", "shown"),
    [("HU", ""), ("US", ""), ("", ""), ("MGML", "MGML"), ("Z_EFF", "Z_EFF"), ("Doe^Jane", "no defined term")],
)
def test_a_rescale_to_other_units_than_hounsfield_is_noted(tmp_path: Path, kind: str, shown: str) -> None:
    pixels = PIXELS.copy()
    pixels[:, 20, 20] = 5  # air
    notes = scanned(series(tmp_path / "data", pixels=pixels, RescaleType=kind, **CT, **HU)).notes
    assert list(notes) == ([f"CT with a rescale to other units ({shown}) than Hounsfield"] if shown else [])


def test_frames_with_a_rescale_to_other_units_are_noted(tmp_path: Path) -> None:
    path = multi_frame(tmp_path / "data/enhanced.dcm", [(1, -1024)] * 5)
    dataset = pydicom.dcmread(path)
    dataset.Modality = "CT"
    for group in dataset.PerFrameFunctionalGroupsSequence:
        group.PixelValueTransformationSequence[0].RescaleType = "MGML"
    dataset.save_as(path)
    assert "CT with a rescale to other units (MGML) than Hounsfield" in scanned(tmp_path / "data").notes


@pytest.mark.parametrize(
    ("slope", "scale", "noted"),
    [
        (lambda k: 2, lambda k: 0.01, False),
        (lambda k: 2 + k, lambda k: 0.01, True),
        (lambda k: 2, lambda k: 0.01 + 0.001 * k, True),
        (lambda k: 2 + k, lambda k: 0.01 / (2 + k), False),
    ],
)
def test_slices_of_philips_mr_with_scales_of_their_own_are_noted(tmp_path: Path, slope, scale, noted: bool) -> None:
    def change(dataset: Dataset, k: int) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = slope(k), 0
        dataset.add_new(0x20050010, "LO", "Philips MR Imaging DD 001")
        dataset.add_new(0x2005100E, "FL", scale(k))

    assert list(scanned(series(tmp_path / "data", change)).notes) == ([SCALED_APART] if noted else [])


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize(
    ("slopes", "scales", "noted"),
    [
        ((2, 2, 2), (0.01, 0.01, 0.01), False),
        ((2, 2, 2), (0.01, 0.02, 0.01), True),
        ((2, 4, 2), (0.02, 0.01, 0.02), False),
        ((2, 4, 2), (None, None, None), False),  # of another maker, whose values are what they are
    ],
)
def test_frames_of_philips_mr_with_scales_of_their_own_are_noted(
    tmp_path: Path, slopes: tuple[int, ...], scales: tuple[float | None, ...], noted: bool, syntax: str
) -> None:
    file = multi_frame(tmp_path / "data/frames.dcm", [(slope, 0) for slope in slopes])
    dataset = pydicom.dcmread(file)
    for group, scale in zip(dataset.PerFrameFunctionalGroupsSequence, scales, strict=True):
        own = Dataset()
        own.add_new(0x20050010, "LO", "Philips MR Imaging DD 001")
        if scale is not None:
            own.add_new(0x2005100E, "FL", scale)
        group.add_new(0x20050014, "LO", "Philips MR Imaging DD 005")
        group.add_new(0x2005140F, "SQ", [own])
    dataset.file_meta.TransferSyntaxUID = syntax
    pydicom.dcmwrite(
        file, dataset, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True, enforce_file_format=True
    )
    assert list(scanned(file.parent).notes) == ([SCALED_APART] if noted else [])


def test_frames_of_one_kind_and_of_none_are_named(tmp_path: Path) -> None:
    file = multi_frame(tmp_path / "data/frames.dcm", [(1, 0)] * 3)
    dataset = pydicom.dcmread(file)
    dataset.PerFrameFunctionalGroupsSequence[0].MRImageFrameTypeSequence[0].FrameType = "ORIGINAL"
    dataset.PerFrameFunctionalGroupsSequence[1].MRImageFrameTypeSequence[0].FrameType = None
    dataset.save_as(file)
    with pytest.raises(ValueError, match="nothing usable below the folder: 1 4-D"):
        scanned(file.parent)
    table = (tmp_path / "out/study.left_out.csv").read_text()
    assert "frames of 3 kinds in one file (missing; ORIGINAL; " in table
