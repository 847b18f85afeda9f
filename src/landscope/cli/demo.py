"""The demo: two real networks side by side, from training to the page.

Residual networks with and without skip connections that read handwritten digits; or an LSTM and a
transformer that read Python's own sources, with the convexity of their loss.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from landscope import draw
from landscope.analysis.shape_statistics import Shape, shape
from landscope.cli import run_folder
from landscope.cli.recorded_scan import run_scan
from landscope.cli.scan_request import ScanRequest
from landscope.cli.slice_options import make_slice
from landscope.curvature.convexity_map import hessian_extremes
from landscope.landscape import Landscape
from landscope.objective.objective import Objective
from landscope.objective.quantities import Quantity
from landscope.progress import show_bar

RESOLUTION = 31
_SPAN = (-1.0, 1.0)  # of planes and lines
_LINE = 51  # points
# Of the maps of convexity: the basin and the foot of its walls, over half of the training windows,
# which halves the time. The map of the LSTM is rugged: a window in which its gradients explode has
# most of the curvature, and along a direction that changes within 0.05 (it is the same in float64).
_BASIN, _SAMPLES = (-0.5, 0.5), 32


@dataclass(frozen=True)
class Exhibit:
    """What a demo shows.

    Args:
        networks: name in the zoo -> title.
        data: what they are trained on.
        title: of the page.
        convexity: points an axis of the maps of convexity; 0 makes none.
    """

    networks: Mapping[str, str]
    data: str
    title: str
    convexity: int = 0


DIGITS = Exhibit(
    {
        "digits_resnet32": "32 layers, with skip connections",
        "digits_resnet32_noshort": "32 layers, without skip connections",
    },
    "scikit-learn's digits",
    "Loss of two networks on handwritten digits, with and without skip connections",
)
SEQUENCES = Exhibit(
    {
        "text_lstm": "LSTM, one layer of 128 units",
        "text_gpt": "transformer, two blocks of width 64",
    },
    "the sources of Python's standard library",
    "Loss of an LSTM and a transformer that predict the next character of Python's own sources",
    convexity=7,
)


@dataclass(frozen=True, eq=False)
class Demo:
    """What the demo made.

    Args:
        landscapes: title -> its plane.
        shapes: title -> the plane in numbers.
        files: pictures and the page.
        convexities: title -> its map of convexity; empty where none was asked for.
    """

    landscapes: dict[str, Landscape]
    shapes: dict[str, Shape]
    files: list[Path]
    convexities: dict[str, Landscape] = field(default_factory=dict)


def demo(
    out: str | os.PathLike[str],
    *,
    sequence: bool = False,
    resolution: int = RESOLUTION,
    seed: int = 0,
    tell: Callable[[str], None] | None = None,
) -> Demo:
    """Train two networks on real data, scan a plane and a line of each, and draw them.

    Args:
        out: the folder; a folder in it for each network. When it is there already the scans go on
            where they stopped.
        sequence: an LSTM and a transformer, and where their loss is convex, in the place of two
            networks of images.
        resolution: points an axis of the planes.
        seed: of the directions.
        tell: called with a sentence at each step, and a progress bar is shown; silent if None.

    Cost: about a minute on two cores; about three with ``sequence``.
    """
    exhibit = SEQUENCES if sequence else DIGITS
    folder, say = run_folder.create_run(out), tell or (lambda _: None)
    found: dict[str, dict[str, Landscape]] = {"plane": {}, "line": {}, "convexity": {}}
    for name, title in exhibit.networks.items():
        say(f"{title}: training on {exhibit.data} (kept for the next time)")
        record = {"command": "demo", "network": name, "seed": seed, "resolution": resolution}
        for scan in _scans(exhibit, name, resolution, seed):
            shown = f"{title}, convexity" if scan.quantities else title
            with show_bar(shown) if tell else _silent() as progress:
                found[scan.kind][title] = run_scan(
                    scan.objective, make_slice(scan.request, scan.objective),
                    scan.request.make_sampler(), folder / scan.folder, request=record, title=title,
                    progress=progress, quantities=scan.quantities,
                )  # fmt: skip
    say("drawing")
    files = _pictures(folder, exhibit.title, *(list(lands.values()) for lands in found.values()))
    planes = found["plane"]
    shapes = {title: shape(land) for title, land in planes.items()}
    return Demo(planes, shapes, files, found["convexity"])


@dataclass(frozen=True, eq=False)
class _Scan:
    kind: str
    request: ScanRequest
    objective: Objective
    folder: str
    quantities: tuple[Quantity, ...] = ()


def _scans(exhibit: Exhibit, name: str, resolution: int, seed: int) -> Iterator[_Scan]:
    """Yield the scans of a network, which is trained first."""
    plane = ScanRequest(
        f"zoo:{name}", ((*_SPAN, resolution),) * 2, seed=seed, arguments=("test=True",)
    )
    objective = plane.make_objective()
    yield _Scan("plane", plane, objective, name)
    yield _Scan("line", replace(plane, spans=((*_SPAN, _LINE),)), objective, f"{name}_line")
    if exhibit.convexity:  # of the training data, from which alone samples are drawn
        spans = ((*_BASIN, exhibit.convexity),) * 2
        request = replace(plane, spans=spans, arguments=())
        extremes = (hessian_extremes(samples=_SAMPLES, seed=seed),)
        training = request.make_objective()
        yield _Scan("convexity", request, training, f"{name}_convexity", extremes)


def _pictures(
    folder: Path,
    title: str,
    planes: list[Landscape],
    lines: list[Landscape],
    maps: list[Landscape],
) -> list[Path]:
    files = []
    for kind, lands in (("surface", planes), ("filled", planes), ("contour", planes),
                        ("heatmap", planes), ("line", lines)):  # fmt: skip
        figure = draw.side_by_side_figure(lands, kind=kind)
        files.append(draw.save(figure, folder / f"{kind}.png"))
    if maps:
        files.append(draw.save(draw.convexity_figure(maps), folder / "convexity.png"))
    return [*files, draw.page(planes, folder / "page.html", title=title)]


def _silent() -> contextlib.nullcontext[None]:
    return contextlib.nullcontext()
