"""One grammar for all public functions: the order of arguments, and the type of the result."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import landscope
from landscope import draw
from landscope.analysis.representative_planes import Representativeness
from landscope.curvature.eigensolver import Extremes
from landscope.curvature.spectral_density import Spectrum
from landscope.errors import DrawError
from landscope.landscape import Landscape

POSITIONAL = (  # what is drawn, then where a file goes; at most three
    "land", "lands", "spectra", "result", "results", "picture", "quantities", "paths", "path",
)  # fmt: skip
KEYWORDS = (
    "quantity", "scale", "labels", "title", "kind", "paths", "land", "levels", "limits", "clip",
    "color", "cmap", "view", "seconds", "fps", "dpi", "size", "axes", "ax",
)  # fmt: skip
WRITERS = {"animate", "page", "save"}
NAMES = dir(draw)
SEVERAL = {name for name in NAMES if "lands" in inspect.signature(getattr(draw, name)).parameters}


@pytest.fixture
def arguments(
    bowl: Landscape, training: Landscape, descent: Any, ground: Landscape, tmp_path: Path
) -> dict[str, tuple[Any, ...]]:
    """The positional arguments of a call of each function."""
    error, convexity = bowl.data["loss"] / 100, bowl.data["accuracy"] / 100
    rich = Landscape(bowl.data.assign(loss_error=error, convexity=convexity))
    x = np.linspace(-1.0, 1.0, 5)
    curve = np.asarray(x**2 + 1)
    ends, errors = torch.tensor([-0.1, 4.0], dtype=torch.float64), torch.zeros(2)
    extremes = Extremes(ends, errors, errors, (), converged=True, products=9)
    result = Representativeness(
        x, np.stack([curve, curve]), curve, curve, None, None, x, x, extremes, 1.0, 1.0, 5
    )
    origin = np.zeros(5, dtype=int)
    spectrum = Spectrum(x, np.full(5, 0.2), x[[0, -1]], x, curve, 0.1, 5, 9, origin)
    names = "contour", "filled", "heatmap", "surface", "side_by_side_figure", "overview_figure"
    planes = dict.fromkeys(names, bowl)
    maps = dict.fromkeys(("convexity", "convexity_figure", "error_map"), rich)
    return {
        **{name: (land,) for name, land in (planes | maps).items()},
        "line": (training,),
        "loss_band": ([training, training],),
        "curvature_profiles": (result,),
        "representativeness_figure": (result,),
        "quantities_figure": (rich, ("loss", "loss_error")),
        "spectrum": (spectrum,),
        **dict.fromkeys(("path", "path_figure", "path_surface"), (ground, descent)),
        "path_errors_figure": (descent,),
        "animate": (ground, descent, tmp_path / "path.gif"),
        "page": (bowl, tmp_path / "page.html"),
        "save": (Figure(), tmp_path / "figure.png"),
    }


@pytest.mark.parametrize("name", NAMES)
def test_arguments_have_one_order(name: str) -> None:
    parameters = inspect.signature(getattr(draw, name)).parameters.values()
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    keywords = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    assert positional == sorted(positional, key=POSITIONAL.index)
    assert keywords == sorted(keywords, key=KEYWORDS.index)
    assert len(positional) + len(keywords) == len(parameters)
    assert len(positional) <= 3


@pytest.mark.parametrize("name", NAMES)
def test_the_name_says_whether_axes_a_figure_or_a_file_is_returned(
    name: str, arguments: dict[str, tuple[Any, ...]]
) -> None:
    kind = Path if name in WRITERS else Figure if name.endswith("_figure") else Axes
    drawn = getattr(draw, name)(*arguments[name])
    assert isinstance(drawn, kind)
    annotation = "Path | WebPage" if name == "page" else kind.__name__
    assert inspect.signature(getattr(draw, name)).return_annotation == annotation
    assert not isinstance(drawn, Path) or drawn.stat().st_size > 0


@pytest.mark.parametrize("name", NAMES)
def test_functions_that_return_axes_draw_into_axes_that_are_given(
    name: str, arguments: dict[str, tuple[Any, ...]]
) -> None:
    takes_axes = "ax" in inspect.signature(getattr(draw, name)).parameters
    assert takes_axes == (name not in WRITERS and not name.endswith("_figure"))
    if takes_axes:
        given = {"projection": "3d"} if "surface" in name else {}
        ax = Figure().add_subplot(**given)
        assert getattr(draw, name)(*arguments[name], ax=ax) is ax


@pytest.mark.parametrize("name", sorted(SEVERAL))
def test_one_landscape_is_drawn_as_a_list_of_one_is(
    name: str,
    arguments: dict[str, tuple[Any, ...]],
    rasterize: Callable[..., Any],
) -> None:
    function, (first, *rest) = getattr(draw, name), arguments[name]
    if name == "loss_band":
        for lands in (first[0], first[:1]):
            with pytest.raises(DrawError, match="two landscapes or more, and 1 was given"):
                function(lands)
        return
    alone, listed = function(first, *rest), function(iter([first]), *rest)
    if isinstance(alone, Path):
        assert alone.read_bytes() == listed.read_bytes()
    else:
        np.testing.assert_array_equal(rasterize(alone), rasterize(listed))


@pytest.mark.parametrize("name", sorted(SEVERAL))
def test_other_types_than_landscapes_are_refused(
    name: str, training: Landscape, tmp_path: Path
) -> None:
    rest = [tmp_path / "page.html"] if name == "page" else []
    for lands in (5, [training, "land"], training.data):
        with pytest.raises(DrawError, match=r"land is a \w+; expected a Landscape"):
            getattr(draw, name)(lands, *rest)
    with pytest.raises(DrawError, match="No landscape was given: give one, or several in a list"):
        getattr(draw, name)([], *rest)


def has_option(option: str) -> list[str]:
    return [name for name in NAMES if option in inspect.signature(getattr(draw, name)).parameters]


@pytest.mark.parametrize("name", has_option("size"))
def test_a_new_figure_has_the_size_and_the_title_that_were_asked_for(
    name: str, arguments: dict[str, tuple[Any, ...]]
) -> None:
    drawn = getattr(draw, name)(*arguments[name], size=(9, 5), title="A title")
    figure = drawn if isinstance(drawn, Figure) else drawn.figure
    assert figure.get_size_inches().tolist() == [9.0, 5.0]
    titles = [figure.get_suptitle(), *(ax.get_title() for ax in figure.axes)]
    assert titles.count("A title") == 1
    for size in (5, (1, 2, 3), ("a", 3), (0, 4), (4, 200), (4, np.nan), "64"):
        with pytest.raises(DrawError, match=r"is not the size of a picture: give its width and"):
            getattr(draw, name)(*arguments[name], size=size)


@pytest.mark.parametrize("name", has_option("cmap"))
def test_the_colors_are_those_of_the_color_map_that_was_asked_for(
    name: str, arguments: dict[str, tuple[Any, ...]], rasterize: Callable[..., Any]
) -> None:
    function, given = getattr(draw, name), arguments[name]
    default, gray = rasterize(function(*given)), rasterize(function(*given, cmap="gray"))
    viridis_green, shade = np.array([33, 145, 140]), 12  # its middle; a gray has no such color
    distances = [
        np.abs(p[..., :3].astype(int) - viridis_green).max(axis=-1) for p in (default, gray)
    ]
    assert (distances[1] < shade).sum() < (distances[0] < shade).sum()
    with pytest.raises(DrawError, match=r"cmap='virids' is not a color map .* you mean 'viridis'"):
        function(*given, cmap="virids")


@pytest.mark.parametrize("name", has_option("view"))
def test_a_surface_is_seen_from_the_view_that_was_asked_for(
    name: str, arguments: dict[str, tuple[Any, ...]]
) -> None:
    options = {"kind": "surface"} if has_option("kind").count(name) else {}
    drawn = getattr(draw, name)(*arguments[name], view=(60, 10), **options)
    figure: Any = drawn if isinstance(drawn, Figure) else drawn.figure
    views = {(ax.elev, ax.azim) for ax in figure.axes if ax.name == "3d"}
    assert views == {(60, 10)}
    for view in (60, (1,), "ab", (1, np.inf)):
        with pytest.raises(DrawError, match="is not a view: give elevation and azimuth"):
            getattr(draw, name)(*arguments[name], view=view, **options)


def test_no_module_has_the_name_of_a_public_function() -> None:
    """An import of such a module would replace the function."""
    folder = Path(str(landscope.__file__)).parent / "draw"
    assert not {path.stem for path in folder.glob("*.py")} & set(NAMES)
