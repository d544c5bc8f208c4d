"""Loading one 3-D volume from DICOM, NIfTI or any other format MONAI reads."""

import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection, PathLike
from monai.data import MetaTensor, NibabelReader, get_track_meta
from monai.transforms import LoadImage, MapTransform, Transform
from monai.utils import SpaceKeys, TransformBackends
from numpy.typing import NDArray

from monai_cl.io.dicom import SliceHeader, check_pixels, is_dicom, is_one_stack, stack
from monai_cl.io.dicom.decoding import LIGHTEST, decode
from monai_cl.io.dicom.series import slices_below, slices_of
from monai_cl.io.errors import UnusableImageError
from monai_cl.io.itk import read_itk
from monai_cl.io.lattice import check_same_lattice
from monai_cl.io.memory import check_memory
from monai_cl.io.nifti import check_complete, check_real, closing_stream, finish, open_nifti
from monai_cl.io.suffixes import is_itk
from monai_cl.io.threads import without_warnings
from monai_cl.transforms._labels import whole_labels

# Everything else a header holds stays out of the image: NIfTI text fields can name a patient as DICOM tags do.
_KEPT_META = ("filename_or_obj", "affine", "original_affine", "spatial_shape", "space", "original_channel_dim")
PathOrPaths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


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


class LoadVolume(Transform):
    """Read one volume as a channel-first float32 ``MetaTensor`` ``(1, *S)`` with an affine in RAS mm.

    DICOM is decoded by pydicom, compressed slices by SimpleITK where that knows the compression, with the rescale slope
    and intercept or the Modality LUT of each slice or frame applied. Voxels that hold the padding value of the header
    become air (-1024 HU) in CT and the lowest other value elsewhere, unless other voxels are both darker and lighter;
    so do voxels of CT below -1500 HU, which no header needs to announce.
    The geometry of DICOM comes from image position, orientation and pixel spacing alone, so gaps between slices and
    oblique stacks are right. NRRD and MetaImage files are read as ITK reads them, with values from files beside them
    alone, NIfTI files with the affine that nibabel gives them (sform before qform), all other formats by the reader
    that :class:`monai.transforms.LoadImage` selects by file name. Compressed data is read to its checksum. No header
    text enters the metadata.

    The call takes a file, a directory holding exactly one DICOM image series, or a list of the DICOM files of one
    series in any order, or of one volume whose slices are, by a careless export, a series each. ``filename_or_obj`` is
    the file, the directory, or the first file along the slice normal.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If the input cannot be read, is 4-D or colour, or is not exactly one complete, evenly spaced series.

    Example:
        >>> import nibabel, numpy, tempfile
        >>> path = f"{tempfile.mkdtemp()}/scan.nii.gz"
        >>> nibabel.save(nibabel.Nifti1Image(numpy.ones((4, 5, 6), "float32"), numpy.diag([2.0, 2.0, 3.0, 1.0])), path)
        >>> volume = LoadVolume()(path)
        >>> tuple(volume.shape), volume.pixdim.tolist()
        ((1, 4, 5, 6), [2.0, 2.0, 3.0])
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 - the attribute as MONAI declares it

    def __init__(self) -> None:
        # MONAI probes for a GPU decoder of DICOM; its absence is no news before compressed DICOM is read.
        with without_warnings("NvImgCodecPydicomReader", log="monai.data.nvimgcodec_pydicom_plugin"):
            self._load_image = LoadImage(reader=None, image_only=True, dtype=np.float32, ensure_channel_first=True)
        self._load_image.register(NiftiReader())  # the last one is asked first

    def __call__(self, path: PathOrPaths) -> torch.Tensor:
        """Read the volume at ``path``.

        Args:
            path: A file, a directory with one DICOM series, or a list of DICOM files of one series.

        Returns:
            The volume; a plain tensor where MONAI's metadata tracking is switched off.
        """
        if not isinstance(path, (str, os.PathLike)):
            return self._load_list([Path(part).expanduser() for part in path])
        source = Path(path).expanduser()
        if not source.exists():
            raise FileNotFoundError(f"no such file or directory: {source}")
        if not source.is_file() and not source.is_dir():  # opening a pipe would wait for ever
            raise ValueError(f"cannot read {source}: a pipe, a socket or a device; give a regular file")
        if source.is_dir():
            return _load_series(slices_below(source), source)
        if is_dicom(source):
            return _load_series(slices_of(source), source)
        return _load_itk(source) if is_itk(source) else self._load_other(source)

    def _load_list(self, paths: list[Path]) -> torch.Tensor:
        if not paths:
            raise ValueError("the list of DICOM files is empty; give at least one file")
        if len(paths) == 1:
            return self(paths[0])
        for path in paths:
            if not path.is_file():
                raise FileNotFoundError(f"no such file: {path}")
            if not is_dicom(path):
                raise ValueError(f"a list must hold DICOM files of one series, but {path} is not DICOM; load it alone")
        return _load_series([header for path in paths for header in slices_of(path)], None)

    def _load_other(self, path: Path) -> torch.Tensor:
        """Read with MONAI; whatever its readers raise becomes one error that names the file."""
        if path.stat().st_size == 0:
            raise ValueError(f"cannot read {path}: the file is empty; copy it again")
        try:
            image: torch.Tensor = self._load_image(path)
        except UnusableImageError as error:
            raise ValueError(f"cannot read {path}: {error}") from None
        except Exception as error:
            what = (
                f"{type(error).__name__}; the file may be damaged, cut short, no image, or of a format without a reader"
            )
            raise ValueError(f"cannot read {path}: {what}") from None  # texts of readers may quote header values
        while image.dim() > 4 and image.shape[-1] == 1:
            image = image[..., 0]
        if image.dim() not in (3, 4) or image.shape[0] != 1:
            raise ValueError(
                f"expected one 3-D volume, but {path} has shape {tuple(image.shape)} (channels or time points first); "
                "split it into 3-D files"
            )
        return _with_meta(image, image.meta) if isinstance(image, MetaTensor) else image


class LoadVolumed(MapTransform):
    """Dictionary version of :class:`LoadVolume`.

    A volume that has a voxel at the place of each voxel of the first key's, as a label of its image, but is stored
    with its axes in another order or direction, is reordered onto the axes of the first.

    A label must lie on the voxels of the first, and hold whole numbers: values within 0.05 of one are rounded, and
    ``meta["rounded"]`` holds the largest change; NaN and infinities become -32768, which no class has.

    A tensor or array is taken for a volume that was read already, as MONAI Deploy hands it over: it becomes float32 and
    gets the channel axis where it has three axes; its metadata stay.

    Args:
        keys: Keys of the items to read: each a file, a directory with one DICOM series, or a list of DICOM files.
        allow_missing_keys: Whether a missing key is passed over.
        label_keys: Keys that hold labels.

    Raises:
        ValueError: While reading, as :class:`LoadVolume`; if a label lies elsewhere than the first volume, by how many
            mm, or holds other values.
    """

    backend = LoadVolume.backend

    def __init__(
        self, keys: KeysCollection, allow_missing_keys: bool = False, *, label_keys: Sequence[str] = ("label",)
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.label_keys = tuple(label_keys)
        self.load = LoadVolume()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each path by its volume."""
        result = dict(data)
        first: torch.Tensor | None = None
        for key in self.key_iterator(result):
            is_label, in_memory = key in self.label_keys, isinstance(result[key], torch.Tensor | np.ndarray)
            volume = _in_memory(result[key]) if in_memory else self.load(result[key])
            if first is not None and not in_memory:
                volume = _along(volume, first, must=is_label)
            result[key] = _whole(volume) if is_label else volume
            first = volume if first is None else first
        return result


