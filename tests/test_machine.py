"""What is asked of the C library on the machine at hand."""

import ctypes
from typing import Any

import pytest

from monai_cl.engine.machine import keep_freed_memory


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs the allocator of glibc")
def test_the_allocator_takes_both_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    real, answers = ctypes.CDLL(None).mallopt, {}

    class Library:
        def __init__(self, name: Any) -> None: ...

        def mallopt(self, option: int, value: int) -> int:
            answers[option, value] = real(option, value)
            return int(answers[option, value])

    monkeypatch.setattr(ctypes, "CDLL", Library)
    keep_freed_memory()
    assert answers == {(-1, 2**31 - 1): 1, (-3, 32 * 2**20): 1}  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD; 1 is success


def test_what_the_environment_says_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("asked in spite of the environment"))
    keep_freed_memory()


def test_a_library_without_such_a_function_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    asked: list[Any] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda name: asked.append(name) or object())
    keep_freed_memory()
    assert asked == [None]
