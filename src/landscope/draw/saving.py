"""Figures as files: .png, .pdf and .svg, without dates, so that one picture gives one file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from landscope.errors import DrawError
from landscope.files import write_atomically

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
    path = checked(path, SUFFIXES, "a picture")
    figure = picture if isinstance(picture, Figure) else picture.get_figure(root=True)
    assert figure is not None
    dateless = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(path.suffix, {})
    # Type 42 fonts keep text searchable and are what conferences accept; the salt fixes svg names.
    steady: Any = {"pdf.fonttype": 42, "svg.hashsalt": "landscope"}
    with matplotlib.rc_context(steady), written(path) as part:
        # What is an image inside a .pdf or .svg shall be sharp in print.
        sharp = dpi if path.suffix == ".png" else max(dpi, 300)
        figure.savefig(part, dpi=sharp, metadata=dateless)
    return path


def checked(path: str | os.PathLike[str], suffixes: Sequence[str], what: str) -> Path:
    """Return the path of a file that ``what`` can be saved as.

    Raises:
        DrawError: when its ending is none of the suffixes.
    """
    path = Path(path)
    if path.suffix not in suffixes:
        raise DrawError(
            f"path={str(path)!r} ends in {path.suffix!r}; {what} is saved as"
            f" {', '.join(suffixes)}: choose one of these endings."
        )
    return path


@contextlib.contextmanager
def written(path: Path) -> Iterator[Path]:
    """Lend a file that takes the place of ``path`` when the block ends well; make its folder.

    Raises:
        DrawError: when the place cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path) as part:
            yield part
    except OSError as error:
        raise DrawError(
            f"{path} cannot be written ({error}): choose a folder that you may write to."
        ) from error
