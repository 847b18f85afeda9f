"""The words of the command line: those of the library, and sentences for those that do not fit."""

from __future__ import annotations

from typing import get_args

import pytest

from landscope.cli import options
from landscope.curvature import matrices
from landscope.draw import saving, scales
from landscope.engines.local import Local
from landscope.errors import EngineError
from landscope.formats import vtk
from landscope.slices import normalization


def test_words_are_those_of_the_library() -> None:
    assert get_args(options.Normalize) == (*get_args(normalization.Normalize), "none")
    assert get_args(options.Ignore) == (*get_args(normalization.Ignore), "none")
    assert get_args(options.Matrix) == tuple(matrices.MATRICES)
    assert get_args(options.Scale) == scales.SCALES
    assert set(get_args(options.Scale)) == set(get_args(vtk.Scale))
    assert {f".{ending}" for ending in get_args(options.PictureFormat)} == set(saving.SUFFIXES)


def test_options_of_a_cluster_are_refused_on_this_machine() -> None:
    assert isinstance(options.make_engine("local", 2, None, 0), Local)
    for address, gpus in (("here:1", 0), (None, 1)):
        with pytest.raises(EngineError, match="add --engine ray"):
            options.make_engine("local", None, address, gpus)
