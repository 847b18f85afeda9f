"""Routes: how the product of a curvature matrix and a vector is made, batch by batch.

double backward                 exact, wherever torch can differentiate a gradient again
..., math attention, native     the same where fused attention or cuDNN recurrent layers cannot:
    recurrent kernels           torch's plain kernels take their place during the product
finite differences              of gradients (or outputs), the step chosen and the error estimated

The first route that works is taken, and kept.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, final

import torch
from torch import Tensor
from torch.autograd import grad
from torch.autograd.graph import saved_tensors_hooks

from landscope.curvature.derivatives import Map, again, hessian_of, jacobian, joined, transposed
from landscope.errors import ObjectiveError
from landscope.objective import kernels, nested
from landscope.objective.evaluation import Session
from landscope.objective.memory import is_out_of_memory
from landscope.objective.terms import Loss
from landscope.params import Params

PLAIN, NATIVE, DIFFERENCES = (
    "double backward",
    "double backward, math attention and native recurrent kernels",
    "finite differences",
)
_STEPS = tuple(4.0**k for k in range(-4, 3))  # over the usual step, to choose from


@final
class Passes:
    """Products at one point, with the graphs that are kept for the next one.

    Args:
        session: of a model that nobody else uses.
        names: of the parameters by which to differentiate.
        kind: "hessian", "ggn" or "fisher".
        budget: bytes that graphs may take from product to product.
    """

    def __init__(self, session: Session, names: Sequence[str], kind: str, budget: float) -> None:
        self.session, self.names, self.kind, self.budget = session, list(names), kind, budget
        self.route, self.error = "", 0.0
        self.kept: list[tuple[float, Map]] = []
        self.penalty: Map | None = None
        self.params: Params | None = None
        self._whole = False  # whether every batch has a kept map
        self._step: float | None = None
        self._statistics: dict[str, Tensor] = {}

    @property
    def leaves(self) -> list[Tensor]:
        """The parameters in the model."""
        return [self.session.borrowed.tensors[n] for n in self.names]

    def move(self, params: Params) -> None:
        """Go to another point."""
        self.kept, self.penalty, self._whole, self._step = [], None, False, None
        self.session.move(params)
        self.params = params
        self._statistics = {}
        if self.session.recompute:  # they are constants, so a step of a difference keeps them
            buffers = self.session.borrowed.model.named_buffers()
            self._statistics = {n: b.detach().clone() for n, b in buffers}

    def product(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """Return products of the mean loss with vectors [p].

        Where memory does not suffice batches are halved, and graphs no longer kept.
        """
        while True:
            try:
                return self._product(vectors)
            except RuntimeError as error:
                if not is_out_of_memory(error) or not self._halve():
                    raise

    def _halve(self) -> bool:
        """Halve the batches and keep no graphs; False when they cannot get smaller."""
        if self.session.halve_batches(metrics=False) is None:
            return False
        self.kept, self._whole, self.budget = [], False, 0.0
        return True

    def _product(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        totals = [torch.zeros_like(v, dtype=torch.float64) for v in vectors]
        mass = 0.0
        for weight, images in self.by_batch(vectors):
            mass += weight
            for k, image in enumerate(images):
                totals[k] += image
        found = [t / mass for t in totals]
        for k, vector in enumerate(vectors):
            found[k] = (found[k] + self.penalty_product(vector)).to(vector)
        return found

    def by_batch(self, vectors: Sequence[Tensor]) -> Iterator[tuple[float, list[Tensor]]]:
        """Yield (weight of the terms, products of the sum over a batch with each vector)."""
        if not self.route:
            self._choose(vectors[0])
        if self._whole:
            for weight, map_ in self.kept:
                yield weight, [map_(v) for v in vectors]
            return
        self.kept, size, used = [], 0.0, 0.0
        for number, batch in enumerate(self._batches()):
            with self._kernels(self.route), _Sizes(self.leaves, batch) as sizes:
                weight, map_ = self._map(batch)
            yield weight, [map_(v) for v in vectors]
            size = max(size, float(sizes.total))
            if number == len(self.kept) and used + size <= self.budget and self._keeps:
                self.kept.append((weight, map_))
                used += size
        self._whole = len(self.kept) == number + 1
        if not self._whole:
            self.kept = []

    def penalty_product(self, vector: Tensor) -> Tensor:
        """Return the product of the penalty's Hessian with a vector, zero without a penalty."""
        if self.session.penalty is None:
            return torch.zeros_like(vector)
        if self.penalty is None:
            value = self.session.penalty(self.session.current())
            self.penalty = hessian_of(value, self.leaves)
        return self.penalty(vector)

    @property
    def _keeps(self) -> bool:
        """Whether maps stay right while the model stays where it is."""
        return self.route != DIFFERENCES

    def _batches(self) -> Iterator[Any]:
        yield from next(iter(self.session.batches.values()))

    def _choose(self, vector: Tensor) -> None:
        """Take the first route that works, tried on the first batch."""
        batch = next(self._batches())
        with torch.no_grad():  # a model that fails says so here, and not once a route
            self.session.batch_terms(batch)
        for route in (PLAIN, NATIVE):
            try:
                with self._kernels(route) if route == NATIVE else kernels.NATIVE.lock:
                    if (
                        route == PLAIN and kernels.NATIVE.users
                    ):  # it would be tried with their kernels
                        continue
                    self.route = route
                    _, map_ = self._map(batch)
                    map_(vector)
            except (RuntimeError, NotImplementedError) as error:
                if isinstance(error, ObjectiveError) or is_out_of_memory(error):
                    self.route = ""
                    raise
            else:
                return
        self.route = DIFFERENCES

    def _kernels(self, route: str) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext() if route == PLAIN else kernels.NATIVE

    def _map(self, batch: Any) -> tuple[float, Map]:
        """Return the weight of a batch's terms and the map of their sum."""
        if self.route == DIFFERENCES:
            return self._differences(batch)
        if self.kind == "ggn":
            return self._gauss_newton(batch)
        if self.kind == "fisher":
            return self._fisher(batch)
        terms = self.session.batch_terms(batch)
        return float(terms.weights.sum()), hessian_of(terms.values.sum(), self.leaves)

    def _gauss_newton(self, batch: Any) -> tuple[float, Map]:
        outputs, targets = self.session.outputs(batch)
        flat = [t for t in nested.iter_tensors(outputs) if t.requires_grad]
        weight, curved = self._outer(outputs, targets)
        pushed, pulled = jacobian(flat, self.leaves)
        return weight, lambda v: pulled(curved(pushed(v)))

    def _outer(self, outputs: Any, targets: Any) -> tuple[float, Callable[[Any], Any]]:
        """Return the map of the loss's Hessian in the outputs."""
        loss = self.session.loss
        assert isinstance(loss, Loss)
        nodes: list[Tensor] = []

        def cut(tensor: Tensor) -> Tensor:
            if not tensor.requires_grad:
                return tensor
            nodes.append(tensor.detach().requires_grad_())
            return nodes[-1]

        terms = loss(nested.map_tensors(cut, outputs), targets)
        slopes = again(grad(terms.values.sum(), nodes, create_graph=True, allow_unused=True))
        return float(terms.weights.sum()), lambda tangents: transposed(slopes, nodes, tangents)

    def _fisher(self, batch: Any) -> tuple[float, Map]:
        terms = self.session.single_terms(batch)
        pushed, pulled = jacobian([terms.values], self.leaves)
        weights = terms.weights.detach()
        inverse = torch.where(weights != 0, 1.0 / weights, 0.0)
        return float(weights.sum()), lambda v: pulled([pushed(v)[0] * inverse])

    def _differences(self, batch: Any) -> tuple[float, Map]:
        """Return the map by central differences of gradients, or of outputs or terms."""
        with torch.no_grad():
            weight = float(self.session.batch_terms(batch).weights.sum())

        def of(vector: Tensor) -> Tensor:
            length = float(vector.norm())
            if length == 0:
                return torch.zeros_like(vector)
            unit = vector / length
            if self._step is None:
                self._choose_step(batch, unit)
            assert self._step is not None
            return self._difference(batch, unit, self._step) * length

        return weight, of

    def _difference(self, batch: Any, unit: Tensor, step: float) -> Tensor:
        if self.kind == "hessian":
            up, down = (self._gradient(batch, unit, s) for s in (step, -step))
            self._return()
            return ((up - down) / (2 * step)).to(unit)
        read = self._outputs_of if self.kind == "ggn" else self._terms_of
        above, below = (read(batch, unit, s) for s in (step, -step))
        self._return()
        pushed = [(a - b) / (2 * step) for a, b in zip(above, below, strict=True)]
        with self._kernels(NATIVE):
            if self.kind == "fisher":
                terms = self.session.single_terms(batch)
                inverse = torch.where(terms.weights != 0, 1.0 / terms.weights.detach(), 0.0)
                return joined(
                    grad([terms.values], self.leaves, [pushed[0] * inverse], allow_unused=True),
                    self.leaves,
                )
            outputs, targets = self.session.outputs(batch)
            whole = [t for t in nested.iter_tensors(outputs) if t.is_floating_point()]
            pairs = zip(whole, pushed, strict=True)
            flat, moved = zip(*((t, u) for t, u in pairs if t.requires_grad), strict=True)
            curved = self._outer(outputs, targets)[1](moved)
            return joined(grad(flat, self.leaves, curved, allow_unused=True), self.leaves)

    def _choose_step(self, batch: Any, unit: Tensor) -> None:
        """Choose the step at which two neighboring steps differ least: that is also the error."""
        assert self.params is not None
        moved = torch.cat([self.params[n].reshape(-1) for n in self.names if n in self.params])
        usual = torch.finfo(unit.dtype).eps ** (1 / 3) * max(float(moved.norm()), 1.0)
        steps = [usual * s for s in _STEPS]
        found = [self._difference(batch, unit, s).double() for s in steps]
        off = [float((a - b).norm()) for a, b in itertools.pairwise(found)]
        best = min(range(len(off)), key=off.__getitem__)
        self._step = steps[best]
        self.error = max(self.error, off[best] / max(float(found[best].norm()), 1e-300))

    def _shift(self, unit: Tensor, step: float) -> None:
        assert self.params is not None
        sizes = [t.numel() for t in self.leaves]
        shifted: dict[str, Tensor] = {**self.params, **self._statistics}
        center = self.session.center
        for name, part in zip(self.names, unit.split(sizes), strict=True):
            base = self.params[name] if name in self.params else center[name]
            shifted[name] = base + step * part.reshape(base.shape)
        self.session.borrowed.set_params(shifted)

    def _return(self) -> None:
        assert self.params is not None
        self.session.borrowed.set_params({**self.params, **self._statistics})

    def _gradient(self, batch: Any, unit: Tensor, step: float) -> Tensor:
        self._shift(unit, step)
        with self._kernels(NATIVE):
            total = self.session.batch_terms(batch).values.sum()
        return joined(grad(total, self.leaves, allow_unused=True), self.leaves).double()

    @torch.no_grad()
    def _outputs_of(self, batch: Any, unit: Tensor, step: float) -> list[Tensor]:
        self._shift(unit, step)
        return [
            t for t in nested.iter_tensors(self.session.outputs(batch)[0]) if t.is_floating_point()
        ]

    @torch.no_grad()
    def _terms_of(self, batch: Any, unit: Tensor, step: float) -> list[Tensor]:
        self._shift(unit, step)
        return [self.session.single_terms(batch).values]


@final
class _Sizes:
    """Counts the bytes that a graph holds, each memory once, parameters and data not at all."""

    def __init__(self, leaves: Sequence[Tensor], batch: Any) -> None:
        self.total = 0
        there = [*leaves, *nested.iter_tensors(batch)]  # a batch may be a view of all the data
        self._seen = {t.untyped_storage().data_ptr() for t in there}
        self._hooks = saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.total += storage.nbytes()
        return tensor.detach()  # the tensor itself would hold its graph, and the graph it

    def __enter__(self) -> _Sizes:
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)
