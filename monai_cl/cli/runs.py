"""Verbs on runs: try, plan, measure, report."""

from pathlib import Path
from typing import Annotated

import typer

from monai_cl._locks import alone_with
from monai_cl.cli._console import console


def demo(
    out: Annotated[Path, typer.Option(help="Folder to make; it must not hold anything yet.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Seed of the subjects and the training.", min=0)] = 0,
    processes: Annotated[
        int | None, typer.Option(help="Steps at the same time; one for each core when left out, at most four.", min=1)
    ] = None,
) -> None:
    """Pretrain, fine-tune and evaluate on made-up hearts, beside training from scratch; six minutes on two cores."""
    from monai_cl.demo import run_demo

    run_demo(out, seed=seed, processes=processes, console=console)


def plan(
    arguments: Annotated[
        list[str], typer.Argument(help="Config files and overrides as for `monai.bundle run`, or the file of a curve.")
    ],
    measured_steps: Annotated[int, typer.Option(help="Steps to measure, at most.", min=3)] = 20,
    measured_seconds: Annotated[float, typer.Option(help="Time for each of three measurements, at most.")] = 60.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the numbers here, too.")] = None,
) -> None:
    """Measure a few steps of a run or a curve, and report the cost of all of it and the bottleneck; writes nothing."""
    from monai_cl.evaluation.curve_plan import is_curve, plan_curve

    if len(arguments) == 1 and is_curve(arguments[0]):
        whole = plan_curve(arguments[0], steps=measured_steps, seconds=measured_seconds, console=console)
        console.print(whole.table())
        if json_file:
            whole.write(json_file)
            console.print(f"wrote {json_file}")
        return

    from monai_cl.bundles import split_command
    from monai_cl.engine.planning import plan_run

    files, overrides = split_command(arguments)
    result = plan_run(files, steps=measured_steps, seconds=measured_seconds, **overrides)
    console.print(result.table())
    if json_file:
        result.write(json_file)
        console.print(f"wrote {json_file}")


def curve(
    config: Annotated[Path, typer.Argument(help="YAML file; tutorials/curve_hippocampus.yaml is one to start from.")],
    processes: Annotated[int, typer.Option(help="Runs at the same time; they share the cores.", min=1)] = 1,
    threads: Annotated[
        int | None, typer.Option(help="Threads of each run; its share of the cores when left out.", min=1)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Another output folder than that of the file.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and list the runs; start none.")] = False,
) -> None:
    """Measure what pretraining is worth: fine-tune with few and many labels from each start, with intervals.

    The same command goes on where it was stopped; further seeds, budgets, arms and evaluation sets add only what is
    new.
    """
    from monai_cl.evaluation import CurveStoppedError, run_curve
    from monai_cl.report.curve_screen import show_curve

    stopped = False
    try:
        result = run_curve(config, output=out, processes=processes, threads=threads, dry_run=dry_run, console=console)
    except CurveStoppedError as error:
        result, stopped = error.result, True
    if result.curve is not None:
        show_curve(result.curve, result.folder, console)
    if stopped:
        console.print("stopped; the same command goes on")
        raise typer.Exit(code=130)
    if result.failed:
        raise RuntimeError(result.complaint())


def invariance(
    config: Annotated[Path, typer.Argument(help="YAML file; tutorials/invariance_brain.yaml is one to start from.")],
    out: Annotated[Path | None, typer.Option(help="Another output folder than that of the file.")] = None,
) -> None:
    """Look for points of one MR sequence in another of the same patient: by a network's features, and by MIND-SSC."""
    from rich.progress import Progress

    from monai_cl.evaluation import run_invariance
    from monai_cl.evaluation.invariance_tables import table, table_by_sequences

    with Progress(console=console) as progress:
        task = progress.add_task("describing scans", total=None)
        results, path = run_invariance(
            config, output=out, progress=lambda done, total: progress.update(task, completed=done, total=total)
        )
    for text in (table(results), "", table_by_sequences(results)):
        console.print(text, soft_wrap=True)
    console.print(f"wrote {path}")


def report(
    runs: Annotated[list[Path], typer.Argument(help="Output folders of steps, bundle folders, folders of curves.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    title: Annotated[str, typer.Option(help="Title of the page or of the record.")] = "",
    names: Annotated[bool, typer.Option("--names", help="Print names of cases, not numbers.")] = False,
    neighbours: Annotated[bool, typer.Option(help="Look for nearest neighbours; prepares a dozen volumes.")] = True,
    datalist: Annotated[Path | None, typer.Option(help="The datalist, where no run recorded it.")] = None,
    dataset_dir: Annotated[Path | None, typer.Option(help="Folder its paths start from.")] = None,
    record: Annotated[Path | None, typer.Option(help="Write the results as a record for a model card.")] = None,
    command: Annotated[str, typer.Option(help="With --record: how to measure it again.")] = "",
    card: Annotated[bool, typer.Option("--card", help="As `monai-cl card`.")] = False,
    check: Annotated[bool, typer.Option("--check", help="As `monai-cl card --check`.")] = False,
    trust: Annotated[bool, typer.Option("--trust", help="Run code of the runs: their recipes and networks.")] = False,
    viewer: Annotated[bool, typer.Option("--viewer", help="Volumes in 3-D, too: 2.3 MB, and up to 24 MB.")] = False,
) -> None:
    """Write one HTML page about runs that opens offline; or, with --record, a record of their results for a card."""
    from monai_cl.report.card import record_results
    from monai_cl.report.html import write_report

    if check or card:
        _cards(runs, check=check)
    elif record:
        with alone_with(record, instead="another --record"):
            record_results(runs, record, title=title or record.stem, command=command)
        console.print(f"wrote {record}")
    else:
        with alone_with(out):
            page = write_report(
                runs,
                out,
                title=title or None,
                names=names,
                neighbours=neighbours,
                datalist=datalist,
                dataset_dir=dataset_dir,
                trust=trust,
                viewer=viewer,
            )
        console.print(f"wrote {page}")


def card(
    bundles: Annotated[list[Path], typer.Argument(help="Bundle folders.")],
    check: Annotated[bool, typer.Option("--check", help="Write nothing; report whether they are up to date.")] = False,
) -> None:
    """Write the model cards of bundles from their prose and their records (`monai-cl report --record`)."""
    _cards(bundles, check=check)


def _cards(bundles: list[Path], *, check: bool) -> None:
    from monai_cl.report.card import check_card, write_card

    if not check:
        for bundle in bundles:
            console.print(f"wrote {write_card(bundle)}")
        return
    stale = {bundle: result for bundle in bundles if (result := check_card(bundle))}
    for bundle, result in stale.items():
        console.print(result, soft_wrap=True)
        console.print(f"the card of {bundle} differs from its records: monai-cl card {bundle}")
    raise typer.Exit(code=1 if stale else 0)
