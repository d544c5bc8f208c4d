import itertools
import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from dicom_series import BIRTH, DATE, NAME, OBLIQUE, PATIENT_ID, SHAPE, normal, write_series, write_slice
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, SaveImage, SaveImaged, Spacingd

from monai_cl.transforms.load import LoadVolume, LoadVolumeD, LoadVolumed, LoadVolumeDict

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real data in ../shared/data")
KEPT = {"filename_or_obj", "affine", "original_affine", "spatial_shape", "space", "original_channel_dim"}
CLINICAL = sorted(path for path in SHARED.glob("dicom_brain/*/*") if "HCrop" not in path.name)


def save_nifti(path: Path, shape=(4, 5, 6), affine=None, dtype="float32") -> Path:
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([2.0, 2.0, 3.0, 1.0]) if affine is None else affine), path)
    return path


def largest_error(volume: MetaTensor, files: list[Path]) -> float:
    """Worst distance in mm at slice corners between the affine and the equation of the DICOM standard."""
    headers = [pydicom.dcmread(file) for file in files]
    row, column = np.split(np.array(headers[0].ImageOrientationPatient, float), 2)
    headers.sort(key=lambda header: float(np.dot(np.cross(row, column), np.array(header.ImagePositionPatient, float))))
    assert len(headers) == volume.shape[-1]
    affine, worst = np.asarray(volume.affine), 0.0
    for k, header in enumerate(headers):
        down, across = (float(value) for value in header.PixelSpacing)
        for i, j in itertools.product((0, header.Columns - 1), (0, header.Rows - 1)):
            lps = np.array(header.ImagePositionPatient, float) + i * across * row + j * down * column
            worst = max(worst, np.linalg.norm((affine @ [i, j, k, 1])[:3] - lps * [-1, -1, 1]))
    return worst


def test_dicom_directory_becomes_channel_first_float32_with_right_geometry(tmp_path):
    files = write_series(tmp_path / "scan")
    volume = LoadVolume()(tmp_path / "scan")
    assert volume.shape == (1, *SHAPE, 6)
    assert volume.dtype == torch.float32
    assert largest_error(volume, files) < 1e-6


def test_spacing_comes_from_positions_not_from_slice_thickness(tmp_path):
    write_series(tmp_path, step=6.5)
    assert LoadVolume()(tmp_path).pixdim.tolist() == pytest.approx([0.5, 0.75, 6.5])


def test_voxels_land_where_their_slice_says(tmp_path):
    write_series(tmp_path)
    volume = LoadVolume()(tmp_path)
    assert volume[0, 3, 2, 4] == 100 * 4 + 3 + 10 * 2


def test_rescale_of_each_slice_is_applied(tmp_path):
    write_slice(tmp_path / "a", 0, "1.2.3", RescaleSlope=2, RescaleIntercept=-10)
    write_slice(tmp_path / "b", 1, "1.2.3", RescaleSlope=0.5, RescaleIntercept=3)
    volume = LoadVolume()(tmp_path)
    assert volume[0, 1, 1].tolist() == [2 * 11 - 10, 0.5 * 111 + 3]


@pytest.mark.parametrize("kind", [list, tuple])
def test_order_of_listed_files_does_not_matter(tmp_path, kind):
    files = write_series(tmp_path)
    shuffled = random.Random(3).sample(files, len(files))
    volume, expected = LoadVolume()(kind(map(str, shuffled))), LoadVolume()(tmp_path)
    torch.testing.assert_close(volume.as_tensor(), expected.as_tensor())
    torch.testing.assert_close(volume.affine, expected.affine)
    assert volume.meta["filename_or_obj"] == str(files[0])


def test_single_dicom_file_is_one_slice_as_thick_as_its_step(tmp_path):
    path = write_slice(tmp_path / "one", 2, "1.2.3")
    volume = LoadVolume()(path)
    assert volume.shape == (1, *SHAPE, 1)
    assert volume.pixdim.tolist() == pytest.approx([0.5, 0.75, 5.0])


def test_directory_is_named_as_source(tmp_path):
    write_series(tmp_path / "scan")
    assert LoadVolume()(f"{tmp_path}/scan/").meta["filename_or_obj"] == str(tmp_path / "scan")


