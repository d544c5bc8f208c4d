"""Verbs on what comes with the package: recipes and bundles."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from monai_cl.cli._console import console


def recipes(context: typer.Context) -> None:
    """List the recipes."""
    from monai_cl import recipes as gallery

    if context.invoked_subcommand is None:
        table = Table("recipe", "purpose", "parameters")
        for name in gallery.names():
            table.add_row(name, gallery.purpose(name), ", ".join(gallery.parameters(name)))
        console.print(table)


def preview(
    name: Annotated[str, typer.Argument(help="One of `monai-cl recipes`, or the path of a YAML file.")],
    image: Annotated[Path, typer.Option(help="A scan: NIfTI file or folder of a DICOM series.")],
    out: Annotated[Path, typer.Option(help="The PNG to write.")] = Path("preview.png"),
    options: Annotated[str, typer.Option(help="Parameters of the recipe, as in --recipe_options.")] = "{}",
) -> None:
    """Draw a scan before and after a recipe, for example with --options '{spacing: 2.0}'."""
    from monai_cl import recipes as gallery
    from monai_cl.report.recipe_preview import preview as draw

    console.print(f"wrote {draw(name, image, out, **gallery.parse_options(options))}")


def bundles(context: typer.Context) -> None:
    """List the bundles, and the weights that come with them."""
    from monai_cl import bundles as shelf
    from monai_cl.weights import shipped_weights

    if context.invoked_subcommand is None:
        table = Table("bundle", "folder", "shipped weights")
        every = shipped_weights()
        for name in shelf.names():
            bundle = shelf.path(name)
            inside = [str(one) for one in every if one.path.is_relative_to(bundle.resolve())]
            table.add_row(name, str(bundle), "\n".join(inside) or "none")
        console.print(table)


def copy(
    name: Annotated[str, typer.Argument(help="One of `monai-cl bundles`.")],
    destination: Annotated[Path, typer.Argument(help="Folder to make.")],
) -> None:
    """Copy a bundle to a folder of your own, to train in and to edit."""
    from monai_cl import bundles as shelf

    console.print(f"wrote {shelf.copy(name, destination)}")
