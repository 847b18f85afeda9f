"""The pictures of a run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
        land: the landscape.
        folder: the folder for the pictures.
        quantity: the quantity of a plane; its loss if not given.
        scale: "log" or "linear"; chosen by the values if not given.
        kind: "png", "pdf" or "svg".

    Raises:
        DrawError: when the quantity is unknown, or cannot be drawn on this scale.
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


def _has_positive(land: Landscape) -> bool:
    return bool((land.data[land.quantity] > 0).any())
