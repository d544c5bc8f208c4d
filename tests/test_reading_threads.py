"""Reading from several threads leaves the process as it was."""

import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from dicom_series import write_series

from monai_cl.io import threads as _threads
from monai_cl.transforms.load import LoadVolume


class Reads:
    """Counts how many run at once."""

    def __init__(self) -> None:
        self.running, self.most, self.lock = 0, 0, threading.Lock()

    def __call__(self) -> int:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        time.sleep(0.02)
        with self.lock:
            self.running -= 1
        return self.most


def in_threads(read, count: int = 8) -> None:
    gate = threading.Barrier(count)

    def work(_: int) -> None:
        gate.wait()
        _threads.read_with_itk("kind", read)

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(work, range(count)))


def test_only_the_first_read_of_a_kind_is_alone(monkeypatch):
    monkeypatch.setattr(_threads, "_have_read", set())
    alone: list[int] = []
    reads = Reads()

    def first() -> None:
        alone.append(reads())

    in_threads(first)
    assert alone[0] == 1  # nobody else was reading while the first one did
    later = Reads()
    in_threads(later)
    assert later.most > 1


def test_a_first_read_that_fails_leaves_the_next_one_alone_too(monkeypatch):
    monkeypatch.setattr(_threads, "_have_read", set())

    def fail() -> None:
        raise RuntimeError("damaged")

    with pytest.raises(RuntimeError, match="damaged"):
        _threads.read_with_itk("kind", fail)
    assert not _threads._have_read
    assert _threads.read_with_itk("kind", lambda: 3) == 3
    assert _threads._have_read == {"kind"}


def test_threads_give_the_filters_of_warnings_back():
    before = list(warnings.filters)

    def hide(_: int) -> None:
        with _threads.without_warnings():
            time.sleep(0.001)
            warnings.warn("hidden", UserWarning, stacklevel=1)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(hide, range(64)))
    assert warnings.filters == before


def test_series_read_side_by_side_are_those_read_one_by_one(tmp_path):
    for number in range(6):
        write_series(tmp_path / str(number), range(4 + number), PatientID=str(number))
    folders = sorted(tmp_path.iterdir())
    load, before = LoadVolume(), list(warnings.filters)
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(load, folders))
    assert warnings.filters == before
    for folder, volume in zip(folders, together, strict=True):
        alone = load(folder)
        np.testing.assert_array_equal(volume.numpy(), alone.numpy())
        np.testing.assert_array_equal(volume.affine, alone.affine)


WHILE_ANOTHER_THREAD_IMPORTS = """
import importlib.abc, sys, threading, time
{imports}
assert "pydicom" not in sys.modules
begun = threading.Event()

class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "pydicom.config":
            begun.set()
            time.sleep(0.5)

def imports():
    from pydicom import dcmread

sys.meta_path.insert(0, Slow())
other = threading.Thread(target=imports)
other.start()
begun.wait()
print({call})
other.join()
"""


@pytest.mark.parametrize(
    ("module", "call"),
    [
        ("monai_cl.intake._concealment", "_decode(b'Planted', 'ISO_IR 100')"),
        ("monai_cl.io.dicom.checks", "_compression('1.2.840.10008.1.2')"),
        ("monai_cl.io.dicom.checks", "_remedy('1.2.840.10008.1.2')"),
    ],
)
def test_pydicom_is_imported_whole_while_another_thread_imports_it(module, call):
    imports = f"from {module} import {call.partition('(')[0]}"
    code = WHILE_ANOTHER_THREAD_IMPORTS.format(imports=imports, call=call)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
