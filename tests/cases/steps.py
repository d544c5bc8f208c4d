"""The beginning of a step of a bundle: everything is read and checked, nothing is trained."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from bundle_gate import STEPS
from monai.bundle import ConfigWorkflow
from monai.utils import set_determinism
from test_bundle_runs import options

from monai_cl import bundles
from monai_cl.engine import random_state


@contextmanager
def undisturbed() -> Iterator[None]:
    """Leave the random generators as they are."""
    states = random_state.capture()
    try:
        yield
    finally:
        set_determinism(seed=None)
        random_state.restore(states)


def begin(root: Path, step: str, study: Path, **overrides: Any) -> ConfigWorkflow:
    """Do the first half of ``monai.bundle.run``: what the config says under ``initialize``."""
    given = options(root, step, study, **overrides)
    workflow = ConfigWorkflow(logging_file=False, workflow_type=STEPS[step][0], **given)
    with undisturbed():
        workflow.initialize()
    return workflow


def refusal(root: Path, step: str, study: Path, **overrides: Any) -> str:
    """The reason with which a step does not begin."""
    with pytest.raises(RuntimeError, match=r"^Failed to (evaluate|instantiate) ") as caught:  # MONAI's words
        begin(root, step, study, **overrides)
    return bundles._reason(caught.value)
