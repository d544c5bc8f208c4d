"""Reading datalists: sections with resolved paths, nested subsets of few labels, the guard against shared patients."""

from typing import TYPE_CHECKING

from monai_cl._lazy import face

if TYPE_CHECKING:
    from monai_cl.datalist.draws import few_labels as few_labels
    from monai_cl.datalist.items import (
        CACHED as CACHED,
        Item as Item,
        drawn_by as drawn_by,
        first_image as first_image,
        shared_subjects as shared_subjects,
        subject_of as subject_of,
    )
    from monai_cl.datalist.loading import load_datalist as load_datalist, subjects_by_case as subjects_by_case
    from monai_cl.datalist.reading import (
        CACHE_FILE as CACHE_FILE,
        beside_datalist as beside_datalist,
        datalist_file as datalist_file,
        is_cache as is_cache,
        read_datalist as read_datalist,
        with_slashes as with_slashes,
    )
    from monai_cl.datalist.sections import (
        items_of as items_of,
        labels_by_number as labels_by_number,
        section_names as section_names,
        split_sections as split_sections,
    )
    from monai_cl.privacy.hand_made import FILE_KEYS as FILE_KEYS

__getattr__, __dir__, __all__ = face(__name__)
