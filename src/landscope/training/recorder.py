"""Recorder: the path of a training run, checkpoint by checkpoint, in a folder.

FOLDER/000001234.safetensors   a checkpoint, named by its step: parameters and floating-point
                               buffers; its metadata "landscope" holds step, epoch, learning rate,
                               values, names, its number on the path and the stride of the thinning
FOLDER/abandoned-1/            later steps of a path that a resumed training run has left
FOLDER/.lock                   held by the process that records

A file gets its name when all of it is on the disk; the training thread only copies.
"""

from __future__ import annotations

import json
import os
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self, final

import torch
from torch import Tensor, nn

from landscope.errors import RecorderError
from landscope.params import named_tensors, parameters, states
from landscope.training.checkpoint_buffer import CheckpointBuffer
from landscope.training.record_values import (
    floor_epoch,
    parse_learning_rate,
    parse_number,
    parse_step,
)
from landscope.training.recorded_path import RecordedPath, Snapshot
from landscope.training.trajectory import METADATA_VERSION
from landscope.training.wrapped_models import gather, is_first_rank, unwrap
from landscope.training.writer import Writer, WriteTask


@final
class Recorder:
    """Takes checkpoints of a model during training: call it in the training loop.

    The first call on an empty folder always takes a checkpoint: make it before the first step, so
    that the path begins with the initial weights. A folder with checkpoints is continued. When the
    first call has an earlier step than the last checkpoint, the later checkpoints belong to a path
    that was abandoned, and are moved to ``abandoned-1`` (2, ...) in the folder; nothing is lost. A
    checkpoint that is already there, bit for bit, is not taken again.

    In distributed training, call it on every rank: sharded parameters (DTensor) are gathered, and
    the first rank writes. A copy (by ``copy`` or ``pickle``) continues what is in the folder. When
    two recorders use one folder, the one that begins later continues, and the other raises an
    error.

    Args:
        folder: The folder, created at the first checkpoint; each training run needs its own.
        every: "epoch" takes a checkpoint at the first call of each epoch (at every call that passes
            no epoch); a number takes one at each step that it divides.
        keep: The largest number of checkpoints, 2 or more; None keeps all. When there are more,
            every second one is removed, and of new ones every second one is kept, so at least half
            of ``keep`` remain (a third, if drops were kept until they became too many). The first
            and the last checkpoint stay, and those before and after a drop of the learning rate,
            unless the latter are more than a quarter of ``keep``.
        buffers: Whether floating-point buffers (statistics of batch norm) are recorded.

    Raises:
        RecorderError: When ``every`` or ``keep`` is out of range.

    Cost: microseconds for a call that takes no checkpoint. A call that takes one copies the model
    to CPU memory (from a GPU asynchronously); a thread writes it. Memory: at most two checkpoints,
    because a call waits while two are being written. A killed process loses these two at
    most. ``keep`` saves space on the disk, not writing.

    Example:
        >>> from tempfile import mkdtemp
        >>> model, folder = nn.Linear(2, 1), mkdtemp()
        >>> with Recorder(folder) as recorder:
        ...     taken = [recorder(model, epoch=epoch, loss=1 / (1 + epoch)) for epoch in range(3)]
        >>> sorted(path.name for path in Path(folder).glob("*.safetensors"))
        ['000000000.safetensors', '000000001.safetensors', '000000002.safetensors']
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        every: str | int = "epoch",
        *,
        keep: int | None = None,
        buffers: bool = True,
    ) -> None:
        if every != "epoch" and not (type(every) is int and every >= 1):
            raise RecorderError(
                f"every={every!r}; expected 'epoch' or a number of steps of 1 or more."
            )
        if keep is not None and not (type(keep) is int and keep >= 2):
            raise RecorderError(
                f"keep={keep!r}; expected 2 or more (the first and the last always stay), or None."
            )
        self.folder, self.every = Path(folder).absolute(), every
        self.keep, self.buffers = keep, buffers
        self._begun = False
        self._step = -1  # of the last call
        self._last_due: tuple[int, int | None] = -1, None  # step and epoch
        self._names: list[str] = []  # of the tensors that are recorded
        self._initial_names: set[str] = set()  # of all tensors when the recording began
        self._vectors: list[str] = []
        self._open: tuple[Writer, RecordedPath] | None = None
        self._closing: weakref.finalize[..., Recorder] | None = None

    def __repr__(self) -> str:
        return f"<Recorder: every {self.every} into {self.folder}>"

    def __call__(
        self,
        model: nn.Module,
        *,
        step: int | None = None,
        epoch: float | None = None,
        learning_rate: float | None = None,
        optimizer: Any = None,
        **values: Any,
    ) -> bool:
        """Take a checkpoint if one is due, and return whether it was taken.

        Args:
            model: The model; wrappers (DistributedDataParallel, torch.compile) are removed.
            step: The step of training, 0 before the first. By default the calls are counted, after
                the last step in the folder; pass it if training may resume before that step.
            epoch: The epoch of training; fractions are recorded.
            learning_rate: The learning rate at this step.
            optimizer: The optimizer; the learning rate of its first group is recorded if
                ``learning_rate`` is None.
            values: Losses and metrics: numbers, or tensors with one entry.

        Raises:
            RecorderError: When the folder records another model or cannot be written, when an
                argument is wrong, and when an earlier checkpoint could not be written: training
                may continue, and later calls try again.
            ParamsError: When a trainable parameter is complex.
            FormatError: When the folder holds an incomplete checkpoint.
        """
        counted = step is None
        step = self._step + 1 if step is None else self._check_step(step)
        due, self._step = self.due(step=step, epoch=epoch), step
        if self._open is not None and self._open[0].has_failed:
            self._stop_writer()
        if not due:
            return False
        whole_epoch = None if epoch is None else floor_epoch(epoch)
        self._check_epoch(whole_epoch)
        record = {
            "epoch": None if epoch is None else parse_number("epoch", epoch),
            "learning_rate": parse_learning_rate(learning_rate, optimizer),
            "values": {name: parse_number(name, value) for name, value in values.items()},
        }
        taken = self._take(unwrap(model), record, counted=counted)
        self._begun, self._last_due = True, (self._step, whole_epoch)
        return taken

    def due(self, *, step: int | None = None, epoch: float | None = None) -> bool:
        """Return whether a call would take a checkpoint, in microseconds.

        Ask before computing expensive values, such as a test loss.
        """
        if not self._begun:
            return True
        if step is not None and step == self._last_due[0]:
            return False
        if self.every == "epoch":
            return epoch is None or floor_epoch(epoch) != self._last_due[1]
        return (self._step + 1 if step is None else step) % int(self.every) == 0

    def close(self) -> None:
        """Write all pending checkpoints and end the thread; a later call resumes.

        Raises:
            RecorderError: When a checkpoint could not be written.
        """
        self._begun, self._step, self._last_due = False, -1, (-1, None)
        self._stop_writer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[..., Recorder], tuple[Any, ...]]:
        make = partial(Recorder, keep=self.keep, buffers=self.buffers)
        return make, (self.folder, self.every)

    def _check_step(self, value: Any) -> int:
        step = parse_step(value)
        if self._begun and step < self._step:
            raise RecorderError(
                f"step={step} after step={self._step}: steps count through the whole training, not"
                " from zero in each epoch. Where training goes back to an earlier step, close() the"
                " recorder first."
            )
        return step

    def _check_epoch(self, epoch: int | None) -> None:
        last = self._last_due[1]
        if epoch is not None and last is not None and epoch < last:
            raise RecorderError(
                f"epoch={epoch} after epoch={last}: where training goes back to an earlier epoch,"
                " close() the recorder first."
            )

    def _stop_writer(self) -> None:
        if self._open is not None and self._closing is not None:
            (writer, _), self._open = self._open, None
            writer.stop()  # after an interrupt here, the end of the program waits for it again
            self._closing.detach()
            writer.raise_failures()

    def _take(self, model: nn.Module, record: dict[str, Any], *, counted: bool) -> bool:
        tensors = self._select_tensors(model)
        if not is_first_rank():
            with torch.no_grad():
                deque(gather(tensors), maxlen=0)  # each rank takes part in gathering
            return False
        writer, path = self._open_folder(tensors)
        buffer = writer.acquire_buffer(tensors)
        try:
            buffer.fill(gather(tensors))
            is_new = self._begun or self._resume(buffer, record["epoch"], counted=counted)
        except BaseException:
            writer.release_buffer(buffer)
            raise
        if not is_new:
            writer.release_buffer(buffer)
            return False
        record["parameters"] = [n for n in self._names if tensors[n].requires_grad]
        writer.submit(self._add(path, buffer, record))
        return True

    def _add(
        self, path: RecordedPath, buffer: CheckpointBuffer, record: dict[str, Any]
    ) -> WriteTask:
        """Append a checkpoint to the path; return the task that writes it."""
        snapshot, superseded = path.add(
            self._step, epoch=record["epoch"], learning_rate=record["learning_rate"], keep=self.keep
        )
        metadata = {
            "version": METADATA_VERSION, "step": snapshot.step, **record, "vectors": self._vectors,
            "number": snapshot.number,  # with the stride: thinning needs them after resuming
            "stride": path.stride,
        }  # fmt: skip
        return WriteTask(buffer, snapshot.file, {"landscope": json.dumps(metadata)}, superseded)

    def _select_tensors(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the tensors of a model that are recorded; tied tensors once."""
        present = dict(named_tensors(model))
        if not self._begun:
            self._choose_names(model)
            self._initial_names = set(present)
        missing = next((n for n in self._names if n not in present), None)
        if missing is not None or not self._names:
            absent = repr(missing) if missing else "floating-point parameters"
            raise RecorderError(
                f"{type(model).__name__} has no {absent}, so it cannot be recorded here: give"
                " each model a recorder and a folder of its own."
            )
        new = next((n for n, _ in model.named_parameters() if n not in self._initial_names), None)
        if new is not None:
            raise RecorderError(
                f"{type(model).__name__} has {new!r} now, which was not there when the recording"
                " began: record a model that has changed into another folder."
            )
        return {n: present[n] for n in self._names}

    def _choose_names(self, model: nn.Module) -> None:
        parameters(model)  # raises for complex parameters, which no path can show
        recordable, buffers = states(model), {id(b) for b in model.buffers()}
        self._names = [n for n, t in recordable.items() if self.buffers or id(t) not in buffers]
        self._vectors = [n for n in self._names if recordable.layout(n).vector]

    def _open_folder(self, tensors: Mapping[str, Tensor]) -> tuple[Writer, RecordedPath]:
        """Return the writer and the path of the folder; in a new process they are opened anew."""
        if self._open is None or self._open[0].process != os.getpid():
            writer = Writer(self.folder)
            try:
                path = RecordedPath(self.folder)
                path.check_model(tensors)
            except BaseException:
                writer.close()
                raise
            path.remove_partial_files()
            self._open, self._closing = (writer, path), weakref.finalize(self, writer.close)
        return self._open

    def _resume(self, buffer: CheckpointBuffer, epoch: float | None, *, counted: bool) -> bool:
        """Find the step of a first call on the path; return whether a checkpoint must be taken.

        Args:
            buffer: The tensors of the model.
            epoch: The epoch of the call.
            counted: Whether the call has no step.
        """
        assert self._open is not None
        _, path = self._open
        newest = path.newest
        if newest is None:
            return True
        if counted:
            self._step = self._next_step(path, newest, epoch)
        if not self._is_due_on_path(path, epoch):
            path.abandon(self._step + 1)
            return False
        same_step = path.at(self._step)
        if counted:
            same_step = same_step or newest  # training may resume from the weights of the newest
        buffer.wait()
        is_new = same_step is None or not buffer.equals_file(same_step.file)
        if same_step is not None and not is_new:
            self._step = same_step.step
        path.abandon(self._step if is_new else self._step + 1)
        return is_new

    def _next_step(self, path: RecordedPath, newest: Snapshot, epoch: float | None) -> int:
        """Return the step of a first call without a step, on a path with checkpoints."""
        if self.every == "epoch" and epoch is not None:
            repeated = path.since_epoch(floor_epoch(epoch))
            if repeated is not None:
                return repeated.step
        interval = 1 if self.every == "epoch" else int(self.every)
        return (newest.step // interval + 1) * interval

    def _is_due_on_path(self, path: RecordedPath, epoch: float | None) -> bool:
        """Whether the first call of a resumed training run is due, given the path in the folder."""
        if self.every != "epoch":
            return self._step % int(self.every) == 0
        before = path.before(self._step)
        return epoch is None or before is None or before.whole_epoch != floor_epoch(epoch)


def check_recorder(recorder: Any) -> Recorder:
    """Return the recorder that was passed to a callback.

    Raises:
        RecorderError: When it is not a recorder.
    """
    if isinstance(recorder, Recorder):
        return recorder
    raise RecorderError(
        f"recorder={recorder!r} is a {type(recorder).__name__}; expected ls.Recorder(folder)."
    )
