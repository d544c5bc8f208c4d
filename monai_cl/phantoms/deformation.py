"""Random smooth deformations with a positive Jacobian determinant, from stationary velocity fields."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from monai_cl.phantoms.volume import smooth_noise

# The fields live on a lattice in millimetres, so that one seed is one anatomy at every spacing.
_LATTICE_MM = 4.0
# (correlation length, root mean square of each velocity component), millimetres: position of lobes, then of gyri.
_SCALES = ((24.0, 2.5), (9.0, 0.9))


def sample(field: Tensor, coordinates: Tensor) -> Tensor:
    """Trilinear interpolation; outside, the value at the border.

    Args:
        field: Field of shape ``(C, X, Y, Z)``.
        coordinates: Voxel coordinates in the field, of shape ``(3, *S)``; 0 is the centre of the first voxel.

    Returns:
        Values of shape ``(C, *S)``.
    """
    sizes = torch.tensor(field.shape[1:], dtype=coordinates.dtype).reshape(3, 1, 1, 1)
    normalised = (2 * coordinates + 1) / sizes - 1  # voxel centre i -> (2 i + 1) / n - 1, align_corners=False
    grid = normalised.flip(0).movedim(0, -1)  # grid_sample reads (z, y, x)
    values: Tensor = torch.nn.functional.grid_sample(
        field[None], grid[None], mode="bilinear", padding_mode="border", align_corners=False
    )
    return values[0]


def voxel_grid(shape: Sequence[int]) -> Tensor:
    """Voxel coordinates of shape ``(3, X, Y, Z)``.

    Args:
        shape: Spatial shape ``(X, Y, Z)``.
    """
    return torch.stack(torch.meshgrid(*[torch.arange(n, dtype=torch.float32) for n in shape], indexing="ij"))


def exponentiate(velocity: Tensor, *, steps: int = 6) -> Tensor:
    r"""Flow of a stationary velocity field over unit time, by scaling and squaring.

    $u_0 = v / 2^n$, then n times $u \leftarrow u + u \circ (id + u)$.

    Args:
        velocity: Velocity of shape ``(3, X, Y, Z)`` in voxels per unit time.
        steps: Number of squarings n.

    Returns:
        Displacement of shape ``(3, X, Y, Z)`` in voxels: a point x goes to x + u(x).
    """
    identity = voxel_grid(velocity.shape[1:])
    displacement: Tensor = velocity / 2**steps
    for _ in range(steps):
        displacement = displacement + sample(displacement, identity + displacement)
    return displacement


def random_displacement(
    rng: np.random.Generator, shape: Sequence[int], spacing: float, *, extent: Sequence[float], margin: float = 0.0
) -> Tensor:
    """Displacement of a random subject: a smooth diffeomorphism, then a small rotation, scaling and shift.

    Args:
        rng: Source of the draws; equal states give one anatomy whatever the spacing.
        shape: Spatial shape ``(X, Y, Z)`` of the working grid.
        spacing: Isotropic voxel size in millimetres.
        extent: Field of view of the anatomy in millimetres, which the grid covers from its first corner on.
        margin: Millimetres by which the grid goes beyond it on every side; the draws stay the same.

    Returns:
        Displacement of shape ``(3, X, Y, Z)`` in voxels: the subject at x shows the template at x + u(x).
    """
    lattice_shape = [round(length / _LATTICE_MM) for length in extent]
    velocity = torch.zeros(3, *lattice_shape)
    for correlation, amplitude in _SCALES:
        for axis in range(3):
            velocity[axis] += amplitude * smooth_noise(rng, lattice_shape, correlation / _LATTICE_MM)
    matrix, shift = _random_affine(rng)
    identity = voxel_grid(shape)
    at_voxels = sample(velocity, ((identity + 0.5) * spacing - margin) / _LATTICE_MM - 0.5) / spacing
    centre = torch.tensor([(n - 1) / 2 for n in shape]).reshape(3, 1, 1, 1)
    moved = identity + exponentiate(at_voxels) - centre
    # i, j = axis
    turned: Tensor = torch.einsum("ij,jxyz->ixyz", matrix, moved)
    return turned + centre + shift.reshape(3, 1, 1, 1) / spacing - identity


def _random_affine(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Rotation (up to 6 degrees an axis) times scaling (up to 6 %), and a shift of up to 2 mm."""
    matrix = torch.diag(torch.from_numpy(1 + rng.uniform(-0.06, 0.06, 3)))
    for axis, angle in enumerate(np.deg2rad(rng.uniform(-6, 6, 3))):
        i, j = [k for k in range(3) if k != axis]
        rotation = torch.eye(3, dtype=torch.float64)
        rotation[i, i] = rotation[j, j] = np.cos(angle)
        rotation[i, j], rotation[j, i] = -np.sin(angle), np.sin(angle)
        matrix = rotation @ matrix
    return matrix.float(), torch.from_numpy(rng.uniform(-2, 2, 3)).float()
