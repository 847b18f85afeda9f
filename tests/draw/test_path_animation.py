"""Animations: what moves against the columns of the path, and files as other readers see them.

Animations are read by Pillow and by ffmpeg; their frames are compared with those that were drawn.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from landscope import draw
from landscope.draw.animation_figure import AnimationFigure, build_animation_figure
from landscope.draw.path_scene import build_path_scenes
from landscope.draw.plane_scene import build_plane_scene
from landscope.errors import DrawError, MissingExtraError
from landscope.landscape import Landscape

Change = Callable[..., Any]


def build_figure(land: Landscape, paths: Any, kind: str = "filled") -> AnimationFigure:
    return build_animation_figure(build_plane_scene(land), build_path_scenes(paths), kind=kind)


def move(figure: AnimationFigure, time: float, nth: int = 0) -> Any:
    """A path at a time, and its artists that are visible then."""
    moving = figure.moving_paths[nth]
    return moving, moving.move_to(time)


def read_cells(moving: Any) -> list[str]:
    return [text.get_text() for text, _ in moving.cells]


def test_a_path_is_drawn_up_to_the_time_of_the_frame(ground: Landscape, descent: Any) -> None:
    figure = build_figure(ground, descent)
    assert figure.span == (0.0, 20.0)
    x, y = descent["x"], descent["y"]
    moving, _ = move(figure, 4.25)
    points = moving.line.get_xydata()
    np.testing.assert_array_equal(points[:5], np.c_[x, y][:5])
    np.testing.assert_allclose(points[5], [0.75 * x[4] + 0.25 * x[5], 0.75 * y[4] + 0.25 * y[5]])
    np.testing.assert_array_equal(moving.head.get_xydata(), points[5:])
    moving, artists = move(figure, 20.0)
    np.testing.assert_array_equal(moving.line.get_xydata(), np.c_[x, y])
    assert moving.head not in artists


def test_numbers_are_those_of_the_checkpoint_that_was_reached_last(
    ground: Landscape, descent: Any
) -> None:
    figure = build_figure(ground, descent)
    figure.draw_frame(10.9)
    share = 100 * descent["relative_distance"][10]
    assert read_cells(figure.moving_paths[0]) == [
        "0.02",
        f"{descent['loss'][10]:.3g}",
        f"{descent['distance'][10]:.3g} ({share:.3g}%)",
    ]
    assert figure.clock.get_text() == "epoch 10"
    assert figure.moving_paths[0].name.get_text() == "SGD"


@pytest.mark.parametrize("kind", ["filled", "surface"])
def test_long_names_leave_room_for_the_picture(
    kind: str, ground: Landscape, descent: Any, heavy: Any
) -> None:
    names = [f"runs/resnet56_noshort_sgd_lr=0.1_bs=128_wd=0.0005_seed={k}" for k in (3, 4)]
    figure = build_animation_figure(
        build_plane_scene(ground), build_path_scenes([descent, heavy], names), kind=kind
    )
    figure.draw_frame(20.0)
    shown = [moving.name for moving in figure.moving_paths]
    assert [name.get_text() for name in shown] == ["runs/res…_seed=3", "runs/res…_seed=4"]
    ax, whole = figure.moving_paths[0].line.axes, figure.canvas.figure.bbox
    assert ax.get_window_extent().width > 0.5 * whole.width
    ends = [
        text.get_window_extent().x1 for moving in figure.moving_paths for text, _ in moving.cells
    ]
    assert max(ends) <= whole.x1
    legend = ax.get_legend().get_window_extent()
    assert min(legend.x0, legend.y0) >= 0
    assert legend.x1 <= whole.x1


def test_marks_are_visible_from_their_checkpoint_on(ground: Landscape, descent: Any) -> None:
    figure = build_figure(ground, descent)
    markers = {0.0: {"o"}, 9.9: {"o"}, 10.0: {"o", "v"}, 20.0: {"o", "v", "*"}}
    for time, expected in markers.items():
        moving, artists = move(figure, time)
        visible = {mark.get_marker() for _, mark in moving.marks if mark in artists}
        assert visible == expected


def test_several_paths_move_in_the_same_time(
    ground: Landscape, descent: Any, heavy: Any, changed: Change
) -> None:
    late = changed(heavy, epoch=heavy["epoch"] + 5)
    figure = build_figure(ground, [descent, late])
    assert figure.span == (0.0, 25.0)
    assert move(figure, 4.0, 1)[1] == []
    moving, _ = move(figure, 7.0, 1)
    np.testing.assert_array_equal(moving.line.get_xydata()[:3], np.c_[late["x"], late["y"]][:3])
    assert read_cells(moving)[1] == f"{late['loss'][2]:.3g}"
    first, second = (moving.line for moving in figure.moving_paths)
    assert first.get_color() != second.get_color()
    assert first.get_linestyle() != second.get_linestyle()


def test_over_a_surface_paths_move_at_their_own_loss(ground: Landscape, descent: Any) -> None:
    figure = build_figure(ground, descent, "surface")
    moving, _ = move(figure, 3.0)
    x, _, z = moving.line.get_data_3d()
    np.testing.assert_allclose(z[:4], np.log10(descent["loss"][:4]))
    np.testing.assert_array_equal(x[:4], descent["x"][:4])
    stems = np.stack(moving.stems.get_data_3d(), axis=-1)
    np.testing.assert_allclose(stems[1::3, 2], np.log10(descent["projected_loss"][:4]))
    assert np.isnan(stems[2::3]).all()
    assert figure.draw_frame(0.0).shape == figure.draw_frame(20.0).shape


def test_an_unknown_quantity_has_no_column(
    ground: Landscape, descent: Any, changed: Change
) -> None:
    bare = changed(descent, learning_rate=None, loss=None, projected_loss=None)
    figure = build_figure(ground, bare)
    figure.draw_frame(3.0)
    assert len(read_cells(figure.moving_paths[0])) == 1


def test_the_clock_shows_steps_and_fractions_of_epochs(
    ground: Landscape, descent: Any, changed: Change
) -> None:
    figure = build_figure(ground, changed(descent, epoch=descent["epoch"] / 8))
    figure.draw_frame(1.3)
    assert figure.clock.get_text() == "epoch 1.3"
    figure = build_figure(ground, changed(descent, epoch=None))
    figure.draw_frame(70.2)
    assert figure.clock.get_text() == "step 70"


def test_a_gif_repeats_and_shows_its_last_frame_longer(
    ground: Landscape, descent: Any, tmp_path: Path
) -> None:
    path = draw.animate(ground, descent, tmp_path / "new" / "w.gif", seconds=1.5, fps=10)
    assert path == tmp_path / "new" / "w.gif"
    assert path.stat().st_size < 400_000
    durations, pictures = [], []
    with Image.open(path) as film:
        assert film.info["loop"] == 0
        for k in range(getattr(film, "n_frames", 0)):
            film.seek(k)
            durations.append(film.info["duration"])
            pictures.append(np.asarray(film.convert("RGB"), dtype=int))
    assert len(pictures) == 15  # something moves between any two of them
    assert durations == [100] * 14 + [2000]
    figure = build_figure(ground, descent)
    for shown, time in [(pictures[0], 0.0), (pictures[-1], 20.0)]:
        assert np.abs(shown - figure.draw_frame(time)).mean() < 4  # of 255: it has 255 colors
        assert (shown[0, 0] == 255).all()
    assert np.abs(pictures[0] - pictures[-1]).max() > 100


def test_the_background_is_drawn_once(
    ground: Landscape, descent: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, whole = [], Figure.draw

    def draw_figure(figure: Figure, renderer: Any) -> None:
        drawn.append(figure)
        whole(figure, renderer)

    monkeypatch.setattr(Figure, "draw", draw_figure)
    draw.animate(ground, descent, tmp_path / "w.gif", seconds=0.5)
    assert len(drawn) == 1


def decode(path: Path, height: int, width: int) -> Any:
    """All frames of a file, as ffmpeg decodes them."""
    import imageio_ffmpeg

    raw = subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", str(path), "-f", "rawvideo",
         "-pix_fmt", "rgb24", "-"],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    return np.frombuffer(raw, dtype=np.uint8).reshape(-1, height, width, 3).astype(int)


def test_an_mp4_has_all_frames_and_two_seconds_of_the_last(
    ground: Landscape, descent: Any, tmp_path: Path
) -> None:
    pytest.importorskip("imageio_ffmpeg")
    path = draw.animate(ground, descent, tmp_path / "w.mp4", seconds=1.0, fps=8)
    last = build_figure(ground, descent).draw_frame(20.0)
    height, width, _ = last.shape
    assert (height % 2, width % 2) == (0, 0)
    pictures = decode(path, height, width)
    assert len(pictures) == 8 + 16
    assert np.abs(pictures[-1] - last).mean() < 4
    assert np.abs(pictures[7] - pictures[-1]).mean() < 2
    assert np.abs(pictures[0] - pictures[-1]).max() > 100


def write_program(folder: Path, text: str) -> None:
    """Write an executable with the name ffmpeg."""
    folder.mkdir()
    path = folder / "ffmpeg"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_an_ffmpeg_that_fails_is_quoted_and_an_old_file_stays(
    ground: Landscape, descent: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_program(tmp_path / "bin", "echo no such encoder >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    old = tmp_path / "w.mp4"
    old.write_text("old")
    with pytest.raises(DrawError, match=r"could not make the \.mp4 \(no such encoder\)"):
        draw.animate(ground, descent, old, seconds=1)
    assert old.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "w.mp4"]


def test_the_ffmpeg_of_the_path_comes_first(
    ground: Landscape, descent: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_program(tmp_path / "bin", 'for last; do :; done; cat > /dev/null; echo mine > "$last"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert draw.animate(ground, descent, tmp_path / "w.mp4", seconds=0.5).read_text() == "mine\n"


def test_without_ffmpeg_the_error_gives_the_pip_command(
    ground: Landscape, descent: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'landscope\[video\]'"):
        draw.animate(ground, descent, tmp_path / "w.mp4")
    assert draw.animate(ground, descent, tmp_path / "w.gif", seconds=0.2).exists()


def test_wrong_calls_are_explained(
    ground: Landscape, descent: Any, changed: Change, training: Landscape, tmp_path: Path
) -> None:
    gif = tmp_path / "w.gif"
    with pytest.raises(DrawError, match=r"ends in '\.avi'; an animation is saved as \.gif, \.mp4"):
        draw.animate(ground, descent, tmp_path / "w.avi")
    for pace in ({"seconds": 0}, {"seconds": 1e4}, {"fps": 0}, {"fps": 60}):
        with pytest.raises(DrawError, match="is not possible; expected up to 600 seconds"):
            draw.animate(ground, descent, gif, **pace)
    with pytest.raises(DrawError, match="kind='line' is not known; expected one of 'filled'"):
        draw.animate(ground, descent, gif, kind="line")
    with pytest.raises(DrawError, match="'SGD' has no finite 'loss', so it has no height"):
        draw.animate(ground, changed(descent, loss=None), gif, kind="surface")
    with pytest.raises(DrawError, match=r"draw a line with ls\.draw\.line"):
        draw.animate(training, descent, gif)
    with pytest.raises(DrawError, match="No path was given"):
        draw.animate(ground, [], gif)
    assert not gif.exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(DrawError, match="cannot be written"):
        draw.animate(ground, descent, tmp_path / "file" / "w.gif", seconds=0.2)
