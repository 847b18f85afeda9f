"""Ensembles of random slices. Witness: the objective itself at the middle of each."""

from __future__ import annotations

from pathlib import Path

import pytest

import landscope as ls
from landscope.errors import ParamsError
from tests import cases


def test_an_ensemble_is_of_different_slices_through_one_point_and_goes_on(tmp_path: Path) -> None:
    objective = cases.mlp().objective()
    for axes in (1, 2):
        folder = tmp_path / str(axes)
        lands = ls.ensemble(objective, sampler=3, count=3, axes=axes, journal=folder)
        assert [len(land.dims) for land in lands] == [axes] * 3
        middles = [float(land.data["loss"].sel(dict.fromkeys(land.dims, 0.0))) for land in lands]
        assert middles == pytest.approx([objective.loss()] * 3, rel=1e-6)
        ends = {float(land.data["loss"].values.flat[0]) for land in lands}
        assert len(ends) == 3
        again = ls.ensemble(objective, sampler=3, count=3, axes=axes, journal=folder)
        assert all(a.data.identical(b.data) for a, b in zip(lands, again, strict=True))
    with pytest.raises(ParamsError, match="axes=3; expected 1 or more, and 1 or 2 axes"):
        ls.ensemble(objective, count=3, axes=3)
