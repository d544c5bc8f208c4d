"""The command line: one function a verb, the work is elsewhere."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand

from monai_cl._endings import code_after, in_words, listen
from monai_cl._locks import alone_with

app = typer.Typer(
    help="Self-supervised contrastive pretraining for CT and MR. Training runs through `python -m monai.bundle run`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
recipes_app = typer.Typer(help="Ready-made chains that prepare volumes.", invoke_without_command=True)
bundles_app = typer.Typer(help="MONAI bundles that come with the package.", invoke_without_command=True)
app.add_typer(recipes_app, name="recipes")
app.add_typer(bundles_app, name="bundles")

console = Console(markup=False, highlight=False)  # paths and messages may hold brackets


class _WithKeys(TyperCommand):
    """A command that takes the file of a curve: its help lists the keys, read where they are checked."""

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """Write the help with the keys, whose models are loaded for it alone."""
        from monai_cl.evaluation._config import keys_in_words

        self.help = f"{self.help}\n\n{keys_in_words()}"
        super().format_help(ctx, formatter)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder to make; it must not hold anything yet.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Seed of the subjects and the training.", min=0)] = 0,
) -> None:
    """Pretrain, fine-tune and evaluate on made-up brains in a few minutes, beside training from scratch."""
    from monai_cl.demo import run_demo

    run_demo(out, seed=seed, console=console)


@app.command()
def scan(
    folders: Annotated[list[Path], typer.Argument(help="Folders with DICOM, NIfTI or NRRD files, at any depth.")],
    out: Annotated[Path, typer.Option(help="The datalist to write.")] = Path("study.json"),
    keep_derived: Annotated[bool, typer.Option(help="Keep DICOM series marked as derived.")] = False,
    keep_tilted: Annotated[bool, typer.Option(help="Keep series of a tilted gantry.")] = False,
    stack_series: Annotated[bool, typer.Option(help="Keep slices that are a series each as one volume.")] = False,
    key: Annotated[Path | None, typer.Option(help="File of the key of pseudonyms; made where absent.")] = None,
    hide_names: Annotated[bool, typer.Option(help="Name files and patients by ids.")] = True,
    pictures: Annotated[bool, typer.Option(help="Write a page with the middle slice of each volume.")] = True,
    workers: Annotated[int | None, typer.Option(help="Threads that read.", min=1)] = None,
) -> None:
    """List the usable volumes of folders in a MONAI datalist, and say why the others were left out."""
    from monai_cl.intake.scan import scan as scan_folders
    from monai_cl.report.study_page import write_study_page

    with alone_with(out):
        result = scan_folders(
            folders,
            out,
            keep_derived=keep_derived,
            keep_tilted=keep_tilted,
            stack_series=stack_series,
            key=key,
            hide_names=hide_names,
            pictures=pictures,
            workers=workers,
            console=console,
        )
        console.print(result.table())
        written = [result.datalist, result.exclusions]
        if pictures:
            written.append(write_study_page(result, out.with_suffix(".html")))
    console.print(f"wrote {', '.join(map(str, written))}; next:")
    console.print(result.next_command, soft_wrap=True, markup=False, highlight=False)


@app.command()
def cache(
    datalist: Annotated[Path, typer.Argument(help="The study, from `monai-cl scan`.")],
    recipe: Annotated[str, typer.Option(help="How to prepare the volumes: see `monai-cl recipes`.")],
    out: Annotated[Path | None, typer.Option(help="The cache; DATALIST_cache when left out.")] = None,
    options: Annotated[str, typer.Option(help="Parameters of the recipe, as in --recipe_options.")] = "{}",
    dataset_dir: Annotated[Path | None, typer.Option(help="Folder that paths in the datalist start from.")] = None,
    dtype: Annotated[str, typer.Option(help="int16 (scaled), float16 or float32.")] = "int16",
    storage: Annotated[str, typer.Option(help="npy, or blosc2 (smaller, slower; the extra `cache`).")] = "npy",
    max_faults: Annotated[float, typer.Option(help="Share of the volumes that may be unreadable.")] = 0.01,
    processes: Annotated[int | None, typer.Option(help="As many as there are cores when left out.", min=0)] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Replace the cache of another recipe or type.")] = False,
) -> None:
    """Prepare every volume of a study once, for training that reads only the boxes it needs."""
    from monai_cl import recipes as gallery
    from monai_cl.data.cache import write_cache

    result = write_cache(
        datalist,
        out,
        recipe=recipe,
        options=gallery.parse_options(options),
        dataset_dir=dataset_dir,
        dtype=dtype,
        storage=storage,
        max_faults=max_faults,
        processes=processes,
        rebuild=rebuild,
        console=console,
    )
    console.print(result.table())
    console.print(
        f"next: give it as the datalist: {result.next_command}", soft_wrap=True, markup=False, highlight=False
    )


@app.command(cls=_WithKeys, context_settings={"ignore_unknown_options": True})
def plan(
    arguments: Annotated[
        list[str],
        typer.Argument(help="Config files and overrides as for `monai.bundle run`, or the file of a curve."),
    ],
    measured_steps: Annotated[int, typer.Option(help="Steps to measure, at most.", min=3)] = 20,
    measured_seconds: Annotated[float, typer.Option(help="Time for each of three measurements, at most.")] = 60.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the numbers here, too.")] = None,
) -> None:
    """Measure a few steps of a run or of a curve, and say what all of it takes and what holds it up; writes nothing."""
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
    found = plan_run(files, steps=measured_steps, seconds=measured_seconds, **overrides)
    console.print(found.table())
    if json_file:
        found.write(json_file)
        console.print(f"wrote {json_file}")


@app.command()
def whose(
    what: Annotated[str, typer.Argument(help="An id; a list, table or page with ids; a mask, or a folder of masks.")],
) -> None:
    """Tell which file each id stands for, and which scan each mask is of; to you alone, on this machine."""
    from monai_cl.privacy.lookup import look_up

    found = look_up(what)
    if not console.is_terminal:  # for another program: a line each, however long
        for name, file in found:
            typer.echo(f"{name}\t{file}".encode("utf-8", "surrogateescape"))
        return
    table = Table("id or mask", "file")
    for name, file in found:
        table.add_row(*(Text(part.encode("utf-8", "replace").decode(), overflow="fold") for part in (name, file)))
    console.print(table)


@app.command()
def phantom(
    folder: Annotated[Path, typer.Argument(help="Folder to make; it must not hold anything yet.")],
    subjects: Annotated[int, typer.Option(help="Number of subjects.", min=1)] = 16,
    spacing: Annotated[float, typer.Option(help="Voxel size in mm, 1 to 12.")] = 1.0,
    field_strength: Annotated[float, typer.Option(help="1.5, 3 or 7 tesla.")] = 3.0,
    head: Annotated[bool, typer.Option(help="Add skull, muscle and fat.")] = False,
    lesions: Annotated[int, typer.Option(help="Lesions of white matter in each subject, up to 500.", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="Seed; more subjects leave the first ones as they were.", min=0)] = 0,
) -> None:
    """Write synthetic brains with quantitative maps, BIDS names: what `sequence_contrast` pretrains on."""
    from rich.progress import Progress

    from monai_cl.phantoms import write_brain_maps

    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("subjects", total=subjects)
        options: dict[str, Any] = {"spacing": spacing, "field_strength": field_strength, "head": head}
        write_brain_maps(
            folder,
            subjects=subjects,
            lesions=lesions,
            seed=seed,
            progress=lambda done, total: bar.update(task, completed=done),
            **options,
        )
    console.print(f"wrote {subjects} subjects to {folder}; next:")
    command = "python -m monai.bundle run --bundle_root BUNDLE --config_file BUNDLE/configs/pretrain.yaml"
    console.print(f"{command} --dataset_dir {folder}", soft_wrap=True, markup=False, highlight=False)


@app.command()
def curate(
    study: Annotated[Path, typer.Argument(help="Datalist from `monai-cl scan`.")],
    dataset_dir: Annotated[Path | None, typer.Option(help="Folder its paths start from.")] = None,
    out: Annotated[Path | None, typer.Option(help="The datalist to write; STUDY.curated.json when left out.")] = None,
    sections: Annotated[str, typer.Option(help="Sections that pretraining reads.")] = "training+unlabelled",
    method: Annotated[str, typer.Option(help="hash, ssim, mi, embedding or every-n.")] = "hash",
    threshold: Annotated[float | None, typer.Option(help="Bits for hash (6), similarity, or step for every-n.")] = None,
    scope: Annotated[str, typer.Option(help="Compare slices within a volume, or across the dataset.")] = "volume",
    embedding: Annotated[Path | None, typer.Option(help="ONNX file, or .pt of slices, for --method embedding.")] = None,
    against: Annotated[Path | None, typer.Option(help="Datalist of fine-tuning or testing to guard.")] = None,
    on_leak: Annotated[str, typer.Option(help="refuse, drop or report.")] = "refuse",
    hold_out: Annotated[float, typer.Option(help="Share of the training patients to move to validation.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of that draw.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing, say what each threshold keeps.")] = False,
    workers: Annotated[int | None, typer.Option(help="Threads that read.", min=1)] = None,
) -> None:
    """Find duplicates, redundant slices and patients on both sides; write a filtered datalist, delete nothing."""
    from monai_cl.data.curation import curate as curate_study
    from monai_cl.data.curation.embedding import load_embedding
    from monai_cl.datalist import beside_datalist

    target = beside_datalist(study, ".curated.json") if out is None else out
    with nullcontext() if dry_run else alone_with(target):
        result = curate_study(
            study,
            target,
            dataset_dir=dataset_dir,
            sections=sections,
            method=method,
            threshold=threshold,
            scope=scope,
            embed=None if embedding is None else load_embedding(embedding),
            against=against,
            on_leak=on_leak,
            hold_out=hold_out,
            seed=seed,
            dry_run=dry_run,
            workers=workers,
            console=console,
        )
    console.print(result.table())
    console.print(result.threshold_table())
    for leak in result.leaks[:20]:
        console.print(f"shared: {leak}", markup=False, highlight=False, soft_wrap=True)
    if result.datalist:
        console.print(f"wrote {result.datalist} and {result.table_file}; no file was deleted")


@app.command()
def card(
    bundles: Annotated[list[Path], typer.Argument(help="Bundle folders.")],
    check: Annotated[bool, typer.Option("--check", help="Write nothing; say whether they are up to date.")] = False,
) -> None:
    """Write the model cards of bundles from their prose and their records (`monai-cl report --record`)."""
    _cards(bundles, check=check)


def _cards(bundles: list[Path], *, check: bool) -> None:
    from monai_cl.report.card import check_card, write_card

    if not check:
        for bundle in bundles:
            console.print(f"wrote {write_card(bundle)}")
        return
    stale = {bundle: found for bundle in bundles if (found := check_card(bundle))}
    for bundle, found in stale.items():
        console.print(found, markup=False, highlight=False, soft_wrap=True)
        console.print(f"the card of {bundle} differs from its records: monai-cl card {bundle}")
    raise typer.Exit(code=1 if stale else 0)


@app.command()
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
) -> None:
    """Write one HTML page about runs; or a record of their results, or model cards from records."""
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
            )
        console.print(f"wrote {page}")


@app.command(cls=_WithKeys)
def curve(
    config: Annotated[Path, typer.Argument(help="YAML file; tutorials/curve_hippocampus.yaml is one to start from.")],
    processes: Annotated[int, typer.Option(help="Runs at the same time; they share the cores.", min=1)] = 1,
    threads: Annotated[
        int | None, typer.Option(help="Threads of each run; its share of the cores when left out.", min=1)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Another output folder than that of the file.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and say what would run.")] = False,
) -> None:
    """Measure what pretraining is worth: fine-tune with few and many labels from each start, with intervals.

    tutorials/curve_hippocampus.yaml says of each what it does. The same command goes on where it was stopped; further
    seeds, budgets, arms and evaluation sets add only what is new.
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