LoadVolumeD = LoadVolumeDict = LoadVolumed


def _in_memory(volume: torch.Tensor | NDArray[Any]) -> torch.Tensor:
    """A volume that another program has read, channel-first and float32."""
    tensor = torch.as_tensor(volume)
    if tensor.dim() not in (3, 4):
        raise ValueError(f"a volume in memory must have 3 axes, or 4 with the channel first, got {tuple(tensor.shape)}")
    return (tensor[None] if tensor.dim() == 3 else tensor).to(torch.float32)


def _whole(label: torch.Tensor) -> torch.Tensor:
    """The label in whole numbers, with a note of how far it was from them."""
    try:
        values, distance = whole_labels(label.as_tensor() if isinstance(label, MetaTensor) else label)
    except ValueError as error:
        where = f"{label.meta['filename_or_obj']}: " if isinstance(label, MetaTensor) else ""
        raise ValueError(f"cannot use the label {where}{error}") from None
    if not isinstance(label, MetaTensor):
        return values
    meta = {key: value for key, value in label.meta.items() if key != "affine"}
    result: torch.Tensor = MetaTensor(values, affine=label.affine, meta={**meta, "rounded": distance})
    return result


def _along(volume: torch.Tensor, first: torch.Tensor, *, must: bool) -> torch.Tensor:
    """The volume with its axes along those of the first, where both have the same voxels, as a label must."""
    if not (isinstance(volume, MetaTensor) and isinstance(first, MetaTensor)):
        return volume
    affine, shape = volume.affine.numpy().astype(np.float64), volume.shape[1:]
    result: torch.Tensor = volume
    try:
        order = check_same_lattice(first.affine.numpy(), first.shape[1:], affine, shape)
    except UnusableImageError as error:
        if must:
            raise ValueError(f"cannot use the label {volume.meta['filename_or_obj']}: {error}") from None
        return result  # another grid, as of another sequence: resampling is a matter of the recipe
    if order.changes:
        name = str(volume.meta["filename_or_obj"])
        result = _volume(order.apply(volume.as_tensor()), order.affine(affine, shape), name)
    return result


