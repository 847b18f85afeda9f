"""Problem: what an objective evaluates and how, as the other rooms of the library see it.

``Objective`` is for users. Engines, scans and curvature use ``objective.problem``, a frozen value:
a changed problem (on another device, over some of the samples) is a new one.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from landscope import fingerprint
from landscope import params as params_
from landscope.errors import ObjectiveError
from landscope.objective import batches as batches_
from landscope.objective import offloaded
from landscope.objective.batches import Batches
from landscope.objective.borrowing import Borrowed, borrowed, products, undisturbed
from landscope.objective.evaluation import Forward, Session, depends_on_batches
from landscope.objective.terms import Loss
from landscope.objective.torch_losses import Custom
from landscope.params import Params


@final
@dataclass(frozen=True, eq=False)
class Problem:
    """A model, its loss in terms, its data in batches, and where they are computed.

    Args:
        model: The user's module; it is only borrowed.
        loss: The loss in terms.
        metrics: Name -> metric in terms.
        sources: Prefix of names ("" or "train_", "test_") -> the data as the user gave them.
        batches: Prefix -> the same data in batches.
        center: The trainable parameters, a detached copy (in_place: the model's own).
        buffers: Whether batch-norm statistics are kept or computed again at every point.
        penalty: A function of the parameters that is added to the loss.
        device: Where values are computed.
        dtype: The precision of parameters and inputs.
        precision: The name of the precision; "tf32" is more than a dtype.
        in_place: Whether the model's own tensors are moved.
        weights: Weights of the rows, shape (sets, rows), where the data are a sample; else None.
    """

    model: nn.Module
    loss: Loss | Custom
    metrics: Mapping[str, Loss]
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

    @property
    def half(self) -> torch.dtype | None:
        """The 16-bit precision of the model, if it has one; the loss is never computed in it."""
        return self.dtype if self.dtype.itemsize == 2 else None

    @property
    def rows(self) -> int:
        """The number of rows of the (first) data."""
        return self.first_batches.rows

    @property
    def first_batches(self) -> Batches:
        """The data that terms, gradients and curvature are over: the training data."""
        return next(iter(self.batches.values()))

    @property
    def streamed(self) -> bool:
        """Whether some of the data are read again at every pass, because memory is short."""
        return any(batches.streamed for batches in self.batches.values())

    @property
    def data_notes(self) -> tuple[str, ...]:
        """What the first pass over the data found out."""
        return tuple(note for batches in self.batches.values() for note in batches.notes)

    @property
    def _placement(self) -> tuple[torch.device | None, torch.dtype | None]:
        """Where and in which precision the model is used; None leaves each tensor as it is."""
        return (None, None) if self.in_place else (self.device, self.dtype)

    @contextmanager
    def session(
        self,
        batches: Mapping[str, Iterable[Any]] | None = None,
        forward: Callable[[nn.Module], Forward] | None = None,
    ) -> Iterator[Session]:
        """Borrow the model for many evaluations; afterwards everything is as it was.

        Args:
            batches: Batches to use in the place of ``self.batches``, under the same names.
            forward: Makes a faster forward pass with the same values from the borrowed model.
        """
        with self.isolation(), borrowed(self.model, *self._placement) as loan:
            yield self._session(loan, batches, forward)

    @contextmanager
    def isolation(self) -> Iterator[None]:
        """Keep global random states, threads and the user's loaders as they are; set TF32."""
        with undisturbed(*self.sources.values()), products(tf32=self.precision == "tf32"):
            yield

    def in_rows(
        self, batches: Mapping[str, Iterable[Any]], rows: int | None
    ) -> Mapping[str, Iterable[Any]]:
        """Return batches of at most ``rows`` rows, where values cannot depend on the batches."""
        losses = [self.loss, *self.metrics.values()]
        if rows is None or self.buffers == "recompute" or any(map(depends_on_batches, losses)):
            return batches
        return {name: _in_rows(data, rows) for name, data in batches.items()}

    def lasting_session(self, batches: Mapping[str, Iterable[Any]] | None = None) -> Session:
        """Return a session that is never given back, of a :meth:`clone` that nobody else uses."""
        return self._session(Borrowed(self.model, *self._placement), batches, None)

    def _session(
        self,
        loan: Borrowed,
        batches: Mapping[str, Iterable[Any]] | None,
        forward: Callable[[nn.Module], Forward] | None,
    ) -> Session:
        return Session(
            loan,
            center=self.center,
            loss=self.loss,
            metrics=self.metrics,
            batches=self.batches if batches is None else batches,
            penalty=self.penalty,
            recompute=self.buffers == "recompute",
            half=self.half,
            weights=self.weights,
            forward=forward,
        )

    def clone(self) -> Problem:
        """Return the same problem with a model of its own, for another thread.

        The new model shares the memory of the user's tensors, which are never written to.

        Raises:
            Exception: Any error of a model that cannot be copied.
        """
        memo: dict[int, Any] = {}
        for parameter in self.model.parameters():
            memo[id(parameter)] = nn.Parameter(parameter.detach(), parameter.requires_grad)
        for buffer in self.model.buffers():
            memo[id(buffer)] = buffer.detach()
        return dataclasses.replace(self, model=copy.deepcopy(self.model, memo))

    def on(self, device: torch.device) -> Problem:
        """Return the same problem on another device, with a model and data of its own there."""
        if device == self.device:
            return self
        center = {n: t.to(device) for n, t in self.center.items()}
        return dataclasses.replace(
            self.clone(),
            device=device,
            center=params_.like(self.center, center),
            batches={name: batches.on(device) for name, batches in self.batches.items()},
        )

    def sampled(self, rows: Sequence[int], weights: Any) -> Problem:
        """Return the problem over some samples of the data, each with a weight.

        Args:
            rows: The indices of the samples, in order.
            weights: Shape (sets, samples). The mean with the first set is the loss (and the
                metrics); the means with the others are called "loss~1", "loss~2", ...

        Raises:
            ObjectiveError: When samples cannot be separated, or there are test data as well.
        """
        self.check_single_dataset()
        with undisturbed(*self.sources.values()):
            drawn = batches_.taken(self.batches[""], rows)
        return dataclasses.replace(
            self,
            weights=torch.as_tensor(weights, dtype=torch.float64, device=self.device),
            batches={"": Batches(drawn, device=self.device, dtype=self.batches[""].dtype)},
        )

    def recentered(self) -> Problem:
        """Return the problem centered on what the model's parameters are now."""
        return dataclasses.replace(self, center=center_of(self))

    def check_single_dataset(self) -> None:
        """Check that there are no test data, of which no samples can be drawn.

        Raises:
            ObjectiveError: When there are.
        """
        if "" not in self.batches:
            raise ObjectiveError(
                "samples are drawn from data, and there are test_data as well: leave test_data out,"
                " and scan them by themselves."
            )

    def fingerprints(self) -> dict[str, str]:
        """Return what identifies this function: a journal of another one is never mixed in."""
        alive = dict(params_.named_tensors(self.model))
        fixed = {n: t for n, t in alive.items() if n not in self.center}
        drawn = (
            {} if self.weights is None else {"samples": fingerprint.of_tensors({"": self.weights})}
        )
        return {
            "model": fingerprint.of_module(self.model),
            "weights": fingerprint.of_tensors(self.center),
            "buffers and frozen parameters": fingerprint.of_tensors(
                offloaded.resident(self.model, fixed)
            ),
            "training mode": fingerprint.of_text(*[m.training for m in self.model.modules()]),
            "loss": self.loss.identity,
            "metrics": json.dumps({n: m.identity for n, m in self.metrics.items()}),
            "penalty": fingerprint.of_function(self.penalty) if self.penalty else "none",
            "buffer mode": self.buffers,
            "precision": self.precision if self.precision == "tf32" else str(self.dtype),
            "device": self.device.type,
            **{batches.name: self._identity(batches) for batches in self.batches.values()},
            **drawn,
        }

    def describe(self) -> dict[str, str]:
        """Return the provenance that a result shows to its readers."""
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

    def copies(self, alive: Params) -> Params:
        """Return detached copies on the device, in the precision of the points of a slice."""
        dtype = None if self.precision == "bfloat16" else self.dtype
        copies = {n: t.detach().to(self.device, dtype, copy=True) for n, t in alive.items()}
        return params_.like(alive, copies)

    def _identity(self, batches: Batches) -> str:
        with undisturbed(*self.sources.values()):
            return batches.identity


def _in_rows(batches: Iterable[Any], rows: int) -> Iterable[Any]:
    """Return batches of at most ``rows`` rows where that can be done, else those given."""
    if isinstance(batches, Batches):
        return batches.in_rows(rows) or batches
    return batches_.regrouped(list(batches), rows) or batches


def center_of(problem: Problem) -> Params:
    """Return the trainable parameters of a problem's model, as they are now."""
    alive = params_.parameters(problem.model)
    if not problem.in_place:
        return problem.copies(alive)
    return params_.like(alive, offloaded.resident(problem.model, alive))