@app.command()
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
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    console.print(f"wrote {path}")


@recipes_app.callback()
def recipes(context: typer.Context) -> None:
    """List the recipes."""
    from monai_cl import recipes as gallery

    if context.invoked_subcommand is None:
        table = Table("recipe", "purpose", "parameters")
        for name in gallery.names():
            table.add_row(name, gallery.purpose(name), ", ".join(gallery.parameters(name)))
        console.print(table)


@recipes_app.command()
def preview(
    name: Annotated[str, typer.Argument(help="A recipe, or the path of a YAML file.")],
    image: Annotated[Path, typer.Option(help="A scan: NIfTI file or folder of a DICOM series.")],
    out: Annotated[Path, typer.Option(help="The PNG to write.")] = Path("preview.png"),
    options: Annotated[str, typer.Option(help="Parameters of the recipe, as in --recipe_options.")] = "{}",
) -> None:
    """Draw a scan before and after a recipe, for example with --options '{spacing: 2.0}'."""
    from monai_cl import recipes as gallery
    from monai_cl.report.recipe_preview import preview as draw

    console.print(f"wrote {draw(name, image, out, **gallery.parse_options(options))}")


@bundles_app.callback()
def bundles(context: typer.Context) -> None:
    """List the bundles."""
    from monai_cl import bundles as shelf

    if context.invoked_subcommand is None:
        table = Table("bundle", "folder")
        for name in shelf.names():
            table.add_row(name, str(shelf.path(name)))
        console.print(table)


@bundles_app.command()
def copy(
    name: Annotated[str, typer.Argument(help="The bundle.")],
    destination: Annotated[Path, typer.Argument(help="Folder to make.")],
) -> None:
    """Copy a bundle to a folder of your own, to train in and to edit."""
    from monai_cl import bundles as shelf

    console.print(f"wrote {shelf.copy(name, destination)}")


def main() -> None:
    """Run the command line; what users can mend is told in one line, without a traceback."""
    listen()
    try:
        app()
    except SystemExit as end:
        code = code_after(end)  # typer has made it 130, whatever the signal
        raise end if code is None else SystemExit(code) from None
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        told = in_words(error)
        Console(stderr=True).print(f"error: {told}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