def test_no_patient_tag_enters_the_metadata(tmp_path):
    files = write_series(tmp_path)
    uids = [str(pydicom.dcmread(files[0])[tag].value) for tag in ("SOPInstanceUID", "SeriesInstanceUID")]
    volume = LoadVolume()(tmp_path)
    text = repr(volume.meta)
    assert {str(getattr(key, "value", key)) for key in volume.meta} == KEPT
    assert not [secret for secret in (NAME, PATIENT_ID, BIRTH, DATE, *uids) if secret in text]


def test_free_text_of_a_nifti_header_is_dropped(tmp_path):
    image = nibabel.Nifti1Image(np.ones((4, 5, 6), "float32"), np.eye(4))
    image.header["descrip"], image.header["db_name"] = NAME, PATIENT_ID
    nibabel.save(image, tmp_path / "a.nii.gz")
    volume = LoadVolume()(tmp_path / "a.nii.gz")
    assert {str(getattr(key, "value", key)) for key in volume.meta} == KEPT
    assert PATIENT_ID not in repr(volume.meta)


def test_nifti_keeps_values_and_affine(tmp_path):
    affine = np.array([[-1.5, 0, 0, 20], [0, 2, 0, -30], [0, 0, 3, 5], [0, 0, 0, 1.0]])
    volume = LoadVolume()(save_nifti(tmp_path / "a.nii", affine=affine, dtype="int16"))
    assert volume.shape == (1, 4, 5, 6)
    assert volume.dtype == torch.float32
    np.testing.assert_allclose(volume.affine, affine)
    assert volume[0, 3, 4, 5] == 119


@pytest.mark.parametrize("sides", [(0.4883, 0.4883, 3.0), (1.0, 1.0, 1.0)])
def test_nifti_lies_where_its_matrix_says_though_the_header_rounds_voxel_sides(tmp_path, sides):
    cosine, sine = np.cos(0.3), np.sin(0.3)
    affine = np.diag([0.488281, 0.488281, 3.0, 1.0])
    affine[:3, :3] = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]]) @ affine[:3, :3]
    affine[:3, 3] = [-50, 20, 7]
    path = tmp_path / "sform.nii"
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 5, 6), "int16"), affine), path)
    content = bytearray(path.read_bytes())
    content[80:92] = np.array(sides, "<f4").tobytes()  # pixdim
    content[252:254], content[256:280] = bytes(2), bytes(24)  # no qform
    path.write_bytes(content)
    np.testing.assert_allclose(LoadVolume()(path).affine.numpy(), affine, atol=1e-5)


def test_nifti_with_a_trailing_axis_of_one_is_a_volume(tmp_path):
    assert LoadVolume()(save_nifti(tmp_path / "a.nii.gz", (4, 5, 6, 1))).shape == (1, 4, 5, 6)


def test_four_dimensional_input_is_refused(tmp_path):
    path = save_nifti(tmp_path / "a.nii.gz", (4, 5, 6, 3))
    with pytest.raises(ValueError, match=r"expected one 3-D volume, but .*a\.nii\.gz has shape \(3, 4, 5, 6\)"):
        LoadVolume()(path)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_truncated_nifti_error_names_the_file(tmp_path, name):
    path = save_nifti(tmp_path / name, (20, 20, 20))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"cannot read .*{name}: cut short: "):
        LoadVolume()(path)


def test_empty_file_error_says_so(tmp_path):
    (tmp_path / "a.nii.gz").touch()
    with pytest.raises(ValueError, match=r"cannot read .*a\.nii\.gz: the file is empty"):
        LoadVolume()(tmp_path / "a.nii.gz")


def test_truncated_dicom_error_names_the_file(tmp_path):
    files = write_series(tmp_path)
    files[2].write_bytes(files[2].read_bytes()[:-20])
    with pytest.raises(ValueError, match=f"cut short: the pixel data of {files[2].name} ends early"):
        LoadVolume()(tmp_path)


def test_file_named_dicom_without_header_is_not_passed_over(tmp_path):
    write_series(tmp_path)
    (tmp_path / "last.dcm").write_bytes(b"garbage")
    with pytest.raises(ValueError, match=r"last\.dcm: named as DICOM but without a DICOM header"):
        LoadVolume()(tmp_path)


def test_missing_path_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file or directory: .*absent"):
        LoadVolume()(tmp_path / "absent")


