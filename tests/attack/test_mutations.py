"""Damaged files of each format through a scan and through loading: each is counted, none ends or fills the process."""

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_series import multi_frame, slice_dataset
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

VALUES = np.random.default_rng(0).normal(0, 90, (9, 10, 11)).astype(np.int16)
# beyond what the package takes itself: openjpeg makes room for what a damaged packet claims
SCAN_MB, LOAD_MB, SECONDS = 400, 2000, 240
SERIES, SIZE = "1.2.826.0.1.9000", {"Rows": 40, "Columns": 48}
EXTREMES = (b"99999999", b"-1", b"0", b"1e308", b"nan", b"2147483648", b"%s%n", b"../../x", b"")
RUN = """
import json, resource, sys
from pathlib import Path
from monai_cl.data import scan
from monai_cl.privacy.pseudonyms import new_key
from monai_cl.transforms import LoadVolume
load = LoadVolume()
def peak():
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) // 1024
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
load(folder / "whole.nii.gz")
before = peak()
result = scan(folder, out / "study.json", key=new_key(), pictures=True, hide_names=False)
scanned = peak() - before
images = [item["image"] for items in result.sections.values() for item in items]
told = [path for entry in result.left_out for path in entry.paths]
told += [path for image in images for path in ([image] if isinstance(image, str) else image)]
silent = {path.name for path in folder.iterdir()} - {path.split("/")[0] for path in told}
found = {"kept": len(images), "left_out": sum(result.reasons.values()), "reasons": result.reasons}
found |= {"silent": sorted(silent), "other": result.other_files}
outcomes = {}
for path in sorted(folder.iterdir()):
    try:
        load(path)
        name = "loaded"
    except (ValueError, OSError) as error:
        name = type(error).__name__
    outcomes[name] = outcomes.get(name, 0) + 1
print(json.dumps({**found, "loading": outcomes, "scan_mb": scanned, "mb": peak() - before}))
"""


def whole_files(folder: Path) -> dict[str, bytes]:
    """A small whole file of each format by the suffix of its copies."""
    folder.mkdir(parents=True)
    image = nibabel.Nifti1Image(VALUES, np.diag([2.0, 2, 3, 1]))
    nibabel.save(nibabel.Nifti2Image(VALUES, np.diag([2.0, 2, 3, 1])), folder / "two.nii")
    found = {"one.nii": image.to_bytes(), "two.nii": (folder / "two.nii").read_bytes()}
    nibabel.save(image, folder / "packed.nii.gz")
    found["packed.nii.gz"] = (folder / "packed.nii.gz").read_bytes()
    made = sitk.GetImageFromArray(VALUES)
    for suffix in (".mha", ".nrrd"):
        for packed in (False, True):
            path = folder / f"itk{packed}{suffix}"
            sitk.WriteImage(made, str(path), useCompression=packed)
            found[path.name] = path.read_bytes()
    found["list.mhd"] = found["itkFalse.mha"].split(b"LOCAL")[0] + b"values%03d.raw 1 3 1\n"
    multi_frame(folder / "frames.dcm", [(1, 0)] * 4, series=SERIES)
    found["frames.dcm"] = (folder / "frames.dcm").read_bytes()
    for syntax in (None, RLELossless, JPEGLSLossless, JPEG2000Lossless):
        dataset = slice_dataset(1, SERIES, SOPInstanceUID=f"{SERIES}.1", **SIZE, PixelPaddingValue=-2000)
        dataset.PixelData = np.random.default_rng(1).integers(0, 900, (40, 48)).astype("<i2").tobytes()
        if syntax is not None:
            dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(folder / "slice.dcm", enforce_file_format=True)
        found[f"{'plain' if syntax is None else syntax.name.split()[0]}{len(found)}.dcm"] = (
            folder / "slice.dcm"
        ).read_bytes()
    return found


def flip(content: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.choice((1, 1, 4, 30))):
        content[rng.randrange(min(len(content), rng.choice((64, 700, 10**9))))] ^= 1 << rng.randrange(8)
    return content


def cut(content: bytearray, rng: random.Random) -> bytearray:
    return content[: rng.randrange(len(content))]


