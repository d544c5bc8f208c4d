"""Checks of a curve before its first run, since its last may be days away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import combinations

from torch import Tensor

from monai_cl import weights
from monai_cl.data import check_study, map_items
from monai_cl.datalist import load_datalist, read_datalist, shared_subjects
from monai_cl.evaluation._arms import SHARED, SHIPPED, Arm
from monai_cl.evaluation._cells import PRETRAIN
from monai_cl.evaluation._plan import Plan
from monai_cl.evaluation._settings import FORMAT
from monai_cl.evaluation._steps import Step
from monai_cl.evaluation._store import RECORD, read_json
from monai_cl.evaluation._work import Work


class OtherSettingsError(ValueError):
    """The output folder holds results of other settings."""


def check(work: Work) -> tuple[str, ...]:
    """Refuse what would fail, or give a result that means nothing.

    Returns:
        Remarks on settings that are allowed but unusual.

    Raises:
        FileNotFoundError: If a checkpoint is absent.
        ValueError: If a setting has no effect, a patient is on both sides, a checkpoint is of another network, or the
            output folder holds results of other settings.
    """
    _check_settings(work.plan)
    _check_trials(work.plan)
    _check_variants(work.plan)
    notes = _check_patients(work.plan)
    for arm in work.plan.config.arms.values():
        notes = (*notes, *_check_weights(work.plan, arm))
    notes = (*notes, *_check_finished(work))
    _check_folder(work)
    return notes


def _check_settings(plan: Plan) -> None:
    config = plan.config
    steps = [plan.train, plan.evaluate, *plan.own.values(), *plan.pretrain.values()]
    if (config.bundle / "configs" / "pretrain.yaml").is_file():
        steps.append(Step.of(config.bundle, ["pretrain"], config.overlays))
    everything = Step(config.bundle, tuple(dict.fromkeys(file for step in steps for file in step.files)), base=0)
    everything.check({key: value for key, value in config.settings.items() if not any(s.knows(key) for s in steps)})
    for arm in config.arms.values():
        step = plan.training(arm.name)
        unknown = {key: value for key, value in arm.settings.items() if not step.knows(key)}
        (step if arm.overlays else plan.evaluate).check(
            {key: value for key, value in unknown.items() if not plan.evaluate.knows(key)}
        )
        if arm.overlays:
            _check_overlays(plan, arm)
        if arm.pretraining is None or arm.pretraining.of:
            continue
        step = plan.pretrain[arm.name]
        step.check(arm.pretraining.settings)
        if arm.pretraining.after and not step.knows("start"):
            raise ValueError(
                f"arm {arm.name!r} cannot begin with the networks of {arm.pretraining.after}: the pretraining of "
                f"{arm.pretraining.bundle.name} has no id `start`; use a bundle that has one"
            )


def _check_variants(plan: Plan) -> None:
    """Refuse variants of the evaluation that it does not know."""
    for settings in plan.config.evaluation.variants.values():
        plan.evaluate.check({key: value for key, value in settings.items() if not plan.evaluate.knows(key)})


def _check_trials(plan: Plan) -> None:
    """Refuse trials of what an arm's fine-tuning does not know."""
    for name, trials in plan.trials.items():
        step = plan.training(name)
        for values in trials.values():
            step.check({key: value for key, value in values.items() if not step.knows(key)})


def _check_overlays(plan: Plan, arm: Arm) -> None:
    """Refuse overlays of an arm that make another network than the evaluation does, or set what is alike for all."""
    step, common = plan.own[arm.name], plan.config.settings
    settings = {**step.pick(common), **step.pick(arm.settings)}
    for key in (key for key in SHARED if step.knows(key) and plan.train.knows(key)):
        alike, own = plan.train.value(key, plan.train.pick({**common, **arm.implied})), step.value(key, settings)
        if own != alike:
            raise ValueError(
                f"overlays of arm {arm.name!r} must leave {key} to the curve, which sets it alike for every arm "
                f"({alike!r}), got {own!r}; take it out of them"
            )
    trained = step.network(settings).state_dict()
    evaluated = plan.evaluate.network({**plan.evaluate.pick(common), **plan.evaluate.pick(arm.settings)}).state_dict()
    other = [key for key in {**trained, **evaluated} if _shape(trained, key) != _shape(evaluated, key)]
    if other:
        raise ValueError(
            f"overlays of arm {arm.name!r} must leave the network to the curve, which evaluates every arm alike, got "
            f"another in {len(other)} tensors ({', '.join(other[:3])}); name the overlay among those of the curve"
        )


