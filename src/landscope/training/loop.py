"""Training: from an objective and a course to a trained network, and the path that it took.

What the 2018 training script did, for any objective whose data are tensors: SGD or Adam (and SAM),
learning-rate drops, weight decay, crops and flips, a checkpoint an epoch. All that is drawn in an
epoch is drawn from a seed that belongs to it, so training that was stopped goes on from its last
whole epoch as if nothing had happened: bit for bit, on as many threads.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import torch
from torch import Tensor, nn

from landscope import fingerprint
from landscope.errors import NumericsError, TrainingError
from landscope.objective import batches
from landscope.objective.objective import Objective
from landscope.params import named_tensors
from landscope.progress import Clock, Report, open_report
from landscope.training import optimizers
from landscope.training.folder import TrainingFolder
from landscope.training.optimizers import Course


@final
@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network, and how it came about.

    Args:
        model: in evaluation mode, on the device of the objective's own model.
        history: a dict before training and one after each epoch: "epoch", "step",
            "learning_rate" (of the step to come), "loss" and each metric over all training data in
            evaluation mode, and the same over the test data ("test_loss", ...) where there are any.
        seconds: that it took, in all sessions.
        folder: of the checkpoints; None where none were kept.
    """

    model: nn.Module
    history: tuple[dict[str, float], ...]
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
    """Return the network of an objective, trained on its data from the weights that it has.

    The objective's own model stays as it is: a copy is trained, all of it in training mode. A step
    goes down the mean over the terms of a batch, with the objective's penalty.

    Args:
        objective: model, loss and data; metrics and test data are evaluated after each epoch.
        course: optimizer, schedule, epochs, seed; SGD as in 2018 for 30 epochs if not given.
        record: folder for checkpoints, of which the initial weights are the first. The same call
            with the same folder goes on where it stopped.
        every: a checkpoint an epoch, or one in so many steps.
        keep: at most so many checkpoints, thinned evenly; all if None.
        augment: from the inputs of a batch to what the network is shown; it may draw from torch's
            global random state.
        asked: what else ``training.json`` is to tell, such as the words of a command.
        progress: called after each step with how far it is; True for a bar.

    Raises:
        TrainingError: when data are streamed, or are not tensors with one entry a row.
        RecorderError: when the folder cannot be written, or holds another training.
        NumericsError: when the loss is no longer finite; the checkpoints before that stay.

    Cost: an epoch is a walk through the data (with "sam", two), and one without gradients to
    evaluate it. Twice the memory of the data.

    Example:
        >>> import torch, landscope as ls
        >>> from landscope.training.loop import Course, train
        >>> inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
        >>> data = inputs, (inputs[:, 0] > 0).long()
        >>> objective = ls.Objective(torch.nn.Linear(4, 2), torch.nn.CrossEntropyLoss(), data)
        >>> trained = train(objective, Course("adam", learning_rate=0.1, epochs=5))
        >>> trained.history[-1]["loss"] < trained.history[0]["loss"]
        True
    """
    course = course or Course()
    problem = objective.problem
    if problem.half is not None or problem.in_place:
        raise TrainingError(
            f"this objective computes in {problem.dtype}{', in_place' * problem.in_place}; a"
            " copy of its model is trained, in float32 or float64: make one without precision="
            " and in_place=."
        )
    path = None if record is None else Path(record)
    with (
        problem.isolation(),
        _repeatable(),
        torch.enable_grad(),
        contextlib.ExitStack() as stack,
    ):
        run = _Run(objective, course, augment)
        folder = None
        if path is not None:
            folder = stack.enter_context(TrainingFolder(path, every, keep))
            folder.begin(asked or {}, _question(objective, course, augment, every, keep))
            run.resume(folder)
        run.go(folder, stack.enter_context(open_report(progress, "training", "steps")))
    return Trained(run.model.to(_home(objective)), tuple(run.history), run.seconds, path)


