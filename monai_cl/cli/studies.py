"""Verbs on studies: list, prepare and curate scans, look up ids, make synthetic brains."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from monai_cl._locks import alone_with
from monai_cl.cli._console import console


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
    """List the usable volumes of folders in a MONAI datalist, with the reason for every file left out.

    Beside the datalist lie its table of what was left out, .left_out.csv, and its page of pictures, .html. The scans
    stay as they are.
    """
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
    console.print(result.next_command, soft_wrap=True)


def split(
    name: Annotated[str, typer.Argument(help="acdc (hearts) or la (left atria).")],
    folder: Annotated[Path, typer.Argument(help="The public data as it was downloaded.")],
    out: Annotated[Path | None, typer.Option(help="The datalist to write; NAME.json when left out.")] = None,
) -> None:
    """List public data by its published split, the labelled cases of the papers first."""
    from monai_cl.intake import protocols

    target = Path(f"{name}.json") if out is None else out
    with alone_with(target):
        counts = protocols.write_split(name, folder, target)
    volumes = ", ".join(f"{number} in {section}" for section, number in counts.items())
    console.print(f"wrote {target}: {volumes} volumes", markup=False, highlight=False)


def cache(
    datalist: Annotated[Path, typer.Argument(help="The study, from `monai-cl scan`.")],
    recipe: Annotated[str, typer.Option(help="How to prepare the volumes: see `monai-cl recipes`.")],
    out: Annotated[Path | None, typer.Option(help="The cache; DATALIST_cache when left out.")] = None,
    options: Annotated[str, typer.Option(help="Parameters of the recipe, as in --recipe_options.")] = "{}",
    dataset_dir: Annotated[Path | None, typer.Option(help="Folder that paths in the datalist start from.")] = None,
    dtype: Annotated[str, typer.Option(help="int16 (scaled), float16 or float32.")] = "int16",
    storage: Annotated[str, typer.Option(help="npy, or blosc2 (smaller, slower; the extra `cache`).")] = "npy",
    max_faults: Annotated[float, typer.Option(help="Share of the volumes that may be unreadable.")] = 0.01,
    processes: Annotated[
        int | None, typer.Option(help="Processes that prepare; one per core when left out.", min=0)
    ] = None,
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
    console.print(f"next: give it as the datalist: {result.next_command}", soft_wrap=True)


def curate(
    study: Annotated[Path, typer.Argument(help="Datalist from `monai-cl scan`.")],
    dataset_dir: Annotated[Path | None, typer.Option(help="Folder its paths start from.")] = None,
    out: Annotated[Path | None, typer.Option(help="The datalist to write; STUDY.curated.json when left out.")] = None,
    sections: Annotated[str, typer.Option(help="Sections that pretraining reads.")] = "training+unlabelled",
    method: Annotated[str, typer.Option(help="hash, ssim, mi, embedding or every-n.")] = "hash",
    threshold: Annotated[float | None, typer.Option(help="Bits for hash (6), similarity, or step for every-n.")] = None,
    scope: Annotated[
        str, typer.Option(help="Compare slices within a volume, or across the dataset: volume or dataset.")
    ] = "volume",
    embedding: Annotated[Path | None, typer.Option(help="ONNX file, or .pt of slices, for --method embedding.")] = None,
    against: Annotated[Path | None, typer.Option(help="Datalist of fine-tuning or testing to guard.")] = None,
    on_leak: Annotated[
        str, typer.Option(help="Where a patient or volume is held out, too: refuse, drop or report.")
    ] = "refuse",
    hold_out: Annotated[float, typer.Option(help="Share of the training patients to move to validation.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of that draw.")] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write nothing, report what each threshold keeps.")
    ] = False,
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
        console.print(f"shared: {leak}", soft_wrap=True)
    if result.datalist:
        console.print(f"wrote {result.datalist} and {result.table_file}; no file was deleted")


def whose(
    what: Annotated[str, typer.Argument(help="An id; a list, table or page with ids; a mask, or a folder of masks.")],
) -> None:
    """Look up the file behind each id and the scan behind each mask; works for the owner of the key alone."""
    from monai_cl.privacy.lookup import look_up

    result = look_up(what)
    if not console.is_terminal:  # for another program: a line each, however long
        for name, file in result:
            typer.echo(f"{name}\t{file}".encode("utf-8", "surrogateescape"))
        return
    table = Table("id or mask", "file")
    for name, file in result:
        table.add_row(*(Text(part.encode("utf-8", "replace").decode(), overflow="fold") for part in (name, file)))
    console.print(table)


def phantom(
    folder: Annotated[Path, typer.Argument(help="Folder to make; it must not hold anything yet.")],
    subjects: Annotated[int, typer.Option(help="Number of subjects.", min=1)] = 16,
    sequences: Annotated[
        str, typer.Option(help="Images of these sequences with masks instead of maps, as T1w+T2w+FLAIR.")
    ] = "",
    labelled: Annotated[int, typer.Option(help="With sequences: subjects with a mask, to train on.", min=0)] = 4,
    test: Annotated[int, typer.Option(help="With sequences: subjects with a mask, to evaluate on.", min=0)] = 4,
    missing: Annotated[float, typer.Option(help="With sequences: probability that a subject lacks one.")] = 0.3,
    patients: Annotated[float, typer.Option(help="With sequences: share of subjects with lesions.")] = 0.5,
    spacing: Annotated[float, typer.Option(help="Voxel size in mm, 1 to 12.")] = 1.0,
    field_strength: Annotated[float, typer.Option(help="1.5, 3 or 7 tesla.")] = 3.0,
    head: Annotated[bool, typer.Option(help="Add skull, muscle and fat.")] = False,
    lesions: Annotated[
        int, typer.Option(help="Lesions of each subject, up to 500; with sequences half to all in patients.", min=0)
    ] = 0,
    seed: Annotated[int, typer.Option(help="Seed; more subjects leave the first ones as they were.", min=0)] = 0,
) -> None:
    """Write synthetic brains: quantitative maps with BIDS names, or with --sequences a study of images and masks.

    `sequence_contrast` pretrains on the maps. A study has healthy and patients of whom some lack sequences, and a
    datalist for `missing_sequences`, `cases_and_controls` and every other bundle (tutorials/curve_studies.yaml).
    """
    from rich.progress import Progress

    from monai_cl.phantoms import write_brain_maps, write_sequence_study

    if sequences and labelled + test > subjects:
        raise ValueError(
            f"labelled and test must be at most the number of subjects together, got {labelled} and {test} of "
            f"{subjects}; raise --subjects"
        )
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("subjects", total=subjects)
        alike: dict[str, Any] = {
            "spacing": spacing, "field_strength": field_strength, "head": head, "lesions": lesions, "seed": seed,
            "progress": lambda done, total: bar.update(task, completed=done),
        }  # fmt: skip
        if sequences:
            write_sequence_study(
                folder, sequences=sequences.split("+"), missing=missing, patients=patients,
                labelled=labelled, test=test, unlabelled=subjects - labelled - test, **alike,
            )  # fmt: skip
        else:
            write_brain_maps(folder, subjects=subjects, **alike)
    console.print(f"wrote {subjects} subjects to {folder}; next:")
    console.print(f"monai-cl bundles copy {'missing_sequences' if sequences else 'sequence_contrast'} my_bundle")
    command = "python -m monai.bundle run --bundle_root my_bundle --config_file my_bundle/configs/pretrain.yaml"
    console.print(f"{command} --dataset_dir {folder}", soft_wrap=True)
