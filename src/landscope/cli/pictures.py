"""The pictures of a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from landscope.analysis.training_path import TrainingPath
from landscope.landscape import Landscape


def draw_pictures(
    land: Landscape,
    folder: str | os.PathLike[str],
    *,
    quantity: str | None = None,
    scale: str | None = None,
    kind: str = "png",
) -> list[Path]:
    """Draw every picture that fits a line or a plane; return the files.

    Args:
        land: The landscape.
        folder: The folder for the pictures.
        quantity: The quantity of a plane; its loss if not given.
        scale: "log" or "linear"; chosen by the values if not given.
        kind: "png", "pdf" or "svg".

    Raises:
        DrawError: When the quantity is unknown, or cannot be drawn on this scale.
    """
    from landscope import draw

    place = Path(folder)
    extra = []
    if "averaged_loss" in land.data and quantity is None:
        figure = draw.quantities_figure(land, ("loss", "averaged_loss"), scale=scale)
        extra = [draw.save(figure, place / f"averaged.{kind}")]
    if len(land.dims) == 1:
        scales = [scale] if scale else ["linear", "log"] if _has_positive(land) else ["linear"]
        lines = [draw.save(draw.line(land, scale=s), place / f"line_{s}.{kind}") for s in scales]
        return lines + extra
    renderers: dict[str, Callable[..., Any]] = {
        "surface": draw.surface,
        "contour": draw.contour,
        "filled": draw.filled,
        "heatmap": draw.heatmap,
    }
    if f"{land.quantity}_error" in land.data:
        renderers["error"] = lambda land, **_: draw.error_map(land)
    stem = f"_{quantity}" if quantity and quantity != land.quantity else ""
    return [
        draw.save(render(land, quantity=quantity, scale=scale), place / f"{name}{stem}.{kind}")
        for name, render in renderers.items()
    ] + extra


def _positive(land: Landscape) -> bool:
    return bool((land.data[land.quantity] > 0).any())


def draw_side_by_side(
    lands: Sequence[Landscape],
    folder: Path,
    *,
    quantity: str | None = None,
    scale: str | None = None,
    kind: str = "png",
) -> list[Path]:
    """Draw lines in one picture, or planes side by side on one color scale; return the files.

    Args:
        lands: The landscapes.
        folder: The folder for the pictures.
        quantity: The quantity; the loss if not given.
        scale: "log" or "linear"; chosen by the values if not given.
        kind: "png", "pdf" or "svg".

    Raises:
        DrawError: When they do not fit together, or cannot be drawn on this scale.
    """
    from landscope import draw

    names = ("line",) if len(lands[0].dims) == 1 else ("surface", "filled", "contour")
    return [
        draw.save(
            draw.side_by_side_figure(lands, kind=name, quantity=quantity, scale=scale),
            folder / f"side_by_side_{name}.{kind}",
        )
        for name in names
    ]


def draw_path_pictures(
    land: Landscape,
    paths: Sequence[TrainingPath],
    folder: Path,
    *,
    scale: str | None = None,
    kind: str = "png",
) -> list[Path]:
    """Draw paths of training over their plane; return the files, none if there are no paths.

    Args:
        land: The landscape of the plane.
        paths: The paths on it.
        folder: The folder for the pictures.
        scale: "log" or "linear"; chosen by the values if not given.
        kind: "png", "pdf" or "svg".

    Raises:
        DrawError: When they cannot be drawn on this scale.
    """
    from landscope import draw

    if not paths:
        return []
    return [
        draw.save(draw.path(land, paths, scale=scale), folder / f"path.{kind}"),
        draw.save(draw.path_errors_figure(paths), folder / f"path_errors.{kind}"),
        draw.save(draw.path_surface(land, paths, scale=scale), folder / f"path_surface.{kind}"),
    ]


def _has_positive(land: Landscape) -> bool:
    return bool((land.data[land.quantity] > 0).any())
