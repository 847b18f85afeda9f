"""A probe: products of a few rows of the data, repeated in other ways to see how good they are.

Two things may be wrong with a product. The second derivative of torch may not be the derivative of
its gradient: that of ``torch._weight_norm`` is not in torch 2.13, nor is that of a custom function
whose backward pass detaches something. And a product is rounded, by more than its own size where
the loss is tiny. Both are seen in a few rows, in float64 where the model can be computed in it.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, final

import torch
from torch import Tensor

from landscope import params as params_
from landscope.curvature.double_precision import double_batch, double_params, to_double
from landscope.curvature.isolation import clone
from landscope.curvature.lanczos import random_vector
from landscope.curvature.products import DIFFERENCES, Products, Verification
from landscope.objective import nested_batches
from landscope.objective.objective import Objective
from landscope.params import Params

_ROWS = 32  # of the data in a probe
_STEPS = {torch.float64: (1e-7, 1e-5, 1e-9), torch.float32: (5e-3, 1e-3, 2e-2)}  # relative
_DIFFERENCE = {torch.float64: 1e-4, torch.float32: 0.03}  # relative, from which a product is wrong
_SYMMETRY = {torch.float64: 1e-6, torch.float32: 1e-2}
_SYMMETRY_OF_DIFFERENCES = {torch.float64: 1e-3, torch.float32: 0.2}
_NOISE = 10.0  # multiples of the error of finite differences, up to which they are symmetric
_ASIDE = 1e-3  # relative, how far from a point its second derivatives are verified
_CONSISTENT = 0.3  # of the difference: how much differences of two steps may differ
_GRADIENT = {torch.float64: 1e-3, torch.float32: 0.03}  # relative, from which one is not the loss's
_LOST = 100.0  # multiples of the rounding of 1: a loss that changes less may be rounded off
_SAFETY = 2.0  # the error over all rows may be larger than that over a few


@final
class Probe:
    """Products of a few rows in two precisions, at one point.

    Args:
        single: Products of the rows in the precision of the operator.
        double: The same in float64; None where that is not possible.
    """

    def __init__(self, single: Products, double: Products | None) -> None:
        self.single, self.double = single, double
        self._point: Params | None = None

    @property
    def _exact(self) -> Products:
        return self.double or self.single

    def move(self, params: Params) -> None:
        """Go to another point, if the probe is not there."""
        if params is self._point:
            return
        self._point = params
        self.single.move(params)
        if self.double is not None:
            self.double.move(double_params(params))

    def verify(self, route: str) -> Verification:
        """Compare products with their transpose, and with a difference of first derivatives.

        The step of the difference is tried again where it crosses kinks: only differences that
        agree with each other count against a product.
        """
        if self.double is not None:
            try:
                with self._beside_kinks(self.double):
                    return self._verify(self.double, route)
            except RuntimeError:  # it has no such route in float64
                self.double = None
        with self._beside_kinks(self.single):
            return self._verify(self.single, route)

    @contextlib.contextmanager
    def _beside_kinks(self, products: Products) -> Iterator[None]:
        """Move products to a point nearby, for where units are exactly at 0 a kink has no sides."""
        assert self._point is not None
        point = double_params(self._point) if products is self.double else self._point
        products.move(_shift(point, _ASIDE))
        try:
            yield
        finally:
            products.move(point)

    def _verify(self, products: Products, route: str) -> Verification:
        products.take(route)
        (u, v), batch = self._draw(products), next(products.batches())
        (_, (hu, hv)), *_ = products.by_batch([u, v])
        u, v, hu, hv = (t.double() for t in (u, v, hu, hv))
        scale = max(float(hu.norm()), float(hv.norm()))
        if not scale < float("inf"):
            return Verification(0.0, is_right=True)  # the product itself is reported
        symmetry = abs(float(u @ hv) - float(v @ hu)) * len(u) ** 0.5 / (scale or 1.0)
        if route == DIFFERENCES:
            noise = _NOISE * products.relative_error
            is_right = symmetry <= max(_SYMMETRY_OF_DIFFERENCES[products.dtype], noise)
        else:
            is_right = self._agrees(products, batch, v, hv)
            if is_right and symmetry > _SYMMETRY[products.dtype]:
                is_right = _has_gradient_of_loss(products)  # then it is rounding
        return Verification(symmetry, is_right=is_right)

    def _draw(self, products: Products) -> tuple[Tensor, Tensor]:
        size = sum(t.numel() for t in products.leaves)
        like = products.leaves[0]
        rows = (random_vector(size, s, dtype=like.dtype, device=like.device) for s in (1, 2))
        first, second = (row / row.norm() for row in rows)
        return first, second

    def _agrees(self, products: Products, batch: Any, v: Tensor, product: Tensor) -> bool:
        """Return whether a product does not contradict all differences of first derivatives."""
        dtype, differences, gaps = products.dtype, list[Tensor](), list[float]()
        scale = _measure(products)
        for step in _STEPS[dtype]:
            unit = v.to(products.leaves[0])
            difference = products.differences.difference(batch, unit, step * scale).double()
            gap = float((difference - product).norm())
            if not gap > _DIFFERENCE[dtype] * max(float(product.norm()), float(difference.norm())):
                return True
            differences.append(difference)
            gaps.append(gap)
        pairs = itertools.combinations(differences, 2)
        return not min(float((a - b).norm()) for a, b in pairs) < _CONSISTENT * min(gaps)

    def has_gradient_of_loss(self) -> bool:
        """Return whether the gradient is the derivative of the loss.

        It is not where part of the loss counts as constant (``.detach()``), nor where a backward
        pass is made up (a straight-through estimator).
        """
        with self._beside_kinks(self._exact):
            return _has_gradient_of_loss(self._exact)

    def estimate_errors(self, vectors: Sequence[Tensor], route: str) -> list[Tensor]:
        """Return by how much products are rounded, for each vector, shape [p], float64.

        The products are compared with those in float64, or where there are none with those at
        parameters that differ by their own rounding.
        """
        products = self._multiply(self.single, vectors, route)
        others: list[Tensor] = []
        if self.double is not None:
            try:
                others = self._multiply(self.double, [v.double() for v in vectors], route)
            except RuntimeError:  # it has no such route in float64
                self.double = None
        if self.double is None:
            assert self._point is not None
            eps = torch.finfo(self.single.dtype).eps
            self.single.move(_shift(self._point, eps))
            others = self._multiply(self.single, vectors, route)
            self.single.move(self._point)
        return [_SAFETY * (a - b) for a, b in zip(products, others, strict=True)]

    def _multiply(self, products: Products, vectors: Sequence[Tensor], route: str) -> list[Tensor]:
        products.take(route)
        return [product.double() for product in products.multiply(vectors)]


def _has_gradient_of_loss(products: Products) -> bool:
    batch = next(products.batches())
    gradient = products.differences.read_gradient(batch)
    length = float(gradient.norm())
    if not 0 < length < float("inf"):
        return True
    floor = _LOST * torch.finfo(products.dtype).eps * (nested_batches.count_rows(batch) or 1)
    sizes = (1e-5, 1e-4, 1e-6) if products.dtype == torch.float64 else (1e-2, 1e-3, 3e-2)
    steps = [size * _measure(products) for size in sizes]
    if 2 * max(steps) * length < floor:  # a difference of such losses is rounding
        return True
    unit = (gradient / length).to(products.leaves[0])
    slopes = [products.differences.slope(batch, unit, step) for step in steps]
    gap = min(abs(slope - length) for slope in slopes)
    if not gap > _GRADIENT[products.dtype] * length:
        return True
    pairs = itertools.combinations(slopes, 2)
    return not min(abs(a - b) for a, b in pairs) < _CONSISTENT * gap


def _measure(products: Products) -> float:
    """Return the size of the parameters, relative to which steps are chosen."""
    return max(float(torch.cat([t.detach().reshape(-1) for t in products.leaves]).norm()), 1.0)


def make_probe(objective: Objective, products: Products, params: Params) -> Probe:
    """Return a probe of the first rows of the data that products are of.

    Args:
        objective: The objective.
        products: Products of all data.
        params: The point at which the products are.
    """
    name, few = next(iter(objective.problem.batches)), _draw_rows(products)
    session = clone(objective).lasting_session({name: few})
    single = Products(session, products.names, products.definition, 0.0)
    problem = to_double(objective.problem)
    if problem is None:
        return Probe(single, None)
    session = problem.lasting_session({name: [double_batch(b) for b in few]})
    try:
        session.move(double_params(params))
        session.batch_terms(next(iter(session.batches[name])))
    except (RuntimeError, TypeError, ValueError):  # it has tensors of its own in float32
        return Probe(single, None)
    return Probe(single, Products(session, products.names, products.definition, 0.0))


def _draw_rows(products: Products) -> list[Any]:
    """Return a few rows of the first batch as a batch; all of them where they cannot be divided."""
    batch = next(products.batches())
    rows = nested_batches.count_rows(batch)
    if rows is None or rows <= _ROWS:
        return [batch]
    few = nested_batches.index_rows(batch, torch.arange(_ROWS))
    try:
        weight = float(products.session.batch_terms(few).weights.sum())
    except (RuntimeError, ValueError, IndexError, TypeError):  # a model of batches of one size
        return [batch]
    return [few if weight else batch]


def _shift(params: Params, size: float) -> Params:
    """Return parameters that are moved by so much of their sizes, up or down at random."""
    generator = torch.Generator().manual_seed(0)
    return params_.like(params, _shift_each(params, size, generator))


def _shift_each(
    params: Params, size: float, generator: torch.Generator
) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in params.items():
        if not tensor.is_floating_point():
            yield name, tensor
            continue
        signs = 2 * torch.randint(2, tensor.shape, generator=generator, dtype=torch.int8) - 1
        least = float(tensor.double().square().mean().sqrt()) or 1.0
        lengths = tensor if size < _ASIDE else tensor.abs() + least
        yield name, tensor + size * lengths * signs.to(tensor)
