"""Draw a picture of every command that prints, from its own output on phantoms: ``python tutorials/images/verbs.py``.

Each verb runs in a scratch folder on synthetic scans, without a network. Its console is saved as an SVG with an opaque
ground, which reads the same on a light and a dark page. ``verbs.py scan plan`` draws only these two.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

from rich.terminal_theme import TerminalTheme
from typer.testing import CliRunner

HERE = Path(__file__).parent
SVG = """<svg viewBox="0 0 {frame_width} {frame_height}" xmlns="http://www.w3.org/2000/svg" role="img"
  aria-label="{aria}">
<style>
.{unique_id}-matrix {{
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; white-space: pre;
}}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>{lines}</defs>
<rect x="1" y="1" width="{inner_width}" height="{inner_height}" rx="8" fill="#fbfbf9" stroke="#b8b8b0"/>
<g transform="translate(12, 12)" clip-path="url(#{unique_id}-clip-terminal)">{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""
# dark text on a light ground; the eight colours of a terminal in the shades of Okabe and Ito that have contrast on it
DARK = [(32, 32, 32), (176, 72, 0), (0, 110, 80), (140, 100, 0)]
DARK += [(0, 90, 150), (150, 70, 120), (0, 110, 140), (90, 90, 90)]
LIGHT = TerminalTheme((251, 251, 249), (32, 32, 32), DARK, DARK)
WIDTH = 100  # columns
CELL = (12.2, 24.4)  # width and height of a character in Rich's SVG
EDGE = 12


class Desk:
    """A scratch folder with phantoms, in which verbs run and are recorded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def show(self, line: str) -> None:
        """Begin a picture with a command."""
        from monai_cl.cli import console

        console.record, console.width, console.file, console._force_terminal = True, WIDTH, io.StringIO(), True
        plain = type(console).print
        console.print = lambda *args, soft_wrap=False, **kwargs: plain(console, *args, **kwargs)  # wrapped, not cut
        console.export_text()  # empty the record
        console.print(f"$ monai-cl {line}", style="bold")

    def run(self, line: str) -> None:
        """Run ``monai-cl LINE``; it and its output enter the picture."""
        from monai_cl.cli import app

        self.show(line)
        result = CliRunner().invoke(app, shlex.split(line), catch_exceptions=False)
        assert result.exit_code == 0, (line, result.output)


def save_console(name: str) -> None:
    """Write what the console holds as ``verb_NAME.svg``, without Rich's window and fonts from the network."""
    from monai_cl.cli import console

    lines = len(console.export_text(clear=False).splitlines())
    width, height = WIDTH * CELL[0] + 2 * EDGE, lines * CELL[1] + 2 * EDGE
    sizes = {"aria": f"Output of monai-cl {name}", "frame_width": width, "frame_height": height}
    sizes |= {"inner_width": width - 2, "inner_height": height - 2}
    template = SVG
    for key, value in sizes.items():
        template = template.replace(f"{{{key}}}", value if isinstance(value, str) else f"{value:.0f}")
    svg = console.export_svg(title="", theme=LIGHT, code_format=template, unique_id=name, clear=True)
    (HERE / f"verb_{name}.svg").write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n", "utf-8")
    sys.stdout.write(f"verb_{name}.svg: {lines} lines, {len(svg) / 1000:.0f} kB\n")


def scans(desk: Desk) -> None:
    """Four abdominal CTs with their labels, two without, a copy, a damaged file and a text."""
    from monai_cl.phantoms import abdomen_ct_phantom
    from monai_cl.phantoms.volume import write_nifti

    root = desk.folder / "scans"
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    for number in range(6):
        volume = abdomen_ct_phantom(number, shape=(48, 40, 24), spacing=(8.0, 8.0, 10.0))
        write_nifti(root / f"images/ct_{number:03}.nii.gz", volume.image[0], volume.affine)
        if number < 4:
            write_nifti(root / f"labels/ct_{number:03}.nii.gz", volume.label[0], volume.affine)
    (root / "images/ct_900.nii.gz").write_bytes((root / "images/ct_000.nii.gz").read_bytes()[:4000])
    (root / "images/ct_901.nii.gz").write_bytes((root / "images/ct_005.nii.gz").read_bytes())
    (root / "images/notes.txt").write_text("no scan\n", "utf-8")


def public_hearts(desk: Desk) -> None:
    """Empty files under the names of the public hearts, of which a split reads the names alone."""
    from monai_cl.intake.protocols import published_split

    for case in (case for cases in published_split("acdc").values() for case in cases):
        for name in (f"{case}_frame{frame}{end}.nii.gz" for frame in ("01", "10") for end in ("", "_gt")):
            path = desk.folder / "ACDC" / case / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


def plan(desk: Desk) -> None:
    """The table of a plan with the figures of one that was measured on a CPU; a new measurement would give others."""
    from monai_cl.cli import console
    from monai_cl.engine.planning.advice import Advice
    from monai_cl.engine.planning.flight_plan import FlightPlan

    figures = json.loads((HERE / "plan.json").read_text("utf-8"))
    desk.show("plan my/configs/pretrain.yaml my/configs/small.yaml --bundle_root my --datalist study.json")
    console.print(FlightPlan(**{**figures, "advice": Advice(**figures["advice"])}).table())


# one after another, since later ones need the files of earlier ones
LINES = {
    "scan": "scan scans --out study.json",
    "whose": "whose study.json",
    "curate": "curate study.json --dataset-dir scans",
    "cache": "cache study.json --dataset-dir scans --recipe ct_abdomen --processes 0",
    "nnunet": "nnunet study.json --dataset-dir scans --out nnUNet_raw",
    "split": "split acdc ACDC",
    "phantom": "phantom maps --subjects 2 --spacing 6",
    "bundles": "bundles",
    "recipes": "recipes",
}


def main(names: list[str]) -> None:
    """Draw the pictures of some verbs, or of all."""
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["MONAI_CL_KEY"] = str(Path(scratch) / "key")
        (Path(scratch) / "key").write_text("00" * 32 + "\n", "utf-8")
        (Path(scratch) / "key").chmod(0o600)
        os.chdir(scratch)
        Path("bundles").symlink_to(HERE.parents[1] / "bundles")
        desk = Desk(Path(scratch))
        scans(desk)
        public_hearts(desk)
        for name, line in LINES.items():
            if not names or name in {"scan", *names}:  # the others need the list of the scan
                with patch("monai_cl.bundles.path", lambda bundle: Path("bundles") / bundle):  # no folder of a user
                    desk.run(line)
                save_console(name)
        if not names or "plan" in names:
            plan(desk)
            save_console("plan")


if __name__ == "__main__":
    main(sys.argv[1:])
