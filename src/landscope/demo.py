"""The demo: two real networks, with and without skip connections, from training to the page."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from landscope import directions, draw, runs, zoo
from landscope.analysis.shape import Shape, shape
from landscope.landscape import Landscape
from landscope.progress import bar
from landscope.sampling import Grid
from landscope.slices import Line, Plane

RESOLUTION = 31
NETWORKS = {
    "digits_resnet32": "32 layers, with skip connections",
    "digits_resnet32_noshort": "32 layers, without skip connections",
}
_AXES = ("random direction x", "random direction y")


@dataclass(frozen=True, eq=False)
class Demo:
    """What the demo made.

    Args:
        landscapes: title -> its plane.
        shapes: title -> the plane in numbers.
        files: pictures and the page.
    """

    landscapes: dict[str, Landscape]
    shapes: dict[str, Shape]
    files: list[Path]


def demo(
    out: str | os.PathLike[str],
    *,
    resolution: int = RESOLUTION,
    seed: int = 0,
    tell: Callable[[str], None] | None = None,
) -> Demo:
    """Train two networks on digits, scan a plane and a line of each, and draw them.

    Args:
        out: the folder; a folder in it for each network. When it is there already the scans go on
            where they stopped.
        resolution: points an axis of the planes.
        seed: of the directions.
        tell: called with a sentence at each step, and a progress bar is shown; silent if None.

    Cost: about a minute on two cores.
    """
    folder = runs.made(out)
    say = tell or (lambda _: None)
    planes: dict[str, Landscape] = {}
    lines: dict[str, Landscape] = {}
    for name, title in NETWORKS.items():
        say(f"{title}: training on scikit-learn's digits (kept for the next time)")
        objective = zoo.objective(name, test=True)
        dx, dy = directions.random(objective.center, seed=seed)
        plane = Plane(objective.center, dx, dy, labels=_AXES)
        line = Line(objective.center, dx, labels=_AXES[:1])
        asked = {"command": "demo", "network": name, "seed": seed, "resolution": resolution}
        for slice_, grid, kept, found in (
            (plane, Grid(resolution), folder / name, planes),
            (line, Grid(51), folder / f"{name}_line", lines),
        ):
            with bar(title) if tell else _silent() as progress:
                found[title] = runs.perform(
                    objective, slice_, grid, kept, asked=asked, title=title, progress=progress
                )
    say("drawing")
    files = _pictures(folder, list(planes.values()), list(lines.values()))
    return Demo(planes, {title: shape(land) for title, land in planes.items()}, files)


def _pictures(folder: Path, planes: list[Landscape], lines: list[Landscape]) -> list[Path]:
    files = []
    for kind, lands in (("surface", planes), ("filled", planes), ("contour", planes),
                        ("heatmap", planes), ("line", lines)):  # fmt: skip
        figure = draw.side_by_side(lands, kind=kind)
        files.append(draw.save(figure, folder / f"{kind}.png"))
    title = "Loss of two networks on handwritten digits, with and without skip connections"
    return [*files, draw.page(planes, folder / "page.html", title=title)]


def _silent() -> contextlib.nullcontext[None]:
    return contextlib.nullcontext()
