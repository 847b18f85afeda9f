"""Scans of models of which accelerate keeps weights elsewhere.

The witness is the same model without hooks, scanned along the same directions as stored tensors.
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import landscope as ls
from landscope import params
from landscope.errors import ObjectiveError
from landscope.objective import offloaded

accelerate = pytest.importorskip("accelerate")
transformers = pytest.importorskip("transformers")

Offload = Callable[[Any, Path], nn.Module]


def _on_the_cpu(model: Any, _: Path) -> nn.Module:
    found: nn.Module = accelerate.cpu_offload(model, torch.device("cpu"))
    return found


def _on_the_disk(model: Any, folder: Path) -> nn.Module:
    found: nn.Module = accelerate.disk_offload(model, folder, torch.device("cpu"))
    return found


def _in_part(model: Any, folder: Path) -> nn.Module:
    places = dict.fromkeys(("transformer.wte", "transformer.wpe", "lm_head"), "cpu")
    places |= {"transformer.h.0": "cpu", "transformer.h.1": "disk", "transformer.ln_f": "disk"}
    found: nn.Module = accelerate.dispatch_model(
        model, places, main_device="cpu", offload_dir=folder, force_hooks=True
    )
    return found


def _model() -> Any:
    config = transformers.GPT2Config(
        n_layer=2, n_head=2, n_embd=8, vocab_size=17, n_positions=12, bos_token_id=0, eos_token_id=0
    )
    torch.manual_seed(3)
    return transformers.GPT2LMHeadModel(config).eval()


def _data() -> list[dict[str, Any]]:
    text = torch.randint(17, (3, 9), generator=torch.Generator().manual_seed(2))
    return [{"input_ids": text, "use_cache": False, "labels": text}]


def _objective(model: nn.Module, **options: Any) -> ls.Objective:
    return ls.Objective(model, ls.losses.tokens(shift=True), _data(), **options)


@pytest.fixture(params=[_on_the_cpu, _on_the_disk, _in_part])
def away(request: Any, tmp_path: Path) -> nn.Module:
    """A model of which some weights, or all, are elsewhere."""
    offload: Offload = request.param
    return offload(_model(), tmp_path)


def _values(objective: ls.Objective) -> dict[str, Tensor]:
    return {n: t.clone() for n, t in objective.center.items()}


def test_a_scan_gives_the_values_of_the_whole_model(away: nn.Module) -> None:
    assert offloaded.list_names(away)
    objective = _objective(away, in_place=True)
    before = _values(objective)
    dx, dy = ls.directions.seeded(objective.center, seed=1)
    land = ls.scan(objective, ls.Plane(objective.center, dx, dy), ls.Grid(4))
    plain = _objective(_model())
    assert list(plain.center) == list(objective.center)
    stored = [
        params.like(plain.center, dict(d)) for d in ls.directions.seeded(plain.center, seed=1)
    ]
    expected = ls.scan(plain, ls.Plane(plain.center, *stored), ls.Grid(4)).data["loss"].values
    assert land.data["loss"].values == pytest.approx(expected, rel=1e-6)
    assert expected.max() > expected.min() + 0.01
    again = _objective(away, in_place=True)
    assert all(torch.equal(again.center[n], t) for n, t in before.items())
    assert again.loss() == pytest.approx(plain.loss(), rel=1e-6)


def test_a_scan_over_some_weights_and_around_another_point(away: nn.Module) -> None:
    objective, plain = _objective(away, in_place=True), _objective(_model())
    part = params.clone(params.select(plain.center, "*.mlp.*"))
    for tensor in part.values():
        tensor.mul_(1.5)
    line = ls.Line(part, ls.directions.random(part, 1, seed=2)[0])
    found = ls.scan(objective, line, ls.Grid(3)).data["loss"].values
    expected = ls.scan(plain, line, ls.Grid(3)).data["loss"].values
    assert found == pytest.approx(expected, rel=1e-6)


def test_what_needs_all_weights_at_once_is_refused(away: nn.Module) -> None:
    objective = _objective(away, in_place=True)
    with pytest.raises(ObjectiveError, match="neither gradients nor penalties"):
        objective.gradient()
    moved = params.clone(objective.center)
    with pytest.raises(ObjectiveError, match="which is offloaded"):
        objective.loss(moved)
    with pytest.raises(ObjectiveError, match="states of an offloaded model"):
        _ = objective.states
    with pytest.raises(ObjectiveError, match="pass in_place=True"):
        _objective(away)


def test_an_exception_leaves_nothing_behind(away: nn.Module) -> None:
    objective = _objective(away, in_place=True)
    before = _values(objective)

    def breaking(*_: object) -> dict[str, float]:
        raise KeyboardInterrupt

    plane = ls.Plane(objective.center, *ls.directions.seeded(objective.center))
    with pytest.raises(KeyboardInterrupt):
        ls.scan(objective, plane, ls.Grid(2), quantities=[breaking])
    gc.collect()
    again = _objective(away, in_place=True)
    assert all(torch.equal(again.center[n], t) for n, t in before.items())
    assert again.loss() == pytest.approx(_objective(copy.deepcopy(_model())).loss(), rel=1e-6)
