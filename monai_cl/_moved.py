"""Modules under the names they had in version 0.1.0, which configs, scripts and notebooks of others go on importing."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

# name in 0.1.0 -> name now; what lies below a package moves with it, unless it has a line of its own
MOVED = {
    "monai_cl.data.cache.manifest": "monai_cl.data.cache.writing",
    "monai_cl.data.cache.sources": "monai_cl.data.cache.job",
    "monai_cl.data.curation.checks": "monai_cl.data.curation.curate",
    "monai_cl.data.curation.writing": "monai_cl.data.curation.curate",
    "monai_cl.data.datalist": "monai_cl.datalist",
    "monai_cl.data.intake": "monai_cl.intake",
    "monai_cl.data.intake.nifti": "monai_cl.io.grid",
    "monai_cl.data.intake.pseudonyms": "monai_cl.privacy.pseudonyms",
    "monai_cl.data.intake.study": "monai_cl.data.study",
    "monai_cl.data.intake.units": "monai_cl.io.grid",
    "monai_cl.data.maps": "monai_cl.io.maps",
    "monai_cl.data.maps.reading": "monai_cl.transforms.map_values",
    "monai_cl.data.maps.sidecars": "monai_cl.io.maps.files",
    "monai_cl.data.maps.study": "monai_cl.data.map_study",
    "monai_cl.data.masks": "monai_cl.transforms.mask_files",
    "monai_cl.data.phantoms": "monai_cl.phantoms",
    "monai_cl.report.predictions": "monai_cl.engine.prediction_picture",
    "monai_cl.report.run_record": "monai_cl.engine.run_record",
    "monai_cl.report.save_cases": "monai_cl.engine.save_cases",
    "monai_cl.transforms.label_crop": "monai_cl.transforms.augmentation",
    "monai_cl.transforms.mr_contrast_dictionary": "monai_cl.transforms.mr_contrast",
    "monai_cl.transforms.volume_contrast_crops_dictionary": "monai_cl.transforms.volume_contrast_crops",
}


def present_name(name: str) -> str | None:
    """The name that a module of 0.1.0 has now; nothing where it has not moved.

    Example:
        >>> present_name("monai_cl.data.phantoms.shapes"), present_name("monai_cl.data.cache")
        ('monai_cl.phantoms.shapes', None)
    """
    start, rest = name, ""
    while start.startswith("monai_cl."):
        if start in MOVED:
            return MOVED[start] + rest
        start, _, last = start.rpartition(".")
        rest = f".{last}{rest}"
    return None


class MovedModules(MetaPathFinder):
    """Finds modules under their names of 0.1.0: they are the very modules of today, so that their classes are one."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module that has moved."""
        name = present_name(fullname)
        return ModuleSpec(fullname, _Present(name)) if name and importlib.util.find_spec(name) else None


class _Present(Loader):
    def __init__(self, name: str) -> None:
        self._name = name
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._name)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # importing has put that of the former name in its place


# before the finder of files: it would take the folder of a package that has moved, and run its modules a second time
sys.meta_path.insert(0, MovedModules())
