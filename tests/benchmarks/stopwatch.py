"""How long a call takes where other work goes on beside it."""

import time
from collections.abc import Callable
from typing import Any


class Stopwatch:
    """Adds up the processor time of the blocks it is the context of, in ``seconds``."""

    def __init__(self) -> None:
        self.seconds = self.started = 0.0

    def __enter__(self) -> None:
        self.started = time.process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.process_time() - self.started


def best_of(function: Callable[[], Any], repeats: int = 5) -> float:
    """Shortest processor time of a few calls, in seconds; the first call is not counted."""
    function()
    times = []
    for _ in range(repeats):
        started = time.process_time()  # on one thread: what a machine's other work takes is no part of it
        function()
        times.append(time.process_time() - started)
    return min(times)
