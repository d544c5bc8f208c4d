"""The file that says which label-efficiency curve to measure, read and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai_cl.evaluation._config import DECIDED, CurveConfig, Evaluation
from monai_cl.evaluation._read_arms import read_arms, read_named_arms, read_reference
from monai_cl.evaluation._read_values import (
    check_keys,
    load,
    read_budgets,
    read_bundle,
    read_flag,
    read_integers,
    read_number,
    read_section,
    read_settings,
    read_subset,
    read_texts,
    require,
)

COMPUTE_KEYS = ("budgets", "arms")
CONVERGENCE_KEYS = ("budgets", "tolerance")
EVALUATION_KEYS = ("section", "confidence", "resamples", "hold_out", "datalist", "dataset_dir")
KEYS = (
    "bundle",
    "overlays",
    "settings",
    "budgets",
    "seeds",
    "arms",
    "reference",
    "evaluation",
    "equal_compute",
    "convergence",
    "keep_models",
    "output",
)


def read_config(path: str | Path) -> CurveConfig:
    """Read and check a file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no YAML, holds an unknown key or value (the message names the closest and all), or arms
            that cannot be compared.
    """
    source = Path(path)
    content = load(source)
    check_keys(content, KEYS, str(source))
    require(content, ("bundle", "budgets", "seeds", "arms", "output"), source)
    bundle = read_bundle(content["bundle"])
    settings = read_settings(content.get("settings"), "settings", DECIDED)
    budgets = read_budgets(content["budgets"], "budgets")
    arms = read_arms(content["arms"], bundle)
    convergence = read_section(content.get("convergence", {}), CONVERGENCE_KEYS, "convergence")
    compute = read_section(content.get("equal_compute", {}), COMPUTE_KEYS, "equal_compute")
    return CurveConfig(
        source=source,
        bundle=bundle,
        overlays=read_texts(content.get("overlays", ()), "overlays"),
        settings=settings,
        budgets=budgets,
        seeds=read_integers(content["seeds"], "seeds"),
        arms=arms,
        reference=read_reference(content.get("reference"), arms),
        evaluation=_evaluation(content.get("evaluation")),
        equal_compute=() if compute is None else read_subset(compute.get("budgets", budgets), budgets, "equal_compute"),
        compute_of=read_named_arms((compute or {}).get("arms"), arms),
        converged_at=()
        if convergence is None
        else read_subset(convergence.get("budgets", (budgets[0], budgets[-1])), budgets, "convergence"),
        tolerance=read_number((convergence or {}).get("tolerance", 0.005), "convergence.tolerance", low=0.0, high=1.0),
        keep_models=read_flag(content.get("keep_models", True), "keep_models"),
        output=Path(str(content["output"])),
    )


def _evaluation(value: Any) -> Evaluation:
    content = read_section({} if value is None else value, EVALUATION_KEYS, "evaluation")
    if content is None:
        raise ValueError(f"evaluation must hold the keys {', '.join(EVALUATION_KEYS)}, got False")
    resamples = content.get("resamples", 10_000)
    if not isinstance(resamples, int) or resamples < 100:
        raise ValueError(f"evaluation.resamples must be an integer of at least 100, got {resamples!r}")
    hold_out = content.get("hold_out", 0)
    if not isinstance(hold_out, int) or isinstance(hold_out, bool) or hold_out < 0:
        raise ValueError(f"evaluation.hold_out must be a number of patients from 0, got {hold_out!r}")
    if hold_out and content.get("datalist"):
        raise ValueError(
            "evaluation must keep patients of training apart (hold_out) or name another datalist, not both, got "
            f"hold_out {hold_out} and {content['datalist']}; take one of them out"
        )
    datalist, folder = (Path(str(content[key])) if content.get(key) else None for key in ("datalist", "dataset_dir"))
    return Evaluation(
        section=str(content.get("section", "validation")),
        confidence=read_number(content.get("confidence", 0.95), "evaluation.confidence", low=0.5, high=0.999),
        resamples=resamples,
        hold_out=hold_out,
        datalist=datalist,
        dataset_dir=folder,
    )
