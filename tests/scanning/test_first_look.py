"""A first look: the scan that one would write by hand, on a model that is left as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import landscope as ls
from landscope.errors import FormatError, SamplerError

INPUTS = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))
DATA = INPUTS, (INPUTS @ torch.tensor([1.0, -1.0, 0.5, 0.0]) > 0).long()
LOSS = nn.CrossEntropyLoss()


def make_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 2))


def test_a_look_is_an_adaptive_scan_over_a_random_plane_that_shows_the_basin() -> None:
    land = ls.look(make_model(), LOSS, DATA, seed=3, resolution=15, progress=None)
    objective = ls.Objective(make_model().eval(), LOSS, DATA)
    dx, dy = ls.directions.random(objective.center, seed=3)
    plane = ls.Plane(objective.center, dx, dy)
    by_hand = ls.scan(objective, plane, ls.Adaptive(resolution=15, span="auto"))
    np.testing.assert_allclose(land.data["loss"], by_hand.data["loss"], rtol=1e-6)
    assert [axis.tolist() for axis in land.axes] == [axis.tolist() for axis in by_hand.axes]
    assert land._repr_html_().startswith("<div>")


def test_each_module_keeps_its_mode_also_after_an_error() -> None:
    model = make_model()
    model[2].eval()
    modes = [True, True, True, False, True]
    assert [module.training for module in model.modules()] == modes
    ls.look(model, LOSS, DATA, resolution=5, progress=None)
    assert [module.training for module in model.modules()] == modes
    with pytest.raises(SamplerError, match="budget='soon'"):
        ls.look(model, LOSS, DATA, budget="soon", progress=None)
    assert [module.training for module in model.modules()] == modes


def test_a_look_that_is_saved_resumes(tmp_path: Path) -> None:
    def stop(now: ls.Progress) -> None:
        if now.done > 20:
            raise KeyboardInterrupt

    file = tmp_path / "look.nc"
    with pytest.raises(KeyboardInterrupt):
        ls.look(make_model(), LOSS, DATA, resolution=9, save=file, progress=stop)
    first: list[int] = []
    land = ls.look(
        make_model(),
        LOSS,
        DATA,
        resolution=9,
        save=file,
        progress=lambda now: first.append(now.done),
    )
    assert first[0] > 20
    assert ls.load(file).data.identical(land.data)


def test_a_file_that_cannot_be_saved_is_refused_before_anything_is_evaluated() -> None:
    model = make_model()
    model.register_forward_hook(lambda *_: pytest.fail("the model was evaluated"))
    with pytest.raises(FormatError, match=r"a landscape is saved as \.nc"):
        ls.look(model, LOSS, DATA, save="look.png")
