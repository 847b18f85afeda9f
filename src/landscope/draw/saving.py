"""Figures as files: .png, .pdf and .svg, without dates, so that one picture gives one file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from landscope.errors import DrawError
from landscope.files import whole

SUFFIXES = (".png", ".pdf", ".svg")


def save(picture: Figure | Axes, path: str | os.PathLike[str], *, dpi: int = 150) -> Path:
    """Write a figure, or the figure of some axes, to a .png, .pdf or .svg file; return its path.

    The file holds no date, so that the same picture gives the same bytes, and it appears whole or
    not at all.

    Args:
        picture: what a function of ``landscope.draw`` returned.
        path: where to write; folders are made as needed.
        dpi: dots per inch of a .png. Default: 150, sharp on a screen and small in a mail.

    Returns:
        The path.

    Raises:
        DrawError: when the ending is none of these, or the place cannot be written.

    Example:
        >>> ls.draw.save(ls.draw.heatmap(land), "heatmap.png")  # doctest: +SKIP
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise DrawError(
            f"path={str(path)!r} ends in {path.suffix!r}; a picture is saved as"
            f" {', '.join(SUFFIXES)}: choose one of these endings."
        )
    figure = picture if isinstance(picture, Figure) else picture.get_figure(root=True)
    assert figure is not None
    dateless = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(path.suffix, {})
    # Type 42 fonts keep text searchable and are what conferences accept; the salt fixes svg names.
    steady: Any = {"pdf.fonttype": 42, "svg.hashsalt": "landscope"}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with matplotlib.rc_context(steady), whole(path) as part:
            # What is an image inside a .pdf or .svg shall be sharp in print.
            sharp = dpi if path.suffix == ".png" else max(dpi, 300)
            figure.savefig(part, dpi=sharp, metadata=dateless)
    except OSError as error:
        raise DrawError(
            f"{path} cannot be written ({error}): choose a folder that you may write to."
        ) from error
    return path
