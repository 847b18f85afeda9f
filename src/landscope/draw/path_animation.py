"""Animations of training paths: a .gif, or an .mp4.

The background is drawn once; each frame adds to it what moves. Between two checkpoints the head of
a path moves along the straight line that the pictures show; the numbers in the table are those of
the checkpoint that was reached last, since nothing is known in between.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from landscope.draw.animation_figure import build_animation_figure
from landscope.draw.animation_files import Animation, find_ffmpeg, write_gif, write_mp4
from landscope.draw.path_plane import KINDS
from landscope.draw.path_scene import PathScene, ProjectedPaths, build_path_scenes
from landscope.draw.path_surfaces import check_heights
from landscope.draw.plane_scene import PlaneScene, build_plane_scene
from landscope.draw.saving import check_suffix, replace_file
from landscope.errors import DrawError
from landscope.landscape import Landscape

SUFFIXES = (".gif", ".mp4")
_MAX_FPS = 50  # browsers slow down a .gif with shorter frames
_MAX_SECONDS = 600


def animate(
    land: Landscape,
    paths: ProjectedPaths,
    path: str | os.PathLike[str],
    *,
    quantity: str | None = None,
    scale: str | None = None,
    labels: Sequence[str] | None = None,
    kind: str = "filled",
    seconds: float = 8.0,
    fps: int = 20,
) -> Path:
    """Write an animation of training paths over a plane, and return its path.

    Several paths move in the same time: in each frame all are at the same epoch or step. A table
    above the picture shows the learning rate, the loss and the distance off the plane of the
    checkpoint that each path reached last.

    Args:
        land: A landscape with dims ("y", "x").
        paths: One path over this plane, or several: results of ``ls.paths.project``.
        path: A file that ends in .gif or .mp4; its folder is created if necessary. A .gif repeats
            forever. An .mp4 is written by ffmpeg, from the PATH or from ``landscope[video]``.
        quantity: The name of a variable of the landscape. Default: ``land.quantity``.
        scale: "log" or "linear", of this quantity. Default: as in ``contour``.
        labels: A name for each path. Default: the names of the paths.
        kind: "contour", "filled" or "heatmap", or "surface" for paths at their true loss.
        seconds: The time from start to end; then the last frame is shown for two more seconds.
        fps: The number of frames per second, 1 to 50. Default: 20, which looks smooth.

    Returns:
        The path of the file, which is written completely or not at all.

    Raises:
        DrawError: When landscape, paths or options cannot be drawn this way, or the file cannot be
            written.
        MissingExtraError: When an .mp4 needs ffmpeg and it is not installed.

    Cost: About 20 ms per frame; a .gif of 8 seconds takes about 1 MB.

    Example:
        >>> ls.draw.animate(land, [sgd, adam], "path.gif")  # doctest: +SKIP
    """
    path = check_suffix(path, SUFFIXES, "an animation")
    _check_duration(seconds, fps)
    ffmpeg = find_ffmpeg() if path.suffix == ".mp4" else ""
    path_scenes = build_path_scenes(paths, labels, land)
    scene = _build_scene(land, path_scenes, kind, quantity, scale)
    figure = build_animation_figure(scene, path_scenes, kind=kind)
    times = np.linspace(*figure.span, max(2, round(seconds * fps)))
    animation = Animation(figure, times, fps)
    with replace_file(path) as part:
        write_mp4(animation, part, ffmpeg) if ffmpeg else write_gif(animation, part)
    return path


def _check_duration(seconds: float, fps: int) -> None:
    if not (0 < seconds <= _MAX_SECONDS and 1 <= fps <= _MAX_FPS):
        raise DrawError(
            f"seconds={seconds} with fps={fps} is not possible; expected up to {_MAX_SECONDS}"
            f" seconds and 1 to {_MAX_FPS} frames per second."
        )


def _build_scene(
    land: Landscape, paths: Sequence[PathScene], kind: str, quantity: str | None, scale: str | None
) -> PlaneScene:
    kinds = (*KINDS, "surface")
    if kind not in kinds:
        raise DrawError(
            f"kind={kind!r} is not known; expected one of {', '.join(map(repr, kinds))}."
        )
    scene = build_plane_scene(land, quantity=quantity, scale=scale)
    if kind == "surface":
        check_heights(paths, scene)
    return scene
