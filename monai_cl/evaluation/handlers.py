"""Handlers of :mod:`monai_cl.engine`, under the name by which configs of version 0.1.0 know them."""

from monai_cl.engine.step_time import StepTime
from monai_cl.engine.surface_distance import SurfaceDistance

__all__ = ["StepTime", "SurfaceDistance"]
