"""A process starts no more threads than its share of the cores."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from monai_cl import _cores
from monai_cl.data import PreparedDataset


@pytest.mark.parametrize(
    ("said", "siblings", "expected"),
    [(None, None, 8), ("3", None, 3), ("3,1", None, 3), ("99", None, 8), ("0", None, 8), (None, "2", 4), ("1", "2", 1)],
)
def test_threads_are_the_share_of_the_cores(
    said: str | None, siblings: str | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_cores, "cores", lambda: 8)
    for name, value in (("OMP_NUM_THREADS", said), ("LOCAL_WORLD_SIZE", siblings)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert _cores.threads() == expected


def test_volumes_are_prepared_by_as_many_threads_as_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, workers: int) -> None:
            asked.append(workers)
            super().__init__(workers)

    monkeypatch.setattr("monai_cl.data.loading.prepared.ThreadPoolExecutor", Pool)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    PreparedDataset([{"case": str(n)} for n in range(4)], None)
    PreparedDataset([{"case": "a"}], None, num_workers=3)
    assert asked == [1, 3]
