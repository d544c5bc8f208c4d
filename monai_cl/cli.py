"""The command line: one function a verb, the work is elsewhere."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

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

console = Console()


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder to make; it must not hold anything yet.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Seed of the subjects and the training.")] = 0,
) -> None:
    """Pretrain, fine-tune and evaluate on made-up brains in a few minutes, beside training from scratch."""
    from monai_cl.demo import run_demo

    run_demo(out, seed=seed, console=console)


@app.command()
def scan(
    folder: Annotated[Path, typer.Argument(help="Folder with NIfTI files or DICOM series, at any depth.")],
    out: Annotated[Path, typer.Option(help="The datalist to write.")] = Path("datalist.json"),
    keep_derived: Annotated[bool, typer.Option(help="Keep DICOM series marked as derived.")] = False,
) -> None:
    """List the usable volumes of a folder in a MONAI datalist, and say why the others were left out."""
    from monai_cl.data.scan import scan as scan_folder

    result = scan_folder(folder, out, keep_derived=keep_derived, console=console)
    console.print(result.table())
    console.print(f"wrote {result.datalist} and {result.exclusions}; next:")
    console.print(result.next_command, soft_wrap=True, markup=False, highlight=False)


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
    try:
        app()
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
