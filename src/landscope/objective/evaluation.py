"""Session: a borrowed model that is evaluated at many points.

Each point starts from the user's own buffers, so a value depends on the parameters alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, final

import torch
from torch import Tensor, nn

from landscope import params as params_
from landscope.objective import (
    batch_means,
    batch_norm,
    call_errors,
    first_batch,
    gradients,
    offloaded,
)
from landscope.objective.batches import divide_all
from landscope.objective.borrowed_model import BorrowedModel, describe_writes
from landscope.objective.calls import Caller
from landscope.objective.first_batch import TargetCheck
from landscope.objective.forward_pass import Forward, PlainForward
from landscope.objective.inner_gradients import InnerGradients, detach_outputs, detach_terms
from landscope.objective.joint_metrics import Metric, MetricPass
from landscope.objective.loss_terms import Loss, Terms, stack_rows, sum_rows
from landscope.objective.nested_batches import count_rows, map_tensors, prepare
from landscope.objective.running_statistics import RunningStatistics
from landscope.objective.torch_losses import Custom, depends_on_batches
from landscope.params import Params


@final
class Session:
    """A borrowed model, ready to be evaluated at many points.

    Args:
        borrowed: The model.
        center: The point to evaluate where none is given; gradients are for these parameters.
        loss: The loss; it returns the terms of a batch.
        metrics: Name -> metric; it returns the terms of a batch, or is one number for all rows.
        batches: Prefix of names ("" or "train_", "test_") -> batches; what is computed for one data
            set only (terms, gradients) uses the first.
        penalty: A function of the parameters that is added to the loss over the first data.
        recompute: Whether batch-norm statistics are recomputed at every point.
        low_precision: The 16-bit dtype of the model, if it has one; the loss is in float32.
        weights: Weights of the rows of the data, shape (sets, rows); see
            ``Problem.select_samples``.
        forward: A function that makes the forward pass from the model; the model's own if None. It
            is called when the model has the center's parameters.
        find_coupling: A function that returns how rows are coupled, in words, if they are.
        statistics: The batches from which statistics are recomputed; the first data if None.
    """

    def __init__(
        self,
        borrowed: BorrowedModel,
        *,
        center: Params,
        loss: Loss | Custom,
        metrics: Mapping[str, Metric],
        batches: Mapping[str, Iterable[Any]],
        penalty: Callable[[Params], Tensor] | None,
        recompute: bool,
        low_precision: torch.dtype | None,
        weights: Tensor | None = None,
        forward: Callable[[nn.Module], Forward] | None = None,
        find_coupling: Callable[[], str] = str,
        statistics: Iterable[Any] | None = None,
    ) -> None:
        self.borrowed, self.center, self.loss, self.metrics = borrowed, center, loss, metrics
        self.batches, self.penalty, self.recompute = batches, penalty, recompute
        self.low_precision, self.weights = low_precision, weights
        self.notes = batch_norm.note_training_mode(borrowed.model) if not recompute else []
        self.metric_pass = MetricPass(metrics, borrowed.device)
        self.notes += [note for part in (loss, *metrics.values()) for note in part.notes]
        self._target_check = TargetCheck(loss, metrics.values())
        self._pair: tuple[Any, Any] | None = None
        self._first_batch_passed, self.find_coupling = False, find_coupling
        self._place = ""  # of the current batch in the data, in words
        self._checked_params: Mapping[str, Tensor] | None = None
        self._gradients, self._caller = InnerGradients(borrowed.model), Caller(borrowed.model)
        self._forward: Forward = PlainForward(borrowed.model)
        self.statistics = RunningStatistics(self, statistics) if recompute else None
        if forward is not None:
            borrowed.set_params(center)
            with borrowed.preserve_attributes():
                self._forward = forward(borrowed.model)

    def evaluate(
        self, params: Mapping[str, Tensor] | None, samples: list[Tensor] | None = None
    ) -> dict[str, float]:
        """Return the loss and the metrics at one point.

        Args:
            params: The point; the center if None.
            samples: A list to which each batch of the (first) data appends the sums of values and
                of weights of the loss over the terms of each row, shape (2, rows), float64.
        """
        values: dict[str, float] = {}
        with torch.no_grad():
            self.move(params)
            if self.weights is not None:
                return self._evaluate_weighted(self.weights)
            for prefix in self.batches:
                self.metric_pass.reset()
                batches = self.iter_batches(prefix)
                sums = torch.stack([self.sum_terms(b, samples) for b in batches]).sum(dim=0)
                values |= self.average(prefix, sums)
                samples = None
            self.add_penalty(values)
        return values

    def iter_batches(self, prefix: str | None = None) -> Iterator[Any]:
        """Yield the batches of a data set, the first by default; errors name the current one."""
        name = next(iter(self.batches)) if prefix is None else prefix
        for number, batch in enumerate(self.batches[name], start=1):
            self._place = f"batch {number} of {'test_data' if name == 'test_' else 'data'}"
            yield batch
        self._place = ""

    def sum_terms(self, batch: Any, samples: list[Tensor] | None = None) -> Tensor:
        """Return sums over the terms of a batch for ``average``, and update joint metrics."""
        terms = self._compute_terms(batch, metrics=True)
        if samples is not None:
            self.metric_pass.check_separable()
            samples.append(terms[0].sum_by_row(count_rows(batch)))
        return torch.stack([total for t in terms for total in t.totals()])

    def average(self, prefix: str, sums: Tensor) -> dict[str, float]:
        """Return loss and metrics from the sums of :meth:`sum_terms` over all batches."""
        return {prefix + name: v for name, v in self.metric_pass.average(sums).items()}

    def add_penalty(self, values: dict[str, float], params: Mapping[str, Tensor] = {}) -> None:
        """Add the penalty to the loss, in place.

        Args:
            values: The loss and metrics of a point.
            params: The point; the model's current parameters for names that it lacks.
        """
        if self.penalty is not None:
            key = "loss" if "" in self.batches else "train_loss"
            values[key] += float(self.penalty(self.current(params)))

    def _evaluate_weighted(self, weights: Tensor) -> dict[str, float]:
        """Return weighted means over the rows: a loss for each set of weights."""
        batches = self.iter_batches()
        sums = [stack_rows(self._compute_terms(b, metrics=True), count_rows(b)) for b in batches]
        result = self.metric_pass.weigh(torch.cat(sums, dim=2), weights)
        if self.penalty is not None:
            penalty = float(self.penalty(self.current()))
            result |= {n: v + penalty for n, v in result.items() if n.startswith("loss")}
        return result

    def halve_batches(self, *, metrics: bool = True) -> int | None:
        """Divide every batch into halves, because memory ran out.

        Args:
            metrics: Whether metrics are evaluated too; some depend on the batches.

        Returns:
            The new batch size; None when smaller batches are impossible or change the values.
        """
        sizes = [count_rows(b) or 1 for data in self.batches.values() for b in data]
        rows = max(sizes, default=1) // 2
        losses = [self.loss, *(self.metrics.values() if metrics else ())]
        if not rows or any(map(depends_on_batches, losses)):
            return None
        if self.borrowed.written or self.find_coupling():
            return None
        divided = divide_all(self.batches, rows)
        if divided is None:
            return None
        self.batches = divided
        return rows

    def terms(self, params: Mapping[str, Tensor] | None) -> Iterator[Terms]:
        """Yield the terms of the loss at one point, batch by batch."""
        self.move(params)
        for batch in self.iter_batches():
            yield self.single_terms(batch)

    def batch_terms(self, batch: Any) -> Terms:
        """Return the terms of the loss on a batch at the current point."""
        return self._compute_terms(batch)[0]

    def single_terms(self, batch: Any) -> Terms:
        """Return the terms of a batch, one per sample where the loss gives the mean of a batch."""
        terms = self.batch_terms(batch)
        if not terms.joint:
            return terms
        loss, model = self.loss, self.borrowed.model

        def divide_terms() -> list[Terms]:
            if isinstance(loss, Custom):
                return [batch_means.evaluate_rows(loss, model, self._prepare(batch), terms)]
            return [batch_means.evaluate_by_sample(loss, *self._call_model(batch), terms)]

        return self._gradients.run(divide_terms, detach_terms)[0]

    def row_terms(self, params: Mapping[str, Tensor] | None) -> Terms:
        """Return the terms of the loss summed by row; the unsummed terms if rows are unknown."""
        self.move(params)
        return sum_rows((self.single_terms(b), count_rows(b)) for b in self.iter_batches())

    def gradient(self, params: Mapping[str, Tensor] | None) -> Params:
        """Return the gradient of the mean loss at one point.

        Raises:
            ObjectiveError: When torch has none, although the loss depends on the parameters.
        """
        self.move(params)
        leaves = self.current()
        total = {n: torch.zeros_like(p) for n, p in leaves.items()}
        weight = 0.0
        with gradients.avoid_missing_kernels(self.borrowed.model):
            for number, batch in enumerate(self.iter_batches()):
                with self._explain_errors(batch, "has no gradient"):
                    weight += gradients.add_batch(self, batch, total, leaves, check=number == 0)
                if number == 0 and self.borrowed.written:  # the check has undone the writes
                    self.move(params)
                    self.batch_terms(batch)
        for tensor in total.values():
            tensor.div_(weight)
        if self.penalty is not None:
            gradients.add_penalty(self.penalty, total, leaves)
        return params_.like(self.center, {n: t.to(self.center[n]) for n, t in total.items()})

    def current(self, params: Mapping[str, Tensor] = {}) -> Params:
        """Return the trainable parameters at a point; the model's own for names that it lacks."""
        tensors = {**self.borrowed.tensors, **params}
        return params_.like(
            self.center, offloaded.check_loaded({n: tensors[n] for n in self.center})
        )

    def move(self, params: Mapping[str, Tensor] | None) -> None:
        """Move the model to a point; to the center if None."""
        point = self.center if params is None else params
        if point is not self._checked_params:
            self.borrowed.check_fit(point, self.center)
            self._checked_params = point
        self.borrowed.set_params(point)
        self._forward.refresh()
        if self.statistics is not None:
            batch_norm.check_statistics_stay(point)
            self.statistics.measure(next(iter(self.batches.values())))
            self._forward.refresh()

    def run_model(self, batch: Any) -> None:
        """Run the model's own forward pass on a batch, whose outputs are not needed."""
        forward, self._forward = self._forward, PlainForward(self.borrowed.model)
        try:
            if isinstance(self.loss, Loss):
                self.outputs(batch)
            else:
                self._compute_terms(batch)
        finally:
            self._forward = forward

    def _compute_terms(self, batch: Any, *, metrics: bool = False) -> list[Terms]:
        """Return the terms of the loss and, optionally, of the metrics."""
        is_first = not self._first_batch_passed
        with self._explain_errors(batch):
            apply = self._apply_to_first if is_first else self._run_losses
            terms = apply(batch, metrics=metrics)
            if is_first or (metrics and self._wants_targets):
                self._check_batch(batch, metrics=metrics)
        self._first_batch_passed = True
        if not is_first or (not self.borrowed.written and isinstance(self._forward, PlainForward)):
            return terms
        if self.borrowed.written:
            self.borrowed.renew()
        self.metric_pass.reset()
        return self._run_losses(batch, metrics=metrics)

    def _apply_to_first(self, batch: Any, *, metrics: bool) -> list[Terms]:
        """Do the same for the first batch, with the model's own forward pass, and watch that."""
        forward, self._forward = self._forward, PlainForward(self.borrowed.model)
        run = functools.partial(self._run_losses, batch, metrics=metrics)
        terms = first_batch.watch(self.borrowed, run)
        if self.borrowed.written:
            self.notes.append(describe_writes(self.borrowed.written))
        else:  # a forward pass that was rewritten may write otherwise
            self._forward = forward
        return terms

    def _check_batch(self, batch: Any, *, metrics: bool) -> None:
        """Add notes on what loss and metrics make of the first batches."""
        functions = list(self.metric_pass.by_terms.values()) if metrics else []
        is_mean = any(isinstance(f, Loss) and f.per_batch for f in (self.loss, *functions))
        outputs = self.outputs(batch) if is_mean else None
        if not self._first_batch_passed:
            args = self.loss, functions, self.borrowed.model, self._prepare(batch), outputs
            self.notes += self._gradients.run(lambda: first_batch.note_batching(*args), list)
        if metrics and self._wants_targets and self._pair is not None:
            self.notes += self._target_check.add(self._pair)

    @property
    def _wants_targets(self) -> bool:
        is_wanted = self._target_check.is_wanted and not self.borrowed.written
        return is_wanted and self._checked_params is self.center

    def _explain_errors(self, batch: Any, action: str = "") -> AbstractContextManager[None]:
        """Make of errors sentences that name the model, what it did, and the batch."""
        place = (self._place or "a batch") if self._first_batch_passed else "the first batch"
        action = action or f"with {self.loss.name!r} failed"
        return call_errors.explain_errors(self.borrowed.model, action, place, batch)

    def _run_losses(self, batch: Any, *, metrics: bool) -> list[Terms]:
        """Apply loss and metrics, with gradients enabled where they differentiate."""
        apply = functools.partial(self._apply_losses, batch, metrics=metrics)
        run = functools.partial(self._gradients.run, apply, detach_terms)
        return run() if self._first_batch_passed else self._caller.run_first(run, batch)

    def _apply_losses(self, batch: Any, *, metrics: bool) -> list[Terms]:
        loss = self.loss
        if not self._first_batch_passed:
            self.metric_pass.reset()  # a first attempt may have failed after an update
        has_metrics = metrics and bool(self.metrics)
        if isinstance(loss, Custom):
            first = loss(self.borrowed.model, self._prepare(batch))
            if not has_metrics:
                return [first]
        outputs, targets = self._call_model(batch)
        self._pair = detach_outputs((outputs, targets)) if self._wants_targets else None
        if isinstance(loss, Loss):
            first = loss(outputs, targets)
        if not has_metrics:
            return [first]
        return [first, *self.metric_pass.terms(outputs, targets, loss.function, first)]

    def outputs(self, batch: Any) -> tuple[Any, Any]:
        """Return outputs and targets of a batch at the current point."""
        return self._gradients.run(lambda: self._call_model(batch), detach_outputs)

    def _call_model(self, batch: Any) -> tuple[Any, Any]:
        inputs, targets = self._caller.split(batch)
        outputs = self._caller.call(self._forward, self._prepare(inputs))
        return (map_tensors(Tensor.float, outputs) if self.low_precision else outputs), targets

    def _prepare(self, batch: Any) -> Any:
        """Return a batch in the precision of the model; one that the loss may change."""
        is_new = torch.is_grad_enabled() or not self._first_batch_passed
        return prepare(batch, self.low_precision, is_new=is_new)
