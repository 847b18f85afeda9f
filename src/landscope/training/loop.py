"""Training: from an objective and a course to a trained network, and the path that it took.

A *course* is the recipe: optimizer, learning-rate schedule, epochs and seed. This module does what
the 2018 training script does, for any objective whose data are tensors: SGD or Adam (and SAM),
learning-rate drops, weight decay, crops and flips, one checkpoint per epoch. Each epoch has its own
random seed, so a run that was stopped resumes after its last whole epoch with the same result, bit
for bit, on the same number of threads.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import torch
from torch import Tensor, nn

from landscope import fingerprint
from landscope.errors import NumericsError, TrainingError
from landscope.objective import nested_batches
from landscope.objective.global_state import seed_all
from landscope.objective.objective import Objective
from landscope.params import named_tensors
from landscope.progress import Clock, Report, open_report
from landscope.training import optimizers
from landscope.training.folder import TrainingFolder
from landscope.training.optimizers import Course


@final
@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network, and how it was trained.

    Args:
        model: The network in evaluation mode, on the device of the objective's own model.
        history: One dict before training and one after each epoch: "epoch", "step",
            "learning_rate" (of the next step), "loss" and each metric over all training data in
            evaluation mode, and the same over the test data ("test_loss", ...), if there are any.
        seconds: The time of training, summed over all calls that continued it.
        folder: The folder of the checkpoints; None if none were recorded.
    """

    model: nn.Module = field(repr=False)
    history: tuple[dict[str, float], ...] = field(repr=False)
    seconds: float
    folder: Path | None


def train(
    objective: Objective,
    course: Course | None = None,
    *,
    record: str | os.PathLike[str] | None = None,
    every: Literal["epoch"] | int = "epoch",
    keep: int | None = None,
    augment: Callable[[Tensor], Tensor] | None = None,
    asked: Mapping[str, Any] | None = None,
    progress: Report | bool | None = None,
) -> Trained:
    """Return the network of an objective, trained on its data from its present weights.

    The objective's own model does not change: a copy of it is trained, with every module in
    training mode. The loss of a step is the mean over the terms (samples, or tokens) of a batch,
    plus the objective's penalty.

    Args:
        objective: The model, the loss and the data; metrics and test data are evaluated after each
            epoch.
        course: The optimizer, schedule, number of epochs and seed; by default SGD as in the 2018
            scripts, for 30 epochs.
        record: The folder for checkpoints, which begin with the initial weights. The same call
            with the same folder resumes a training run that was stopped.
        every: "epoch" for a checkpoint at each epoch, or the number of steps between checkpoints.
        keep: The largest number of checkpoints, thinned evenly; None keeps all.
        augment: A function from the inputs of a batch to those that the network receives; it may
            use torch's global random state.
        asked: Further entries for ``training.json``, such as the options of a command; they do not
            identify the training run.
        progress: A function that is called after each step with an ``ls.Progress``; True shows a
            bar.

    Raises:
        TrainingError: When the data are streamed, or are not tensors with one entry per row.
        RecorderError: When the folder cannot be written, or holds another training run.
        NumericsError: When the loss is no longer finite; the checkpoints before that remain.

    Cost: for each epoch, one pass over the data with gradients (two with "sam"), and one without
    gradients to evaluate it. The data are in memory twice.

    Example:
        >>> import torch, landscope as ls
        >>> from landscope.training import Course, train
        >>> inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
        >>> data = inputs, (inputs[:, 0] > 0).long()
        >>> objective = ls.Objective(torch.nn.Linear(4, 2), torch.nn.CrossEntropyLoss(), data)
        >>> trained = train(objective, Course("adam", learning_rate=0.1, epochs=5))
        >>> trained.history[-1]["loss"] < trained.history[0]["loss"]
        True
    """
    course = course or Course()
    problem = objective.problem
    if problem.low_precision is not None or problem.in_place:
        raise TrainingError(
            f"this objective computes in {problem.dtype}{', in_place' * problem.in_place}; a"
            " model is trained as a copy, in float32 or float64: pass an objective without"
            " precision= and in_place=."
        )
    path = None if record is None else Path(record)
    with (
        problem.isolation(),
        _deterministic_cudnn(),
        torch.enable_grad(),
        contextlib.ExitStack() as stack,
    ):
        run = _Run(objective, course, augment)
        folder = None
        if path is not None:
            folder = stack.enter_context(TrainingFolder(path, every, keep))
            folder.begin(asked or {}, _identify(objective, course, augment, every, keep))
            run.resume(folder)
        run.train(folder, stack.enter_context(open_report(progress, "training", "steps")))
    device = next(objective.model.parameters()).device
    return Trained(run.model.to(device), tuple(run.history), run.seconds, path)


