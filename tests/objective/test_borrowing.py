"""A loan ends with everything in its place, also when an exception flies."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from landscope.objective.borrowing import borrowed, products
from tests import cases


@pytest.mark.parametrize("make", cases.CASES, ids=lambda make: str(make.__name__))
def test_a_borrowed_model_comes_back_as_it_was(make: Callable[[], cases.Case]) -> None:
    case = make()
    before = cases.remembered(case.model)
    with (  # noqa: PT012 - the block is the loan
        pytest.raises(KeyError),
        borrowed(case.model, torch.device("cpu"), torch.float64) as loan,
    ):
        loan.put({n: t.detach() + 1 for n, t in case.model.named_parameters()})
        case.model.train()
        case.model(case.inputs.double())
        torch.rand(2)
        raise KeyError
    assert cases.remembered(case.model) == before


@pytest.mark.parametrize(("tf32", "name"), [(True, "high"), (False, "highest")])
def test_products_are_as_asked_for_and_the_users_setting_comes_back(tf32: bool, name: str) -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with products(tf32=tf32):
        assert torch.get_float32_matmul_precision() == name
        assert torch.backends.cudnn.allow_tf32 is tf32
    with pytest.raises(ZeroDivisionError), products(tf32=tf32):
        raise ZeroDivisionError
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


def test_a_tensor_that_was_replaced_in_the_same_dict_is_seen() -> None:
    case = cases.mlp()
    params = {n: p.detach().clone() for n, p in case.model.named_parameters()}
    with borrowed(case.model, torch.device("cpu"), None) as loan:
        loan.put(params)
        name = next(iter(params))
        params[name] = params[name] + 1
        loan.put(params)
        assert torch.equal(dict(case.model.named_parameters())[name], params[name])
        params[name].add_(1)  # and in place
        loan.put(params)
        assert torch.equal(dict(case.model.named_parameters())[name], params[name])
