"""Session: a borrowed model that is evaluated at many points.

Each point starts from the user's own buffers, so a value depends on the parameters alone.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from landscope import params as params_
from landscope.errors import CallError, ObjectiveError, ParamsError
from landscope.objective import batches, torch_losses
from landscope.objective.borrowing import Borrowed, without
from landscope.objective.terms import Loss, Terms
from landscope.objective.torch_losses import Custom
from landscope.params import Params


class Forward(Protocol):
    """A forward pass of a model whose parameters are moved."""

    def refresh(self) -> None:
        """Take over the parameters that the model has now."""
        ...

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Return the outputs of the model."""
        ...


@final
class _Plain:
    """The model's own forward pass."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def refresh(self) -> None:
        """Do nothing: the model reads its parameters at every pass."""

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        return self.model(*inputs, **named)


@final
class Session:
    """A borrowed model, ready to be evaluated at many points.

    Args:
        loan: the model, borrowed.
        center: the parameters where none are given; their names are those of gradients.
        loss: the loss in terms.
        metrics: name -> metric in terms.
        batches: Prefix of names ("" or "train_", "test_") -> batches; losses that have no prefix
            of their own (terms, gradients) are over the first.
        penalty: added to the loss over the first data.
        recompute: whether batch-norm statistics are computed anew at every point.
        half: the precision of 16 bits in which the model computes (the loss never does), if so.
        weights: of the rows of the data, shape (sets, rows); see ``Problem.sampled``.
        forward: Makes the forward pass from the model; the model's own if not given. It is called
            when the model has the center's parameters.
    """

    def __init__(
        self,
        loan: Borrowed,
        *,
        center: Params,
        loss: Loss | Custom,
        metrics: Mapping[str, Loss],
        batches: Mapping[str, Iterable[Any]],
        penalty: Callable[[Params], Tensor] | None,
        recompute: bool,
        half: torch.dtype | None,
        weights: Tensor | None = None,
        forward: Callable[[nn.Module], Forward] | None = None,
    ) -> None:
        self.loan, self.center, self.loss, self.metrics = loan, center, loss, metrics
        self.batches, self.penalty, self.recompute, self.half = batches, penalty, recompute, half
        self.weights = weights
        self.notes = _batch_norm_notes(loan.model) if not recompute else []
        self._tried = False
        self._fits: Mapping[str, Tensor] | None = None
        self._forward: Forward = _Plain(loan.model)
        if forward is not None:
            loan.put(center)
            self._forward = forward(loan.model)

    def values(
        self, params: Mapping[str, Tensor] | None, samples: list[Tensor] | None = None
    ) -> dict[str, float]:
        """Return loss and metrics at one point.

        Args:
            params: the point; the center if None.
            samples: a list that is given, a batch each, what every row of the (first) data adds to
                the loss and how much it counts, shape (2, rows), float64.
        """
        found: dict[str, float] = {}
        with torch.no_grad():
            self.move(params)
            if self.weights is not None:
                return self._weighted(self.weights)
            for prefix, data in self.batches.items():
                found |= self.means(
                    prefix, torch.stack([self.sums(b, samples) for b in data]).sum(dim=0)
                )
                samples = None
            self.add_penalty(found)
        return found

    def sums(self, batch: Any, samples: list[Tensor] | None = None) -> Tensor:
        """Return sums of values and of weights of loss and metrics, where the model stands now."""
        found = self._loss(batch, metrics=True)
        if samples is not None:
            samples.append(_by_row(found[0], batch))
        return torch.stack([s for t in found for s in (_total(t.values), _total(t.weights))])

    def means(self, prefix: str, sums: Tensor) -> dict[str, float]:
        """Return loss and metrics from what :meth:`sums` gave for all batches."""
        pairs = zip(("loss", *self.metrics), sums.reshape(-1, 2).tolist(), strict=True)
        means = {name: _mean(value, weight, name) for name, (value, weight) in pairs}
        return {prefix + name: self._told(name, mean) for name, mean in means.items()}

    def _told(self, name: str, mean: float) -> float:
        """Return what a metric tells of the mean over its terms; a loss tells the mean."""
        return self.metrics[name].finish(mean) if name in self.metrics else mean

    def add_penalty(self, found: dict[str, float], params: Mapping[str, Tensor] = {}) -> None:
        """Add the penalty to the loss, at a point (where it has no entry, where the model is)."""
        if self.penalty is not None:
            key = "loss" if "" in self.batches else "train_loss"
            found[key] += float(self.penalty(self.current(params)))

    def _weighted(self, weights: Tensor) -> dict[str, float]:
        """Return weighted means over the rows: a loss for each set of weights."""
        (data,) = self.batches.values()
        parts = [
            torch.stack([_by_row(t, batch) for t in self._loss(batch, metrics=True)])
            for batch in data
        ]
        values, counts = torch.cat(parts, dim=2).unbind(dim=1)  # each (names, rows)
        first = weights[:1]
        means = ((values @ first.T) / (counts @ first.T)).flatten().tolist()
        pairs = zip(("loss", *self.metrics), means, strict=True)
        found = {name: self._told(name, mean) for name, mean in pairs}
        others = ((weights[1:] @ values[0]) / (weights[1:] @ counts[0])).tolist()
        found |= {f"loss~{k}": value for k, value in enumerate(others, start=1)}
        if self.penalty is not None:
            extra = float(self.penalty(self.current()))
            found |= {n: v + extra for n, v in found.items() if n.startswith("loss")}
        return found

    def halve_batches(self, *, metrics: bool = True) -> int | None:
        """Divide every batch into halves, because memory ran out.

        Args:
            metrics: Whether metrics are evaluated too; some depend on the batches.

        Returns:
            The new batch size; None when batches cannot get smaller without another result.
        """
        sizes = [batches.count_rows(b) or 1 for data in self.batches.values() for b in data]
        rows = max(sizes, default=1) // 2
        losses = [self.loss, *(self.metrics.values() if metrics else ())]
        if not rows or self.recompute or any(map(depends_on_batches, losses)):
            return None
        halves = {name: batches.divide(data, rows) for name, data in self.batches.items()}
        if any(half is None for half in halves.values()):
            return None
        self.batches = {name: half for name, half in halves.items() if half is not None}
        return rows

    def values_of(self, batch: Any) -> None:
        """Evaluate loss and metrics on one batch, where the model stands now."""
        self._loss(batch, metrics=True)

    def terms(self, params: Mapping[str, Tensor] | None) -> Iterator[Terms]:
        """Yield the terms of the loss, batch by batch."""
        self.move(params)
        for batch in next(iter(self.batches.values())):
            yield self.single_terms(batch)

    def batch_terms(self, batch: Any) -> Terms:
        """Return the terms of the loss on a batch, where the model stands now."""
        return self._loss(batch)[0]

    def single_terms(self, batch: Any) -> Terms:
        """Return the same, one by one also where the loss gives the mean of a batch."""
        whole = self._loss(batch)[0]
        if isinstance(self.loss, Loss) and self.loss.per_batch and len(whole.values) == 1:
            whole = torch_losses.one_by_one(self.loss, *self.outputs(batch))
        return whole

    def row_terms(self, params: Mapping[str, Tensor] | None) -> Terms:
        """Return the terms of the loss summed up row by row; single ones where rows are unknown."""
        self.move(params)
        held = [(self.single_terms(b), b) for b in next(iter(self.batches.values()))]
        if all(_divides(terms, batches.count_rows(batch)) for terms, batch in held):
            pairs = torch.cat([_by_row(*pair) for pair in held], dim=1)
        else:
            pairs = torch.cat([torch.stack([t.values, t.weights]).double() for t, _ in held], dim=1)
        return Terms(*pairs)

    def gradient(self, params: Mapping[str, Tensor] | None) -> Params:
        """Return the gradient of the mean loss at one point."""
        self.move(params)
        leaves = self.current()
        total = {n: torch.zeros_like(p) for n, p in leaves.items()}
        weight = 0.0
        with _differentiable(self.loan.model):
            for batch in next(iter(self.batches.values())):
                terms = self._loss(batch)[0]
                weight += float(terms.weights.sum())
                _add_gradient(total, terms.values.sum(), leaves)
        for tensor in total.values():
            tensor.div_(weight)
        if self.penalty is not None:
            _add_gradient(total, self.penalty(leaves), leaves)
        return params_.like(self.center, {n: t.to(self.center[n]) for n, t in total.items()})

    def current(self, params: Mapping[str, Tensor] = {}) -> Params:
        """Return the trainable parameters at a point, or as they are in the model now."""
        tensors = {**self.loan.tensors, **params}
        found = params_.like(self.center, {n: tensors[n] for n in self.center})
        if any(tensor.is_meta for tensor in found.values()):
            raise ObjectiveError(
                "weights of an offloaded model are not there all at once, so that neither gradients"
                " nor penalties of them can be computed."
            )
        return found

    def move(self, params: Mapping[str, Tensor] | None) -> None:
        """Put the model at a point; the center if None."""
        given = self.center if params is None else params
        if given is not self._fits:
            self._check_fit(given)
            self._fits = given
        self.loan.put(given)
        self._forward.refresh()
        if self.recompute:
            self._recompute_statistics(given)

    def _check_fit(self, given: Mapping[str, Tensor]) -> None:
        tensors = self.loan.tensors
        unknown = next((n for n in given if n not in tensors), None)
        if unknown is not None:
            raise ParamsError(
                f"params has {unknown!r}, which the model has not: take params from"
                " objective.center or objective.states."
            )
        expected = {n: tensors[n] for n in given}
        params_.check_like(given, expected, "params")
        away = [n for n, tensor in expected.items() if tensor.is_meta]
        if any(given[n].data_ptr() != self.center[n].data_ptr() for n in away):
            raise ObjectiveError(
                f"params has a value of its own for {away[0]!r}, which is offloaded: such a model"
                " moves along a slice only, in ls.scan."
            )

    def _recompute_statistics(self, given: Mapping[str, Tensor]) -> None:
        """Set batch-norm statistics to the mean over the data's batches, weighted by their size.

        A batch of one row, whose variance may not exist, is left out where there are others.
        """
        norms = [
            m
            for m in self.loan.model.modules()
            if isinstance(m, _BatchNorm) and m.track_running_stats
        ]
        moved = [n for n in given if n.endswith(("running_mean", "running_var"))]
        if moved:
            raise ObjectiveError(
                f"buffers='recompute' computes the statistics that the slice moves ({moved[0]}):"
                " use a slice over objective.center, or buffers='keep'."
            )
        before = [(m, m.training, m.momentum) for m in norms]
        try:
            for module in norms:
                module.reset_running_stats()
                module.training = True
            seen = 0
            for batch in next(iter(self.batches.values())):
                count = torch_losses.samples(next(batches.tensors(batch)))
                if count == 1 and seen > 0:
                    continue
                seen += count
                for module in norms:
                    module.momentum = count / seen
                self._loss(batch)
        finally:
            for module, training, momentum in before:
                module.training, module.momentum = training, momentum

    def _loss(self, batch: Any, *, metrics: bool = False) -> list[Terms]:
        """Return the terms of the loss, and those of the metrics when asked for."""
        loss = self.loss
        if self._tried:
            return self._terms_of(batch, metrics=metrics)
        try:
            found = self._terms_of(batch, metrics=metrics)
            if isinstance(loss, Loss) and loss.per_batch:
                remark = torch_losses.note_unless_mean(loss, *self.outputs(batch))
                self.notes += [remark] if remark else []
        except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
            if isinstance(error, ObjectiveError):
                raise
            shapes = ", ".join(
                f"{str(t.dtype).removeprefix('torch.')}{list(t.shape)}"
                for t in batches.tensors(batch)
            )
            is_index = isinstance(error, IndexError)
            hint = " (a token or a position without an embedding?)" if is_index else ""
            raise CallError(
                f"{type(self.loan.model).__name__} with {loss.name!r} failed on the first batch"
                f" ({shapes}): {error}{hint}. Check that model, loss and data belong"
                " together."
            ) from error
        self._tried = True
        return found

    def _terms_of(self, batch: Any, *, metrics: bool) -> list[Terms]:
        loss = self.loss
        others = self.metrics.values() if metrics else ()
        if isinstance(loss, Custom):
            first = loss(self.loan.model, self._halved(batch))
            if not others:
                return [first]
        outputs, targets = self.outputs(batch)
        if isinstance(loss, Loss):
            first = loss(outputs, targets)
        same = loss.function
        return [first, *(first if m.function is same else m(outputs, targets) for m in others)]

    def outputs(self, batch: Any) -> tuple[Any, Any]:
        """Return outputs and targets of a batch, where the model stands now."""
        inputs, targets = batches.split(batch)
        inputs, model = self._halved(inputs), self._forward
        outputs = model(**inputs) if isinstance(inputs, dict) else model(inputs)
        return (batches.mapped(Tensor.float, outputs) if self.half else outputs), targets

    def _halved(self, batch: Any) -> Any:
        if self.half is None:
            return batch
        kind = self.half
        return batches.mapped(lambda t: t.to(kind) if t.is_floating_point() else t, batch)


def depends_on_batches(loss: Loss | Custom) -> bool:
    """Return whether a loss or metric may depend on how the data are batched."""
    return bool(getattr(loss, "per_batch", False))


@contextlib.contextmanager
def _differentiable(model: nn.Module) -> Iterator[None]:
    """Leave cuDNN's recurrent layers out where they have no gradient: in evaluation mode."""
    still = any(isinstance(m, nn.RNNBase) and not m.training for m in model.modules())
    with without(torch.backends.cudnn) if still else contextlib.nullcontext():
        yield