def _shape(state: Mapping[str, Tensor], key: str) -> tuple[int, ...] | None:
    return tuple(state[key].shape) if key in state else None


def _check_patients(plan: Plan) -> tuple[str, ...]:
    """Refuse patients on both sides; name trainings that see images of those evaluated on, without labels."""
    common = plan.train.pick(plan.config.settings)
    datalist = plan.train.value("datalist", common)
    folder = plan.train.value("dataset_dir", common)
    check_study(datalist, out_channels=len(plan.classes) + 1)
    if plan.config.evaluation.datalist is not None:
        check_study(plan.config.evaluation.datalist, out_channels=len(plan.classes) + 1)
    _check_sides(plan, datalist, folder)
    return (*_seen_in_pretraining(plan), *_seen_in_fine_tuning(plan, datalist, folder))


def _check_sides(plan: Plan, datalist: str, folder: str | None) -> None:
    """Refuse patients both in training and among those of tuning or evaluation, or in both of these."""
    section = plan.config.evaluation.section
    lists = {"training": load_datalist(datalist, "training", dataset_dir=folder), section: plan.evaluated.items}
    lists |= {plan.tuned.section if plan.tuned.section != section else "tuning": plan.tuned.items} if plan.tuned else {}
    for (one, those), (other, these) in combinations(lists.items(), 2):
        if both := shared_subjects(those, these):
            raise ValueError(
                f"no patient may be in both {one} and {other}, got {len(both)} ({', '.join(both[:5])}) in {datalist}; "
                "move all volumes of a patient to one side"
            )


def _seen_in_pretraining(plan: Plan) -> Iterator[str]:
    """Remarks on arms whose pretraining sees images of patients evaluated on."""
    for name, step in plan.pretrain.items():
        settings = {**step.pick(plan.config.settings), **(getattr(plan.config.arm(name).pretraining, "settings", {}))}
        if not step.knows("sections"):
            continue
        where = step.value("datalist", settings), step.value("sections", settings)
        place = step.value("dataset_dir", settings)
        maps = where[0] is None  # quantitative maps, found in a folder by their names
        seen = map_items(place) if maps else load_datalist(*where, dataset_dir=place, labelled=False)
        if shared := shared_subjects(seen, plan.evaluated.items):
            section = plan.config.evaluation.section
            yield f"the pretraining of {name} sees images of {len(shared)} patients of {section}, without labels"


def _seen_in_fine_tuning(plan: Plan, datalist: str, folder: str | None) -> Iterator[str]:
    """Remarks on arms whose fine-tuning sees images of patients evaluated on.

    Raises:
        ValueError: If an arm trains on unlabelled volumes, and a budget leaves none.
    """
    for name, step in plan.own.items():
        if not step.knows("unlabelled#dataset"):
            continue
        listed = [key for key in ("training", "unlabelled") if read_datalist(datalist).get(key)]
        seen = load_datalist(datalist, "+".join(listed), dataset_dir=folder, labelled=False)
        if len(seen) <= max(plan.budgets):
            raise ValueError(
                f"arm {name!r} needs volumes beside the labelled ones, got budgets up to {max(plan.budgets)} and "
                f"{len(seen)} volumes in {' and '.join(listed)} of {datalist}; add unlabelled volumes, or take fewer "
                "labels"
            )
        if shared := shared_subjects(seen, plan.evaluated.items):
            section = plan.config.evaluation.section
            yield f"the fine-tuning of {name} sees images of {len(shared)} patients of {section}, without labels"


