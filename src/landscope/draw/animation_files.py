"""Animations as files: a .gif written by Pillow, an .mp4 written by ffmpeg."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path

import numpy as np
from PIL import Image

from landscope.draw.animation_figure import AnimationFigure, Pixels
from landscope.draw.levels import FloatArray
from landscope.errors import DrawError
from landscope.extras import import_optional

LAST_FRAME_SECONDS = 2.0  # the time for which the last frame is shown
_NUM_COLORS = 255  # of a .gif; the last of its 256 stands for unchanged pixels


@dataclass(frozen=True, eq=False)
class Animation:
    """A figure, and the times of its frames."""

    figure: AnimationFigure
    times: FloatArray  # [frames]
    fps: int

    def draw_frames(self) -> Iterator[Pixels]:
        """Yield the frames in the order of time, each [height, width, 3]."""
        return (self.figure.draw_frame(float(time)) for time in self.times)


def write_gif(animation: Animation, path: Path) -> None:
    """Write a .gif that repeats forever; all frames share one palette."""
    ends = [animation.figure.draw_frame(float(time)) for time in animation.times[[0, -1]]]
    palette = _choose_palette(np.concatenate(ends))
    images = (
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in animation.draw_frames()
    )
    frame_ms = round(100 / animation.fps) * 10  # a .gif counts hundredths of a second
    durations = [frame_ms] * (animation.times.size - 1) + [round(1000 * LAST_FRAME_SECONDS)]
    next(images).save(
        path, save_all=True, append_images=images, duration=durations, loop=0, optimize=False
    )


def _choose_palette(pixels: Pixels) -> Image.Image:
    """Return an image with the colors of a .gif; white stays white, and rare colors are kept."""
    image = Image.fromarray(pixels).quantize(_NUM_COLORS, method=Image.Quantize.FASTOCTREE)
    colors = np.reshape(image.getpalette() or [], (-1, 3))
    colors[colors.sum(axis=1).argmax()] = 255
    image.putpalette([*map(int, colors.ravel())])
    return image


def write_mp4(animation: Animation, path: Path, ffmpeg: str) -> None:
    """Send the frames to ffmpeg, the last one repeatedly.

    Raises:
        DrawError: When ffmpeg fails; the text quotes it.
    """
    figure, fps = animation.figure, animation.fps
    height, width, _ = figure.draw_frame(figure.span[0]).shape
    command = [
        ffmpeg, "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24",
        "-s", f"{width}x{height}", "-r", str(fps), "-i", "-",
        "-an", "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(path),
    ]  # fmt: skip
    last_frames = repeat(figure.draw_frame(figure.span[1]), round(LAST_FRAME_SECONDS * fps))
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=output)
        assert process.stdin is not None
        try:
            for frame in chain(animation.draw_frames(), last_frames):
                process.stdin.write(frame.tobytes())
        except BrokenPipeError:
            pass  # ffmpeg ended early; its output explains why
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            failed = process.wait()
        output.seek(0)
        if failed:
            message = output.read().decode(errors="replace").strip()
            raise DrawError(
                f"{ffmpeg} could not make the .mp4 ({message}): try another ffmpeg, or write a"
                " .gif."
            )


def find_ffmpeg() -> str:
    """Return the path of ffmpeg, from the PATH or from the package imageio-ffmpeg.

    Raises:
        MissingExtraError: When there is neither.
    """
    installed = shutil.which("ffmpeg")
    return installed or str(import_optional("imageio_ffmpeg", extra="video").get_ffmpeg_exe())
