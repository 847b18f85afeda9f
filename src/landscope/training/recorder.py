"""Recorder: the path that a training takes, a checkpoint at a time, in a folder.

FOLDER/000001234.safetensors   a checkpoint by its step: parameters and floating-point buffers, and
                               as metadata "landscope": step, epoch, learning rate, values, names,
                               its number on the path and the stride of the thinning
FOLDER/abandoned-1/            steps of a path that training left when it was resumed before them
FOLDER/.lock                   held by the process that records

A file has its name when it is whole and on the disk; the thread that trains only copies.
"""

from __future__ import annotations

import json
import math
import operator
import os
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

import torch
from torch import Tensor, nn

from landscope.errors import RecorderError
from landscope.params import named_tensors, parameters, states
from landscope.training.checkpoints import Recording, Taken
from landscope.training.writer import Block, Job, Writer

VERSION = 1  # of the metadata
_WRAPPERS = {  # of torch, and where each keeps the model
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "OptimizedModule": "_orig_mod",
}


@final
class Recorder:
    """Takes checkpoints of a model while it is trained: call it in the training loop.

    The first call on an empty folder always takes one: call it before the first step, for a path
    begins with the initial weights. A folder that is there already is continued. Where the first
    call is at an earlier step than the last checkpoint, later ones are of a path that was abandoned
    and are moved to ``abandoned-1`` (2, ...) in the folder; nothing is lost. A checkpoint that is
    there already, bit for bit, is not taken again.

    In a distributed training call it on every rank: the first one writes, sharded parameters
    (DTensor) are gathered. A copy (by ``copy`` or ``pickle``) begins with what is in the folder. Of
    two recorders of one folder the one that begins later has it, and the other says so.

    Args:
        folder: made at the first checkpoint; each training has its own.
        every: "epoch": at each call whose whole epoch is not that of the last checkpoint (without
            epochs, at each call); a number: at steps that are divisible by it.
        keep: at most so many checkpoints stay (2 or more), and at least half as many (a third,
            where drops became too many): when there are more, every second one goes, and of new
            ones every second one stays. The first and the last stay, and those before and after a
            drop of the learning rate, unless those are more than a quarter. None keeps all.
        buffers: whether floating-point buffers (statistics of batch norm) are recorded.

    Raises:
        RecorderError: when ``every`` or ``keep`` is wrong.

    Cost: a call that takes no checkpoint, microseconds; one that does copies the model to memory
    of the CPU (from a GPU without waiting for it) and leaves the rest to a thread. Memory: two
    checkpoints, no matter how slow the disk is: a call waits while two are not written yet. A
    killed process loses those two at most. ``keep`` saves room on the disk, not writing.

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
        self._last: tuple[int, int | None] = -1, None  # step and epoch of the last one due
        self._names: list[str] = []
        self._met: set[str] = set()  # names of all tensors when the recording began
        self._vectors: list[str] = []
        self._open: tuple[Writer, Recording] | None = None
        self._closing: weakref.finalize[..., Recorder] | None = None

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
            model: what is trained; wrappers (DistributedDataParallel, torch.compile) are taken off.
            step: of the training, 0 before the first. Counted by calls when not given, after the
                last one in the folder; give it where training may be resumed before that.
            epoch: of the training; fractions are recorded.
            learning_rate: at this step.
            optimizer: whose first group tells the learning rate when it is not given.
            values: losses and metrics: numbers or tensors of one.

        Raises:
            RecorderError: when the folder records another model or cannot be written, when an
                argument is wrong, and when an earlier checkpoint could not be written: training
                may go on, and later calls try again.
            ParamsError: when a trainable parameter is complex.
            FormatError: when the folder holds a file that is not a whole checkpoint.
        """
        counted = step is None
        step = self._step + 1 if step is None else self._forward(step)
        due, self._step = self.due(step=step, epoch=epoch), step
        if self._open is not None and self._open[0].has_failed:
            self._shut()
        if not due:
            return False
        whole = None if epoch is None else _whole(epoch)
        self._check_epoch(whole)
        about = {
            "epoch": None if epoch is None else _number("epoch", epoch),
            "learning_rate": _rate(learning_rate, optimizer),
            "values": {name: _number(name, value) for name, value in values.items()},
        }
        taken = self._take(_bare(model), about, counted=counted)
        self._begun, self._last = True, (self._step, whole)
        return taken

    def due(self, *, step: int | None = None, epoch: float | None = None) -> bool:
        """Return whether a call would take a checkpoint, in microseconds.

        For what is costly to find, such as a test loss: ask first.
        """
        if not self._begun:
            return True
        if step is not None and step == self._last[0]:
            return False
        if self.every == "epoch":
            return epoch is None or _whole(epoch) != self._last[1]
        return (self._step + 1 if step is None else step) % int(self.every) == 0

    def close(self) -> None:
        """Write what is left and end the thread; a later call resumes as a new recorder would.

        Raises:
            RecorderError: when a checkpoint could not be written.
        """
        self._begun, self._step, self._last = False, -1, (-1, None)
        self._shut()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[..., Recorder], tuple[Any, ...]]:
        again = partial(Recorder, keep=self.keep, buffers=self.buffers)
        return again, (self.folder, self.every)

    def _forward(self, step: Any) -> int:
        found = _index(step)
        if self._begun and found < self._step:
            raise RecorderError(
                f"step={found} after step={self._step}: steps count through the whole training, not"
                " from zero in each epoch. Where training goes back to an earlier step, close() the"
                " recorder first."
            )
        return found

    def _check_epoch(self, epoch: int | None) -> None:
        last = self._last[1]
        if epoch is not None and last is not None and epoch < last:
            raise RecorderError(
                f"epoch={epoch} after epoch={last}: where training goes back to an earlier epoch,"
                " close() the recorder first."
            )

    def _shut(self) -> None:
        if self._open is not None and self._closing is not None:
            (writer, _), self._open = self._open, None
            writer.end()  # where this is interrupted, the end of the program waits for it again
            self._closing.detach()
            writer.tell()

    def _take(self, model: nn.Module, about: dict[str, Any], *, counted: bool) -> bool:
        tensors = self._tensors(model)
        if not _is_first_rank():
            with torch.no_grad():
                deque(_gathered(tensors), maxlen=0)  # each rank takes part in gathering
            return False
        writer, recording = self._opened(tensors)
        block = writer.lend(tensors)
        try:
            block.fill(_gathered(tensors))
            is_new = self._begun or self._resumed(block, about["epoch"], counted=counted)
        except BaseException:
            writer.take_back(block)
            raise
        if not is_new:
            writer.take_back(block)
            return False
        taken, gone = recording.add(
            self._step, epoch=about["epoch"], learning_rate=about["learning_rate"], keep=self.keep
        )
        text = json.dumps(
            {
                "version": VERSION,
                "step": taken.step,
                **about,
                "parameters": [n for n in self._names if tensors[n].requires_grad],
                "vectors": self._vectors,
                "number": taken.number,  # with the stride: what thinning has to know when resumed
                "stride": recording.stride,
            }
        )
        writer.write(Job(block, taken.file, {"landscope": text}, gone))
        return True

    def _tensors(self, model: nn.Module) -> dict[str, Tensor]:
        """Return what is recorded of a model, as it is now; tied tensors once."""
        alive = dict(named_tensors(model))
        if not self._begun:
            parameters(model)  # complex ones, which no path can show, are refused
            known, buffers = states(model), {id(b) for b in model.buffers()}
            self._names = [n for n, t in known.items() if self.buffers or id(t) not in buffers]
            self._vectors = [n for n in self._names if known.layout(n).vector]
            self._met = set(alive)
        lost = next((n for n in self._names if n not in alive), None)
        if lost is not None or not self._names:
            raise RecorderError(
                f"{type(model).__name__} has no {lost or 'parameters of floating-point numbers'!r},"
                " so it is not the model that was recorded: give each model a recorder and a folder"
                " of its own."
            )
        new = next((n for n, _ in model.named_parameters() if n not in self._met), None)
        if new is not None:
            raise RecorderError(
                f"{type(model).__name__} has {new!r} now, which was not there when the recording"
                " began: record a model that has changed into another folder."
            )
        return {n: alive[n] for n in self._names}

    def _opened(self, tensors: Mapping[str, Tensor]) -> tuple[Writer, Recording]:
        """Return what writes, and the path; in a new process as they are in the folder."""
        if self._open is None or self._open[0].process != os.getpid():
            writer = Writer(self.folder)
            try:
                recording = Recording(self.folder)
                recording.check(tensors)
            except BaseException:
                writer.close()
                raise
            recording.sweep()
            self._open, self._closing = (writer, recording), weakref.finalize(self, writer.close)
        return self._open

    def _resumed(self, block: Block, epoch: float | None, *, counted: bool) -> bool:
        """Find the place of a first call on the path; return whether it is to be taken."""
        assert self._open is not None
        _, recording = self._open
        newest = recording.newest
        if newest is None:
            return True
        if counted:
            self._step = self._counted_on(recording, newest, epoch)
        if not self._is_next(recording, epoch):
            recording.abandon(self._step + 1)
            return False
        known = recording.at(self._step)
        if counted:
            known = known or newest  # it may go on from the weights that were recorded last
        block.settle()
        is_new = known is None or not block.is_in(known.file)
        if known is not None and not is_new:
            self._step = known.step
        recording.abandon(self._step if is_new else self._step + 1)
        return is_new

    def _counted_on(self, recording: Recording, newest: Taken, epoch: float | None) -> int:
        """Return the step of a call that does not tell it, where the path is not empty."""
        if self.every == "epoch" and epoch is not None:
            again = recording.since_epoch(_whole(epoch))
            if again is not None:
                return again.step
        interval = 1 if self.every == "epoch" else int(self.every)
        return (newest.step // interval + 1) * interval

    def _is_next(self, recording: Recording, epoch: float | None) -> bool:
        """Whether the first call of a resumed training is due, in the light of the folder."""
        if self.every != "epoch":
            return self._step % int(self.every) == 0
        before = recording.before(self._step)
        return epoch is None or before is None or before.whole_epoch != _whole(epoch)


def checked(recorder: Any) -> Recorder:
    """Return what was passed as a recorder.

    Raises:
        RecorderError: when it is none.
    """
    if isinstance(recorder, Recorder):
        return recorder
    raise RecorderError(
        f"recorder={recorder!r} is a {type(recorder).__name__}; expected ls.Recorder(folder)."
    )


def _bare(model: Any) -> nn.Module:
    """Return the model without what torch wraps around it, which would change the names."""
    if not isinstance(model, nn.Module):
        raise RecorderError(
            f"the recorder was called with a {type(model).__name__}; expected the model that is"
            " trained, a torch.nn.Module: recorder(model, step=...)."
        )
    bare: nn.Module = model
    while (inside := _WRAPPERS.get(type(bare).__name__)) is not None:
        bare = bare.get_submodule(inside)
    return bare


def _is_first_rank() -> bool:
    distributed = torch.distributed
    running = distributed.is_available() and distributed.is_initialized()
    return not running or distributed.get_rank() == 0


def _gathered(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors one by one, each whole."""
    sharding: Any = sys.modules.get("torch.distributed.tensor")
    for name, tensor in tensors.items():
        is_sharded = sharding is not None and isinstance(tensor, sharding.DTensor)
        whole: Any = tensor
        yield name, whole.full_tensor() if is_sharded else tensor


def _number(name: str, value: Any) -> float:
    try:
        return float(value.detach() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        told = list(value.shape) if isinstance(value, Tensor) else repr(value)
        raise RecorderError(
            f"{name}={told} in a call of the recorder; expected a number or a tensor of one."
        ) from error


def _index(step: Any) -> int:
    try:
        found = operator.index(step)
    except TypeError:
        found = -1
    if found < 0:
        raise RecorderError(f"step={step!r}; expected a whole number of 0 or more.")
    return found


def _whole(epoch: float) -> int:
    try:
        return math.floor(epoch)
    except (TypeError, ValueError, OverflowError) as error:
        raise RecorderError(f"epoch={epoch!r}; expected a number such as 3 or 3.5.") from error


def _rate(learning_rate: Any, optimizer: Any) -> float | None:
    if learning_rate is not None or optimizer is None:
        return None if learning_rate is None else _number("learning_rate", learning_rate)
    try:
        rate = optimizer.param_groups[0]["lr"]
    except (AttributeError, LookupError, TypeError) as error:
        raise RecorderError(
            f"optimizer={type(optimizer).__name__} has no param_groups[0]['lr']; expected an"
            " optimizer of torch, or learning_rate=."
        ) from error
    return _number("learning_rate", rate)
