"""The part that all curvature matrices share: an operator that is applied to vectors.

Products are exact (reverse mode over reverse mode, "double backward", Pearlmutter 1994) and of the
mean over terms: batches of unequal size, the penalty, tied, frozen and unused parameters count as
they do in the loss. Other ways through torch (jvp over jacrev, torch.func.hessian) are wrong
without an error through layer norm and batch statistics in torch 2.13 (pytorch issues 196699,
196700).
"""

from __future__ import annotations

import contextlib
import functools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from landscope import params as params_
from landscope.curvature.clusters import Data, divide_into_clusters, estimate_ratio
from landscope.curvature.definitions import MatrixDefinition
from landscope.curvature.products import Products
from landscope.curvature.selection import Samples, Select, draw_samples, select_parameters
from landscope.errors import ObjectiveError, ParamsError
from landscope.objective.memory import free_memory
from landscope.objective.objective import Objective
from landscope.objective.problem import Problem
from landscope.params import Params, check_like
from landscope.progress import Progress, Report, show_bar

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

_Function = TypeVar("_Function", bound=Callable[..., Any])

_SHARE = 0.25  # of the free memory, for graphs that are kept between products


class DirectionalCurvature(NamedTuple):
    """The curvature along a direction.

    Args:
        value: v^T A v / v^T v.
        stderr: The standard error of the value; NaN where it is not known.
    """

    value: float
    stderr: float


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

    Raises:
        ObjectiveError: When the objective, its precision or ``samples`` do not permit it.
        ParamsError: When ``params`` or ``select`` do not fit the model.

    Cost: the first product runs the data forward once and backward twice. While the graphs of all
    batches fit in a quarter of the free memory they are kept, and each further product is a single
    backward pass (0.72 of a plain double-backward product on a digits network). With
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
        _check(objective)
        self.objective, self._definition = objective, self._define(objective)
        self._report = progress if callable(progress) else None
        self._shows_bar, self._start = progress is True, time.perf_counter()
        self.template = select_parameters(objective, select)
        self.route, self.relative_error, self.products = "", 0.0, 0
        with _isolate(objective):
            self.samples, self._data = draw_samples(objective, samples, seed)
            self._products = self._make_products(self._data, self._budget())
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
            raise _misfit(v, f"a tensor of shape ({size},) or ({size}, k)")
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
            raise _misfit(v, f"a tensor of shape ({size},)")
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
        with _isolate(self.objective):
            yield
        self.route, self.relative_error = self._products.route, self._products.relative_error

    def _move(self, params: Mapping[str, Tensor] | None) -> Params:
        point = self.objective.center if params is None else params_.wrap(params)
        with _isolate(self.objective), torch.no_grad():
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
        products = self._make_products(clusters, 0.0)
        products.move(self.params)
        return products

    def _make_products(self, data: Data | None, budget: float) -> Products:
        session = _clone(self.objective).lasting_session(data)
        return Products(session, list(self.template), self._definition, budget)

    @property
    def _is_streamed(self) -> bool:
        return self._data is None and self.objective.problem.streamed

    def _budget(self) -> float:
        return 0.0 if self._is_streamed else _SHARE * free_memory(self.objective.device)


def report_products(title: str) -> Callable[[_Function], _Function]:
    """Return a decorator of functions of an operator that shows their products under a title."""

    def decorate(function: _Function) -> _Function:
        @functools.wraps(function)
        def run(operator: CurvatureOperator, *args: Any, **options: Any) -> Any:
            check_operator(operator)
            is_ours = isinstance(operator, CurvatureOperator)  # it may be the user's own
            with operator.show_products(title) if is_ours else contextlib.nullcontext():
                return function(operator, *args, **options)

        return cast("_Function", run)

    return decorate


@contextlib.contextmanager
def _isolate(objective: Objective) -> Iterator[None]:
    """Leave global state as it is, and differentiate in whichever mode the caller is."""
    with (
        objective.problem.isolation(),
        torch.inference_mode(mode=False),
        torch.enable_grad(),
    ):
        yield


def _clone(objective: Objective) -> Problem:
    """Return the problem with a model of its own, which may stay at a point."""
    try:
        return objective.problem.clone()
    except Exception as error:  # a user's model may raise anything when it is copied
        raise ObjectiveError(
            f"the model cannot be copied ({type(error).__name__}: {error}), which curvature needs"
            " so that yours stays as it is: keep computed tensors, locks and open files out of its"
            " attributes."
        ) from error


def _misfit(v: Any, expected: str) -> ParamsError:
    shape = tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__
    return ParamsError(
        f"v is {shape}; expected Params or {expected}: one entry for each parameter by which the"
        " operator differentiates."
    )


def _check(objective: Any) -> None:
    if not isinstance(objective, Objective):
        raise ObjectiveError(
            f"objective is a {type(objective).__name__}; expected an ls.Objective(model, loss,"
            " data)."
        )
    if objective.problem.weights is not None:
        raise ObjectiveError(
            "curvature cannot be computed of a calibrated subset (samples=Calibrated(...)): leave"
            " it out, or give the quantity samples of its own, such as"
            " hessian_extremes(samples=600)."
        )
    if objective.problem.precision == "bfloat16":
        raise ObjectiveError(
            "precision='bfloat16' has too few digits for second derivatives: make the objective"
            " with precision='float32' or 'float64'."
        )


def check_operator(operator: Any) -> None:
    """Raise a ParamsError for what is not a matrix; it may be the user's own."""
    if isinstance(operator, Objective) or not hasattr(operator, "products"):
        raise ParamsError(
            f"operator is a {type(operator).__name__}; expected a matrix such as"
            " ls.curvature.Hessian(objective)."
        )
