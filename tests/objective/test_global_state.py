"""Global state is as before after each context, also after an exception."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from landscope.objective.global_state import (
    disable_backend,
    preserve_global_state,
    seed_all,
    set_tf32,
)


@pytest.mark.parametrize(("tf32", "name"), [(True, "high"), (False, "highest")])
def test_products_have_the_chosen_precision_until_it_is_restored(tf32: bool, name: str) -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with set_tf32(enabled=tf32):
        assert torch.get_float32_matmul_precision() == name
        assert torch.backends.cudnn.allow_tf32 is tf32
    with pytest.raises(ZeroDivisionError), set_tf32(enabled=tf32):
        raise ZeroDivisionError
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


def _draw() -> tuple[float, float, float]:
    return float(torch.rand(())), random.random(), float(np.random.rand())  # noqa: NPY002


def test_a_seed_gives_all_pipelines_the_same_numbers_and_the_users_states_are_restored() -> None:
    seed_all(3)
    expected = [_draw(), _draw()]
    seed_all(3)
    assert _draw() == expected[0]
    with pytest.raises(ZeroDivisionError), preserve_global_state():  # noqa: PT012 - a context
        seed_all(4)
        assert _draw() != expected[1]
        raise ZeroDivisionError
    assert _draw() == expected[1]


def test_the_generator_of_a_loader_and_the_number_of_threads_are_restored() -> None:
    generator = torch.Generator().manual_seed(1)
    loader = DataLoader(TensorDataset(torch.arange(9)), shuffle=True, generator=generator)
    state, threads = generator.get_state(), torch.get_num_threads()
    with preserve_global_state(loader):
        list(loader)
        torch.set_num_threads(threads + 1)
    assert torch.equal(generator.get_state(), state)
    assert torch.get_num_threads() == threads


def test_a_disabled_backend_is_enabled_again_unless_it_was_disabled_before() -> None:
    backend = torch.backends.mkldnn
    enabled = backend.enabled
    with pytest.raises(ZeroDivisionError), disable_backend(backend):  # noqa: PT012 - a context
        assert not backend.enabled
        with disable_backend(backend):
            assert not backend.enabled
        assert not backend.enabled
        raise ZeroDivisionError
    assert backend.enabled == enabled
