"""Cores that a process may use, and the threads it starts by default."""

import os


def cores() -> int:
    """Cores that this process may use, two for a physical one that runs two threads."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def threads() -> int:
    """Threads, or processes, that this process starts at most: its cores, shared with those that ``torchrun`` started.

    ``OMP_NUM_THREADS`` bounds them too, as it does those of arithmetic.
    """
    limit = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    siblings = os.environ.get("LOCAL_WORLD_SIZE", "")
    own = max(1, cores() // max(1, int(siblings) if siblings.isdigit() else 1))
    return min(own, int(limit)) if limit.isdigit() and int(limit) > 0 else own
