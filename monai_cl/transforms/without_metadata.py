"""Transforms of patches without MONAI's metadata, whose upkeep takes longer than the arithmetic on a slice."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from monai.data import MetaTensor, get_track_meta, set_track_meta
from monai.transforms import Compose
from torch.utils.data import get_worker_info

_LOGGING = ("tensorboard", "tqdm", "rich")  # packages whose threads touch no image


class WithoutMetadata(Compose):
    """MONAI's ``Compose`` for dictionaries of patches whose place in the scanner no longer matters.

    Results are plain tensors, equal to those of ``Compose``. The switch of MONAI that leaves metadata out is one for
    the whole process, and a volume read by another thread at that moment would lose its affine. It is turned in
    worker processes of a ``DataLoader``, and where no other thread exists but those of log writers; elsewhere metadata
    is kept up and dropped at the end, which is slower.

    Args:
        *args: As for ``Compose``.
        **kwargs: As for ``Compose``.

    Example:
        >>> result = WithoutMetadata([])({"image": MetaTensor([[[1.0, 2.0]]]), "case": "a"})
        >>> type(result["image"]).__name__, result["case"]
        ('Tensor', 'a')
    """

    @property
    def requires_current_data(self) -> bool:
        """Return True: an outer lazy ``Compose`` has to carry out pending operations, which lie in the metadata."""
        return True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Apply the transforms to a dictionary, given first, and none of them lazily."""
        data, *others = args
        kwargs["lazy"] = False  # plain tensors hold no pending operations
        with _untracked():
            return _plain(super().__call__(_plain(data), *others, **kwargs))


@contextmanager
def _untracked() -> Iterator[None]:
    tracked = get_track_meta()
    set_track_meta(tracked and not _alone())
    try:
        yield
    finally:
        set_track_meta(tracked)


def _alone() -> bool:
    """No other thread of this process reads images."""
    others = (thread for thread in threading.enumerate() if thread is not threading.current_thread())
    return get_worker_info() is not None or all(_package(thread) in _LOGGING for thread in others)


def _package(thread: threading.Thread) -> str:
    return type(thread).__module__.partition(".")[0]


def _plain(data: Any) -> Any:
    """Entries as plain tensors, of a dictionary or of each of a list, as croppers give."""
    if isinstance(data, list):
        return [_plain(one) for one in data]
    if isinstance(data, Mapping):
        return {key: value.as_tensor() if isinstance(value, MetaTensor) else value for key, value in data.items()}
    return data
