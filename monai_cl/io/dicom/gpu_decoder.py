"""A word about nvImageCodec, once, where it would be of use: compressed DICOM that pydicom decodes beside a GPU."""

from __future__ import annotations

import logging
import sys
import threading

logger = logging.getLogger(__name__)
_PREFIX = "1.2.840.10008.1.2.4."
# what its plugin for pydicom decodes: JPEG, JPEG 2000 and high-throughput JPEG 2000
PROFITS = frozenset(f"{_PREFIX}{tail}" for tail in (50, 51, 57, 70, 90, 91, 201, 202, 203))
_lock = threading.Lock()
_told: set[str] = set()


def tell_of_gpu_decoder(syntax: str) -> None:
    """Say once a process that a GPU could decode files of this transfer syntax, where it could and does not."""
    if syntax not in PROFITS or _told:
        return
    with _lock:
        if not _told and _gpu_is_idle():
            logger.warning(
                "compressed DICOM is decoded on the CPU: nvImageCodec, pip install 'monai[nvimgcodec]', would do it on "
                "the GPU"
            )
        _told.add(syntax)


def _gpu_is_idle() -> bool:
    """Tell whether a GPU is there, but not the package that decodes on it; a process without torch does not use one."""
    torch, plugin = sys.modules.get("torch"), sys.modules.get("monai.data.nvimgcodec_pydicom_plugin")
    if torch is None or plugin is None or not torch.cuda.is_available():
        return False
    if torch.utils.data.get_worker_info() is not None:  # each worker would say it
        return False
    return not plugin.is_nvimgcodec_available()
