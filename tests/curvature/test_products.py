"""Routes of a product, against a dense Hessian that takes none of them.

The witness is a clone of the model whose kernels torch can differentiate twice: fused attention by
its plain kernels, a function that can be differentiated once by the torch function that it is.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

import landscope as ls
from landscope.curvature import definitions, linear_operator, products
from landscope.curvature.eigensolver import extremes
from landscope.curvature.linear_operator import CurvatureOperator
from landscope.curvature.matrices import MATRICES, GaussNewton, Hessian
from landscope.errors import ObjectiveError
from landscope.objective import native_kernels as kernels_
from tests import cases
from tests.cases import Case, seeded
from tests.oracles import dense

KINDS: tuple[Any, ...] = ("hessian", "ggn", "fisher")
each_kind = pytest.mark.parametrize("kind", KINDS)


class Tanh(torch.autograd.Function):
    """The hyperbolic tangent, whose gradient is not to be differentiated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x.tanh())
        return x.tanh()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return torch.as_tensor(slope * (1 - y**2))


class Once(nn.Module):
    fails: ClassVar[list[str]] = []

    def forward(self, rows: Tensor) -> Tensor:
        if self.fails and not torch.is_grad_enabled():
            self.fails.pop()
        elif self.fails:
            raise ValueError(self.fails[0])
        bent: Any = Tanh
        return torch.as_tensor(bent.apply(rows))


def once(*, norm: bool = False) -> tuple[Case, Case]:
    """Return a case that can be differentiated once, and the same to be differentiated at will."""
    found = []
    for bend in (Once, nn.Tanh):
        torch.manual_seed(3)
        layers = [nn.Linear(4, 5), *([nn.BatchNorm1d(5)] if norm else []), bend()]
        model = nn.Sequential(*layers, nn.Linear(5, cases.CLASSES)).eval()
        inputs = torch.randn(21, 4, generator=seeded(1))
        targets = torch.randint(cases.CLASSES, (21,), generator=seeded(2))
        found.append(Case(bend.__name__, model, inputs, targets))
    return found[0], found[1]


def witness(case: Case, kind: str = "hessian") -> Tensor:
    model = dense.clone(case.model)
    leaves, inputs = dense.leaves(model), case.inputs.double()
    if kind == "hessian":
        return dense.hessian(lambda: F.cross_entropy(model(inputs), case.targets), leaves)
    if kind == "ggn":
        loss = lambda o: F.cross_entropy(o, case.targets)  # noqa: E731
        return dense.gauss_newton(model(inputs), loss, leaves)
    pairs = zip(inputs.split(1), case.targets.split(1), strict=True)
    return dense.fisher([(F.cross_entropy(model(x), y), 1.0) for x, y in pairs], leaves)


def matrix(hessian: CurvatureOperator) -> Tensor:
    return torch.as_tensor(hessian @ torch.eye(hessian.shape[0], dtype=hessian.dtype))


def assert_equal(found: Tensor, expected: Tensor, error: float) -> None:
    assert float((found - expected).abs().max()) <= error * float(expected.abs().max())


def kernels() -> tuple[bool, ...]:
    cuda, cudnn, mkldnn = torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn
    sdp = cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.math_sdp_enabled()
    on = cudnn.enabled, bool(mkldnn.enabled), bool(mkldnn.allow_tf32)
    return (*sdp, cuda.cudnn_sdp_enabled(), *on)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = kernels()
    yield
    Once.fails.clear()
    assert kernels() == before
    assert kernels_.NATIVE.users == 0


# --------------------------------------------------------------------------------- exact ones


@each_kind
def test_plain_models_take_double_backward(kind: Any) -> None:
    hessian = MATRICES[kind](cases.mlp().objective(precision="float64"))
    assert hessian.route == ""
    hessian @ torch.ones(67)
    assert hessian.route == "double backward"


@pytest.mark.parametrize("kind", ["hessian", "ggn"])
def test_fused_attention_takes_plain_kernels_and_is_exact(kind: Any) -> None:
    case = cases.transformer()
    before = cases.remembered(case.model)
    hessian = MATRICES[kind](case.objective(precision="float64"))
    assert_equal(matrix(hessian), witness(case, kind), 1e-12)
    assert hessian.route == "double backward, math attention and native recurrent kernels"
    assert hessian.relative_error == 0.0
    assert cases.remembered(case.model) == before


def test_float32_recurrent_layers_have_an_exact_route() -> None:
    hessian = Hessian(cases.lstm().objective())
    v = torch.randn(hessian.shape[0], generator=seeded(4))
    assert_equal((hessian @ v).double(), witness(cases.lstm()) @ v.double(), 1e-5)
    assert hessian.route.startswith("double backward")


