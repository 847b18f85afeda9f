"""A borrowed model is restored to the last bit, also after an exception."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from landscope.objective.borrowed_model import borrow
from tests import cases


@pytest.mark.parametrize("make", cases.CASES, ids=lambda make: str(make.__name__))
def test_a_borrowed_model_is_restored(make: Callable[[], cases.Case]) -> None:
    case = make()
    before = cases.remembered(case.model)
    with (  # noqa: PT012 - the block borrows the model
        pytest.raises(KeyError),
        borrow(case.model, torch.device("cpu"), torch.float64) as borrowed,
    ):
        borrowed.set_params({n: t.detach() + 1 for n, t in case.model.named_parameters()})
        case.model.train()
        case.model(case.inputs.double())
        torch.rand(2)
        raise KeyError
    assert cases.remembered(case.model) == before


def test_a_tensor_that_was_replaced_in_the_same_dict_is_seen() -> None:
    case = cases.mlp()
    params = {n: p.detach().clone() for n, p in case.model.named_parameters()}
    with borrow(case.model, torch.device("cpu"), None) as borrowed:
        borrowed.set_params(params)
        name = next(iter(params))
        params[name] = params[name] + 1
        borrowed.set_params(params)
        assert torch.equal(dict(case.model.named_parameters())[name], params[name])
        params[name].add_(1)  # and in place
        borrowed.set_params(params)
        assert torch.equal(dict(case.model.named_parameters())[name], params[name])
