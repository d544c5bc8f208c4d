"""Prepared volumes on disk: written once by ``monai-cl cache``, read box by box while training."""

from monai_cl.data.cache.reading import check_prepared_by, open_item
from monai_cl.data.cache.writing import CacheResult, write_cache

__all__ = ["CacheResult", "check_prepared_by", "open_item", "write_cache"]