def _load_series(headers: list[SliceHeader], source: Path | None) -> torch.Tensor:
    """Check, sort and decode the slices of one series; ``source`` is the name in the metadata."""
    where = source or headers[0].path.parent
    series = {header.series for header in headers}
    if len(series) > 1 and not (source is None and is_one_stack(headers)):
        raise ValueError(
            f"expected exactly one DICOM image series, but {where} holds {len(series)} in {len(headers)} files; "
            "give the files of one series as a list (`monai-cl scan` writes such lists)"
        )
    try:
        check_pixels(headers)
        ordered, affine = stack(headers)
    except ValueError as error:
        raise ValueError(f"cannot read the DICOM series at {where}: {error}") from None
    return _volume(torch.from_numpy(decode_slices(ordered)), affine, str(source or ordered[0].path))


def _volume(pixels: torch.Tensor, affine: NDArray[np.float64], name: str) -> torch.Tensor:
    if not get_track_meta():
        return pixels
    meta = {
        "filename_or_obj": name,
        "affine": affine,
        "original_affine": affine.copy(),
        "spatial_shape": pixels.shape[1:],
        "space": SpaceKeys.RAS,
        "original_channel_dim": float("nan"),
    }
    return _with_meta(pixels, meta)


def _load_itk(path: Path) -> torch.Tensor:
    """Read an NRRD or MetaImage volume."""
    try:
        values, affine = read_itk(path)
    except ValueError as error:
        raise ValueError(f"cannot read {path}: {error}") from None
    return _volume(torch.from_numpy(values), affine, str(path))


def decode_slices(ordered: list[SliceHeader]) -> NDArray[np.float32]:
    """Values as ``(1, columns, rows, slices)``, in the units of the modality and with padding set to background.

    Raises:
        ValueError: If a slice cannot be decoded, or CT has signed values that the header has as unsigned.
    """
    decoded = decode(ordered)
    if decoded.wrapped:
        raise ValueError(
            f"CT must be at most {LIGHTEST:g} HU but for 1 % of its voxels, got up to {decoded.values.max():g} in "
            f"{ordered[0].path}: signed values with an unsigned header; set its PixelRepresentation (0028,0103) to 1"
        )
    return decoded.values


def _with_meta(image: torch.Tensor, meta: dict[str, Any]) -> torch.Tensor:
    """Attach the part of ``meta`` that MONAI's transforms use, under plain string keys."""
    kept = {key: meta[key] for key in _KEPT_META if key in meta}
    kept["spatial_shape"] = np.asarray(kept["spatial_shape"], dtype=np.int64)
    affine = torch.as_tensor(kept.pop("affine"), dtype=torch.float64)
    tensor = image.as_tensor() if isinstance(image, MetaTensor) else image
    result: torch.Tensor = MetaTensor(tensor.contiguous(), affine=affine, meta=kept)
    return result
