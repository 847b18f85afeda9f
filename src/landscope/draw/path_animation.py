"""Animations of training paths: a .gif, or an .mp4.

The surface is drawn once; each frame adds to it what moves. Between two checkpoints the head of a
path moves along the straight line that the pictures show; the numbers are those of the checkpoint
that was reached last, since nothing is known in between.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from landscope.draw.animation_files import Film, find_ffmpeg, write_gif, write_mp4
from landscope.draw.animation_stage import build_stage
from landscope.draw.path_plane import KINDS
from landscope.draw.path_scene import Paths, Trail, trails_of
from landscope.draw.path_surfaces import check_heights
from landscope.draw.plane_scene import PlaneScene, build_plane_scene
from landscope.draw.saving import checked, written
from landscope.errors import DrawError
from landscope.landscape import Landscape

SUFFIXES = (".gif", ".mp4")
_MOST_FPS = 50  # browsers slow a .gif with shorter frames down
_LONGEST = 600  # seconds


def animate(
    land: Landscape,
    paths: Paths,
    path: str | os.PathLike[str],
    *,
    quantity: str | None = None,
    scale: str | None = None,
    labels: Sequence[str] | None = None,
    kind: str = "filled",
    seconds: float = 8.0,
    fps: int = 20,
) -> Path:
    """Write an animation of paths being walked over a plane, and return its path.

    Several paths are walked at one time: at each moment all stand at the same epoch or step. A
    table above the picture tells learning rate, loss and distance off the plane of the checkpoint
    that each reached last.

    Args:
        land: a landscape with dims ("y", "x").
        paths: one path over this plane, or several: what ``ls.paths.project`` returned.
        path: a file that ends in .gif or .mp4; folders are made as needed. A .gif is repeated for
            ever. An .mp4 is made by ffmpeg, from the PATH or from ``landscope[video]``.
        quantity: name of a variable of the landscape. Default: ``land.quantity``.
        scale: "log" or "linear", of that quantity. Default: as for ``contour``.
        labels: a name for each path. Default: their own.
        kind: "contour", "filled" or "heatmap", or "surface" for paths at their true loss.
        seconds: from start to end; the last picture then stands for two more.
        fps: pictures a second, 1 to 50. Default: 20, smooth to the eye.

    Returns:
        The path of the file, which appears whole or not at all.

    Raises:
        DrawError: when landscape, paths or options cannot be drawn so, or the file cannot be
            written.
        MissingExtraError: when an .mp4 is asked for and there is no ffmpeg.

    Cost: about 20 ms a picture; a .gif of 8 seconds takes about 1 MB.

    Example:
        >>> ls.draw.animate(land, [sgd, adam], "path.gif")  # doctest: +SKIP
    """
    path = checked(path, SUFFIXES, "an animation")
    _check_pace(seconds, fps)
    ffmpeg = find_ffmpeg() if path.suffix == ".mp4" else ""
    trails = trails_of(paths, labels, land)
    stage = build_stage(_scene(land, trails, kind, quantity, scale), trails, kind=kind)
    film = Film(stage, np.linspace(*stage.span, max(2, round(seconds * fps))), fps)
    with written(path) as part:
        write_mp4(film, part, ffmpeg) if ffmpeg else write_gif(film, part)
    return path


def _check_pace(seconds: float, fps: int) -> None:
    if not (0 < seconds <= _LONGEST and 1 <= fps <= _MOST_FPS):
        raise DrawError(
            f"seconds={seconds} with fps={fps} is no animation; expected up to {_LONGEST} seconds"
            f" and 1 to {_MOST_FPS} pictures a second."
        )


def _scene(
    land: Landscape, trails: Sequence[Trail], kind: str, quantity: str | None, scale: str | None
) -> PlaneScene:
    if kind not in (*KINDS, "surface"):
        raise DrawError(
            f"kind={kind!r} is not known; expected one of"
            f" {', '.join(map(repr, (*KINDS, 'surface')))}."
        )
    scene = build_plane_scene(land, quantity=quantity, scale=scale)
    if kind == "surface":
        check_heights(trails, scene)
    return scene
