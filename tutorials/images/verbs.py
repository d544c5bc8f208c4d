"""Draw a picture of every command from its own output on phantoms: ``python tutorials/images/verbs.py``.

Each verb runs in a scratch folder on synthetic scans, without a network. Its console is saved as an SVG, and a page
that it writes as a PNG, with an opaque ground, which reads the same on a light and a dark page. ``verbs.py scan plan``
draws only these two. Pages need Chromium, and ``pull`` and ``push`` Orthanc; without them their pictures stay as they
are.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from unittest.mock import patch

import verb_data
from PIL import Image
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
PAGE = 960  # pixels, the width of a page
CELL = (12.2, 24.4)  # width and height of a character in Rich's SVG
EDGE = 12


class Desk:
    """A recorder of verbs, which run in the folder at hand."""

    def __init__(self) -> None:
        self.shown: dict[str, str] = {}  # in place of a word of the command, such as an address of this machine

    def show(self, line: str) -> None:
        """Enter a command into the picture."""
        from monai_cl.cli import console

        console.record, console.width, console.file, console._force_terminal = True, WIDTH, io.StringIO(), True
        plain = type(console).print
        console.print = lambda *args, soft_wrap=False, **kwargs: plain(console, *args, **kwargs)  # wrapped, not cut
        words = [self.shown.get(word, word) for word in line.split(" ")]
        console.print(f"$ monai-cl {' '.join(words)}", style="bold", markup=False)

    def run(self, line: str, *, code: int = 0) -> None:
        """Run ``monai-cl LINE``; it and its output enter the picture."""
        from monai_cl.cli import app

        self.show(line)
        result = CliRunner().invoke(app, shlex.split(line), catch_exceptions=False)
        assert result.exit_code == code, (line, result.output)


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


def save_page(name: str, page: Path, *, height: int) -> None:
    """Write the top of a page as ``verb_NAME.png``; without Chromium the picture stays as it is."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        sys.stdout.write(f"verb_{name}.png: kept, no Chromium on this machine\n")
        return
    shot = page.with_suffix(".png").absolute()
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={shot}.profile"]
    options += [f"--window-size={PAGE},{height}", f"--screenshot={shot}"]
    subprocess.run([browser, *options, page.absolute().as_uri()], check=True, capture_output=True, timeout=300)
    target = HERE / f"verb_{name}.png"
    with Image.open(shot) as image:
        image.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(target, optimize=True)
    sys.stdout.write(f"{target.name}: {target.stat().st_size / 1000:.0f} kB\n")


def plan(desk: Desk) -> None:
    """The table of a plan with the figures of one that was measured on a CPU; a new measurement would give others."""
    from monai_cl.cli import console
    from monai_cl.engine.planning.advice import Advice
    from monai_cl.engine.planning.flight_plan import FlightPlan

    figures = json.loads((HERE / "plan.json").read_text("utf-8"))
    desk.show("plan my/configs/pretrain.yaml my/configs/small.yaml --bundle_root my --datalist study.json")
    console.print(FlightPlan(**{**figures, "advice": Advice(**figures["advice"])}).table())
    save_console("plan")


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


def lists(desk: Desk, names: Collection[str]) -> None:
    """Draw the verbs of :data:`LINES` among the names; the others need the list of the scan."""
    verb_data.scans()
    verb_data.public_hearts()
    for name, line in LINES.items():
        if name in {"scan", *names}:
            with patch("monai_cl.bundles.path", lambda bundle: Path("bundles") / bundle):  # no folder of a user
                desk.run(line)
            save_console(name)


def invariance(desk: Desk) -> None:
    """Draw the tables of points looked for in other sequences."""
    verb_data.sequences()
    desk.run("invariance invariance.yaml")
    save_console("invariance")


def export(desk: Desk) -> None:
    """Draw the export of a network of random weights."""
    verb_data.random_weights()
    given = "bundles/volume_contrast/configs/inference.yaml --init_filters 8 --recipe small_mr --weights weights.pt"
    desk.run(f"export {given} --roi_size [48,48,24] --out_channels 2 --out network.safetensors")
    save_console("export")


def runs(desk: Desk) -> None:
    """Draw the verbs on a run of a few steps: embed, report and card."""
    verb_data.tiny_run()
    given = "my/configs/inference.yaml my/configs/small.yaml --roi_size [24,32,24] --recipe small_mr --out_channels 4"
    given += " --weights my/models/pretrained.pt --dataset_dir brains --datalist brains/dataset.json"
    desk.run(f"embed {given}")
    save_page("embed", Path("embeddings/nearest.html"), height=800)
    desk.run('report my --no-neighbours --title "Synthetic brains, a few steps of training"')
    save_page("report", Path("report.html"), height=800)
    forget()
    desk.run('report my/runs/evaluate --record my/docs/records/brains.json --title "Synthetic brains"')
    desk.run("card my --check", code=1)
    desk.run("card my")
    save_console("card")


def archive(desk: Desk) -> None:
    """Draw pull and push, each a second time, too, which changes nothing."""
    with verb_data.archive() as address:
        if not address:
            sys.stdout.write("verb_pull.svg, verb_push.svg: kept, no Orthanc on this machine\n")
            return
        desk.shown[address] = "https://pacs.example/dicom-web"
        for name, line in (("pull", f"pull {address} clinic --modality MR"), ("push", f"push {address} masks")):
            for _ in range(2):
                desk.run(line)
            save_console(name)


def forget() -> None:
    """Empty the picture."""
    from monai_cl.cli import console

    console.export_text()


GROUPS: Mapping[Callable[..., None], tuple[str, ...]] = {
    invariance: ("invariance",),
    archive: ("pull", "push"),
    plan: ("plan",),
    export: ("export",),
    runs: ("embed", "report", "card"),
}


def main(names: Collection[str]) -> None:
    """Draw the pictures of some verbs, or of all."""
    names = names or [*LINES, *(name for group in GROUPS.values() for name in group)]
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["MONAI_CL_KEY"] = str(Path(scratch) / "key")
        (Path(scratch) / "key").write_text("00" * 32 + "\n", "utf-8")
        (Path(scratch) / "key").chmod(0o600)
        os.chdir(scratch)
        Path("bundles").symlink_to(HERE.parents[1] / "bundles")
        desk = Desk()
        if set(names) & set(LINES):
            lists(desk, names)
        for draw, drawn in GROUPS.items():
            if set(names) & set(drawn):
                draw(desk)


if __name__ == "__main__":
    main(sys.argv[1:])
