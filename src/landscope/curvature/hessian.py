"""Hessian: the second derivative of an objective as an operator, of which only products are made.

Products are exact (reverse mode over reverse mode, "double backward", Pearlmutter 1994), of the
mean over terms: batches of unequal size, the penalty, tied, frozen and unused parameters count as
they do in the loss. Other routes through torch (jvp over jacrev, torch.func.hessian) are silently
wrong through layer norm and batch statistics in torch 2.13 (pytorch issues 196699, 196700).
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, final, get_args

import numpy as np
import torch
from torch import Tensor, nn

from landscope import params as params_
from landscope.curvature import products as routes_
from landscope.errors import ObjectiveError, ParamsError
from landscope.objective import nested
from landscope.objective.memory import free_memory
from landscope.objective.objective import Objective
from landscope.objective.problem import Problem
from landscope.objective.terms import Loss
from landscope.params import Params, check_like, clone
from landscope.progress import Progress, Report, show_bar

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

Kind = Literal["hessian", "ggn", "fisher"]
Select = str | Iterable[str] | nn.Module | Callable[[str, Tensor], bool] | None

_Function = TypeVar("_Function", bound=Callable[..., Any])

WIDE = "dimension > 1"  # select: the parameters that the 2018 scripts differentiate by
_SHARE = 0.25  # of the free memory, for graphs that are kept from product to product
_ROWS = 256  # a batch, of samples that were drawn
_CLUSTERS = 16  # batches at least that tell an error bar


@final
class Hessian:
    """The Hessian of the mean loss at a point, or a part or a relative of it: an operator.

    ``hessian @ v`` is its product with a vector: with Params, with a Tensor[p], or with each
    column of a Tensor[p, k]. The user's model is not touched: it works on a copy of the modules
    that shares the memory of the tensors.

    Args:
        objective: of the loss; in float32 or float64.
        params: the point; the center if None.
        select: by which parameters to differentiate: None for all; a name pattern such as
            ``"layer3.*"`` or several; a module of the model; a function (name, tensor) -> bool; or
            ``"dimension > 1"``, as the 2018 scripts.
        kind: ``"hessian"``; ``"ggn"``, the generalized Gauss-Newton matrix, the mean of J' H J with
            the Jacobian J of the outputs and the Hessian H of the loss in them (Schraudolph 2002),
            which for cross-entropy is the Fisher matrix; ``"fisher"``, the empirical Fisher matrix,
            the mean of g g' over the gradients g of single terms (Kunstner, Hennig, Balles 2019 on
            how they differ). The penalty adds its Hessian to each.
        samples: so many samples drawn without replacement, in the place of all of them; see
            :meth:`along` for the error bar.
        seed: of the draw.
        progress: A function that is called after each product with an ``ls.Progress``, whose
            ``total`` is unknown; True shows a bar in eigenpairs, extremes, trace and spectrum.

    Attributes:
        route: how products are made, in words; "" before the first one.
        error: relative error of a product, where the route has one (finite differences), else 0.
        count: products made so far (a product with k columns counts as k).

    Raises:
        ObjectiveError: when precision, kind or samples cannot be had.
        ParamsError: when params or select do not fit the model.

    Cost: the first product walks the data forward and twice backward; while the graphs of all
    batches fit in a quarter of the free memory they are kept, and every further one is a single
    backward pass (0.72 of a plain double-backward product on a digits network). With
    buffers="recompute" the batch-norm statistics at the point are taken as constants.

    Example:
        >>> import torch, landscope as ls
        >>> data = torch.randn(20, 4), torch.randint(3, (20,))
        >>> objective = ls.Objective(torch.nn.Linear(4, 3), torch.nn.CrossEntropyLoss(), data)
        >>> hessian = ls.curvature.Hessian(objective)
        >>> hessian.shape, (hessian @ torch.ones(15)).shape
        ((15, 15), torch.Size([15]))
    """

    def __init__(
        self,
        objective: Objective,
        params: Mapping[str, Tensor] | None = None,
        *,
        select: Select = None,
        kind: Kind = "hessian",
        samples: int | Sequence[int] | None = None,
        seed: int = 0,
        progress: Report | bool | None = None,
    ) -> None:
        _check(objective, kind)
        self.objective, self.kind = objective, kind
        self._report = progress if callable(progress) else None
        self._shows_bar, self._began = progress is True, time.perf_counter()
        self.template = _selected(objective, select)
        self.route, self.error, self.count = "", 0.0, 0
        with _apart(objective):
            self.samples, self._data = _drawn(objective, samples, seed)
            self.fraction = 1.0 if self.samples is None else self.samples / _rows(objective)
            self._passes = routes_.Passes(
                _clone(objective).lasting_session(self._data),
                list(self.template),
                kind,
                self._budget(),
            )
        self.params = self._place(params)

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
        """Where products are made."""
        return next(iter(self.template.values())).device

    @property
    def like(self) -> Tensor:
        """An empty tensor in the precision and on the device of products."""
        return torch.empty(0, dtype=self.dtype, device=self.device)

    def at(self, params: Mapping[str, Tensor]) -> Hessian:
        """Move this operator to another point, and return it: its count of products goes on."""
        self.params = self._place(params)
        return self

    @contextlib.contextmanager
    def reporting(self, title: str) -> Iterator[None]:
        """Show a bar of the products that are made inside, if this was made with progress=True."""
        if not self._shows_bar or self._report is not None:
            yield
            return
        with show_bar(title, "products") as report:
            self._report = report
            try:
                yield
            finally:
                self._report = None

    def __matmul__(self, v: Any) -> Any:
        """Return the product with v: Params, Tensor[p] or Tensor[p, k]; of the same kind.

        Raises:
            ParamsError: when v does not fit.
        """
        if isinstance(v, Mapping):
            found = self._product(self._vector(v)[:, None])
            return params_.unflatten(found[:, 0], self.template)
        size = self.shape[0]
        if not isinstance(v, Tensor) or v.ndim not in (1, 2) or v.shape[0] != size:
            raise _unfit(v, f"a tensor of shape ({size},) or ({size}, k)")
        given = v.detach().to(self.device, self.dtype)
        found = self._product(given if v.ndim == 2 else given[:, None])
        return found if v.ndim == 2 else found[:, 0]

    def to_scipy(self) -> LinearOperator:
        """Return it as a ``scipy.sparse.linalg.LinearOperator`` of float64 arrays."""
        from scipy.sparse.linalg import LinearOperator

        def times(array: np.ndarray) -> np.ndarray:
            given = torch.from_numpy(np.array(array, dtype=np.float64))
            found: np.ndarray = (self @ given).double().cpu().numpy()
            return found

        return LinearOperator(
            self.shape, matvec=times, rmatvec=times, matmat=times, rmatmat=times, dtype=np.float64
        )

    def along(self, v: Any) -> tuple[float, float]:
        """Return the curvature v'Hv / v'v along a direction and its standard error.

        The error is that of the terms as a sample: of all there could be, or, where samples were
        drawn, of the data that they were drawn from. It takes batches (at least 16, where the data
        can be divided) as clusters, so it is NaN when there is one batch only.

        Raises:
            ParamsError: when v does not fit.
        """
        vector = self._vector(v)
        vector = vector / vector.norm()
        parts, rest = [], 0.0
        with self._ready():
            for weight, (image,) in self._clusters().by_batch([vector]):
                parts.append((float(image.double() @ vector.double()), weight))
            rest = float(self._passes.penalty_product(vector).double() @ vector.double())
        self.count += 1
        return _ratio(parts, rest, 0.0 if self.samples is None else self.fraction)

    def _clusters(self) -> routes_.Passes:
        """Return passes over enough batches for an error bar, where the data can be divided."""
        if self._streamed:
            return self._passes
        name, own = next(iter(self.objective.problem.batches.items()))
        held = list(own) if self._data is None else self._data[name]
        whole = getattr(self.objective.problem.loss, "per_batch", False)
        if whole or self.objective.problem.buffers == "recompute":
            return self._passes
        rows = sum(nested.count_rows(batch) or 0 for batch in held)
        together = nested.rebatch_evenly(held, rows)
        if together is None or len(held) >= _CLUSTERS:
            return self._passes
        order = torch.randperm(rows, generator=torch.Generator().manual_seed(0))
        finer = (
            nested.rebatch_evenly(_mixed(together, order), max(rows // _CLUSTERS, 1)) or together
        )
        names = list(self.template)
        passes = routes_.Passes(
            _clone(self.objective).lasting_session({name: finer}), names, self.kind, 0.0
        )
        passes.move(self.params)
        return passes

    def _vector(self, v: Any) -> Tensor:
        """Return Params or a Tensor[p] as a vector in the order of the parameters."""
        if isinstance(v, Mapping):
            check_like(v, self.template, "v")
            return params_.flatten({n: v[n].detach().to(t) for n, t in self.template.items()})
        size = self.shape[0]
        if not isinstance(v, Tensor) or v.shape != (size,):
            raise _unfit(v, f"a tensor of shape ({size},)")
        return v.detach().to(self.device, self.dtype)

    def _product(self, vectors: Tensor) -> Tensor:
        self.count += vectors.shape[1]
        with self._ready():
            columns = self._passes.product([vectors[:, k] for k in range(vectors.shape[1])])
        if self._report is not None:
            seconds = time.perf_counter() - self._began
            self._report(Progress(self.count, None, seconds, None, {}))
        return torch.stack(columns, dim=1)

    @contextlib.contextmanager
    def _ready(self) -> Iterator[None]:
        """Keep what is global as it is, and note the route afterwards."""
        with _apart(self.objective):
            yield
        self.route, self.error = self._passes.route, self._passes.error

    def _place(self, params: Mapping[str, Tensor] | None) -> Params:
        point = self.objective.center if params is None else params_.wrap(params)
        with _apart(self.objective), torch.no_grad():
            held = clone({n: t.to(self.device) for n, t in point.items()})
            self._passes.move(held)
        return held

    @property
    def _streamed(self) -> bool:
        return self._data is None and self.objective.problem.streamed

    def _budget(self) -> float:
        return 0.0 if self._streamed else _SHARE * free_memory(self.objective.device)


def report_products(title: str) -> Callable[[_Function], _Function]:
    """Return a decorator of functions of a Hessian that shows their products under a title."""

    def decorate(function: _Function) -> _Function:
        @functools.wraps(function)
        def run(hessian: Hessian, *args: Any, **options: Any) -> Any:
            is_ours = isinstance(hessian, Hessian)  # else it is an operator of somebody else
            with hessian.reporting(title) if is_ours else contextlib.nullcontext():
                return function(hessian, *args, **options)

        return cast("_Function", run)

    return decorate


@contextlib.contextmanager
def _apart(objective: Objective) -> Iterator[None]:
    """Keep what is global as it is; differentiate whatever mode the caller is in."""
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


def _unfit(v: Any, expected: str) -> ParamsError:
    shape = tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__
    return ParamsError(
        f"v is {shape}; expected Params or {expected}: one entry a parameter that is differentiated"
        " by."
    )


def _check(objective: Any, kind: Any) -> None:
    if not isinstance(objective, Objective):
        raise ObjectiveError(
            f"objective is a {type(objective).__name__}; expected an ls.Objective(model, loss,"
            " data)."
        )
    if kind not in get_args(Kind):
        raise ObjectiveError(f"kind={kind!r}; expected one of {', '.join(get_args(Kind))}.")
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
    if kind == "ggn" and not isinstance(objective.problem.loss, Loss):
        raise ObjectiveError(
            "kind='ggn' needs a loss of outputs and targets; a custom function of model and batch"
            " does not say what the outputs are: use kind='hessian' or 'fisher'."
        )


def _selected(objective: Objective, select: Select) -> Params:
    """Return the entries of the center by which to differentiate."""
    center = objective.center
    if select is None:
        return center
    if select == WIDE:
        chosen = {n for n, t in center.items() if t.ndim > 1}
    elif isinstance(select, nn.Module):
        own = {id(p) for p in select.parameters()}
        alive = dict(params_.named_tensors(objective.model))
        chosen = {n for n in center if id(alive[n]) in own}
    elif callable(select):
        chosen = {n for n, t in center.items() if select(n, t)}
    elif isinstance(select, str):
        chosen = set(params_.select(center, select))
    else:
        patterns = _listed(select, str)
        chosen = set(params_.select(center, patterns)) if patterns else set()
    if not chosen:
        raise ParamsError(
            f"select={select!r} chooses no trainable parameter: pass a name pattern, a module of"
            f" the model, a function (name, tensor) -> bool, or {WIDE!r}."
        )
    return params_.like(center, {n: t for n, t in center.items() if n in chosen})


def _drawn(
    objective: Objective, samples: int | Sequence[int] | None, seed: int
) -> tuple[int | None, dict[str, list[Any]] | None]:
    """Return how many samples were drawn and the data with them alone; None for all of them."""
    if samples is None:
        return None, None
    objective.problem.check_single_dataset()
    total = _rows(objective)
    generator = torch.Generator().manual_seed(seed)
    if isinstance(samples, int) and 1 <= samples <= total:
        rows = sorted(torch.randperm(total, generator=generator)[:samples].tolist())
    else:
        rows = sorted({int(row) for row in _listed(samples, Integral)})
    if not rows or rows[0] < 0 or rows[-1] >= total:
        raise ObjectiveError(
            f"samples={samples!r}; expected how many, 1 to {total}, or a list of which of them, 0"
            f" to {total - 1}."
        )
    ((name, batches),) = objective.problem.batches.items()
    drawn = nested.select_rows(batches, rows)
    if len(drawn) > 1:  # of unequal shapes, which cannot be mixed
        return len(rows), {name: drawn}
    mixed = _mixed(drawn, torch.randperm(len(rows), generator=generator))
    return len(rows), {name: nested.rebatch_evenly(mixed, _ROWS) or mixed}


def _mixed(batches: Sequence[Any], order: Tensor) -> list[Any]:
    """Return batches with their rows in another order.

    Batches are clusters of an error bar: of data in order (by class, say) each must have some.
    """
    return [nested.index_rows(batch, order) for batch in batches]


def _listed(value: Any, kind: type) -> list[Any]:
    """Return the items of a list; an empty one when it is none, or holds something else."""
    items = list(value) if isinstance(value, Iterable) else []
    return items if all(isinstance(item, kind) for item in items) else []


def _rows(objective: Objective) -> int:
    return objective.problem.rows


def _ratio(parts: Sequence[tuple[float, float]], rest: float, seen: float) -> tuple[float, float]:
    """Return a mean over clusters of unequal weight, and its standard error (ratio estimator)."""
    sums, weights = (np.array(column) for column in zip(*parts, strict=True))
    mean = float(sums.sum() / weights.sum())
    if len(parts) < 2:
        return mean + rest, float("nan")
    off = sums - mean * weights
    several = len(parts) / (len(parts) - 1)
    variance = (1.0 - seen) * several * float((off**2).sum()) / weights.sum() ** 2
    return mean + rest, float(variance**0.5)
