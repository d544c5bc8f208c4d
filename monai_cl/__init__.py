"""Self-supervised contrastive pretraining for CT and MR on MONAI."""

from importlib.metadata import version as _version

__version__ = _version("monai_cl")