def test_missing_slice_error_gives_the_gap_in_mm(tmp_path):
    write_series(tmp_path, [0, 1, 2, 4, 5])
    start = float(np.array([-40.0, 25.0, 10.0]) @ normal())
    where = f"13.00 mm between {start + 13:.2f} and {start + 26:.2f} mm"
    with pytest.raises(ValueError, match=f"missing or unevenly spaced slices: the usual step is 6.50 mm, but {where}"):
        LoadVolume()(tmp_path)


def test_bent_stack_is_refused(tmp_path):
    for index, shift in enumerate((0, 0, 0.4, 0, 0)):
        position = np.array([shift, 0, 0]) + index * 2 * normal()
        write_slice(tmp_path / str(index), index, "1.2", ImagePositionPatient=[f"{value:.6f}" for value in position])
    with pytest.raises(ValueError, match="the slices do not lie evenly on one line"):
        LoadVolume()(tmp_path)


def test_positions_rounded_to_a_tenth_of_mm_are_even(tmp_path):
    for index in range(8):
        position = [0, 0, round(0.625 * index, 1)]
        write_slice(tmp_path / str(index), index, "1.2", orientation=(1, 0, 0, 0, 1, 0), ImagePositionPatient=position)
    assert LoadVolume()(tmp_path).pixdim[2].item() == pytest.approx(0.625, abs=0.02)


SPACINGS = [
    (0.703125, 0.7031),
    (0.703125, 0.703),
    (0.48828125, 0.4883),
    (0.78125, 0.78),
    (0.9765625, 0.98),
    (0.50004, 0.5),
]


@pytest.mark.parametrize(("precise", "rounded"), SPACINGS)
@pytest.mark.parametrize("first", [0, 1])
def test_roundings_of_one_spacing_are_one_series_of_the_most_precise(tmp_path, precise, rounded, first):
    for index in range(6):
        side = rounded if index % 2 == first else precise
        write_slice(tmp_path / str(index), index, "1.2", PixelSpacing=[side, side])
    assert LoadVolume()(tmp_path).pixdim[:2].tolist() == pytest.approx([precise, precise], abs=1e-5)


@pytest.mark.parametrize("other", [0.8, 0.71, 0.7041, 0.6984])
def test_other_spacings_are_no_roundings(tmp_path, other):
    for index in range(6):
        write_slice(tmp_path / str(index), index, "1.2", PixelSpacing=[0.703125 if index % 2 else other] * 2)
    with pytest.raises(
        ValueError, match=r"mixed pixel spacings: one series holds images of several pixel spacings, 0\.7"
    ):
        LoadVolume()(tmp_path)


@pytest.mark.parametrize("decimals", [2, 3, 4, 6])
def test_roundings_of_one_orientation_are_one_series_of_the_most_precise(tmp_path, decimals):
    exact = [write_slice(tmp_path / "exact" / str(index), index, "1.2") for index in range(6)]
    for index in range(6):
        coarse = [f"{value:.{decimals}f}" for value in OBLIQUE]
        tags = {"ImageOrientationPatient": coarse} if index % 2 else {}
        write_slice(tmp_path / "mixed" / str(index), index, "1.2", **tags)
    assert largest_error(LoadVolume()(tmp_path / "mixed"), exact) < 1e-6


def test_slices_turned_against_each_other_are_no_roundings(tmp_path):
    for index in range(6):
        angle = np.radians(0.4 * (index % 2))
        turned = (np.cos(angle), np.sin(angle), 0, -np.sin(angle), np.cos(angle), 0)
        position = [0, 0, 2 * index]
        write_slice(tmp_path / str(index), index, "1.2", orientation=turned, ImagePositionPatient=position)
    with pytest.raises(ValueError, match="mixed orientations"):
        LoadVolume()(tmp_path)


def test_two_images_at_one_position_are_refused(tmp_path):
    write_series(tmp_path, series="1.2.3")
    write_slice(tmp_path / "copy", 2, "1.2.3")
    with pytest.raises(ValueError, match="several images at one position"):
        LoadVolume()(tmp_path)


def test_two_series_in_a_directory_are_refused(tmp_path):
    write_series(tmp_path, range(3))
    write_series(tmp_path, range(3, 6))
    with pytest.raises(ValueError, match=r"expected exactly one DICOM image series, but .* holds 2 in 6 files"):
        LoadVolume()(tmp_path)


