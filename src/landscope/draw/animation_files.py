"""Animations as files: a .gif by Pillow, an .mp4 by ffmpeg."""

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

from landscope.draw.animation_stage import Pixels, Stage
from landscope.draw.levels import FloatArray
from landscope.errors import DrawError
from landscope.extras import import_optional

HOLD = 2.0  # seconds for which the last picture stands
_COLORS = 255  # of a .gif; the last of its 256 stands for what did not change


@dataclass(frozen=True, eq=False)
class Film:
    """Pictures in the order of time."""

    stage: Stage
    times: FloatArray  # [pictures]
    fps: int

    def pictures(self) -> Iterator[Pixels]:
        """Yield the pictures one after the other, each [height, width, 3]."""
        return (self.stage.picture(float(now)) for now in self.times)


def write_gif(film: Film, path: Path) -> None:
    """Write a .gif that is repeated for ever; one palette serves all pictures."""
    ends = [film.stage.picture(float(now)) for now in film.times[[0, -1]]]
    palette = _palette(np.concatenate(ends))
    images = (
        Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE)
        for picture in film.pictures()
    )
    each = round(100 / film.fps) * 10  # a .gif counts hundredths of a second
    durations = [each] * (film.times.size - 1) + [round(1000 * HOLD)]
    next(images).save(
        path, save_all=True, append_images=images, duration=durations, loop=0, optimize=False
    )


def _palette(pixels: Pixels) -> Image.Image:
    """Return an image with the colors of a .gif: paper stays white, and rare colors have theirs."""
    image = Image.fromarray(pixels).quantize(_COLORS, method=Image.Quantize.FASTOCTREE)
    colors = np.reshape(image.getpalette() or [], (-1, 3))
    colors[colors.sum(axis=1).argmax()] = 255
    image.putpalette([*map(int, colors.ravel())])
    return image


def write_mp4(film: Film, path: Path, ffmpeg: str) -> None:
    """Send the pictures to ffmpeg; the last one is sent again for as long as it stands."""
    height, width, _ = film.stage.picture(film.stage.span[0]).shape
    command = [
        ffmpeg, "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24",
        "-s", f"{width}x{height}", "-r", str(film.fps), "-i", "-",
        "-an", "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(path),
    ]  # fmt: skip
    held = repeat(film.stage.picture(film.stage.span[1]), round(HOLD * film.fps))
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=told, stderr=told)
        assert process.stdin is not None
        try:
            for picture in chain(film.pictures(), held):
                process.stdin.write(picture.tobytes())
        except BrokenPipeError:
            pass  # it gave up, and says why
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            failed = process.wait()
        told.seek(0)
        if failed:
            words = told.read().decode(errors="replace").strip()
            raise DrawError(
                f"{ffmpeg} could not make the .mp4 ({words}): try another ffmpeg, or write a .gif."
            )


def find_ffmpeg() -> str:
    """Return the program that makes films.

    Raises:
        MissingExtraError: when there is none.
    """
    found = shutil.which("ffmpeg")
    return found or str(import_optional("imageio_ffmpeg", extra="video").get_ffmpeg_exe())
