"""Verbs that hand networks and data over to other programs: export, embed, nnunet."""

from pathlib import Path
from typing import Annotated

import typer

from monai_cl.cli._console import console

_CONFIGS = typer.Argument(help="Config files and overrides as for `monai.bundle run`, such as configs/inference.yaml.")


def export(
    arguments: Annotated[list[str], _CONFIGS],
    weights: Annotated[Path, typer.Option(help="File of weights that fits the network of the configuration.")],
    out: Annotated[Path, typer.Option(help="File to write: .safetensors, .pth for nnU-Net, .onnx or .pt2 (encoder).")],
    run: Annotated[
        Path | None, typer.Option(help="Run on random anatomies, to ship in a bundle's models/shipped.")
    ] = None,
) -> None:
    """Write a network for other programs: safetensors, nnU-Net's fine-tuning, or its encoder as a program.

    With --run, and the configs and overrides of that run, write weights that come with a bundle.
    """
    from monai_cl.engine.exporting import export_run
    from monai_cl.engine.shipping import ship_run

    files, overrides = _split(arguments)
    if run is None:
        export_run(files, weights, out, **overrides)
    else:
        console.print(f"made again by: {ship_run(files, weights, run, out, **overrides)['command']}")
    console.print(f"wrote {out}")


def embed(
    arguments: Annotated[list[str], _CONFIGS],
    weights: Annotated[Path, typer.Option(help="File of weights, ours or published.")],
    out: Annotated[Path, typer.Option(help="Folder for the vectors and the page.")] = Path("embeddings"),
    regions: Annotated[bool, typer.Option("--regions", help="A vector for each class of the labels, too.")] = False,
) -> None:
    """Make one vector of each volume, or region: a table, an array, and a page with the nearest cases."""
    from monai_cl.engine.embedding import embed_run
    from monai_cl.report.nearest_page import write_nearest_page

    files, overrides = _split(arguments)
    result = embed_run(files, weights, regions=regions, **overrides)
    result.write(out)
    page = write_nearest_page(result, out / "nearest.html")
    console.print(f"wrote {out / 'embeddings.npz'}, {out / 'embeddings.csv'} and {page}")


def nnunet(
    datalist: Annotated[Path, typer.Argument(help="Datalist from `monai-cl scan`.")],
    out: Annotated[Path, typer.Option(help="Folder nnUNet_raw, in which the data set is made.")],
    number: Annotated[int, typer.Option(help="Number of the data set.", min=1, max=999)] = 501,
    name: Annotated[str, typer.Option(help="Name of the data set.")] = "monai_cl",
    dataset_dir: Annotated[Path | None, typer.Option(help="Folder that paths of the datalist start from.")] = None,
    modality: Annotated[str | None, typer.Option(help="CT or MR, one for each channel joined by commas.")] = None,
    ignore_index: Annotated[int | None, typer.Option(help="Label of voxels that do not count.")] = None,
) -> None:
    """Write the labelled volumes of a datalist as a raw data folder of nnU-Net, under the names of the datalist."""
    from monai_cl.data.nnunet_folder import write_nnunet_folder

    folder = write_nnunet_folder(
        datalist, out, number=number, name=name, dataset_dir=dataset_dir, modality=modality, ignore_index=ignore_index
    )
    console.print(f"wrote {folder}")


def _split(arguments: list[str]) -> tuple[list[str], dict[str, object]]:
    from monai_cl.bundles import split_command

    return split_command(arguments)