@final
class _Run:
    """A copy of an objective's model on its way, and where it is."""

    def __init__(
        self, objective: Objective, course: Course, augment: Callable[[Tensor], Tensor] | None
    ) -> None:
        self.course, self.augment = course, augment
        self.data, self.rows = _whole(objective)
        self.steps = len(_parts(torch.arange(self.rows), course.batch_size))  # an epoch
        self.objective = _own(objective)
        self.model = self.objective.model.eval()
        self.optimizer = optimizers.optimizer(course, self.model)
        self.session = self.objective.problem.lasting_session()
        self.step, self.seconds = 0, 0.0
        self.history: list[dict[str, float]] = []
        with torch.no_grad():  # a session's first call is the one that tells what does not fit
            self.session.batch_terms(self._rows(torch.arange(min(2, self.rows))))

    @property
    def rate(self) -> float:
        """The learning rate of the step to come, so that a drop is noted where the path turns."""
        return self.course.rate(self.step, self.steps)

    def go(self, folder: TrainingFolder | None, report: Report) -> None:
        """Train to the end, reporting each step; record and keep what is due."""
        began = time.perf_counter() - self.seconds
        clock = Clock(self.step, self.course.epochs * self.steps, None)
        report(clock.progress(self.step, {}))
        if not self.history:
            self._evaluate()
        self._record(folder, self.history[-1])
        while len(self.history) <= self.course.epochs:
            for loss in self._epoch():
                report(clock.progress(self.step, {"loss": loss}))
                if self.step % self.steps:
                    self._record(folder, {"batch_loss": loss})
            self._evaluate()
            self.seconds = time.perf_counter() - began
            self._record(folder, self.history[-1])
            if folder is not None:
                told = {"step": self.step, "seconds": self.seconds, "history": self.history}
                folder.save_state(self._state(), told)

    def resume(self, folder: TrainingFolder) -> None:
        """Take what the last session kept in a folder, if there was one."""
        kept = folder.load_state()
        if kept is not None:
            tensors, told = kept
            self._put(tensors)
            self.step, self.seconds, self.history = told["step"], told["seconds"], told["history"]

    def _record(self, folder: TrainingFolder | None, values: Mapping[str, float]) -> None:
        if folder is not None:
            told = {n: v for n, v in values.items() if n not in ("epoch", "step", "learning_rate")}
            folder.record(
                self.model, self.step, steps=self.steps, learning_rate=self.rate, values=told
            )

    def _epoch(self) -> Iterator[float]:
        """Walk through the data once, and yield the loss of each batch, its step being done."""
        seed = np.random.SeedSequence((self.course.seed, len(self.history)))
        batches.seed_all(int(seed.generate_state(1)[0]))
        self.model.train()
        for rows in _parts(torch.randperm(self.rows), self.course.batch_size):
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate
            self.optimizer.zero_grad()
            loss = float(self._gradient(self._shown(rows)))
            self._check(loss)
            self.optimizer.step()
            self.step += 1
            yield loss

    def _evaluate(self) -> None:
        """Note the loss and metrics after a whole epoch."""
        self.model.eval()
        values = Objective.of(self.objective.problem.recentered()).evaluate()
        here = {
            "epoch": float(len(self.history)), "step": float(self.step), "learning_rate": self.rate,
            **{name.removeprefix("train_"): value for name, value in values.items()},
        }  # fmt: skip
        self._check(here["loss"])
        self.history.append(here)

    def _gradient(self, batch: Any) -> Tensor:
        """Leave each parameter its gradient, and return the loss of the batch."""

        def gradient() -> Tensor:
            terms = self.session.batch_terms(batch)
            loss = terms.values.sum() / terms.weights.sum()
            if self.session.penalty is not None:
                loss = loss + self.session.penalty(self.session.current())
            loss.backward()
            return loss.detach()

        if self.course.optimizer != "sam":
            return gradient()
        return optimizers.sharpness_aware(self.model, gradient, self.course.rho)

    def _rows(self, rows: Tensor) -> Any:
        return batches.mapped(lambda t: t[rows.to(t.device)], self.data)

    def _shown(self, rows: Tensor) -> Any:
        if self.augment is None:
            return self._rows(rows)
        inputs, targets = batches.split(self._rows(rows))
        return self.augment(inputs), targets

    def _check(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise NumericsError(
                f"training diverged: after {self.step} steps (epoch {len(self.history)} of"
                f" {self.course.epochs}) the loss is {loss}. What was recorded before that stays."
                f" Begin in another folder with a smaller learning rate than"
                f" {self.course.learning_rate:g}, or with warmup."
            )

    def _state(self) -> dict[str, Tensor]:
        """Return all tensors that are needed to go on; those of the optimizer until the end."""
        found = {f"model/{name}": tensor for name, tensor in _tensors(self.model).items()}
        if len(self.history) <= self.course.epochs:
            for index, entry in self.optimizer.state_dict()["state"].items():
                for name, value in entry.items():
                    if isinstance(value, Tensor):
                        found[f"optimizer/{index}/{name}"] = value
        return found

    def _put(self, state: Mapping[str, Tensor]) -> None:
        """Take the tensors of :meth:`_state`."""
        entries: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            kind, index, entry = (*name.split("/"), "")[:3]
            if kind == "optimizer":
                entries.setdefault(int(index), {})[entry] = value
        with torch.no_grad():
            for name, tensor in _tensors(self.model).items():
                tensor.copy_(state[f"model/{name}"])
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": entries, "param_groups": groups})


def _question(
    objective: Objective,
    course: Course,
    augment: Callable[[Tensor], Tensor] | None,
    every: Literal["epoch"] | int,
    keep: int | None,
) -> dict[str, Any]:
    """Return what identifies a training: another one is never mixed in."""
    function = objective.problem.fingerprints()
    del function["training mode"], function["buffer mode"]  # neither is that of training
    shown = fingerprint.of_function(augment) if augment is not None else None
    return {**asdict(course), "augment": shown, "every": every, "keep": keep, **function}


def _whole(objective: Objective) -> tuple[Any, int]:
    """Return the training data as one batch on the device, and how many rows it has."""
    data = objective.problem.first_batches
    parts = None if data.streamed else batches.rebatched(list(data), data.rows)
    rows = None if parts is None else batches.count_rows(parts[0])
    if parts is None or rows is None:
        raise TrainingError(
            "data are streamed, or are not tensors with one entry a row in batches of one shape,"
            " so their rows cannot be drawn in random order: pass (inputs, targets) tensors, with"
            " sequences padded to one length."
        )
    return parts[0], rows


def _parts(order: Tensor, size: int) -> list[Tensor]:
    """Return the rows of each batch; a lone one, which batch norm refuses, joins those before."""
    parts = list(order.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1 < size:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def _own(objective: Objective) -> Objective:
    """Return the objective with a model that shares nothing with the user's, on its device."""
    problem = objective.problem.clone()
    for tensor in _tensors(problem.model).values():
        dtype = problem.dtype if tensor.is_floating_point() else None
        tensor.data = tensor.data.to(problem.device, dtype, copy=True)
    return Objective.of(problem)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return every parameter and buffer, those that are one tensor once."""
    names = {tensor: name for name, tensor in named_tensors(model)}
    return {name: tensor for tensor, name in names.items()}


def _home(objective: Objective) -> torch.device:
    return next(objective.model.parameters()).device


@contextlib.contextmanager
def _repeatable() -> Iterator[None]:
    """Let cuDNN choose among algorithms that give the same gradient each time."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
