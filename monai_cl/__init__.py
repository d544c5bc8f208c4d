"""Self-supervised contrastive pretraining for CT and MR on MONAI."""

from importlib.metadata import version as _version

from monai_cl import _moved as _moved

__version__ = _version("monai_cl")