def test_mixed_sizes_and_orientations_are_refused(tmp_path):
    write_series(tmp_path / "sizes", range(3), "1.2.3")
    write_slice(tmp_path / "sizes" / "big", 4, "1.2.3", Rows=8)
    with pytest.raises(ValueError, match="mixed image sizes: one series holds images of 6 x 5, 6 x 8"):
        LoadVolume()(tmp_path / "sizes")
    write_series(tmp_path / "turned", range(3), "1.2.3")
    write_slice(tmp_path / "turned" / "last", 4, "1.2.3", orientation=(1, 0, 0, 0, 1, 0))
    with pytest.raises(ValueError, match="mixed orientations"):
        LoadVolume()(tmp_path / "turned")


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"NumberOfFrames": 4}, "cut short"),
        ({"Modality": "SEG"}, "DICOM object that is not an image: modality SEG"),
        ({"ImagePositionPatient": None}, "no geometry tags"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "invalid geometry tags"),
    ],
)
def test_dicom_that_is_no_slice_is_refused(tmp_path, tags, message):
    path = write_slice(tmp_path / "a", 0, "1.2.3", **tags)
    with pytest.raises(ValueError, match=message):
        LoadVolume()(path)


def test_colour_and_unknown_compression_are_refused(tmp_path):
    path = write_slice(tmp_path / "colour", 0, "1.2.3", SamplesPerPixel=3)
    with pytest.raises(ValueError, match="colour image: colour has 3 samples per pixel"):
        LoadVolume()(path)
    path = write_slice(tmp_path / "video", 0, "1.2.3")
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0"))
    with pytest.raises(ValueError, match="unsupported compression"):
        LoadVolume()(path)


def test_directory_without_dicom_and_mixed_lists_are_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no DICOM image"):
        LoadVolume()(tmp_path)
    with pytest.raises(ValueError, match="the list of DICOM files is empty"):
        LoadVolume()([])
    nifti = save_nifti(tmp_path / "a.nii.gz")
    with pytest.raises(ValueError, match=r"a list must hold DICOM files of one series, but .*a\.nii\.gz is not DICOM"):
        LoadVolume()([nifti, nifti])


def test_damaged_metaimage_is_refused(tmp_path):
    (tmp_path / "a.mha").write_bytes(b"ObjectType = Image\n" * 20)
    with pytest.raises(ValueError, match=r"cannot read .*a\.mha: unreadable: not a MHA header that is read here"):
        LoadVolume()(tmp_path / "a.mha")


def test_dictionary_version_reads_each_key_and_has_its_aliases(tmp_path):
    path = save_nifti(tmp_path / "a.nii.gz")
    loaded = LoadVolumed(["image", "label"])({"image": path, "label": str(path), "subject": 3})
    assert loaded["image"].shape == loaded["label"].shape == (1, 4, 5, 6)
    assert loaded["subject"] == 3
    assert LoadVolumeD is LoadVolumed
    assert LoadVolumeDict is LoadVolumed


def test_dictionary_version_obeys_allow_missing_keys(tmp_path):
    data = {"image": save_nifti(tmp_path / "a.nii.gz")}
    assert set(LoadVolumed(["image", "label"], allow_missing_keys=True)(data)) == {"image"}
    with pytest.raises(KeyError, match="label"):
        LoadVolumed(["image", "label"])(data)


def test_loader_travels_to_worker_processes(tmp_path):
    path = save_nifti(tmp_path / "a.nii.gz")
    assert pickle.loads(pickle.dumps(LoadVolumed("image")))({"image": path})["image"].shape == (1, 4, 5, 6)


def test_spacing_can_be_inverted(tmp_path):
    write_series(tmp_path)
    chain = Compose([LoadVolumed("image"), Spacingd("image", pixdim=(1.0, 1.0, 3.0))])
    item = chain({"image": str(tmp_path)})
    item["pred"] = item["image"].clone()
    back = Invertd("pred", transform=chain, orig_keys="image")(item)["pred"]
    original = LoadVolume()(tmp_path)
    assert back.shape == original.shape
    torch.testing.assert_close(back.affine, original.affine)


def test_saved_mask_of_a_dicom_series_has_the_geometry_of_the_series(tmp_path):
    files = write_series(tmp_path / "scan")
    item = Compose([LoadVolumed("image"), Spacingd("image", pixdim=(1.0, 1.0, 2.0))])({"image": str(tmp_path / "scan")})
    options = {"output_postfix": "mask", "separate_folder": False, "print_log": False, "resample": True}
    SaveImaged("image", output_dir=tmp_path, **options)(item)
    saved = LoadVolume()(tmp_path / "scan_mask.nii.gz")
    assert saved.shape == (1, *SHAPE, 6)
    assert largest_error(saved, files) < 1e-3


