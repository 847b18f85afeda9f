"""How good the values of a landscape are: its estimated error, and where it was evaluated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from landscope.draw.plane import heatmap
from landscope.errors import DrawError
from landscope.landscape import Landscape

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def errors(land: Landscape, *, ax: Axes | None = None, scale: str | None = None) -> Axes:
    """Return axes with the estimated error of each cell, and a dot where it was evaluated.

    Args:
        land: a plane of an adaptive scan, or of one on drawn samples.
        ax: where to draw. Default: a new figure.
        scale: "log" or "linear", of the colors. Default: what suits the values.

    Raises:
        DrawError: when the landscape has no estimated errors: its values are exact.

    Example:
        >>> axes = ls.draw.errors(land)  # doctest: +SKIP
    """
    name = f"{land.quantity}_error"
    if name not in land.data or len(land.dims) != 2:
        raise DrawError(
            f"the landscape has no variable {name!r} over a plane: scan a plane with ls.Adaptive()"
            " or samples=ls.Calibrated(); the values of a full grid are exact."
        )
    axes = heatmap(land, quantity=name, ax=ax, scale=scale)
    if "evaluated" in land.data:
        y, x = land.axes
        j, i = np.nonzero(np.asarray(land.data["evaluated"].values))
        axes.plot(
            x[i], y[j], ls="none", marker="o", ms=3.2, mfc="white", mec="black", mew=0.5,
            label=f"evaluated: {len(i):,} of {len(x) * len(y):,}",
        )  # fmt: skip
        under: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.13)}
        axes.legend(**under, ncols=2, frameon=False, fontsize="small")
    return axes
