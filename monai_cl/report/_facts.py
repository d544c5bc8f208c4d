"""Tables of runs: steps, settings, data, versions and weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_cl.data import digest
from monai_cl.engine.run_record import datalist_facts
from monai_cl.report._folders import Bundle, Found, Run
from monai_cl.report.tables import Cell, Table

_LEFT_OUT = ("left out as unreadable", "processes")
_HASH = 12  # digits of a SHA-256 that are shown
_STEPS = {
    "pretrain": "pretraining",
    "train": "fine-tuning",
    "evaluate": "evaluation",
    "curve": "label-efficiency curve",
    "invariance": "sequence invariance",
}


def facts(found: Found, datalist: Path | None) -> list[Table]:
    """The steps and their data."""
    return [_steps(found.runs), *data_tables(_runs(found), datalist)]


def details(found: Found) -> list[Table]:
    """Settings, versions, and the bundles' own descriptions."""
    runs = _runs(found)
    return [*_settings(runs), *_versions(runs), *(_bundle(bundle) for bundle in found.bundles)]


def _runs(found: Found) -> list[Run]:
    return found.of("pretrain", "train", "evaluate")


def handed_over(found: Found) -> list[Table]:
    """Receipts of fine-tuning, and what is known of the files of weights."""
    return [*receipts(found), *(_weights(bundle) for bundle in found.bundles if bundle.weights)]


def receipts(found: Found) -> list[Table]:
    """Start of each fine-tuning, as far as it was recorded."""
    rows = tuple(_receipt(run) for run in found.of("train") if "receipt" in run.record)
    heads = (
        "run",
        "start",
        "matched tensors",
        "share of parameters, %",
        "missing",
        "unexpected",
        "wrong shape",
        "pretrained",
    )
    note = "missing tensors start as initialised; pretrained counts the matched tensors that pretraining changed"
    began = [Table("Weights that fine-tuning began with", heads, rows, (note,))] if rows else []
    return [*began, *_origins(found)]


def _origins(found: Found) -> list[Table]:
    """Weights of others that runs began from: whose, their licence, what to cite, and how images are prepared."""
    rows: dict[tuple[Cell, ...], None] = {}
    for run in found.of("pretrain", "train"):
        receipt = run.record.get("receipt") or {}
        for one in receipt.get("origins") or ():
            cited = ", ".join(map(str, one.get("citation") or ()))
            prepared = "; ".join(receipt.get("differences") or ()) or "as the weights expect"
            comparison = prepared if receipt.get("differences") is not None else "not compared"
            rows[(run.name, one["source"], one["licence"], cited, one.get("trained", ""), comparison)] = None
    heads = ("run", "source", "licence", "cite", "pretrained by its makers", "images of this run")
    free = all(
        one.get("free", True)
        for run in found.of("pretrain", "train")
        for one in (run.record.get("receipt") or {}).get("origins") or ()
    )
    notes: tuple[str, ...] = ("licence and citations go with every network that was trained on from these weights",)
    if not free:
        notes += ("a licence here restricts use: see to it before results or weights are shared",)
    return [Table("Weights of others", heads, tuple(rows), notes)] if rows else []


