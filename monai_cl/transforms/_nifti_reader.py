"""Reader of NIfTI files for MONAI's ``LoadImage``; apart from ``_nifti``, which a scan uses without MONAI."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.config import PathLike
from monai.data import NibabelReader

from monai_cl.io.memory import check_memory
from monai_cl.io.nifti import check_complete, check_real, closing_stream, finish, open_nifti


class NiftiReader(NibabelReader):
    """Reads one NIfTI file with the affine of its sform, else of its qform, as a scan does.

    The reader of MONAI takes another one, down to that of the voxel sides alone, wherever the header rounds these
    sides, and never sees the checksum at the end of a compressed file.
    """

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> Any:
        """Open the file, and check that it holds what its header announces."""
        path = data if isinstance(data, (str, bytes)) or not isinstance(data, Sequence) else data[0]
        self.filenames = (path,)
        image = open_nifti(Path(str(path)))
        check_real(image)
        check_memory(image.shape)
        check_complete(Path(str(path)), image)
        return image

    def get_data(self, img: Any) -> tuple[Any, dict[str, Any]]:
        """Values and metadata, once the checksum of the file holds."""
        with closing_stream(img):
            values, meta = super().get_data(img)
            finish(img)
        return values, meta