def _check_weights(plan: Plan, arm: Arm) -> tuple[str, ...]:
    """Try each checkpoint once: that it is of another network shows in seconds.

    Returns:
        Differences between the preparation of images and that which published weights expect, in words.
    """
    if arm.from_scratch:
        return ()
    train = plan.training(arm.name)
    common = {**train.pick(plan.config.settings), **train.pick(arm.settings)}
    network = train.network(common)
    names = ("min_matched", "key_map", "inflate_channels")
    options = {name: train.value(name, common) for name in names if train.knows(name)}
    key = train.value("weights_key", common) if train.knows("weights_key") else None
    if arm.is_shipped:
        inflated = bool(options.get("inflate_channels"))
        try:
            weights.choose_start(network, SHIPPED, bundle_root=train.bundle, inflate_channels=inflated)
        except ValueError as error:
            raise ValueError(f"arm {arm.name!r} cannot start: {error}") from error
    notes = []
    for path in arm.checkpoints.values():
        if arm.published is not None:
            try:
                weights.require_source(arm.published.published, path)
            except ValueError as error:
                raise ValueError(f"arm {arm.name!r} cannot start from {error}") from error
            options |= {
                "recipe": train.value("recipe", common),
                "recipe_options": train.value("recipe_options", common),
            }
        try:
            receipt = weights.transfer(network, path, weights_key=key, **options)
        except weights.WeightsMismatchError as error:
            raise ValueError(f"arm {arm.name!r} cannot start from {path}: {error}") from error
        if arm.published is not None and receipt.differences:
            notes.append(f"images of {arm.name} are not as its weights expect: {'; '.join(receipt.differences)}")
    for stage in plan.config.stages(arm.name):  # the network of each is that of the next
        step, settings = plan.pretrain[stage], getattr(plan.config.arm(stage).pretraining, "settings", {})
        pretrained = step.network({**step.pick(plan.config.settings), **settings})
        try:
            weights.transfer(network, pretrained.state_dict(), **options)
        except weights.WeightsMismatchError as error:
            raise ValueError(f"arm {arm.name!r} pretrains another network than it fine-tunes: {error}") from error
    return tuple(notes)


def _check_folder(work: Work) -> None:
    """Refuse the folder of a curve on other volumes: no run would be shared, and its summary written over."""
    records = (read_json(file) or {} for file in work.store.root.glob(f"cells/**/{RECORD}"))
    tuned = [each for each in records if each.get("format", 1) >= FORMAT and each["role"] != PRETRAIN]
    if tuned and not {work.plan.trained_on, work.plan.trained_on_more} & {
        each["settings"]["datalist"] for each in tuned
    }:
        raise OtherSettingsError(
            f"{work.store.root} holds a curve of {len(tuned)} fine-tunings on other volumes than those of training, "
            "whose summary would be written over; give another output folder (--out)"
        )


def _check_finished(work: Work) -> list[str]:
    """Results of other settings in the output folder are not mixed with those to come; other versions are named."""
    counts: Counter[str] = Counter()
    for cell in work.plan.cells:
        record = work.store.record(cell)
        if record is None:
            continue
        if not work.is_known(cell):
            raise OtherSettingsError(
                f"{work.store.folder(cell)} holds a fine-tuning whose settings were not chosen among these trials; go "
                "back to those that they were chosen among, or give another output folder (--out)"
            )
        result, _ = work.settings.changes(cell, record)
        changed = [change for change in result if not work.settings.is_tolerable(change, record)]
        if changed:
            what = "pretraining" if cell.role == PRETRAIN else "fine-tuning"
            raise OtherSettingsError(
                f"{work.store.folder(cell)} holds a {what} with other settings ({'; '.join(map(str, changed[:8]))}); "
                "go back to them, or give another output folder (--out)"
            )
        counts.update({f"{change.path[-1]} {change.old}" for change in result if change.path[0] == "versions"})
        counts.update({"other configs or recipes of the package" for change in result if "versions" not in change.path})
    return [f"{count} runs were made with {what}, the others with what is recorded" for what, count in counts.items()]
