"""Loss and health: one small chart for each column of the histories."""

from __future__ import annotations

from collections.abc import Sequence

from monai_cl.engine.drawing import new_figure
from monai_cl.engine.health import PERCENTILES
from monai_cl.report._drawing import Picture, colours, dashes, page_style, to_svg
from monai_cl.report._folders import Run

_MEANINGS = {
    "loss": "what is minimised",
    "position_accuracy": "share of crops placed in the base they lie in",
    "embedding_std": "spread of the embeddings: near 1 they fill the sphere, 0 is collapse",
    "learning_rate": "step size of the optimiser",
    "chance_accuracy": "what guessing would give",
    "chance_error_mm": "what guessing would give",
    "position_error_mm": "distance between where a crop is placed and where it lies",
    "alignment": "squared distance between views of the same place; small is good",
    "uniformity": "how evenly embeddings fill the sphere; lower is better, 0 is collapse",
    "effective_rank": "directions that the embeddings use; 1 is collapse",
    "dead_dimensions": "share of the embedding's dimensions that never vary",
    "positive_cosine": "similarity of crops to bases that they overlap",
    "negative_cosine": "similarity of crops to bases that they do not overlap; should fall towards 0",
    "dead_pairs": "share of overlapping pairs that get no gradient: nothing pulls them together",
    "teacher_gap": "1 - cosine between student's and teacher's embeddings",
    "teacher_distance": "distance of the teacher's parameters, relative to the student's",
}
_LOW, _MEDIAN, _HIGH = (f"_p{percent}" for percent in PERCENTILES)
_BAND = f"; median, and {PERCENTILES[0]}th to {PERCENTILES[2]}th percentile"


def draw_histories(runs: Sequence[Run]) -> list[Picture]:
    """A chart for each column that any of ``runs`` recorded, the runs as lines in it.

    Percentiles of a sample are one chart: the median as a line in a band.
    """
    result = dict.fromkeys(name for run in runs for row in run.history for name in row if name != "step")
    charts = dict.fromkeys(name.removesuffix(_MEDIAN) for name in result if not name.endswith((_LOW, _HIGH)))
    names = sorted(charts, key=lambda name: name.partition(": ")[0] if ": " in name else "")
    return [_chart(runs, name, banded=name not in result) for name in names]


def _chart(runs: Sequence[Run], name: str, *, banded: bool) -> Picture:
    column = name + _MEDIAN if banded else name
    shown = [(run.name, [(r["step"], r[column]) for r in run.history if column in r], run) for run in runs]
    shown = [line for line in shown if line[1]]
    with page_style():
        figure = new_figure(3.6, 2.5)
        ax = figure.subplots()
        for index, ((label, points, run), colour) in enumerate(zip(shown, colours(len(shown)), strict=True)):
            steps, values = zip(*points, strict=True)
            marker = "o" if len(points) < 4 else ""
            ax.plot(steps, values, color=colour, linestyle=dashes(index), label=label, linewidth=1.5, marker=marker)
            if banded:
                rows = [row for row in run.history if column in row]
                low, high = ([row[name + end] for row in rows] for end in (_LOW, _HIGH))
                ax.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
        ax.set_title(name)
        ax.set_xlabel("step")
        ax.grid(True)
        if len(shown) > 1:
            ax.legend(fontsize=8)
        description = " ".join(_in_words(label, points) for label, points, _ in shown)
        svg = to_svg(figure, f"{name} against the step. {description}", f"{runs[0].kind} {name}")
    meaning = _MEANINGS.get(name.rpartition(": ")[2], "")
    return Picture(svg, f"{meaning}{_BAND if banded else ''}".lstrip("; "), wide=False)


def _in_words(label: str, points: Sequence[tuple[float, float]]) -> str:
    (first, start), (last, end) = points[0], points[-1]
    return f"{label}: {start:.4g} at step {first:.0f}, {end:.4g} at step {last:.0f}."