def splice(content: bytearray, rng: random.Random) -> bytearray:
    start, length, place = rng.randrange(len(content)), rng.randrange(400), rng.randrange(len(content))
    return content[:place] + content[start : start + length] + content[place:]


def blank(content: bytearray, rng: random.Random) -> bytearray:
    place, length = rng.randrange(len(content)), rng.randrange(1, 64)
    content[place : place + length] = rng.choice((b"\0", b"\xff", b"\x7f")) * length
    return content


def number(content: bytearray, rng: random.Random) -> bytearray:
    """A number of a text header becomes one that cannot be; of a binary one, four bytes."""
    found = list(re.finditer(rb"[0-9.]{1,20}", bytes(content[:900])))
    if content[:1].isalpha() and found:
        one = rng.choice(found)
        return content[: one.start()] + bytearray(rng.choice(EXTREMES)) + content[one.end() :]
    place = rng.randrange(min(400, len(content)))
    content[place : place + 4] = rng.choice((b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\x80\x7f"))
    return content


CHANGES: tuple[Callable[[bytearray, random.Random], bytearray], ...] = (flip, cut, splice, blank, number)


def mutate(folder: Path, originals: dict[str, bytes], count: int, seed: int) -> None:
    """Damaged copies, each DICOM slice in a folder with two whole ones of its series."""
    rng, names = random.Random(seed), sorted(originals)
    folder.mkdir()
    (folder / "whole.nii.gz").write_bytes(originals["packed.nii.gz"])
    for index in range(count):
        name = names[index % len(names)]
        own = f"{SERIES[:-4]}{index + 1000}"
        content = rng.choice(CHANGES)(bytearray(originals[name].replace(SERIES.encode(), own.encode())), rng)
        if not name.endswith(".dcm") or name == "frames.dcm":
            (folder / f"m{index:04d}_{name}").write_bytes(content)
            continue
        place = folder / f"m{index:04d}"
        place.mkdir()
        for step in (0, 1, 2):
            one = slice_dataset(step, own, SOPInstanceUID=f"{own}.{step}", **SIZE)
            one.save_as(place / f"{step}.dcm", enforce_file_format=True)
        (place / "1.dcm").write_bytes(content)


def run(folder: Path, out: Path) -> dict[str, object]:
    command = [sys.executable, "-W", "ignore", "-c", RUN, str(folder), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, (done.returncode, done.stdout[-500:], done.stderr[-3000:])
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize(
    ("count", "seed"),
    [(90, 7), *(pytest.param(600, seed, marks=[pytest.mark.slow, pytest.mark.timeout(600)]) for seed in (1, 2))],
)
def test_damaged_files_are_counted(tmp_path: Path, count: int, seed: int) -> None:
    mutate(tmp_path / "data", whole_files(tmp_path / "whole"), count, seed)
    found = run(tmp_path / "data", tmp_path / "out")
    sys.stderr.write(f"\n{found}\n")
    assert isinstance(found["scan_mb"], int)
    assert isinstance(found["mb"], int)
    assert found["scan_mb"] < SCAN_MB
    assert found["mb"] < LOAD_MB
    assert isinstance(found["loading"], dict)
    assert sum(found["loading"].values()) == count + 1
    assert found["silent"] == []
    assert int(str(found["left_out"])) > count // 4


def test_bits_flipped_in_compressed_values_are_never_taken(tmp_path: Path) -> None:
    originals = whole_files(tmp_path / "whole")
    from monai_cl.transforms import LoadVolume

    load, rng = LoadVolume(), random.Random(3)
    for name in ("packed.nii.gz", "itkTrue.nrrd", "itkTrue.mha"):
        begin = originals[name].index(b"\x1f\x8b") if name != "itkTrue.mha" else originals[name].index(b"LOCAL\n") + 6
        for place in rng.sample(range(begin + 12, len(originals[name])), 60):
            content = bytearray(originals[name])
            content[place] ^= 1 << rng.randrange(8)
            (tmp_path / name).write_bytes(content)
            with pytest.raises(ValueError, match="cannot read"):
                load(tmp_path / name)
