"""The demo: two real networks side by side, from training to the page.

The networks are residual networks with and without skip connections that read handwritten digits,
or an LSTM and a transformer that read Python's own sources, with the convexity of their loss.
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
# Maps of convexity cover the basin and the foot of its walls, and half of the training windows,
# which halves the time. The map of the LSTM is rugged: windows in which its gradients explode have
# most of the curvature, along directions that change within 0.05 (float64 gives the same map).
_BASIN, _SAMPLES = (-0.5, 0.5), 32


@dataclass(frozen=True)
class Exhibit:
    """The networks of a demo.

    Args:
        networks: The name in the zoo -> the title of each network.
        data: The training data, in words.
        title: The title of the page.
        convexity: The number of points per axis of the maps of convexity; 0 for no maps.
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
    """The results of a demo.

    Args:
        landscapes: Title -> plane.
        shapes: Title -> the numbers of the plane.
        files: Pictures and the page.
        convexities: Title -> map of convexity; empty for a demo without maps.
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
    announce: Callable[[str], None] | None = None,
) -> Demo:
    """Train two networks on real data, scan a plane and a line of each, and draw them.

    Args:
        out: The folder, with a folder in it for each scan; scans that were started there resume.
        sequence: Whether to show an LSTM and a transformer, with maps of the convexity of their
            loss, instead of two networks that read images.
        resolution: The number of points per axis of the planes.
        seed: The seed of the directions.
        announce: A function that is called with a sentence at each step; progress bars are shown
            then as well. None for a silent demo.

    Cost: about a minute on two cores; about three with ``sequence``.
    """
    exhibit, folder = SEQUENCES if sequence else DIGITS, run_folder.create_run(out)
    lands: dict[str, dict[str, Landscape]] = {"plane": {}, "line": {}, "convexity": {}}
    for name, title in exhibit.networks.items():
        if announce:
            announce(f"{title}: training on {exhibit.data} (cached for the next time)")
        request = {"command": "demo", "network": name, "seed": seed, "resolution": resolution}
        for scan in _plan_scans(exhibit, name, resolution, seed):
            label = f"{title}, convexity" if scan.quantities else title
            with show_bar(label) if announce else contextlib.nullcontext() as progress:
                lands[scan.kind][title] = run_scan(
                    scan.objective, make_slice(scan.request, scan.objective),
                    scan.request.make_sampler(), folder / scan.folder, request=request, title=title,
                    progress=progress, quantities=scan.quantities,
                )  # fmt: skip
    if announce:
        announce("drawing")
    files = _draw_pictures(folder, exhibit.title, *(list(kind.values()) for kind in lands.values()))
    shapes = {title: shape(land) for title, land in lands["plane"].items()}
    return Demo(lands["plane"], shapes, files, lands["convexity"])


@dataclass(frozen=True, eq=False)
class _Scan:
    kind: str
    request: ScanRequest
    objective: Objective
    folder: str
    quantities: tuple[Quantity, ...] = ()


def _plan_scans(exhibit: Exhibit, name: str, resolution: int, seed: int) -> Iterator[_Scan]:
    """Yield the scans of a network, which is trained first unless the cache has it."""
    plane = ScanRequest(
        f"zoo:{name}", ((*_SPAN, resolution),) * 2, seed=seed, arguments=("test=True",)
    )
    objective = plane.make_objective()
    yield _Scan("plane", plane, objective, name)
    yield _Scan("line", replace(plane, spans=((*_SPAN, _LINE),)), objective, f"{name}_line")
    if exhibit.convexity:  # of the training data alone: samples are drawn from one data set
        spans = ((*_BASIN, exhibit.convexity),) * 2
        request = replace(plane, spans=spans, arguments=())
        extremes = (hessian_extremes(samples=_SAMPLES, seed=seed),)
        training = request.make_objective()
        yield _Scan("convexity", request, training, f"{name}_convexity", extremes)


def _draw_pictures(
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