def test_kernels_that_the_user_chose_are_given_back() -> None:
    hessian = Hessian(cases.transformer().objective(precision="float64"))
    torch.backends.cuda.enable_mem_efficient_sdp(enabled=False)
    try:
        before = kernels()
        hessian @ torch.ones(hessian.shape[0])
        assert kernels() == before
    finally:
        torch.backends.cuda.enable_mem_efficient_sdp(enabled=True)


def test_threads_do_not_change_kernels_under_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_operator, "_SHARE", 0.0)  # a product makes its graphs anew
    ready = [Hessian(cases.transformer().objective(precision="float64")) for _ in range(3)]
    v = torch.ones(ready[0].shape[0])
    expected = witness(cases.transformer()) @ v.double()
    errors: list[BaseException] = []

    def work(hessian: Hessian) -> None:
        try:
            for _ in range(12):
                hessian._products.route = ""
                assert_equal(hessian @ v, expected, 1e-12)
        except BaseException as error:  # a thread would lose it
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(h,)) for h in ready]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert errors == []
    assert {h.route for h in ready} == {products.NATIVE}


# -------------------------------------------------------------------------------- differences


@each_kind
def test_what_is_differentiable_once_takes_finite_differences(kind: Any) -> None:
    rough, smooth = once()
    before = cases.remembered(rough.model)
    hessian = MATRICES[kind](rough.objective(precision="float64"))
    expected = witness(smooth, kind)
    found = matrix(hessian)
    assert hessian.route == "finite differences"
    assert 0 < hessian.relative_error < 1e-6
    assert_equal(found, expected, 1e-6)
    assert hessian @ torch.zeros(hessian.shape[0]) is not None
    assert (hessian @ torch.zeros(hessian.shape[0])).count_nonzero() == 0
    assert_equal(hessian @ (1e4 * expected[0]), 1e4 * expected @ expected[0], 1e-6)
    assert cases.remembered(rough.model) == before


@each_kind
def test_the_estimated_error_is_about_the_true_one_in_float32(kind: Any) -> None:
    rough, smooth = once()
    hessian = MATRICES[kind](rough.objective())
    v = torch.randn(hessian.shape[0], generator=seeded(5))
    found, expected = (hessian @ v).double(), witness(smooth, kind) @ v.double()
    true = float((found - expected).norm() / expected.norm())
    assert hessian.dtype == torch.float32
    assert true < 5e-3
    assert true / 20 < hessian.relative_error < 2e-2


@each_kind
def test_differences_count_weights_penalties_parts_and_points(kind: Any) -> None:
    found = []
    for case in once():
        weight = nn.CrossEntropyLoss(weight=torch.tensor([0.5, 2.0, 1.25]), ignore_index=1)
        objective = ls.Objective(
            case.model, weight, case.data, batch_size=8, precision="float64",
            penalty=ls.losses.weight_decay(0.1),
        )  # fmt: skip
        there = ls.params.like(objective.center, {n: 1.5 * t for n, t in objective.center.items()})
        hessian = MATRICES[kind](objective, select="*.weight")
        hessian @ torch.ones(hessian.shape[0])
        found.append(matrix(hessian.at(there)))
        value = hessian.along(found[0][0])[0]
        expected = found[0][0] @ found[0] @ found[0][0] / found[0][0].square().sum()
        assert value == pytest.approx(float(expected), rel=1e-6)
    assert_equal(found[0], found[1], 1e-6)


@each_kind
def test_differences_keep_recomputed_statistics_constant(kind: Any) -> None:
    found = []
    for case in once(norm=True):
        objective = case.objective(precision="float64", buffers="recompute")
        found.append(matrix(MATRICES[kind](objective)))
    assert_equal(found[0], found[1], 1e-6)


def test_differences_of_outputs_that_hold_what_no_parameter_moves() -> None:
    def terms(outputs: dict[str, Tensor], targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs["logits"], targets, reduction="none")

    found = []
    for case in once():
        named = Named(case.model)
        objective = ls.Objective(named, terms, case.data, batch_size=8, precision="float64")
        found.append(matrix(GaussNewton(objective)))
    assert_equal(found[0], found[1], 1e-6)


