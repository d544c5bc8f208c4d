"""NIfTI volumes through nibabel, with the affine that the format puts first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai.config import PathLike
from monai.data import NibabelReader

from monai_cl.transforms._dicom import UnusableImageError


class NiftiReader(NibabelReader):
    """Reads one NIfTI file with the affine of its sform, else of its qform, as a scan does.

    The reader of MONAI takes another one, down to that of the voxel sides alone, wherever the header rounds these
    sides.
    """

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> Any:
        """Open the file."""
        import nibabel

        path = data if isinstance(data, (str, bytes)) or not isinstance(data, Sequence) else data[0]
        self.filenames = (path,)
        image = nibabel.load(path, **{**self.kwargs, **kwargs})
        check_real(image)
        return image


def check_real(image: Any) -> None:
    """Check that voxels are no complex numbers, of which reading would keep the real part alone.

    Raises:
        UnusableImageError: If they are.
    """
    dtype = image.get_data_dtype()
    if dtype.kind == "c":
        raise UnusableImageError("complex values", f"voxels of type {dtype}, only real ones are read; save magnitudes")