@final
class _Run:
    """A copy of an objective's model in training, and the state of the training run.

    Args:
        objective: The objective.
        course: How the copy is trained.
        augment: As in :func:`train`.
    """

    def __init__(
        self, objective: Objective, course: Course, augment: Callable[[Tensor], Tensor] | None
    ) -> None:
        self.course, self.augment = course, augment
        self.data, self.rows = _load_data(objective)
        self.steps = len(_split(torch.arange(self.rows), course.batch_size))  # in an epoch
        self.objective = _copy_objective(objective)
        self.model = self.objective.model.eval()
        self.optimizer = optimizers.make_optimizer(course, self.model)
        self.session = self.objective.problem.lasting_session()
        self.step, self.seconds = 0, 0.0
        self.history: list[dict[str, float]] = []
        with torch.no_grad():  # the first call of a session raises for data that do not fit
            self.session.batch_terms(self._select(torch.arange(min(2, self.rows))))

    @property
    def rate(self) -> float:
        """The learning rate of the next step, so that a drop is recorded where the path turns."""
        return self.course.rate(self.step, self.steps)

    def train(self, folder: TrainingFolder | None, report: Report) -> None:
        """Train to the end; report each step, and record the checkpoints that are due."""
        began = time.perf_counter() - self.seconds
        clock = Clock(self.step, self.course.epochs * self.steps, None)
        report(clock.progress(self.step, {}))
        if not self.history:
            self._evaluate()
        self._record(folder, self.history[-1])
        while len(self.history) <= self.course.epochs:
            for loss in self._train_epoch():
                report(clock.progress(self.step, {"loss": loss}))
                if self.step % self.steps:
                    self._record(folder, {"batch_loss": loss})
            self._evaluate()
            self.seconds = time.perf_counter() - began
            self._record(folder, self.history[-1])
            if folder is not None:
                progress = {"step": self.step, "seconds": self.seconds, "history": self.history}
                folder.save_state(self._state(), progress)

    def resume(self, folder: TrainingFolder) -> None:
        """Restore the state that an earlier call saved in a folder, if there is one."""
        saved = folder.load_state()
        if saved is not None:
            tensors, progress = saved
            self._restore(tensors)
            self.step, self.seconds = progress["step"], progress["seconds"]
            self.history = progress["history"]

    def _record(self, folder: TrainingFolder | None, values: Mapping[str, float]) -> None:
        if folder is not None:
            metrics = {
                name: value
                for name, value in values.items()
                if name not in ("epoch", "step", "learning_rate")
            }
            folder.record(
                self.model, self.step, steps=self.steps, learning_rate=self.rate, values=metrics
            )

    def _train_epoch(self) -> Iterator[float]:
        """Take the steps of one epoch, and yield the loss of each batch after its step."""
        seed = np.random.SeedSequence((self.course.seed, len(self.history)))
        seed_all(int(seed.generate_state(1)[0]))
        self.model.train()
        for rows in _split(torch.randperm(self.rows), self.course.batch_size):
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate
            self.optimizer.zero_grad()
            loss = float(self._backpropagate(self._augment(self._select(rows))))
            self._check_finite(loss)
            self.optimizer.step()
            self.step += 1
            yield loss

    def _evaluate(self) -> None:
        """Append the loss and metrics after a whole epoch to the history."""
        self.model.eval()
        values = Objective.of(self.objective.problem.recenter()).evaluate()
        entry = {
            "epoch": float(len(self.history)), "step": float(self.step), "learning_rate": self.rate,
            **{name.removeprefix("train_"): value for name, value in values.items()},
        }  # fmt: skip
        self._check_finite(entry["loss"])
        self.history.append(entry)

    def _backpropagate(self, batch: Any) -> Tensor:
        """Compute the gradient of each parameter, and return the loss of the batch."""

        def backpropagate() -> Tensor:
            terms = self.session.batch_terms(batch)
            loss = terms.values.sum() / terms.weights.sum()
            if self.session.penalty is not None:
                loss = loss + self.session.penalty(self.session.current())
            loss.backward()
            return loss.detach()

        if self.course.optimizer != "sam":
            return backpropagate()
        return optimizers.backpropagate_sharpness_aware(self.model, backpropagate, self.course.rho)

    def _select(self, rows: Tensor) -> Any:
        return nested_batches.index_rows(self.data, rows)

    def _augment(self, batch: Any) -> Any:
        if self.augment is None:
            return batch
        inputs, targets = nested_batches.split(batch)
        return self.augment(inputs), targets

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise NumericsError(
                f"training diverged: after {self.step} steps (epoch {len(self.history)} of"
                f" {self.course.epochs}) the loss is {loss}. Earlier checkpoints remain. Begin in"
                " another folder with a learning rate below"
                f" {self.course.learning_rate:g}, or with warmup."
            )

    def _state(self) -> dict[str, Tensor]:
        """Return the tensors to resume from; those of the optimizer unless training has ended."""
        state = {f"model/{name}": tensor for name, tensor in _unique_tensors(self.model).items()}
        if len(self.history) <= self.course.epochs:
            for index, entry in self.optimizer.state_dict()["state"].items():
                for name, value in entry.items():
                    if isinstance(value, Tensor):
                        state[f"optimizer/{index}/{name}"] = value
        return state

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore the tensors of :meth:`_state`."""
        entries: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            kind, index, entry = (*name.split("/"), "")[:3]
            if kind == "optimizer":
                entries.setdefault(int(index), {})[entry] = value
        with torch.no_grad():
            for name, tensor in _unique_tensors(self.model).items():
                tensor.copy_(state[f"model/{name}"])
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": entries, "param_groups": groups})


def _identify(
    objective: Objective,
    course: Course,
    augment: Callable[[Tensor], Tensor] | None,
    every: Literal["epoch"] | int,
    keep: int | None,
) -> dict[str, Any]:
    """Return the settings that identify a training run; different runs are never mixed."""
    fingerprints = objective.problem.fingerprints()
    del fingerprints["training mode"], fingerprints["buffer mode"]  # training has its own
    augmentation = fingerprint.of_function(augment) if augment is not None else None
    return {
        **asdict(course), "augment": augmentation, "every": every, "keep": keep, **fingerprints,
    }  # fmt: skip


def _load_data(objective: Objective) -> tuple[Any, int]:
    """Return the training data as one batch on the device, and the number of rows."""
    data = objective.problem.first_batches
    whole = None if data.streamed else nested_batches.rebatch_evenly(list(data), data.rows)
    rows = None if whole is None else nested_batches.count_rows(whole[0])
    if whole is None or rows is None:
        raise TrainingError(
            "data are streamed, or are not tensors with one entry per row in batches of one shape,"
            " so their rows cannot be drawn in random order: pass (inputs, targets) tensors, with"
            " sequences padded to one length."
        )
    return whole[0], rows


def _split(order: Tensor, size: int) -> list[Tensor]:
    """Return the rows of each batch; a single last row, on which batch norm fails, is merged."""
    parts = list(order.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1 < size:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def _copy_objective(objective: Objective) -> Objective:
    """Return the objective with a copy of the model on the objective's device."""
    problem = objective.problem.clone()
    for tensor in _unique_tensors(problem.model).values():
        dtype = problem.dtype if tensor.is_floating_point() else None
        tensor.data = tensor.data.to(problem.device, dtype, copy=True)
    return Objective.of(problem)


def _unique_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return every parameter and buffer by name, tied ones once."""
    names = {tensor: name for name, tensor in named_tensors(model)}
    return {name: tensor for tensor, name in names.items()}


@contextlib.contextmanager
def _deterministic_cudnn() -> Iterator[None]:
    """Let cuDNN use only algorithms that give the same gradient each time."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
