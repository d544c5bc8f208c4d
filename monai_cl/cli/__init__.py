"""The command line: one function a verb, the work is elsewhere."""

import inspect
import os
import re
import sys
from typing import Any

import typer
from rich.console import Console
from typer.core import TyperCommand

from monai_cl._endings import ANSWERS, code_after, in_words, listen
from monai_cl.cli import handing, pacs, runs, shelves, studies
from monai_cl.cli._console import console

__all__ = ["app", "console", "main"]


class _WithKeys(TyperCommand):
    """A command that takes the file of a curve: its help lists the keys, read where they are checked."""

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """Write the help with the keys, whose models are loaded for it alone."""
        from monai_cl.evaluation._config import keys_in_words

        self.help = f"{self.help}\n\n{keys_in_words()}"
        super().format_help(ctx, formatter)


app = typer.Typer(
    help="Self-supervised contrastive pretraining for CT and MR. Training runs through `python -m monai.bundle run`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(runs.demo)
app.command()(studies.scan)
app.command()(studies.split)
app.command()(studies.cache)
app.command()(studies.curate)
app.command()(studies.whose)
app.command()(studies.phantom)
app.command(cls=_WithKeys, context_settings={"ignore_unknown_options": True})(runs.plan)
app.command(cls=_WithKeys)(runs.curve)
app.command()(runs.invariance)
app.command()(runs.report)
app.command()(runs.card)
app.command(context_settings={"ignore_unknown_options": True})(handing.export)
app.command(context_settings={"ignore_unknown_options": True})(handing.embed)
app.command()(handing.nnunet)
app.command()(pacs.pull)
app.command()(pacs.push)
recipes = typer.Typer(
    help="List the ready-made chains that prepare volumes, with their parameters; or draw what one does.",
    invoke_without_command=True,
)
recipes.callback()(shelves.recipes)
recipes.command()(shelves.preview)
app.add_typer(recipes, name="recipes")
bundles = typer.Typer(
    help="List the MONAI bundles that come with the package, and their weights; or copy one.",
    invoke_without_command=True,
)
bundles.callback()(shelves.bundles)
bundles.command()(shelves.copy)
app.add_typer(bundles, name="bundles")


def _filled(text: str) -> str:
    """A docstring whose paragraphs are a line each, for typer keeps the line breaks of all but the first."""
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", inspect.cleandoc(text)))


for _verb in app.registered_commands:
    _verb.help = _filled(inspect.getdoc(_verb.callback) or "")


def main() -> None:
    """Run the command line; errors that users can correct are one line, without a traceback."""
    listen()
    # threads that wait for each other sleep, for spinning makes busy cores crawl; it is read when torch is loaded
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except SystemExit as end:
        code = code_after(end)  # typer has made it 130, whatever the signal
        raise end if code is None else SystemExit(code) from None
    except ANSWERS as error:
        message = in_words(error)
        Console(stderr=True).print(f"error: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
