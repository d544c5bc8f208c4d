"""Prepared volumes on disk: written once by ``monai-cl cache``, read box by box while training."""

from typing import TYPE_CHECKING

from monai_cl._lazy import face

if TYPE_CHECKING:
    from monai_cl.data.cache.reading import check_prepared_by as check_prepared_by, open_item as open_item
    from monai_cl.data.cache.writing import CacheResult as CacheResult, write_cache as write_cache

__getattr__, __dir__, __all__ = face(__name__)