class Named(nn.Module):
    """The outputs of a model in a dict, beside its inputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, rows: Tensor) -> dict[str, Tensor]:
        return {"inputs": rows * 2, "logits": self.model(rows)}


def test_eigenvalues_are_found_through_differences() -> None:
    rough, smooth = once()
    found = extremes(Hessian(rough.objective(precision="float64")), eigenvalue_tol=1e-5)
    expected = torch.linalg.eigvalsh(witness(smooth))
    assert found.converged
    assert found.smallest == pytest.approx(float(expected[0]), rel=1e-4)
    assert found.largest == pytest.approx(float(expected[-1]), rel=1e-4)


# ------------------------------------------------------------------------------------- failures


def test_everything_is_back_when_an_exception_flies_in_the_middle() -> None:
    rough, smooth = once()
    before = cases.remembered(rough.model)
    hessian = Hessian(rough.objective(precision="float64"))
    hessian @ torch.ones(hessian.shape[0])
    Once.fails[:] = ["the lights went out", "and the pass that counts passes"]
    with pytest.raises((ValueError, ObjectiveError), match="the lights went out"):
        hessian @ torch.ones(hessian.shape[0])
    assert cases.remembered(rough.model) == before
    Once.fails.clear()
    assert_equal(matrix(hessian), witness(smooth), 1e-6)


def test_a_model_that_fails_says_so_and_takes_no_route() -> None:
    case = cases.mlp()
    objective = ls.Objective(case.model, nn.CrossEntropyLoss(), (case.inputs[:, :3], case.targets))
    hessian = GaussNewton(objective)
    with pytest.raises(ObjectiveError, match="failed on the first batch"):
        hessian @ torch.ones(67)
    assert hessian.route == ""


@each_kind
def test_a_loss_without_a_gradient_is_refused_and_a_constant_is_zero(kind: Any) -> None:
    case = cases.mlp()
    still = ls.Objective(case.model, lambda o, t: F.cross_entropy(o, t).item(), case.data)
    with pytest.raises(ObjectiveError, match="torch has no gradient of it"):
        MATRICES[kind](still) @ torch.ones(67)
    flat = ls.Objective(case.model, lambda o, _: torch.ones(len(o)), case.data)
    assert (MATRICES[kind](flat) @ torch.ones(67)).count_nonzero() == 0
    parts = nn.Sequential(nn.Linear(4, 4), Detached(), case.model)
    frozen = ls.Objective(parts, nn.CrossEntropyLoss(), case.data)
    with pytest.raises(ObjectiveError, match=r"depends on '0\.weight'.*select="):
        MATRICES[kind](frozen) @ torch.ones(87)
    part = MATRICES[kind](frozen, select=lambda name, _: not name.startswith("0."))
    assert float((part @ torch.ones(part.shape[0])).norm()) > 0


class Detached(nn.Module):
    def forward(self, rows: Tensor) -> Tensor:
        return rows.detach()


def test_a_lack_of_memory_is_no_reason_to_change_the_route(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: Any) -> Callable[[Tensor], Tensor]:
        raise torch.OutOfMemoryError("out of memory")

    hessian = Hessian(cases.mlp().objective())
    with monkeypatch.context() as patch:
        patch.setattr(definitions, "hessian_map", full)
        with pytest.raises(torch.OutOfMemoryError):
            hessian @ torch.ones(67)
    assert (hessian @ torch.ones(67)).shape == (67,)
    assert hessian.route == "double backward"


def test_data_do_not_count_as_memory_of_the_graphs_that_see_them() -> None:
    data = torch.randn(4000, 4, dtype=torch.float64), torch.randn(4000, 1, dtype=torch.float64)
    objective = ls.Objective(nn.Linear(4, 1).double(), nn.MSELoss(), data, batch_size=1000)
    hessian = Hessian(objective)
    hessian._products.budget = 4000 * 4 * 8  # as much as the data
    hessian @ torch.ones(5)
    assert len(hessian._products.maps) == 4


def test_without_memory_batches_are_halved_and_products_stay_the_same() -> None:
    class Hungry(nn.Module):
        """Has memory for five rows."""

        sizes: ClassVar[list[int]] = []

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, rows: Tensor) -> Tensor:
            self.sizes.append(len(rows))
            if len(rows) > 5:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            return torch.tanh(self.layer(rows))

    model = Hungry()
    data = torch.randn(23, 4, generator=seeded(0)), torch.randint(3, (23,), generator=seeded(1))
    case = Case("hungry", model.double(), data[0].double(), data[1])
    hessian = Hessian(case.objective(batch_size=20, precision="float64"))
    found = hessian @ torch.eye(15, dtype=torch.float64)
    small = Hessian(case.objective(batch_size=5, precision="float64"))
    torch.testing.assert_close(found, small @ torch.eye(15, dtype=torch.float64))
    assert max(Hungry.sizes) == 20
    recomputed = Hessian(case.objective(batch_size=23, precision="float64", buffers="recompute"))
    torch.testing.assert_close(found[:, 0], recomputed @ torch.eye(15, dtype=torch.float64)[:, 0])
