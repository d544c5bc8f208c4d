"""Checks of a curve before its first run, since its last may be days away."""

from __future__ import annotations

from collections import Counter

from monai_cl import weights
from monai_cl.data import check_study, map_items
from monai_cl.datalist import load_datalist, shared_subjects
from monai_cl.evaluation._config import Arm
from monai_cl.evaluation._plan import PRETRAIN, Plan
from monai_cl.evaluation._steps import Step
from monai_cl.evaluation._work import Work


class OtherSettingsError(ValueError):
    """The output folder holds results of other settings."""


def check(work: Work) -> tuple[str, ...]:
    """Refuse what would fail, or give a result that means nothing.

    Returns:
        What is allowed but should be said, in words.

    Raises:
        FileNotFoundError: If a checkpoint is absent.
        ValueError: If a setting has no effect, a patient is on both sides, a checkpoint is of another network, or the
            output folder holds results of other settings.
    """
    _check_settings(work.plan)
    notes = _check_patients(work.plan)
    for arm in work.plan.config.arms.values():
        _check_weights(work.plan, arm)
    return (*notes, *_check_finished(work))


def _check_settings(plan: Plan) -> None:
    config = plan.config
    steps = [plan.train, plan.evaluate, *plan.pretrain.values()]
    if (config.bundle / "configs" / "pretrain.yaml").is_file():
        steps.append(Step.of(config.bundle, ["pretrain"], config.overlays))
    everything = Step(config.bundle, tuple(dict.fromkeys(file for step in steps for file in step.files)), base=0)
    everything.check({key: value for key, value in config.settings.items() if not any(s.knows(key) for s in steps)})
    for arm in config.arms.values():
        plan.evaluate.check({key: value for key, value in arm.settings.items() if not plan.train.knows(key)})
        if arm.pretraining is None or arm.pretraining.of:
            continue
        step = plan.pretrain[arm.name]
        step.check(arm.pretraining.settings)
        if arm.pretraining.after and not step.knows("start"):
            raise ValueError(
                f"arm {arm.name!r} cannot begin with the networks of {arm.pretraining.after}: the pretraining of "
                f"{arm.pretraining.bundle.name} has no id `start`; use a bundle that has one"
            )


def _check_patients(plan: Plan) -> tuple[str, ...]:
    section, common = plan.config.evaluation.section, plan.train.pick(plan.config.settings)
    datalist = plan.train.value("datalist", common)
    folder = plan.train.value("dataset_dir", common)
    check_study(datalist, out_channels=len(plan.classes) + 1)
    if plan.config.evaluation.datalist is not None:
        check_study(plan.config.evaluation.datalist, out_channels=len(plan.classes) + 1)
    held_out = plan.items
    both = shared_subjects(load_datalist(datalist, "training", dataset_dir=folder), held_out)
    if both:
        raise ValueError(
            f"no patient may be in both training and {section}, got {len(both)} ({', '.join(both[:5])}) in {datalist}; "
            "move all volumes of a patient to one side"
        )
    notes = []
    for name, step in plan.pretrain.items():
        settings = {**step.pick(plan.config.settings), **(getattr(plan.config.arm(name).pretraining, "settings", {}))}
        if not step.knows("sections"):
            continue
        where = step.value("datalist", settings), step.value("sections", settings)
        place = step.value("dataset_dir", settings)
        maps = where[0] is None  # quantitative maps, found in a folder by their names
        seen = map_items(place) if maps else load_datalist(*where, dataset_dir=place, labelled=False)
        shared = shared_subjects(seen, held_out)
        if shared:
            notes.append(
                f"the pretraining of {name} sees images of {len(shared)} patients of {section}, without labels"
            )
    return tuple(notes)


def _check_weights(plan: Plan, arm: Arm) -> None:
    """Try each checkpoint once: that it is of another network shows in seconds."""
    if arm.from_scratch:
        return
    common = {**plan.train.pick(plan.config.settings), **plan.train.pick(arm.settings)}
    network = plan.train.network(common)
    names = ("min_matched", "key_map", "inflate_channels")
    options = {name: plan.train.value(name, common) for name in names if plan.train.knows(name)}
    key = plan.train.value("weights_key", common) if plan.train.knows("weights_key") else None
    for path in arm.checkpoints.values():
        try:
            weights.transfer(network, path, weights_key=key, **options)
        except weights.WeightsMismatchError as error:
            raise ValueError(f"arm {arm.name!r} cannot start from {path}: {error}") from error
    for stage in plan.config.stages(arm.name):  # the network of each is that of the next
        step, settings = plan.pretrain[stage], getattr(plan.config.arm(stage).pretraining, "settings", {})
        pretrained = step.network({**step.pick(plan.config.settings), **settings})
        try:
            weights.transfer(network, pretrained.state_dict(), **options)
        except weights.WeightsMismatchError as error:
            raise ValueError(f"arm {arm.name!r} pretrains another network than it fine-tunes: {error}") from error


def _check_finished(work: Work) -> list[str]:
    """Results of other settings in the output folder are not mixed with those to come; other versions are named."""
    said: Counter[str] = Counter()
    for cell in work.plan.cells:
        record = work.store.record(cell)
        if record is None:
            continue
        found, _ = work.settings.changes(cell, record)
        changed = [change for change in found if not work.settings.is_tolerable(change, record)]
        if changed:
            what = "pretraining" if cell.role == PRETRAIN else "fine-tuning"
            raise OtherSettingsError(
                f"{work.store.folder(cell)} holds a {what} with other settings ({'; '.join(map(str, changed[:8]))}); "
                "go back to them, or give another output folder (--out)"
            )
        said.update({f"{change.path[-1]} {change.old}" for change in found if change.path[0] == "versions"})
        said.update({"other configs or recipes of the package" for change in found if "versions" not in change.path})
    return [f"{count} runs were made with {what}, the others with what is recorded" for what, count in said.items()]
