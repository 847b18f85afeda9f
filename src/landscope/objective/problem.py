"""Problem: what an objective evaluates and how, as the rest of the library sees it.

``Objective`` is for users. Engines, scans and curvature use ``objective.problem``, a frozen value:
a problem on another device, or over some of the samples, is a new one.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from landscope import fingerprint
from landscope import params as params_
from landscope.errors import ObjectiveError
from landscope.objective import offloaded
from landscope.objective.batches import Batches, rebatch_cached
from landscope.objective.borrowed_model import BorrowedModel, borrow
from landscope.objective.coupling import Traits, measure_coupling
from landscope.objective.evaluation import Session
from landscope.objective.forward_pass import Forward
from landscope.objective.global_state import preserve_global_state, set_tf32
from landscope.objective.joint_metrics import Metric
from landscope.objective.loss_terms import Loss
from landscope.objective.nested_batches import select_rows
from landscope.objective.torch_losses import Custom, depends_on_batches
from landscope.params import Params


@final
@dataclass(frozen=True, eq=False)
class Problem:
    """A model, its loss, its data in batches, and the device and precision to compute with.

    Args:
        model: The user's module, which is only borrowed.
        loss: The loss; it returns the terms of a batch.
        metrics: Name -> metric; it returns the terms of a batch, or is one number for all rows.
        sources: Prefix of names ("" or "train_", "test_") -> the user's data.
        batches: Prefix -> the same data in batches.
        center: The trainable parameters: a detached copy, or the model's own tensors (in_place).
        buffers: "keep" or "recompute", for the batch-norm statistics.
        penalty: A function of the parameters that is added to the loss.
        device: The device on which values are computed.
        dtype: The dtype of parameters and inputs.
        precision: The name of the precision; "tf32" is more than a dtype.
        in_place: Whether the model's own tensors are moved.
        weights: The weights of the rows, shape (sets, rows), where the data are a sample of the
            user's; else None.
        notes: Notes of all sessions so far; problems that are made from this one share the list.
        statistics: The batches from which statistics are recomputed; None for those evaluated.
        traits: What is known about rows that depend on one another, and about a forward pass that
            writes into its own weights; shared in the same way.
    """

    model: nn.Module
    loss: Loss | Custom
    metrics: Mapping[str, Metric]
    sources: Mapping[str, Any]
    batches: Mapping[str, Batches]
    center: Params
    buffers: Literal["keep", "recompute"]
    penalty: Callable[[Params], Tensor] | None
    device: torch.device
    dtype: torch.dtype
    precision: str
    in_place: bool
    weights: Tensor | None = None
    notes: list[str] = field(default_factory=list)
    statistics: Batches | None = None
    traits: Traits = field(default_factory=Traits)

    @property
    def low_precision(self) -> torch.dtype | None:
        """The dtype of the model if it has 16 bits, else None; the loss is computed in float32."""
        return self.dtype if self.dtype.itemsize == 2 else None

    @property
    def rows(self) -> int:
        """The number of rows of the (training) data."""
        return self.first_batches.rows

    @property
    def first_batches(self) -> Batches:
        """The batches that terms, gradients and curvature are computed on: the training data."""
        return next(iter(self.batches.values()))

    @property
    def streamed(self) -> bool:
        """Whether some of the data are read again at every pass and not cached."""
        return any(batches.streamed for batches in self.batches.values())

    @property
    def data_notes(self) -> tuple[str, ...]:
        """Notes of the first pass over the data, e.g. that they change from pass to pass."""
        return tuple(note for batches in self.batches.values() for note in batches.notes)

    @property
    def _placement(self) -> tuple[torch.device | None, torch.dtype | None]:
        """The device and dtype of the model in use; None leaves each tensor as it is."""
        return (None, None) if self.in_place else (self.device, self.dtype)

    @contextmanager
    def session(
        self,
        batches: Mapping[str, Iterable[Any]] | None = None,
        forward: Callable[[nn.Module], Forward] | None = None,
    ) -> Iterator[Session]:
        """Borrow the model for many evaluations; afterwards everything is as before.

        Args:
            batches: Batches that replace ``self.batches``, with the same prefixes.
            forward: A function that makes a faster forward pass, with the same values, from the
                borrowed model.
        """
        with self.isolation(), borrow(self.model, *self._placement) as borrowed:
            session = self._session(borrowed, batches, forward)
            try:
                yield session
            finally:
                self.notes.extend(n for n in session.notes if n not in self.notes)
                self.traits.add_written(borrowed.written)

    @contextmanager
    def isolation(self) -> Iterator[None]:
        """Set TF32 as the precision says, and restore it and the global state afterwards.

        Inference mode of the caller ends here: its tensors could not be differentiated later.
        """
        tf32, enabled = self.precision == "tf32", torch.is_grad_enabled()
        with (
            preserve_global_state(*self.sources.values()),
            set_tf32(enabled=tf32),
            torch.inference_mode(mode=False),
            torch.set_grad_enabled(enabled),  # which the line before has changed
        ):
            yield

    def rebatch(
        self, batches: Mapping[str, Iterable[Any]], rows: int | None
    ) -> Mapping[str, Iterable[Any]]:
        """Return batches of at most ``rows`` rows where this cannot change values."""
        if rows is None or self.needs_given_batches():
            return batches
        return {name: rebatch_cached(data, rows) for name, data in batches.items()}

    def needs_given_batches(self) -> bool:
        """Whether values may depend on how the data are batched."""
        if any(map(depends_on_batches, (self.loss, *self.metrics.values()))):
            return True
        return bool(self.find_coupling() or self.traits.written)

    def find_coupling(self) -> str:
        """Return how the loss of a row depends on other rows of its batch, in words; "" if not.

        Cost: the first time some 30 passes over 16 rows, in float64 where the model permits it.
        """
        if self.traits.coupling is None:
            self.traits.coupling = ""  # the sessions below do not ask again
            self.traits.coupling = measure_coupling(self)
        return self.traits.coupling

    def check_independent_rows(self, task: str) -> None:
        """Check that the loss of a row does not depend on the other rows of its batch.

        Args:
            task: What evaluates some rows without the others, for the error.

        Raises:
            ObjectiveError: When it does.
        """
        coupling = self.find_coupling()
        if coupling:
            raise ObjectiveError(
                f"{task} evaluates some rows of the data without the others, and {coupling}:"
                " evaluate all of them, or make rows independent (model.eval() for a batch norm)."
            )

    def lasting_session(self, batches: Mapping[str, Iterable[Any]] | None = None) -> Session:
        """Return a session that never restores the model, for a :meth:`clone` in one thread."""
        whole = dataclasses.replace(self, statistics=self.statistics or self.first_batches)
        return whole._session(BorrowedModel(self.model, *self._placement), batches, None)

    def _session(
        self,
        borrowed: BorrowedModel,
        batches: Mapping[str, Iterable[Any]] | None,
        forward: Callable[[nn.Module], Forward] | None,
    ) -> Session:
        return Session(
            borrowed,
            center=self.center,
            loss=self.loss,
            metrics=self.metrics,
            batches=self.batches if batches is None else batches,
            penalty=self.penalty,
            recompute=self.buffers == "recompute",
            low_precision=self.low_precision,
            weights=self.weights,
            forward=forward,
            find_coupling=self.find_coupling,
            statistics=self.statistics,
        )

    def clone(self) -> Problem:
        """Return the same problem with a clone of the model, for another thread.

        The clone shares the memory of the user's tensors, which are never written to.

        Raises:
            Exception: Any error that copying the model raises.
        """
        memo: dict[int, Any] = {}
        for parameter in self.model.parameters():
            memo[id(parameter)] = nn.Parameter(parameter.detach(), parameter.requires_grad)
        for buffer in self.model.buffers():
            memo[id(buffer)] = buffer.detach()
        for module in self.model.modules():  # such as the weight that an old weight norm computed
            for value in vars(module).values():
                if isinstance(value, Tensor) and not value.is_leaf:
                    memo[id(value)] = value.detach().clone()
        return dataclasses.replace(self, model=copy.deepcopy(self.model, memo))

    def to(self, device: torch.device) -> Problem:
        """Return the same problem on another device, with a clone of the model and of the data."""
        if device == self.device:
            return self
        center = {n: t.to(device) for n, t in self.center.items()}
        return dataclasses.replace(
            self.clone(),
            device=device,
            center=params_.like(self.center, center),
            statistics=None if self.statistics is None else self.statistics.to(device),
            batches={name: batches.to(device) for name, batches in self.batches.items()},
        )

    def select_samples(self, rows: Sequence[int], weights: Any) -> Problem:
        """Return the problem over some samples of the data, each with weights.

        Args:
            rows: The indices of the samples, in ascending order.
            weights: The weights, shape (sets, samples). The mean with the first set is the loss (or
                a metric); the means with the others are called "loss~1", "loss~2", ...

        Raises:
            ObjectiveError: When samples cannot be separated, or there are test data as well.
        """
        self.check_single_dataset()
        recompute = self.buffers == "recompute"
        with preserve_global_state(*self.sources.values()):
            samples = select_rows(self.batches[""], rows)
        return dataclasses.replace(
            self,
            statistics=(self.statistics or self.first_batches) if recompute else None,
            weights=torch.as_tensor(weights, dtype=torch.float64, device=self.device),
            batches={"": Batches(samples, device=self.device, dtype=self.batches[""].dtype)},
        )

    def recenter(self) -> Problem:
        """Return the problem with the model's current parameters as center."""
        parameters = params_.parameters(self.model)
        if self.in_place:
            resident = offloaded.find_stored(self.model, parameters)
            return dataclasses.replace(self, center=params_.like(parameters, resident))
        return dataclasses.replace(self, center=self.copy(parameters))

    def can_be_sampled(self) -> bool:
        """Return whether loss and metrics have terms for each sample, so that some can be drawn.

        Cost: the first batch, once.
        """
        try:
            self.check_single_dataset()
            self.check_independent_rows("samples=")
            with self.session() as session, torch.no_grad():
                session.move(None)
                session.sum_terms(next(iter(self.first_batches)), [])
        except ObjectiveError:
            return False
        return True

    def check_single_dataset(self) -> None:
        """Check that there are no test data: samples are drawn from one data set only.

        Raises:
            ObjectiveError: When there are.
        """
        if "" not in self.batches:
            raise ObjectiveError(
                "samples are drawn from data, and there are test_data as well: leave test_data out,"
                " and scan them by themselves."
            )

    def fingerprints(self) -> dict[str, str]:
        """Return fingerprints of all that decides the values, so that journals are not mixed up."""
        tensors = dict(params_.named_tensors(self.model))
        fixed = {n: t for n, t in tensors.items() if n not in self.center}
        samples = (
            {} if self.weights is None else {"samples": fingerprint.of_tensors({"": self.weights})}
        )
        return {
            "model": fingerprint.of_module(self.model),
            "weights": fingerprint.of_tensors(self.center),
            "buffers and frozen parameters": fingerprint.of_tensors(
                offloaded.find_stored(self.model, fixed)
            ),
            "training mode": fingerprint.of_text(*[m.training for m in self.model.modules()]),
            "loss": self.loss.identity,
            "metrics": json.dumps({n: m.identity for n, m in self.metrics.items()}),
            "penalty": fingerprint.of_function(self.penalty) if self.penalty else "none",
            "buffer mode": self.buffers,
            "precision": self.precision if self.precision == "tf32" else str(self.dtype),
            "device": self.device.type,
            **{batches.name: self._fingerprint(batches) for batches in self.batches.values()},
            **samples,
        }

    def describe(self) -> dict[str, str]:
        """Return the provenance that is kept with a result."""
        size = sum(t.numel() for t in self.center.values())
        penalty = getattr(self.penalty, "name", None) or getattr(self.penalty, "__name__", "")
        return {
            "model": f"{type(self.model).__name__}, {size:,} trainable parameters",
            "loss": self.loss.name,
            "penalty": penalty or ("none" if self.penalty is None else type(self.penalty).__name__),
            "buffers": self.buffers,
            "precision": self.precision if self.precision == "tf32" else str(self.dtype)[6:],
            "device": self.device.type,
        }

    def copy(self, tensors: Params) -> Params:
        """Return detached copies on the device, in the precision of the points of a slice."""
        dtype = None if self.precision == "bfloat16" else self.dtype
        with torch.inference_mode(mode=False):
            copies = {n: t.detach().to(self.device, dtype, copy=True) for n, t in tensors.items()}
        return params_.like(tensors, copies)

    def _fingerprint(self, batches: Batches) -> str:
        with preserve_global_state(*self.sources.values()):
            return batches.identity
