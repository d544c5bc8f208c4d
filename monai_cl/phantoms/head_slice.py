"""Slices of heads with bright spots on one side, or without: lesions whose place is known, in the plane."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from monai_cl.phantoms.volume import Seed


def spotted_head(
    seed: Seed = 0, side: Literal["left", "right"] | None = None, *, size: int = 24
) -> tuple[Tensor, Tensor]:
    r"""Slice of a head of random shape and texture, with three to five bright spots on one side of a patient.

    With $r$ the distance from the middle in units of the drawn half axes, the intensity is
    $0.6 + 0.3\,[r < 0.75] + 0.1 \sum_{k=1}^{3} \cos(w_k \cdot x)$ and 1.8 in spots, then of mean 0 and deviation 1 over
    the head, $r < 1$, and 0 outside.

    Args:
        seed: Integer, or several, that fixes every draw.
        side: Side of the patient that has spots; the first axis runs from left to right. None: healthy.
        size: Pixels along each edge, over a field of view from -1 to 1.

    Returns:
        Image (1, size, size), float32, and where its spots are (1, size, size).

    Raises:
        ValueError: If the side is unknown, or the size below 8.

    Example:
        >>> image, spots = spotted_head(3, "right")
        >>> bool(spots[0, :12].any()), bool(spots[0, 12:].any())
        (False, True)
    """
    if side not in (None, "left", "right"):
        raise ValueError(f"side must be 'left', 'right' or None, got {side!r}")
    if size < 8:
        raise ValueError(f"size must be at least 8 pixels, got {size!r}")
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, size)] * 2, indexing="ij"))  # axes, x, y
    radius = np.hypot(*(grid / rng.uniform(0.7, 0.9, (2, 1, 1))))
    waves = [np.cos((grid * rng.uniform(-5, 5, (2, 1, 1))).sum(0)) for _ in range(3)]
    image, spots = 0.6 + 0.3 * (radius < 0.75) + 0.1 * sum(waves), np.zeros(radius.shape, dtype=bool)
    for _ in range(rng.integers(3, 6) if side is not None else 0):
        x, y = rng.uniform(0.2, 0.5), rng.uniform(-0.4, 0.4)
        place = np.array([x if side == "right" else -x, y])
        spots |= np.hypot(*(grid - place[:, None, None])) < rng.uniform(0.1, 0.16)
    image[spots] = 1.8
    inside = radius < 1
    image = (image - image[inside].mean()) / image[inside].std() * inside
    return torch.tensor(image[None], dtype=torch.float32), torch.tensor(spots[None])
