"""How long a call takes where other work goes on beside it."""

import time
from collections.abc import Callable
from typing import Any


def best_of(function: Callable[[], Any], repeats: int = 5) -> float:
    """Shortest processor time of a few calls, in seconds; the first call is not counted."""
    function()
    times = []
    for _ in range(repeats):
        started = time.process_time()  # on one thread: what a machine's other work takes is no part of it
        function()
        times.append(time.process_time() - started)
    return min(times)
