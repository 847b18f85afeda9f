"""The part that all curvature matrices share: an operator that is applied to vectors.

Products are exact (reverse mode over reverse mode, "double backward", Pearlmutter 1994) and of the
mean over terms: batches of unequal size, the penalty, tied, frozen and unused parameters count as
they do in the loss. Other ways through torch (jvp over jacrev, torch.func.hessian) are wrong
without an error through layer norm and batch statistics in torch 2.13 (pytorch issues 196699,
196700).
"""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import torch
from torch import Tensor

from landscope import params as params_
from landscope.curvature.clusters import (
    Data,
    DirectionalCurvature,
    divide_into_clusters,
    estimate_ratio,
)
from landscope.curvature.definitions import MatrixDefinition
from landscope.curvature.double_precision import double_data, double_params, to_double
from landscope.curvature.isolation import check_objective, clone, isolate, report_misfit
from landscope.curvature.probe import Probe, make_probe
from landscope.curvature.products import Products
from landscope.curvature.selection import Samples, Select, draw_samples, select_parameters
from landscope.objective.memory import free_memory
from landscope.objective.objective import Objective
from landscope.params import Params, check_like
from landscope.progress import Progress, Report, show_bar

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

_SHARE = 0.25  # of the free memory, for graphs that are kept between products


