"""The commands plot, page, info, export and import.

Witness: files are opened with the libraries that they are meant for.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from PIL import Image

import landscope as ls

Command = Callable[..., Any]  # words -> code, out, err
REFERENCE = Path(__file__).parents[1] / "data" / "reference" / "tiny_a"
SURFACE = next(REFERENCE.glob("*7]x*.h5"))


def _files(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def test_plot_draws_one_run_again_in_another_format(
    command: Command, plane: Path, tmp_path: Path
) -> None:
    words = ("--out", tmp_path / "art", "--format", "svg", "--quantity", "accuracy")
    answer = command("plot", plane, *words)
    assert answer.code == 0, answer.err
    names = {f"{kind}_accuracy.svg" for kind in ("surface", "contour", "filled", "heatmap")}
    assert _files(tmp_path / "art") == names
    assert all(str(tmp_path / "art" / name) in answer.out for name in names)
    assert "<svg" in (tmp_path / "art" / "surface_accuracy.svg").read_text()


def test_plot_puts_several_planes_side_by_side(command: Command, plane: Path) -> None:
    assert command("plot", plane, plane, "--scale", "log").code == 0
    assert {f"side_by_side_{k}.png" for k in ("surface", "filled", "contour")} <= _files(plane)


def test_plot_puts_several_lines_side_by_side_and_takes_a_file(
    command: Command, line: Path
) -> None:
    assert command("plot", line / "landscape.nc", line).code == 0
    assert "side_by_side_line.png" in _files(line)


def test_plot_of_a_line_takes_a_scale(command: Command, line: Path, tmp_path: Path) -> None:
    assert command("plot", line, "--scale", "linear", "--out", tmp_path / "art").code == 0
    assert _files(tmp_path / "art") == {"line_linear.png"}


@pytest.mark.parametrize("count", [1, 2])
def test_page_writes_one_html_file(command: Command, plane: Path, count: int) -> None:
    answer = command("page", *[plane] * count, "--title", "Two & two")
    assert answer.code == 0, answer.err
    text = (plane / "page.html").read_text()
    assert "<title>Two &amp; two</title>" in text
    assert str(plane / "page.html") in answer.out


def test_info_prints_grid_values_shape_and_source(command: Command, plane: Path) -> None:
    answer = command("info", plane)
    assert answer.code == 0
    assert "x from -1 to 1 in 5, y from -1 to 1 in 5" in answer.out
    loss = ls.load(plane).data["loss"].values
    assert f"{loss.min():.6g} to {loss.max():.6g}" in answer.out
    for word in ("accuracy", "basin", "not convex", "Sequential", "cross", "finished", "machine"):
        assert word in answer.out.replace("Cross", "cross"), word


def test_info_reads_a_2018_file(command: Command) -> None:
    answer = command("info", SURFACE)
    assert answer.code == 0
    assert "x from -1 to 1 in 7, y from -1.5 to 0.5 in 5" in answer.out


def test_export_writes_every_ending(command: Command, plane: Path, tmp_path: Path) -> None:
    loss = ls.load(plane).data["loss"]
    for ending in ("vtp", "vts", "h5", "nc", "zarr", "csv"):
        file = tmp_path / "files" / f"land.{ending}"
        answer = command("export", plane, file)
        assert answer.code == 0, answer.err
        beside = [f"  wrote {file}.json"] if ending == "csv" else []
        assert answer.out.splitlines() == [f"  wrote {file}", *beside]
    files = tmp_path / "files"
    with h5py.File(files / "land.h5") as stored:
        np.testing.assert_array_equal(np.ravel(stored["train_loss"]), loss.values.ravel())
    with xr.open_dataset(files / "land.nc", engine="h5netcdf") as stored:
        np.testing.assert_array_equal(stored["loss"], loss)
    table = pd.read_csv(files / "land.csv")
    assert list(table) == ["y", "x", "loss", "accuracy"]
    np.testing.assert_allclose(table["loss"], loss.values.ravel(), rtol=1e-14)
    np.testing.assert_array_equal(ls.load(files / "land.zarr").data["loss"], loss)
    assert (files / "land.vtp").read_bytes().startswith(b"<VTKFile")
    assert (files / "land.vts").read_bytes().startswith(b"<VTKFile")


def test_pictures_and_files_say_where_they_come_from(
    command: Command, plane: Path, target: str, tmp_path: Path
) -> None:
    for kind in ("png", "svg", "pdf"):
        assert command("plot", plane, "--out", tmp_path / "art", "--format", kind).code == 0
    with Image.open(tmp_path / "art" / "contour.png") as picture:
        texts = [picture.info["Description"], (tmp_path / "art" / "contour.svg").read_text()]
    assert command("export", plane, tmp_path / "a.h5").code == 0
    texts.append(command("info", tmp_path / "a.h5").out)
    for text in texts:
        for words in (target, "seed 0", "filter normalization", "torch"):
            assert words in text, words
    pdf = (tmp_path / "art" / "contour.pdf").read_bytes()
    assert b"/Subject" in pdf
    assert b"filter normalization" in pdf


def test_export_refines_clips_and_takes_logarithms(
    command: Command, plane: Path, tmp_path: Path
) -> None:
    words = ("--scale", "log", "--clip", 2, "--resolution", 9, "--quantity", "loss")
    assert command("export", plane, tmp_path / "fine.vtp", *words).code == 0
    assert b'NumberOfPoints="81"' in (tmp_path / "fine.vtp").read_bytes()


def test_import_makes_a_run_that_every_command_takes(command: Command, tmp_path: Path) -> None:
    run = tmp_path / "old"
    assert command("import", SURFACE, run).code == 0
    assert _files(run) == {"landscape.nc", "run.json"}
    with h5py.File(SURFACE) as stored:
        flat = np.ravel(stored["train_loss"])
    np.testing.assert_array_equal(ls.load(run).data["loss"].values.ravel(), flat)
    assert command("info", run).code == 0
    assert command("export", run, tmp_path / "again.h5").code == 0
    with h5py.File(tmp_path / "again.h5") as stored:
        np.testing.assert_array_equal(np.ravel(stored["train_loss"]), flat)
