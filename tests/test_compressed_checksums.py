"""Compressed files are read to their checksum: a flipped bit, a missing end or foreign bytes are not passed over."""

import gzip
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from monai_cl.data import PreparedDataset, TooManyFaultsError
from monai_cl.io.errors import UnusableImageError
from monai_cl.io.grid import Grid, read_grid
from monai_cl.io.maps.files import values_of
from monai_cl.io.streams import InflatedFile
from monai_cl.transforms import LoadVolume, LoadVolumed

VALUES = np.random.default_rng(0).normal(0, 40, (20, 18, 16)).astype(np.int16)
MEMBER = gzip.compress(nibabel.Nifti1Image(VALUES, np.diag([2.0, 2, 2, 1])).to_bytes())
READERS = {
    "scan": lambda path: read_grid(path),
    "load": lambda path: LoadVolume()(path),
    "maps": lambda path: values_of(path, "a map"),
}


def flipped(place: int) -> bytes:
    damaged = bytearray(MEMBER)
    damaged[place] ^= 1 << (place % 8)
    return bytes(damaged)


DAMAGE = {
    "a bit of the data": flipped(700),
    "a bit near the end": flipped(len(MEMBER) - 20),
    "a bit of the checksum": flipped(len(MEMBER) - 8),
    "a bit of the length": flipped(len(MEMBER) - 2),
    "no trailer": MEMBER[:-8],
    "half": MEMBER[: len(MEMBER) // 2],
    "half, with the trailer": MEMBER[: len(MEMBER) // 2] + MEMBER[-8:],
    "text behind": MEMBER + b"appended by a transfer",
    "half a member behind": MEMBER + MEMBER[: len(MEMBER) // 2],
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("reader", READERS)
def test_damage_is_named(tmp_path: Path, reader: str, damage: str) -> None:
    path = tmp_path / "scan_001.nii.gz"
    path.write_bytes(DAMAGE[damage])
    with pytest.raises(
        ValueError, match=r"checksum does not hold|ends early|something else behind|copy the file again"
    ):
        READERS[reader](path)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("tail", [b"", bytes(512), gzip.compress(b"", mtime=0)], ids=["none", "padding", "member"])
def test_padding_and_further_members_are_no_damage(tmp_path: Path, reader: str, tail: bytes) -> None:
    path = tmp_path / "scan_001.nii.gz"
    path.write_bytes(MEMBER + tail)
    read = READERS[reader](path)
    assert tuple(read.shape)[-3:] == VALUES.shape
    assert isinstance(read, Grid) or np.array_equal(np.asarray(read).reshape(VALUES.shape), VALUES)


def test_members_are_read_as_one(tmp_path: Path) -> None:
    raw, path = gzip.decompress(MEMBER), tmp_path / "scan_001.nii.gz"
    path.write_bytes(b"".join(gzip.compress(raw[k : k + 3000]) for k in range(0, len(raw), 3000)))
    assert np.array_equal(LoadVolume()(path)[0].numpy(), VALUES)


def test_every_flip_in_the_voxels_is_counted_when_volumes_are_prepared(tmp_path: Path) -> None:
    items = []
    for number, place in enumerate(range(400, 400 + 12 * 37, 37)):
        (tmp_path / f"v_{number:02d}.nii.gz").write_bytes(flipped(place))
        items.append({"image": str(tmp_path / f"v_{number:02d}.nii.gz"), "case": f"v_{number:02d}"})
    (tmp_path / "whole.nii.gz").write_bytes(MEMBER)
    items.append({"image": str(tmp_path / "whole.nii.gz"), "case": "whole"})
    volumes = PreparedDataset(items, LoadVolumed("image"), max_faults=1.0)
    assert len(volumes) == 1
    assert [name for name, _ in volumes.faults] == [item["case"] for item in items[:-1]]
    with pytest.raises(TooManyFaultsError, match="12 of 13"):
        PreparedDataset(items, LoadVolumed("image"))


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_a_stream_reads_as_gzip_does(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    content = os.urandom(70_000) + bytes(300_000)
    (tmp_path / "x").write_bytes(b"head" + pack(content))
    with open(tmp_path / "x", "rb") as file:
        stream = InflatedFile(file, 4)
        assert stream.read(10) == content[:10]
        assert stream.seek(69_990) == 69_990
        assert stream.read(20) == content[69_990:70_010]
        stream.seek(5)  # back
        assert stream.read(3) == content[5:8]
        assert stream.read() == content[8:]
        assert stream.finish() == len(content)


def test_a_stream_that_goes_on_for_ever_is_left(tmp_path: Path) -> None:
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(gzip.decompress(MEMBER) + bytes(1 << 28)))
    with pytest.raises(UnusableImageError, match="far more data than the header announces"):
        read_grid(tmp_path / "bomb.nii.gz")


def test_a_look_at_what_comes_next_moves_nothing(tmp_path: Path) -> None:
    content = bytes(range(256)) * 2000
    (tmp_path / "a.gz").write_bytes(gzip.compress(content[:300], mtime=0) + gzip.compress(content[300:], mtime=0))
    with InflatedFile(open(tmp_path / "a.gz", "rb"), closes=True) as stream:
        assert stream.peek(400) == content[:400]
        assert stream.tell() == 0
        assert stream.read(10) == content[:10]
        assert stream.peek(5) == content[10:15]
        assert stream.peek(len(content)) == content[10:]
        assert stream.read() == content[10:]
        assert stream.peek(1) == b""


def test_a_scan_inflates_each_byte_of_a_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inflated = []
    inflate = InflatedFile._inflate

    def counted(stream: InflatedFile, raw: bytes) -> bytes:
        found = inflate(stream, raw)
        inflated.append(len(found))
        return found

    monkeypatch.setattr(InflatedFile, "_inflate", counted)
    (tmp_path / "a.nii.gz").write_bytes(MEMBER)
    read_grid(tmp_path / "a.nii.gz")
    assert sum(inflated) == len(gzip.decompress(MEMBER))