@needs_data
@pytest.mark.parametrize("folder", CLINICAL, ids=lambda path: path.name)
def test_real_series_agree_with_pydicom(folder, tmp_path):
    files = [folder / name for name in os.listdir(folder)]
    volume = LoadVolume()(folder)
    assert volume.shape[-1] == 22
    assert volume.pixdim[2].item() == pytest.approx(6.5, abs=1e-3)
    assert largest_error(volume, files) < 0.01
    SaveImage(tmp_path, output_postfix="m", separate_folder=False, print_log=False)(volume)
    assert np.abs(nibabel.load(next(tmp_path.iterdir())).affine - np.asarray(volume.affine)).max() < 1e-4
    header = pydicom.dcmread(files[0])
    k = sorted(files, key=lambda file: pydicom.dcmread(file, specific_tags=["ImagePositionPatient"])[0x200032][2])
    values = header.pixel_array * float(header.get("RescaleSlope", 1)) + float(header.get("RescaleIntercept", 0))
    np.testing.assert_allclose(volume[0, :, :, k.index(files[0])].T.numpy(), values)


@needs_data
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("made_missing_slices_T1post", "13.00 mm between 25.17 and 38.17 mm; 13.00 mm between 51.17 and 64.17 mm"),
        ("philips_summary_mixed_sizes", "mixed image sizes"),
        ("philips_enhanced_fieldmap", "4-D: 32 slice positions x 2 images each"),
        ("pydicom/liver.dcm", "DICOM object that is not an image"),
    ],
)
def test_real_broken_dicom_gives_a_clear_error(path, message):
    with pytest.raises(ValueError, match=message):
        LoadVolume()(SHARED / "dicom_nasty" / path)


def test_oblique_test_series_is_orthonormal():
    row, column = np.split(np.array(OBLIQUE), 2)
    np.testing.assert_allclose([row @ row, column @ column, row @ column], [1, 1, 0], atol=1e-6)


@pytest.mark.parametrize("kind", [torch.Tensor.numpy, torch.Tensor.clone], ids=["array", "tensor"])
@pytest.mark.parametrize("shape", [(4, 5, 6), (1, 4, 5, 6)], ids=["no channel", "channel"])
def test_a_volume_in_memory_is_taken_as_it_is(shape: tuple[int, ...], kind: Callable[[torch.Tensor], Any]) -> None:
    volume = torch.arange(120, dtype=torch.int16).reshape(shape)
    found = LoadVolumed(["image", "label"], allow_missing_keys=True)({"image": kind(volume), "image_id": 3})["image"]
    assert found.dtype == torch.float32
    assert torch.equal(found, volume.reshape(1, 4, 5, 6).float())


def test_a_volume_in_memory_keeps_its_metadata_and_a_label_becomes_whole() -> None:
    affine = torch.diag(torch.tensor([2.0, 2.0, 3.0, 1.0], dtype=torch.float64))
    image, label = (MetaTensor(torch.ones(4, 5, 6), affine=affine, meta={"space": "RAS"}) for _ in range(2))
    found = LoadVolumed(["image", "label"])({"image": image, "label": label * 2.0})
    assert torch.equal(found["image"].affine, affine)
    assert found["image"].meta["space"] == "RAS"
    assert torch.equal(found["label"].as_tensor(), torch.full((1, 4, 5, 6), 2, dtype=found["label"].dtype))


def test_a_volume_in_memory_of_other_axes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must have 3 axes, or 4 with the channel first, got \(4, 5\)"):
        LoadVolumed("image")({"image": torch.zeros(4, 5)})


def test_texts_of_readers_are_not_quoted(tmp_path, monkeypatch):
    load, file = LoadVolume(), save_nifti(tmp_path / "a.nii.gz")

    def fail(path):
        raise RuntimeError("field descrip is Mueller^Jane 1964")

    monkeypatch.setattr(load, "_load_image", fail)
    with pytest.raises(ValueError, match=r"cannot read .*a\.nii\.gz: RuntimeError; the file may be damaged") as error:
        load(file)
    assert "Mueller" not in str(error.value)
    assert error.value.__suppress_context__
