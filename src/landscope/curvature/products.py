"""Products of a curvature matrix with vectors: a mean over batches, plus the penalty's Hessian.

There are several routes to the product of one batch; the first that works and is right is taken:

double backward                 exact, where torch can differentiate the gradient again
..., math attention and         the same, where fused attention or cuDNN recurrent layers cannot be:
    native recurrent kernels    torch's plain kernels replace them during the product
..., weight norm by formula     the same, where the second derivative of a function is wrong
..., finite differences of      Gauss-Newton, of a loss without a second derivative by its outputs
    the loss by outputs
finite differences              of gradients, outputs or terms, with an estimate of the error
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from landscope.curvature.definitions import MatrixDefinition
from landscope.curvature.derivatives import Map, hessian_map
from landscope.curvature.finite_differences import FiniteDifferences
from landscope.errors import ObjectiveError
from landscope.fingerprint import list_parts
from landscope.objective import gradients, native_kernels, nested_batches
from landscope.objective.evaluation import Session
from landscope.objective.memory import is_out_of_memory
from landscope.params import Params

PLAIN, NATIVE, FORMULAS, MIXED, DIFFERENCES = (
    "double backward",
    "double backward, math attention and native recurrent kernels",
    "double backward, weight norm by its formula",
    "double backward, finite differences of the loss by outputs",
    "finite differences",
)

_SYMMETRIC = 1e-3  # relative asymmetry, below which a matrix has eigenvalues to speak of
_WRONG = (
    "torch's second derivatives ({wrong}) are not the derivative of its gradient here (weight norm,"
    " or the backward pass of a custom function): curvature comes from {route}"
)
_NO_GRADIENT = (
    "torch's gradient is not the derivative of the loss: part of it counts as constant (.detach(),"
    " a target without gradients), or a backward pass is made up (a straight-through estimator)"
)


@final
@dataclass(frozen=True)
class Verification:
    """How products of a route compare with their transpose and with finite differences.

    Args:
        symmetry: |u^T A v - v^T A u| for random u and v, relative to what it is for a matrix that
            is not symmetric at all.
        is_right: Whether both agree.
    """

    symmetry: float
    is_right: bool


class Verifier(Protocol):
    """Compares products of a route with others, at the current point."""

    def verify(self, route: str) -> Verification:
        """Compare products with their transpose, and with finite differences."""
        ...

    def has_gradient_of_loss(self) -> bool:
        """Return whether the gradient is the derivative of the loss."""
        ...


@final
class Products:
    """Products at one point; graphs are kept for the next product where memory suffices.

    Args:
        session: A session with a model that nobody else uses.
        names: The names of the parameters by which to differentiate.
        definition: The definition of the matrix.
        budget: The bytes that graphs may take between products.
        make_verifier: Returns what verifies a route before it is taken; none is verified if None.

    Attributes:
        route: How products are computed, in words; "" before the first one.
        symmetry: |u^T A v - v^T A u| for random u and v when the route was taken, relative.
        maps: The map of each batch, and the weight of its terms, that are kept.
    """

    def __init__(
        self,
        session: Session,
        names: Sequence[str],
        definition: MatrixDefinition,
        budget: float,
        make_verifier: Callable[[], Verifier] | None = None,
    ) -> None:
        self.session, self.names, self.definition = session, list(names), definition
        self.budget, self.make_verifier = budget, make_verifier
        self.route, self.symmetry = "", 0.0
        self.maps: list[tuple[float, Map]] = []
        self._has_all_maps = False
        self._penalty_map: Map | None = None
        self._params = session.center
        self.differences = FiniteDifferences(session, names, definition)

    @property
    def relative_error(self) -> float:
        """The estimated relative error of a product; 0 unless by finite differences."""
        return self.differences.relative_error

    @property
    def leaves(self) -> list[Tensor]:
        """The parameters in the model by which to differentiate."""
        return [self.session.borrowed.tensors[n] for n in self.names]

    @property
    def dtype(self) -> torch.dtype:
        """The precision of products."""
        return self.leaves[0].dtype

    def take(self, route: str) -> None:
        """Take a route, whether or not it works."""
        if route != self.route:
            self.route, self.maps, self._has_all_maps = route, [], False

    def move(self, params: Params) -> None:
        """Go to another point."""
        self.maps, self._has_all_maps, self._penalty_map = [], False, None
        self._params = params
        self.session.move(params)
        self.differences.move(params)

    def multiply(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """Return the products of the matrix of the mean loss with vectors, shape [p].

        When memory runs out, batches are halved and graphs are no longer kept.
        """
        while True:
            try:
                return self._multiply(vectors)
            except RuntimeError as error:
                if not is_out_of_memory(error) or not self._halve_batches():
                    raise

    def _multiply(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        sums = [torch.zeros_like(v, dtype=torch.float64) for v in vectors]
        total_weight = 0.0
        for weight, images in self.by_batch(vectors):
            total_weight += weight
            for k, image in enumerate(images):
                sums[k] += image
        return [
            (total / total_weight + self.multiply_penalty(vector)).to(vector)
            for total, vector in zip(sums, vectors, strict=True)
        ]

    def by_batch(self, vectors: Sequence[Tensor]) -> Iterator[tuple[float, list[Tensor]]]:
        """Yield each batch's weight, and the products of the sum of its terms with the vectors."""
        if not self.route:
            self._choose_route(vectors[0])
        if self._has_all_maps:
            for weight, multiply in self.maps:
                yield weight, [multiply(v) for v in vectors]
            return
        self.maps, size, used = [], 0.0, 0.0
        for number, batch in enumerate(self.batches()):
            with self._kernels(self.route):
                weight, multiply, bytes_ = self._measure_map(batch)
            yield weight, [multiply(v) for v in vectors]
            size = max(size, bytes_)
            if number == len(self.maps) and used + size <= self.budget and self._can_keep:
                self.maps.append((weight, multiply))
                used += size
        self._has_all_maps = len(self.maps) == number + 1
        if not self._has_all_maps:
            self.maps = []

    def multiply_penalty(self, vector: Tensor) -> Tensor:
        """Return the product of the penalty's Hessian with a vector; zero without a penalty."""
        if self.session.penalty is None:
            return torch.zeros_like(vector)
        if self._penalty_map is None:
            value = self.session.penalty(self.session.current())
            self._penalty_map = hessian_map(value, self.leaves)
        return self._penalty_map(vector)

    def _halve_batches(self) -> bool:
        """Halve the batches and keep no graphs; False when batches cannot get smaller."""
        if self.session.halve_batches(metrics=False) is None:
            return False
        self.maps, self._has_all_maps, self.budget = [], False, 0.0
        return True

    @property
    def _can_keep(self) -> bool:
        """Whether a map stays valid while the model stays at its point."""
        return self.route != DIFFERENCES and not self.session.borrowed.written

    def batches(self) -> Iterator[Any]:
        """Yield the batches whose terms are differentiated."""
        if self.session.borrowed.written:  # each product begins with the weights of the point
            self.session.move(self._params)
        yield from self.session.iter_batches()

    def _choose_route(self, vector: Tensor) -> None:
        """Take the first route that works on the first batch, and is right."""
        batch = next(self.batches())
        self._check_gradient(batch)  # a model that fails is reported here, once for all routes
        verifier = self.make_verifier() if self.make_verifier else None
        working: list[tuple[str, Verification]] = []
        for route in (PLAIN, NATIVE, FORMULAS, *([MIXED] if self.definition.mix else [])):
            with self._lock(route):
                if route == PLAIN and native_kernels.NATIVE.users:
                    continue  # another thread has replaced the kernels: no test of the plain
                if not self._works(route, batch, vector):
                    continue
                outcome = verifier.verify(route) if verifier else Verification(0.0, is_right=True)
            if outcome.is_right:
                self.symmetry = outcome.symmetry
                if working:
                    self._add_note(_WRONG.format(wrong=working[0][0], route=route))
                return
            working.append((route, outcome))
        self.take(DIFFERENCES)
        if verifier is not None:
            self._take_differences(verifier, working)

    def _take_differences(
        self, verifier: Verifier, working: Sequence[tuple[str, Verification]]
    ) -> None:
        """Take finite differences, unless they are no better than a route that looks wrong.

        They are not where the gradient is not that of the loss.
        """
        outcome = verifier.verify(DIFFERENCES)
        has_gradient = verifier.has_gradient_of_loss()
        if outcome.is_right and (has_gradient or not working):
            self.symmetry = outcome.symmetry
            if working:
                self._add_note(_WRONG.format(wrong=working[0][0], route=DIFFERENCES))
            return
        symmetric = [pair for pair in working if has_gradient or pair[1].symmetry < _SYMMETRIC]
        if not symmetric:
            self.take("")
            raise ObjectiveError(f"{_NO_GRADIENT}, so that it has no curvature.")
        route, outcome = min(symmetric, key=lambda pair: pair[1].symmetry)
        self.take(route)
        self.symmetry = outcome.symmetry
        if not has_gradient:
            self._add_note(f"{_NO_GRADIENT}; curvature takes these parts in the same way")

    def _add_note(self, note: str) -> None:
        if note not in self.session.notes:
            self.session.notes.append(note)

    def _lock(self, route: str) -> contextlib.AbstractContextManager[Any]:
        """Return a context in which no other thread replaces kernels during a test of a route."""
        return native_kernels.NATIVE.lock if route == PLAIN else contextlib.nullcontext()

    def _works(self, route: str, batch: Any, vector: Tensor) -> bool:
        """Take a route and return whether torch can compute a product by it."""
        self.take(route)
        try:
            with self._kernels(route):
                _, multiply = self._map_batch(batch)
                multiply(vector)
        except (RuntimeError, NotImplementedError) as error:
            if isinstance(error, ObjectiveError) or is_out_of_memory(error):
                self.take("")
                raise
            return False
        return True

    def _check_gradient(self, batch: Any) -> None:
        """Check that the loss has a gradient by every parameter on which it depends."""
        with native_kernels.NATIVE:
            value = self.session.batch_terms(batch).values.sum()
            parts = gradients.differentiate(value, self.leaves)
            named = dict(zip(self.names, self.leaves, strict=True))
            gradients.check_batch(self.session, batch, value, named, parts)
        if self.session.penalty is not None:
            params = self.session.current()
            value = self.session.penalty(params)
            parts = gradients.differentiate(value, list(params.values()))
            gradients.check_penalty(self.session.penalty, params, value, parts)

    def _kernels(self, route: str) -> contextlib.AbstractContextManager[Any]:
        if route == PLAIN:
            return contextlib.nullcontext()
        return native_kernels.by_formula() if route == FORMULAS else native_kernels.NATIVE

    def _measure_map(self, batch: Any) -> tuple[float, Map, float]:
        """Return what :meth:`_map_batch` does, and the bytes of the graph; infinity if unknown."""
        try:
            with _GraphSize(self.leaves, batch) as graph:
                weight, multiply = self._map_batch(batch)
        except RuntimeError as error:  # transforms of torch.func inside a loss refuse hooks
            if "saved tensor hooks" not in str(error):
                raise
            return *self._map_batch(batch), math.inf
        return weight, multiply, float(graph.bytes)

    def _map_batch(self, batch: Any) -> tuple[float, Map]:
        """Return the weight of a batch's terms and the map v -> matrix v of their sum."""
        if self.route == DIFFERENCES:
            return self.differences.map_batch(batch)
        if self.route == MIXED and self.definition.mix is not None:
            return self.definition.mix(self.session, self.leaves, batch)
        return self.definition.differentiate(self.session, self.leaves, batch)


@final
class _GraphSize:
    """Counts the bytes that a graph holds: each storage once, without parameters and data."""

    def __init__(self, leaves: Sequence[Tensor], batch: Any) -> None:
        self.bytes = 0
        data = nested_batches.iter_tensors(batch)  # a batch may be a view of all the data
        known = [*leaves, *itertools.chain.from_iterable(map(list_parts, data))]
        self._seen = {t.untyped_storage().data_ptr() for t in known}
        self._hooks = saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return tensor.detach()  # the tensor itself would hold its graph, and the graph the tensor

    def __enter__(self) -> _GraphSize:
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)
