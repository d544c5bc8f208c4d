"""Cost of a run, from a short dry run of its configuration."""

from typing import TYPE_CHECKING

from monai_cl._lazy import face

if TYPE_CHECKING:
    from monai_cl.engine.planning.advice import Advice as Advice, advise as advise
    from monai_cl.engine.planning.dry_run import plan_run as plan_run
    from monai_cl.engine.planning.flight_plan import FlightPlan as FlightPlan

__getattr__, __dir__, __all__ = face(__name__)