class CurvatureOperator(ABC):
    """A symmetric matrix A of second derivatives at a point, shape (p, p), applied to vectors.

    ``operator @ v`` is the product with Params, with a Tensor[p], or with each column of a
    Tensor[p, k]. The user's model is not touched: products use a copy of its modules that shares
    the memory of its tensors.

    Use one of :class:`Hessian`, :class:`GaussNewton` and :class:`Fisher`. A penalty of the
    objective adds its Hessian to each of them.

    Args:
        objective: The objective, in float32 or float64.
        params: The point; the center if None.
        select: The parameters by which to differentiate: None for all; a name pattern such as
            ``"layer3.*"`` or several; a module of the model; a function (name, tensor) -> bool; or
            ``"dimension > 1"``, as the 2018 scripts.
        samples: The number of samples to draw from the data without replacement, or a list of
            which ones; all samples if None. See :meth:`along` for the standard error.
        seed: The seed of the draw.
        progress: A function that is called after each product with an ``ls.Progress``, whose
            ``total`` is unknown; True shows a bar in eigenpairs, extremes, trace and spectrum.

    Attributes:
        params: The point.
        template: The entries of the center by which it differentiates.
        samples: The number of samples that were drawn; None for all.
        products: The number of products so far; one with k columns counts as k.
        route: How products are computed, in words; "" before the first one.
        relative_error: The estimated relative error of a product; 0 unless the route is finite
            differences.
        symmetry: |u^T A v - v^T A u| for random u and v, relative to what it is for a matrix that
            is not symmetric at all; 0 before the first product.
        rounding: The largest estimated error of a product with a unit vector, by rounding; 0
            before the first estimate (eigenvalues, traces and spectra make them).

    Raises:
        ObjectiveError: When the objective, its precision or ``samples`` do not permit it.
        ParamsError: When ``params`` or ``select`` do not fit the model.

    Before the first product, products of up to 32 rows are compared with their transpose and with
    finite differences of the gradient, in float64 where the model permits: second derivatives of
    torch are wrong without an error under weight norm and some custom functions. Where they
    disagree another ``route`` is taken, and ``objective.notes`` says so.

    Cost: the first product runs the data forward once and backward twice. While the graphs of all
    batches fit in a quarter of the free memory they are kept, and each further product is a single
    backward pass (0.72 of a plain double-backward product on a digits network). The comparison
    takes about eight passes over 32 rows, once for an operator, however often it moves. With
    buffers="recompute" the batch-norm statistics at the point are constants.
    """

    def __init__(
        self,
        objective: Objective,
        params: Mapping[str, Tensor] | None = None,
        *,
        select: Select = None,
        samples: Samples = None,
        seed: int = 0,
        progress: Report | bool | None = None,
    ) -> None:
        check_objective(objective)
        self.objective, self._definition = objective, self._define(objective)
        self._report = progress if callable(progress) else None
        self._shows_bar, self._start = progress is True, time.perf_counter()
        self.template = select_parameters(objective, select)
        self.route, self.relative_error, self.products = "", 0.0, 0
        self.symmetry, self.rounding = 0.0, 0.0
        self._options: dict[str, Any] = {"samples": samples, "seed": seed}
        self._probe: Probe | None = None
        self._double: Self | None = None
        self._double_point: Params | None = None  # where it is, in the precision of this operator
        with isolate(objective):
            self.samples, self._data = draw_samples(objective, samples, seed)
            self._products = self._make_products(self._data, self._budget(), verified=True)
        self.params = self._move(params)

    def __repr__(self) -> str:
        drawn = "all samples" if self.samples is None else f"{self.samples:,} drawn samples"
        loss = self.objective.problem.describe()["loss"]
        shape = f"{self.shape[0]:,} x {self.shape[1]:,}"
        name = type(self).__name__
        return f"<{name}: {shape}, of {loss}, {drawn}; {self.products} products so far>"

    @staticmethod
    @abstractmethod
    def _define(objective: Objective) -> MatrixDefinition:
        """Return the definition of the matrix, or raise when the loss has none."""

    @property
    def shape(self) -> tuple[int, int]:
        """(p, p), where p is the number of parameters by which it differentiates."""
        size = sum(t.numel() for t in self.template.values())
        return size, size

    @property
    def dtype(self) -> torch.dtype:
        """The precision of products."""
        return next(iter(self.template.values())).dtype

    @property
    def device(self) -> torch.device:
        """The device of products."""
        return next(iter(self.template.values())).device

    def at(self, params: Mapping[str, Tensor]) -> Self:
        """Move this operator to another point and return it; it goes on counting products."""
        self.params = self._move(params)
        return self

    def __matmul__(self, v: Any) -> Any:
        """Return the product with v, of the kind of v: Params, Tensor[p] or Tensor[p, k].

        Raises:
            ParamsError: When v does not fit.
        """
        if isinstance(v, Mapping):
            product = self._multiply(self.flatten(v)[:, None])
            return params_.unflatten(product[:, 0], self.template)
        size = self.shape[0]
        if not isinstance(v, Tensor) or v.ndim not in (1, 2) or v.shape[0] != size:
            raise report_misfit(v, f"a tensor of shape ({size},) or ({size}, k)")
        columns = v.detach().to(self.device, self.dtype)
        product = self._multiply(columns if v.ndim == 2 else columns[:, None])
        return product if v.ndim == 2 else product[:, 0]

    def along(self, v: Any) -> DirectionalCurvature:
        """Return the curvature v^T A v / v^T v along a direction, and its standard error.

        The standard error regards the data as a sample: where samples were drawn, a sample of the
        data; else a sample of all data of their kind. It takes batches as clusters (at least 16,
        where the data can be divided), so it is NaN for a single batch.

        Raises:
            ParamsError: When v does not fit.
        """
        vector = self.flatten(v)
        vector = vector / vector.norm()
        sums, weights = [], []
        with self._run():
            for weight, (image,) in self._make_clusters().by_batch([vector]):
                sums.append(float(image.double() @ vector.double()))
                weights.append(weight)
            penalty = float(self._products.multiply_penalty(vector).double() @ vector.double())
        self.products += 1
        fraction = 0.0 if self.samples is None else self.samples / self.objective.problem.rows
        value, stderr = estimate_ratio(np.array(sums), np.array(weights), fraction)
        return DirectionalCurvature(value + penalty, stderr)

    def estimate_errors(self, columns: Tensor) -> Tensor:
        """Return by how much products with vectors [p, k] are rounded, shape [p, k], float64.

        The products of up to 32 rows are repeated in float64, or where that is not possible at
        parameters that differ by their own rounding; the result is twice the difference.
        """
        vectors = [columns[:, k] for k in range(columns.shape[1])]
        with isolate(self.objective):
            errors = self._move_probe().estimate_errors(vectors, self._products.route)
        result = torch.stack(errors, dim=1)
        self.rounding = max(self.rounding, float((result.norm(dim=0) / columns.norm(dim=0)).max()))
        return result

    @property
    def has_reference(self) -> bool:
        """Whether errors are estimated by comparison with float64."""
        return self._move_probe().double is not None

    def in_double(self) -> Self | None:
        """Return the same matrix at the same point in float64.

        Returns:
            The matrix; None where the model or the memory do not permit it, and where it is in
            float64 already.
        """
        if self._double is None:
            with isolate(self.objective):
                self._double = self._make_double()
        elif self._double_point is not self.params:
            self._double.at(double_params(self.params))
        self._double_point = self.params
        return self._double

    def flatten(self, v: Any) -> Tensor:
        """Return Params or a Tensor[p] as a vector in the order of ``template``, shape [p].

        Raises:
            ParamsError: When v does not fit.
        """
        if isinstance(v, Mapping):
            check_like(v, self.template, "v")
            return params_.flatten({n: v[n].detach().to(t) for n, t in self.template.items()})
        size = self.shape[0]
        if not isinstance(v, Tensor) or v.shape != (size,):
            raise report_misfit(v, f"a tensor of shape ({size},)")
        return v.detach().to(self.device, self.dtype)

    def to_scipy(self) -> LinearOperator:
        """Return it as a ``scipy.sparse.linalg.LinearOperator`` of float64 arrays."""
        from scipy.sparse.linalg import LinearOperator

        def multiply(array: np.ndarray) -> np.ndarray:
            product = self @ torch.from_numpy(np.array(array, dtype=np.float64))
            return cast("np.ndarray", product.double().cpu().numpy())

        return LinearOperator(
            self.shape, matvec=multiply, rmatvec=multiply, matmat=multiply, rmatmat=multiply,
            dtype=np.float64,
        )  # fmt: skip

    @contextlib.contextmanager
    def show_products(self, title: str) -> Iterator[None]:
        """Show a bar of the products that are made inside, if progress is True."""
        if not self._shows_bar or self._report is not None:
            yield
            return
        with show_bar(title, "products") as report:
            self._report = report
            try:
                yield
            finally:
                self._report = None

    def _multiply(self, vectors: Tensor) -> Tensor:
        self.products += vectors.shape[1]
        with self._run():
            columns = self._products.multiply([vectors[:, k] for k in range(vectors.shape[1])])
        if self._report is not None:
            seconds = time.perf_counter() - self._start
            self._report(Progress(self.products, None, seconds, None, {}))
        return torch.stack(columns, dim=1)

    @contextlib.contextmanager
    def _run(self) -> Iterator[None]:
        """Isolate global state during products, and note their route afterwards."""
        with isolate(self.objective):
            yield
        self.route, self.relative_error = self._products.route, self._products.relative_error
        self.symmetry = self._products.symmetry
        known = self.objective.problem.notes
        known.extend(n for n in self._products.session.notes if n not in known)

    def _move(self, params: Mapping[str, Tensor] | None) -> Params:
        point = self.objective.center if params is None else params_.wrap(params)
        with isolate(self.objective), torch.no_grad():
            copy = params_.clone({n: t.to(self.device) for n, t in point.items()})
            self._products.move(copy)
        return copy

    def _make_clusters(self) -> Products:
        """Return products over enough batches for a standard error, where data can be divided."""
        if self._is_streamed:
            return self._products
        clusters = divide_into_clusters(self.objective.problem, self._data)
        if clusters is None:
            return self._products
        products = self._make_products(clusters, 0.0, verified=True)
        products.move(self.params)
        products.take(self._products.route)
        return products

    def _make_products(
        self, data: Data | None, budget: float, *, verified: bool = False
    ) -> Products:
        session = clone(self.objective).lasting_session(data)
        verifier = self._move_probe if verified else None
        return Products(session, list(self.template), self._definition, budget, verifier)

    def _move_probe(self) -> Probe:
        """Return the probe at the current point; it is made before the first product."""
        if self._probe is None:
            self._probe = make_probe(self.objective, self._products, self.params)
        self._probe.move(self.params)
        return self._probe

    def _make_double(self) -> Self | None:
        problem = to_double(self.objective.problem)
        problem = None if problem is None else double_data(problem)
        if problem is None or self._move_probe().double is None:
            return None
        names = set(self.template)
        double = type(self)(
            Objective.of(problem), double_params(self.params), select=lambda n, _: n in names,
            **self._options,
        )  # fmt: skip
        double._products.take(self._products.route)
        double._products.symmetry = self._products.symmetry
        return double

    @property
    def _is_streamed(self) -> bool:
        return self._data is None and self.objective.problem.streamed

    def _budget(self) -> float:
        return 0.0 if self._is_streamed else _SHARE * free_memory(self.objective.device)
