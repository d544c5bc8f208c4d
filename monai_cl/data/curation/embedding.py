"""Embeddings of slices by a network that the user brings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_cl.data.curation.reduction import Embed


def load_embedding(path: str | os.PathLike[str]) -> Embed:
    """An embedding from a program that ``torch.export.save`` wrote.

    Args:
        path: A ``.pt2`` file; its program takes one slice ``(1, 1, 64, 64)`` in [0, 1] and returns ``(1, d)``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no exported program.
    """
    import torch

    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(
            f"no such network: {source}; export one with torch.export.save(program, '{source.name}')"
        )
    try:
        network = torch.export.load(source).module()
    except Exception as error:
        raise ValueError(f"{source} is no program of torch.export ({type(error).__name__}); save it as .pt2") from error

    def embed(slices: NDArray[np.float32]) -> NDArray[Any]:
        with torch.inference_mode():
            rows = [network(torch.from_numpy(one)[None, None]).flatten() for one in slices]
        return torch.stack(rows).numpy()

    return embed
