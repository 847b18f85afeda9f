"""The pictures of a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from landscope.analysis.training_path import TrainingPath
from landscope.cli.picture_style import PictureStyle
from landscope.landscape import Landscape

_DEFAULT = PictureStyle()


def draw_run(run: Path, folder: Path, style: PictureStyle = _DEFAULT) -> list[Path]:
    """Draw everything that a run holds; return the files.

    Args:
        run: The folder of a run, or a file.
        folder: The folder for the pictures.
        style: How they look.

    Raises:
        FormatError: When it holds nothing to draw; the text names the command that helps.
        DrawError: When the quantity is unknown, or cannot be drawn on this scale.
    """
    from landscope import draw
    from landscope.cli import opened_run, path_folder, recorded_measures

    if (run / opened_run.WHOLE).is_file():
        profiles = partial(draw.curvature_profiles, recorded_measures.read_profiles(run))
        return [_save(profiles, folder / f"whole.{style.kind}", style)]
    if (run / opened_run.CURVATURE).is_file():
        spectrum = partial(draw.spectrum, recorded_measures.read_spectrum(run))
        return [_save(spectrum, folder / f"spectrum.{style.kind}", style)]
    land = opened_run.open_landscape(run)
    paths = path_folder.read_paths(run)
    files = draw_pictures(land, folder, style)
    return files + draw_path_pictures(land, paths, folder, style)


def draw_pictures(
    land: Landscape, folder: str | os.PathLike[str], style: PictureStyle = _DEFAULT
) -> list[Path]:
    """Draw every picture that fits a line, a plane or a volume; return the files.

    Args:
        land: The landscape.
        folder: The folder for the pictures.
        style: How they look.

    Raises:
        DrawError: When the quantity is unknown, or cannot be drawn on this scale.
    """
    from landscope import draw

    if min(map(len, land.axes)) < 2:
        return []  # a single point, or a row of them, has no shape to draw
    place, scale, quantity = Path(folder), style.scale, style.quantity
    stem = f"_{quantity}" if quantity and quantity != land.quantity else ""
    renderers: dict[str, Callable[..., Any]] = {}
    if len(land.dims) == 1:
        scales = [scale] if scale else ["linear", "log"] if _has_positive(land) else ["linear"]
        renderers = {f"line{stem}_{s}": partial(draw.line, land, scale=s) for s in scales}
    elif len(land.dims) == 3:
        renderers = {f"volume{stem}": partial(draw.overview_figure, land)}
    else:
        kinds = (draw.surface, draw.contour, draw.filled, draw.heatmap)
        renderers = {f"{kind.__name__}{stem}": partial(kind, land) for kind in kinds}
        if f"{land.quantity}_error" in land.data:
            renderers[f"error{stem}"] = partial(draw.error_map, land, scale=None)
    if "convexity" in land.data and quantity is None and len(land.dims) == 2:
        renderers = {
            "convexity": partial(draw.convexity, land),
            "convexity_beside": partial(draw.convexity_figure, land),
        }
    if "averaged_loss" in land.data and quantity is None and len(land.dims) < 3:
        pair = ("loss", "averaged_loss")
        renderers["averaged"] = partial(draw.quantities_figure, land, pair)
    return [
        _save(render, place / f"{name}.{style.kind}", style) for name, render in renderers.items()
    ]


def _save(render: Callable[..., Any], file: Path, style: PictureStyle) -> Path:
    """Draw a picture in a style and write it; what the function was given already stays."""
    from landscope import draw

    chosen = render.keywords if isinstance(render, partial) else {}
    keywords = {name: v for name, v in style.keywords_of(render).items() if name not in chosen}
    options: dict[str, Any] = {"dpi": style.dpi} if style.dpi else {}
    land = render.args[0] if isinstance(render, partial) else None
    if isinstance(land, Landscape) or (isinstance(land, list) and isinstance(land[0], Landscape)):
        options["land"] = land
    return draw.save(render(**keywords), file, **options)


def draw_side_by_side(
    lands: Sequence[Landscape], folder: Path, style: PictureStyle = _DEFAULT
) -> list[Path]:
    """Draw lines in one picture, or planes side by side on one color scale; return the files.

    Args:
        lands: The landscapes.
        folder: The folder for the pictures.
        style: How they look.

    Raises:
        DrawError: When they do not fit together, or cannot be drawn on this scale.
    """
    from landscope import draw

    names = ("line",) if len(lands[0].dims) == 1 else ("surface", "filled", "contour")
    return [
        _save(
            partial(draw.side_by_side_figure, lands, kind=name),
            folder / f"side_by_side_{name}.{style.kind}", style,
        )
        for name in names
    ]  # fmt: skip


def draw_path_pictures(
    land: Landscape, paths: Sequence[TrainingPath], folder: Path, style: PictureStyle = _DEFAULT
) -> list[Path]:
    """Draw paths of training over their plane; return the files, none if there are no paths.

    Args:
        land: The landscape of the plane.
        paths: The paths on it.
        folder: The folder for the pictures.
        style: How they look.

    Raises:
        DrawError: When they cannot be drawn on this scale.
    """
    from landscope import draw

    if not paths:
        return []
    renderers: dict[str, Callable[..., Any]] = {
        "path": partial(draw.path, land, paths),
        "path_errors": partial(draw.path_errors_figure, paths),
        "path_surface": partial(draw.path_surface, land, paths),
    }
    return [
        _save(render, folder / f"{name}.{style.kind}", style) for name, render in renderers.items()
    ]


def _has_positive(land: Landscape) -> bool:
    return bool((land.data[land.quantity] > 0).any())
