"""HTML page with the nearest cases of each volume, or region, by the features of a network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from monai_cl.engine.embedding import WHOLE, Embeddings
from monai_cl.report._page import rendered, write_page
from monai_cl.report.study_page import Group, Tile
from monai_cl.report.tables import Table

_NEAREST = 4
_EDGE = 160  # pixels of a picture
_MOST = 100  # rows of pictures, so that the page of a large study opens


def write_nearest_page(found: Embeddings, out: str | Path, *, title: str = "Nearest cases") -> Path:
    """Write the page: a row of pictures for each volume or region, the nearest of other patients behind it.

    Args:
        found: The vectors.
        out: The page.
        title: Its title.

    Returns:
        Its path.
    """
    values, number = found.standardised(), len(found.cases)
    shown = range(0, number, -(-number // _MOST))
    groups = [Group(_named(found, index), _tiles(found, index, values @ values[index])) for index in shown]
    page = rendered(
        "nearest.html.j2",
        title=title,
        summary=f"{len(found.cases)} vectors of {found.vectors.shape[1]} numbers, of {len(set(found.subjects))} "
        "patients; cosine of standardised features. It shows what the network takes as similar, rightly or not."
        + (f" Pictures of {len(shown)} of them; the table has all." if len(shown) < number else ""),
        table=_table(found, values),
        groups=groups,
    )
    return write_page(out, page)


def nearest(found: Embeddings, index: int, row: NDArray[np.float64]) -> list[int]:
    """Most similar vector of each other patient, best first, within the same region."""
    chosen: dict[str, int] = {}
    for other in np.argsort(-row):
        same = found.regions[other] == found.regions[index]
        if same and found.subjects[other] != found.subjects[index]:
            chosen.setdefault(found.subjects[other], int(other))
    return list(chosen.values())[:_NEAREST]


def _tiles(found: Embeddings, index: int, row: NDArray[np.float64]) -> tuple[Tile, ...]:
    places = [index, *nearest(found, index, row)]
    return tuple(
        Tile(
            source=_picture(found.pictures[place]) if found.pictures else "",
            alt=f"Slice of {_named(found, place)}",
            title="this one" if place == index else f"cosine {row[place]:.2f}",
            geometry="" if found.regions[place] == WHOLE else f"region {found.regions[place]}",
            subject="",
            place=found.cases[place],
            remarks=(),
        )
        for place in places
    )


def _table(found: Embeddings, values: NDArray[np.float64]) -> Table:
    rows = []
    for index in range(len(found.cases)):
        row = values @ values[index]
        near = nearest(found, index, row)
        neighbours: Sequence[str] = [f"{found.cases[other]} ({row[other]:.2f})" for other in near]
        rows.append((_named(found, index), ", ".join(neighbours) or "no other patient"))
    return Table("Nearest cases of other patients, with the cosine", ("case", "nearest"), tuple(rows))


def _named(found: Embeddings, index: int) -> str:
    region = found.regions[index]
    return found.cases[index] + ("" if region == WHOLE else f", region {region}")


def _picture(plane: NDArray[np.float32]) -> str:
    values = (np.clip(plane, 0, 1) * 255).astype(np.uint8)
    image = Image.fromarray(np.flipud(values.T))
    image.thumbnail((_EDGE, _EDGE))
    stream = BytesIO()
    image.save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
