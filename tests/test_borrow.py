"""A loan ends with everything in its place, also when an exception flies."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from landscope.borrow import borrowed
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
