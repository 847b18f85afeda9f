"""Session: a borrowed model that is evaluated at many points.

Each point starts from the user's own buffers, so a value depends on the parameters alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

from landscope import params as params_
from landscope.errors import ObjectiveError
from landscope.objective import batch_means, batch_norm, first_batch, gradients
from landscope.objective.batches import divide
from landscope.objective.borrowed_model import BorrowedModel, describe_writes
from landscope.objective.first_batch import TargetCheck
from landscope.objective.forward_pass import Forward, PlainForward
from landscope.objective.joint_metrics import Metric, MetricPass
from landscope.objective.loss_terms import Loss, Terms
from landscope.objective.nested_batches import count_rows, map_tensors, split
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
        self._checked_params: Mapping[str, Tensor] | None = None
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
            for prefix, data in self.batches.items():
                self.metric_pass.reset()
                sums = torch.stack([self.sum_terms(b, samples) for b in data]).sum(dim=0)
                values |= self.average(prefix, sums)
                samples = None
            self.add_penalty(values)
        return values

    def evaluate_batch(self, batch: Any) -> None:
        """Evaluate loss and metrics on one batch at the current point, to measure the cost."""
        self._compute_terms(batch, metrics=True)

    def sum_terms(self, batch: Any, samples: list[Tensor] | None = None) -> Tensor:
        """Return sums over the terms of a batch for ``average``, and update joint metrics."""
        terms = self._compute_terms(batch, metrics=True)
        if samples is not None:
            self.metric_pass.check_separable()
            samples.append(terms[0].sum_by_row(count_rows(batch)))
        return torch.stack([s for t in terms for s in (_total(t.values), _total(t.weights))])

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
        (data,) = self.batches.values()
        sums = [
            torch.stack(
                [t.sum_by_row(count_rows(batch)) for t in self._compute_terms(batch, metrics=True)]
            )
            for batch in data
        ]
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
        divided = {name: divide(data, rows) for name, data in self.batches.items()}
        if any(data is None for data in divided.values()):
            return None
        self.batches = {name: data for name, data in divided.items() if data is not None}
        return rows

    def terms(self, params: Mapping[str, Tensor] | None) -> Iterator[Terms]:
        """Yield the terms of the loss at one point, batch by batch."""
        self.move(params)
        for batch in next(iter(self.batches.values())):
            yield self.single_terms(batch)

    def batch_terms(self, batch: Any) -> Terms:
        """Return the terms of the loss on a batch at the current point."""
        return self._compute_terms(batch)[0]

    def single_terms(self, batch: Any) -> Terms:
        """Return the terms of a batch, one per sample where the loss gives the mean of a batch."""
        terms = self.batch_terms(batch)
        if not terms.joint:
            return terms
        if isinstance(self.loss, Custom):
            model = self.borrowed.model
            return batch_means.evaluate_rows(self.loss, model, self._cast(batch), terms)
        return batch_means.evaluate_by_sample(self.loss, *self.outputs(batch), terms)

    def row_terms(self, params: Mapping[str, Tensor] | None) -> Terms:
        """Return the terms of the loss summed by row; the unsummed terms if rows are unknown."""
        self.move(params)
        data = next(iter(self.batches.values()))
        by_batch = [(self.single_terms(b), count_rows(b)) for b in data]
        if all(terms.divide_into(rows) for terms, rows in by_batch):
            sums = [terms.sum_by_row(rows) for terms, rows in by_batch]
        else:
            sums = [torch.stack([t.values, t.weights]).double() for t, _ in by_batch]
        return Terms(*torch.cat(sums, dim=1))

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
            for number, batch in enumerate(next(iter(self.batches.values()))):
                terms = self.batch_terms(batch)
                weight += float(terms.weights.sum())
                value = terms.values.sum()
                parts = gradients.add_gradient(total, value, leaves)
                if number == 0:
                    gradients.check_batch(self, batch, value, leaves, parts)
                if number == 0 and self.borrowed.written:  # the check has undone the writes
                    self.move(params)
                    self.batch_terms(batch)
        for tensor in total.values():
            tensor.div_(weight)
        if self.penalty is not None:
            value = self.penalty(leaves)
            parts = gradients.add_gradient(total, value, leaves)
            gradients.check_penalty(self.penalty, leaves, value, parts)
        return params_.like(self.center, {n: t.to(self.center[n]) for n, t in total.items()})

    def current(self, params: Mapping[str, Tensor] = {}) -> Params:
        """Return the trainable parameters at a point; the model's own for names that it lacks."""
        tensors = {**self.borrowed.tensors, **params}
        current = params_.like(self.center, {n: tensors[n] for n in self.center})
        if any(tensor.is_meta for tensor in current.values()):
            raise ObjectiveError(
                "weights of an offloaded model are not in memory all at once, so that neither"
                " gradients nor penalties of them can be computed."
            )
        return current

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
        if self._first_batch_passed and not (metrics and self._wants_targets):
            return self._apply_losses(batch, metrics=metrics)
        is_first = not self._first_batch_passed
        try:
            apply = self._apply_to_first if is_first else self._apply_losses
            terms = apply(batch, metrics=metrics)
            self._check_batch(batch, metrics=metrics)
        except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
            if isinstance(error, ObjectiveError):
                raise
            raise first_batch.explain(error, batch, self.borrowed.model, self.loss) from error
        self._first_batch_passed = True
        if not is_first or (not self.borrowed.written and isinstance(self._forward, PlainForward)):
            return terms
        if self.borrowed.written:
            self.borrowed.renew()
        self.metric_pass.reset()
        return self._apply_losses(batch, metrics=metrics)

    def _apply_to_first(self, batch: Any, *, metrics: bool) -> list[Terms]:
        """Do the same for the first batch, with the model's own forward pass, and watch that."""
        forward, self._forward = self._forward, PlainForward(self.borrowed.model)
        with self.borrowed.watch():
            terms = self._apply_losses(batch, metrics=metrics)
        if self.borrowed.changed and not self.borrowed.written:
            again = self._apply_losses(batch, metrics=metrics)
            if not all(torch.equal(a.values, b.values) for a, b in zip(terms, again, strict=True)):
                self.borrowed.written += self.borrowed.changed  # and it reads them
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
            args = self.borrowed.model, self._cast(batch), outputs
            self.notes += first_batch.note_batching(self.loss, functions, *args)
        if metrics and self._wants_targets:
            self.notes += self._target_check.add(self._pair)

    @property
    def _wants_targets(self) -> bool:
        is_wanted = self._target_check.is_wanted and not self.borrowed.written
        return is_wanted and self._checked_params is self.center

    def _apply_losses(self, batch: Any, *, metrics: bool) -> list[Terms]:
        loss = self.loss
        has_metrics = metrics and bool(self.metrics)
        if isinstance(loss, Custom):
            first = loss(self.borrowed.model, self._cast(batch))
            if not has_metrics:
                return [first]
        outputs, targets = self.outputs(batch)
        self._pair = (outputs, targets) if self._wants_targets else None  # for the check
        if isinstance(loss, Loss):
            first = loss(outputs, targets)
        if not has_metrics:
            return [first]
        return [first, *self.metric_pass.terms(outputs, targets, loss.function, first)]

    def outputs(self, batch: Any) -> tuple[Any, Any]:
        """Return outputs and targets of a batch at the current point."""
        inputs, targets = split(batch)
        inputs, model = self._cast(inputs), self._forward
        outputs = model(**inputs) if isinstance(inputs, dict) else model(inputs)
        return (map_tensors(Tensor.float, outputs) if self.low_precision else outputs), targets

    def _cast(self, batch: Any) -> Any:
        """Return a batch with floating-point tensors in the 16-bit dtype of the model, if any."""
        dtype = self.low_precision
        if dtype is None:
            return batch
        return map_tensors(lambda t: t.to(dtype) if t.is_floating_point() else t, batch)


def _total(tensor: Tensor) -> Tensor:
    return tensor.sum(dtype=torch.float64)
