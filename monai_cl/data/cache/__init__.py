"""Prepared volumes on disk: written once by ``monai-cl cache``, read box by box while training."""

from typing import TYPE_CHECKING

from monai_cl._lazy import face

if TYPE_CHECKING:
    from monai_cl.data.cache.reading import check_prepared_by, open_item
    from monai_cl.data.cache.writing import CacheResult, write_cache

__all__ = ["CacheResult", "check_prepared_by", "open_item", "write_cache"]

__getattr__, __dir__ = face(__name__)
