"""Figures as .png, .pdf and .svg files without dates: equal pictures give equal files."""

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
from landscope.files import advise, write_atomically
from landscope.landscape import Landscape
from landscope.scanning.provenance import describe

_LEAST_DPI, _MOST_DPI = 10, 1200  # more would need gigabytes of memory
SUFFIXES = (".png", ".pdf", ".svg")


def save(
    picture: Figure | Axes,
    path: str | os.PathLike[str],
    *,
    land: Landscape | Sequence[Landscape] | None = None,
    dpi: int = 150,
) -> Path:
    """Write a figure, or the figure of some axes, to a .png, .pdf or .svg file; return its path.

    The file contains no date, so that equal pictures give equal bytes. It is written completely or
    not at all.

    Args:
        picture: Axes or a figure, as returned by the functions of ``landscope.draw``.
        path: The file to write; its folder is created if necessary.
        land: The landscape of the picture, or several: the file then says how they were made, in
            its metadata ("Description" of a .png or .svg, "Subject" of a .pdf).
        dpi: The resolution of a .png in dots per inch. Default: 150, sharp on a screen and small
            in an email. From 10 to 1200.

    Returns:
        The path.

    Raises:
        DrawError: When the suffix is none of these, dpi is out of range, or the file cannot be
            written.

    Example:
        >>> ls.draw.save(ls.draw.heatmap(land), "heatmap.png")  # doctest: +SKIP
    """
    path = check_suffix(path, SUFFIXES, "a picture")
    check_dpi(dpi)
    if not isinstance(picture, Figure) and not hasattr(picture, "get_figure"):
        raise DrawError(
            f"picture is a {type(picture).__name__}; expected the axes or the figure that a"
            " function of ls.draw returned."
        )
    figure = picture if isinstance(picture, Figure) else picture.get_figure(root=True)
    assert figure is not None
    no_date = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(path.suffix, {})
    metadata = {**no_date, **({} if land is None else _describe(land, path.suffix))}
    # Type 42 fonts keep text searchable and are accepted by conferences; the salt makes the
    # identifiers in an .svg reproducible.
    reproducible: Any = {"pdf.fonttype": 42, "svg.hashsalt": "landscope"}
    with matplotlib.rc_context(reproducible), replace_file(path) as part:
        # Rasterized parts of a .pdf or .svg are sharp in print.
        resolution = dpi if path.suffix == ".png" else max(dpi, 300)
        figure.savefig(part, dpi=resolution, metadata=metadata)
    return path


def _describe(lands: Landscape | Sequence[Landscape], suffix: str) -> dict[str, str]:
    """Return title and origin of landscapes as metadata, a line for each fact."""
    lands = [lands] if isinstance(lands, Landscape) else list(lands)
    facts = [[f"{label}: {words}" for label, words in describe(land).items()] for land in lands]
    titles = [str(land.data.attrs["title"]) for land in lands if land.data.attrs.get("title")]
    key = "Subject" if suffix == ".pdf" else "Description"
    text = {key: "\n\n".join("\n".join(each) for each in facts)}
    return {"Title": "; ".join(titles), **text} if titles else text


def check_dpi(dpi: float) -> None:
    """Refuse a resolution of which no picture can be made.

    Raises:
        DrawError: When it is not a number from 10 to 1200.
    """
    if not isinstance(dpi, int | float) or not _LEAST_DPI <= dpi <= _MOST_DPI:
        raise DrawError(
            f"dpi={dpi!r} is not a resolution: give {_LEAST_DPI} to {_MOST_DPI} dots per inch."
        )


def check_suffix(path: str | os.PathLike[str], suffixes: Sequence[str], noun: str) -> Path:
    """Return the path of a file, whose suffix must be one of ``suffixes``.

    Args:
        path: The file.
        suffixes: The suffixes that are allowed.
        noun: The content of the file, for the error message.

    Raises:
        DrawError: When the path has another suffix.
    """
    path = Path(path)
    if path.suffix not in suffixes:
        raise DrawError(
            f"path={str(path)!r} ends in {path.suffix!r}; {noun} is saved as"
            f" {', '.join(suffixes)}: choose one of these suffixes."
        )
    return path


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Create the folder of ``path``, and yield a temporary file that replaces ``path`` at the end.

    Raises:
        DrawError: When the folder or the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path) as part:
            yield part
    except OSError as error:
        raise DrawError(f"{path} cannot be written ({error}): {advise(error)}.") from error