def _steps(runs: Sequence[Run]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for run in runs:
        parts = run.record.get("parts") or [{}]
        known = [part.get("seconds") for part in parts]
        seconds = round(sum(s for s in known if s is not None), 1) if any(known) else None
        done = run.checkpoint.get("step") or parts[-1].get("to_step") or (run.history or [{}])[-1].get("step")
        state = "finished" if parts[-1].get("finished") else "did not finish" if run.record else None
        seed = run.record.get("seed", run.settings.get("seed"))
        step = "" if run.kind in ("evaluate", "curve", "invariance") else None if done is None else int(done)
        began = str(parts[0].get("started") or "")[:16].replace("T", " ") or None
        rows.append((run.name, _STEPS[run.kind], began, seconds, state, step, seed))
    heads = ("run", "what", "started (UTC)", "seconds", "state", "steps", "seed")
    used = [i for i in range(len(heads)) if any(row[i] not in (None, "") for row in rows)]
    unrecorded = [heads[i] for i in range(len(heads)) if all(row[i] is None for row in rows)]
    notes = (f"no run recorded: {', '.join(unrecorded)}",) if unrecorded else ()
    return Table("Steps", tuple(heads[i] for i in used), tuple(tuple(row[i] for i in used) for row in rows), notes)


def _bundle(bundle: Bundle) -> Table:
    known = bundle.metadata
    keys = ("name", "version", "task", "data_source", "intended_use", "copyright")
    rows = [(key.replace("_", " "), str(known[key])) for key in keys if known.get(key)]
    rows += [("paper", str(reference)) for reference in known.get("references", [])]
    return Table("The bundle, from its metadata", ("", "value"), tuple(rows))


def _settings(runs: Sequence[Run]) -> list[Table]:
    columns = {run.name: values for run in runs if (values := _settings_of(run))}
    names = dict.fromkeys(key for values in columns.values() for key in values)
    rows = tuple((name, *(values.get(name, "") for values in columns.values())) for name in names)
    notes = (
        f"hashes are the first {_HASH} digits of SHA-256",
        "an empty cell: the step has no such setting, or did not record it",
    )
    return [Table("Settings", ("setting", *columns), rows, notes)] if rows else []


def _settings_of(run: Run) -> dict[str, str]:
    recipe, data = run.record.get("recipe") or {}, run.record.get("data") or {}
    hashes = {"datalist": data.get("sha256"), "recipe": recipe.get("sha256")}
    values: dict[str, Any] = {**run.settings, **{key: value for key, value in hashes.items() if value}}
    shown = {f"{k} (SHA-256)" if _is_hash(v) else k: v[:_HASH] if _is_hash(v) else _plain(v) for k, v in values.items()}
    if recipe:
        shown |= {"recipe": recipe["name"], "recipe options": _plain(recipe.get("options") or "as in the file")}
    if "sections" in data:
        shown["sections"] = _plain(data["sections"])
    if model := run.record.get("model"):
        shown["weights (SHA-256)"] = f"{model['file']} {model['sha256'][:_HASH]}"
    return shown


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _plain(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, (list, tuple)):
        return " x ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def data_tables(runs: Sequence[Run], datalist: Path | None = None) -> list[Table]:
    """Volumes of the study by section, what was left out of it, and what each step used of it."""
    known = {(run.record.get("data") or {}).get("sha256"): run.record["data"] for run in runs if run.record.get("data")}
    lists = [value for key, value in known.items() if key]
    if datalist is not None:
        lists = [{**datalist_facts(datalist), "sha256": digest(datalist)}]
    tables = [_datalist(value) for value in lists]
    used = [(run.name, data) for run in runs if "prepared" in (data := run.record.get("data") or {})]
    if used:
        tables.append(_prepared(used))
    return tables


def _prepared(used: Sequence[tuple[str, dict[str, Any]]]) -> Table:
    unlabelled = any("prepared_unlabelled" in data for _, data in used)  # of self-training
    rows: list[tuple[Cell, ...]] = []
    for name, data in used:
        without = (data.get("prepared_unlabelled", ""),) if unlabelled else ()
        rows.append((name, data["prepared"], *without, len(data.get("faults", [])), data.get("processes", 1)))
    heads = ("run", "volumes used", *(("beside them without labels",) if unlabelled else ()), *_LEFT_OUT)
    several = any(data.get("processes", 1) > 1 for _, data in used)
    note = ("with several processes, the volumes are those of the first",) if several else ()
    return Table("Volumes that the steps prepared", heads, tuple(rows), note)


def _datalist(data: dict[str, Any]) -> Table:
    rows: list[tuple[Cell, ...]] = [(f"volumes in {name}", number) for name, number in data.get("counts", {}).items()]
    left_out = data.get("left_out") or {}
    rows += [(f"left out: {reason}", number) for reason, number in left_out.items()]
    rows += [] if left_out else [("left out", "none")]
    rows += [(key, str(data[key])) for key in ("licence", "reference") if data.get(key)]
    return Table(f"Data: {data.get('name', 'datalist')}, SHA-256 {data['sha256'][:_HASH]}", ("", "value"), tuple(rows))


def _versions(runs: Sequence[Run]) -> list[Table]:
    """Versions and hardware, a column for runs that had the same."""
    result = [
        (run.name, {**part["versions"], "hardware": part.get("hardware")})
        for run in runs
        for part in run.record.get("parts", [])
        if "versions" in part
    ]
    groups: dict[str, tuple[list[str], dict[str, Any]]] = {}
    for name, known in result:
        groups.setdefault(repr(sorted(known.items())), ([], known))[0].append(name)
    if not groups:
        return []
    heads = [", ".join(dict.fromkeys(names)) for names, _ in groups.values()]
    rows = tuple((key, *(known.get(key) for _, known in groups.values())) for key in result[0][1])
    return [Table("Versions and hardware", ("", *(heads if len(heads) > 1 else ["all runs"])), rows)]


def _receipt(run: Run) -> tuple[Cell, ...]:
    receipt = run.record["receipt"]
    if receipt is None:
        return (run.name, "from scratch", "", "", "", "", "", "")
    counts = [len(receipt.get(key, ())) for key in ("missing", "unexpected", "wrong_shape")]
    carried = len(set(receipt["matched"]) & set(receipt.get("touched", ())))
    start = run.record.get("start") or {}
    began = str(start.get("taken") or "file")
    began += f" ({start['name']})" if began == "shipped" else ""  # names of files are the user's own
    return (run.name, began, len(receipt["matched"]), round(100 * receipt["share"], 1), *counts, carried)


def _weights(bundle: Bundle) -> Table:
    heads = ("file", "SHA-256", "made by", "pretraining steps", "recipe", "tensors pretraining changed")
    return Table("Files of weights", heads, tuple(_file_of_weights(bundle, file) for file in bundle.weights))


def _file_of_weights(bundle: Bundle, file: Path) -> tuple[Cell, ...]:
    contract = bundle.contract(file.stem)
    made = contract.get("method", "fine-tuning" if contract else None)
    touched = len(contract["touched"]) if "touched" in contract else ""
    return (file.name, digest(file)[:_HASH], made, contract.get("steps", ""), contract.get("recipe"), touched)