def _add_gradient(total: dict[str, Tensor], value: Tensor, leaves: Params) -> None:
    """Add the gradient of value to total; unused leaves add nothing."""
    if not value.requires_grad:
        return
    parts = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    for name, part in zip(total, parts, strict=True):
        if part is not None:
            total[name] += part


def _batch_norm_notes(model: nn.Module) -> list[str]:
    norms = (n for n, m in model.named_modules() if isinstance(m, _BatchNorm) and m.training)
    return [
        f"{name or 'the model'} (batch norm) is in training mode, so the loss depends on how the"
        " data are batched: call model.eval(), or pass buffers='recompute'"
        for name in itertools.islice(norms, 1)
    ]


def _by_row(terms: Terms, batch: Any) -> Tensor:
    """Return (what each row adds, how much it counts), shape (2, rows)."""
    rows = batches.count_rows(batch)
    if rows is None or not _divides(terms, rows):
        raise ObjectiveError(
            f"the loss has {len(terms.values)} terms for a batch of {rows or 'uneven'} rows, so the"
            " terms of single samples are not known: return one term (or as many) for each sample."
        )
    pairs = (terms.values, terms.weights)
    return torch.stack([t.detach().double().reshape(rows, -1).sum(dim=1) for t in pairs])


def _divides(terms: Terms, rows: int | None) -> bool:
    """Return whether each row may have as many of the terms."""
    return bool(rows) and len(terms.values) % (rows or 1) == 0


def _total(tensor: Tensor) -> Tensor:
    return tensor.sum(dtype=torch.float64)


def _mean(value: float, weight: float, name: str) -> float:
    if weight == 0:
        raise ObjectiveError(
            f"{name} has no terms: every one is ignored (ignore_index, or weights of 0)."
        )
    return value / weight
