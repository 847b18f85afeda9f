"""Products of a curvature matrix with vectors: a mean over batches, plus the penalty's Hessian.

There are three routes to the product of one batch; the first that works is taken:

double backward                 exact, where torch can differentiate the gradient again
..., math attention and         the same, where fused attention or cuDNN recurrent layers cannot be:
    native recurrent kernels    torch's plain kernels replace them during the product
finite differences              of gradients, outputs or terms, with an estimate of the error
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, final

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

PLAIN, NATIVE, DIFFERENCES = (
    "double backward",
    "double backward, math attention and native recurrent kernels",
    "finite differences",
)


@final
class Products:
    """Products at one point; graphs are kept for the next product where memory suffices.

    Args:
        session: A session with a model that nobody else uses.
        names: The names of the parameters by which to differentiate.
        definition: The definition of the matrix.
        budget: The bytes that graphs may take between products.

    Attributes:
        route: How products are computed, in words; "" before the first one.
        maps: The map of each batch, and the weight of its terms, that are kept.
    """

    def __init__(
        self, session: Session, names: Sequence[str], definition: MatrixDefinition, budget: float
    ) -> None:
        self.session, self.names, self.definition = session, list(names), definition
        self.budget, self.route = budget, ""
        self.maps: list[tuple[float, Map]] = []
        self._has_all_maps = False
        self._penalty_map: Map | None = None
        self._params = session.center
        self._differences = FiniteDifferences(session, names, definition)

    @property
    def relative_error(self) -> float:
        """The estimated relative error of a product; 0 unless by finite differences."""
        return self._differences.relative_error

    @property
    def leaves(self) -> list[Tensor]:
        """The parameters in the model by which to differentiate."""
        return [self.session.borrowed.tensors[n] for n in self.names]

    def move(self, params: Params) -> None:
        """Go to another point."""
        self.maps, self._has_all_maps, self._penalty_map = [], False, None
        self._params = params
        self.session.move(params)
        self._differences.move(params)

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
        for number, batch in enumerate(self._batches()):
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

    def _batches(self) -> Iterator[Any]:
        if self.session.borrowed.written:  # each product begins with the weights of the point
            self.session.move(self._params)
        yield from self.session.iter_batches()

    def _choose_route(self, vector: Tensor) -> None:
        """Take the first route that works on the first batch."""
        batch = next(self._batches())
        self._check_gradient(batch)  # a model that fails is reported here, once for all routes
        for route in (PLAIN, NATIVE):
            try:
                with self._kernels(route) if route == NATIVE else native_kernels.NATIVE.lock:
                    if route == PLAIN and native_kernels.NATIVE.users:
                        continue  # another thread has replaced the kernels: no test of the plain
                    self.route = route
                    _, multiply = self._map_batch(batch)
                    multiply(vector)
            except (RuntimeError, NotImplementedError) as error:
                if isinstance(error, ObjectiveError) or is_out_of_memory(error):
                    self.route = ""
                    raise
            else:
                return
        self.route = DIFFERENCES

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
        return contextlib.nullcontext() if route == PLAIN else native_kernels.NATIVE

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
            return self._differences.map_batch(batch)
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
