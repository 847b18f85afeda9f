"""Running statistics of the whole data at a point, layer by layer.

The statistics of a norm are those of its inputs over all of the data, while each norm before it
uses its own statistics of the whole data. So they do not depend on how the data are batched. Within
and between batches are joined by the law of total variance (Y. Wu, J. Johnson, *Rethinking "Batch"
in BatchNorm*, 2021, arXiv 2105.07576, section 3).

A norm that is called several times in a forward pass has the statistics of the inputs of all its
calls; while they are measured, each call uses those of the calls so far.

Where memory suffices, the data are one batch, and one pass measures all norms in the order in which
they are called. Else each call of a norm takes a pass over the data, which ends at that call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, final

import torch

from landscope.objective import nested_batches
from landscope.objective.batches import Batches
from landscope.objective.borrowed_model import BorrowedModel
from landscope.objective.memory import free_memory, is_out_of_memory
from landscope.objective.nested_batches import count_rows, iter_tensors
from landscope.objective.norm_inputs import Moments, find_norms

_SHARE = 0.25  # of the free memory, for a pass over all data as one batch
_COPIES = 4  # of the largest inputs and outputs of a layer that are in memory at the same time

_Call = tuple[int, int]  # the number of a norm, and of its call in a forward pass


class _Stop(BaseException):
    """Ends a forward pass; the model may handle exceptions of other kinds."""


class Runner(Protocol):
    """What measures statistics: a ``Session``."""

    borrowed: BorrowedModel
    find_coupling: Callable[[], str]

    def run_model(self, batch: Any) -> object:
        """Run the model's own forward pass on a batch."""
        ...

    def batch_terms(self, batch: Any) -> object:
        """Evaluate the loss on a batch."""
        ...


@final
class RunningStatistics:
    """Measures and sets the running statistics of a borrowed model.

    Norms with statistics are in evaluation mode from now on, until the model is restored.

    Args:
        runner: The session that evaluates the model.
        batches: The data from which statistics are measured; None for those that are given each
            time.

    Attributes:
        passes: The number of passes over the data in the last measurement; some end early.
    """

    def __init__(self, runner: Runner, batches: Iterable[Any] | None) -> None:
        self.runner, self.batches = runner, batches
        self.norms = find_norms(runner.borrowed.model)
        self.passes = 0
        for norm in self.norms:
            norm.module.training = False
        self._is_prepared = False
        self._joined: Any = None  # all data as one batch
        self._expected: set[_Call] = set()  # the calls of an earlier measurement
        self._known: dict[_Call, Moments] = {}  # of the inputs up to and with a call
        self._new: dict[_Call, Moments] = {}
        self._counts: list[int] = []  # of the calls of each norm in a pass

    def measure(self, batches: Iterable[Any]) -> None:
        """Set the statistics to those of the data at the point where the model is."""
        if not self.norms:
            return
        batches = batches if self.batches is None else self.batches
        with torch.no_grad():
            if not self._is_prepared:
                self._prepare(batches)
            self.passes, self._known, self._new = 0, {}, {}
            with self._observe_norms():
                if self._joined is None or not self._measure_at_once():
                    while self._measure_next(batches):
                        pass
            self._expected = set(self._known)
            self._renew()
            self._write(self._known)

    def _prepare(self, batches: Iterable[Any]) -> None:
        """Evaluate the first batch, and join all if a pass over them at once fits in the memory."""
        self._is_prepared = True
        first = next(iter(batches))
        self.runner.batch_terms(first)  # an error is explained here, and writes are noticed
        is_streamed = isinstance(batches, Batches) and batches.streamed
        if is_streamed or self.runner.borrowed.written or self.runner.find_coupling():
            return
        data = list(batches)
        rows = sum(count_rows(batch) or 0 for batch in data)
        largest = self._measure_memory(first) * rows / max(count_rows(first) or 1, 1)
        needed = _COPIES * largest + sum(t.nbytes for t in iter_tensors(data))
        device = next(iter_tensors(first)).device
        if needed < _SHARE * free_memory(device):
            joined = nested_batches.rebatch(data, rows) or []
            self._joined = joined[0] if len(joined) == 1 else None

    def _measure_at_once(self) -> bool:
        """Measure all norms in one pass; return False if memory ran out."""
        try:
            self._pass(self._joined)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            self._joined, self._known, self._new = None, {}, {}
            return False
        self.passes = 1
        return True

    def _measure_next(self, batches: Iterable[Any]) -> bool:
        """Measure the next call in a pass over the data; return False if that was the last."""
        self._renew()
        self._write(self._known)
        self.passes += 1
        is_ended = [self._pass(batch) for batch in batches]
        self._adopt()
        return any(is_ended) and self._known.keys() != self._expected

    def _pass(self, batch: Any) -> bool:
        """Run the model on a batch; return whether the pass was ended before its end."""
        self._counts = [0] * len(self.norms)
        try:
            self.runner.run_model(batch)
        except _Stop:
            return True
        return False

    def _adopt(self) -> None:
        """Add what was measured to what is known."""
        for call, moments in sorted(self._new.items()):
            before = self._known.get((call[0], call[1] - 1))
            self._known[call] = moments if before is None else before + moments
        self._write({call: self._known[call] for call in self._new})
        self._new = {}

    def _write(self, known: dict[_Call, Moments]) -> None:
        for (number, _), moments in sorted(known.items(), key=lambda item: item[0]):
            self.norms[number].write(moments)

    def _renew(self) -> None:
        if self.runner.borrowed.written:
            self.runner.borrowed.renew()

    def _observe(self, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Measure the inputs of a norm, or set the statistics of this call."""
        norm = self.norms[number]
        if not norm.learn(args, kwargs):
            return
        call = number, self._counts[number]
        self._counts[number] += 1
        if call in self._known:
            if (number, 1) in self._known:
                norm.write(self._known[call])
            return
        moments = norm.measure(args[0] if args else next(iter(kwargs.values())))
        self._new[call] = self._new[call] + moments if call in self._new else moments
        if self._joined is None:
            raise _Stop
        self._adopt()
        if self._known.keys() == self._expected:
            raise _Stop

    @contextmanager
    def _observe_norms(self) -> Iterator[None]:
        """Observe the calls of all norms."""

        def observe(number: int) -> Callable[..., None]:
            return lambda _, args, kwargs: self._observe(number, args, kwargs)

        handles = [
            norm.module.register_forward_pre_hook(observe(number), with_kwargs=True)
            for number, norm in enumerate(self.norms)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _measure_memory(self, batch: Any) -> int:
        """Return the largest size in bytes of inputs and outputs of a layer, for a batch."""
        sizes = [0]

        def observe(_: object, inputs: Any, outputs: Any) -> None:
            sizes.append(sum(t.nbytes for t in iter_tensors([inputs, outputs])))

        layers = [m for m in self.runner.borrowed.model.modules() if not list(m.children())]
        handles = [layer.register_forward_hook(observe) for layer in layers]
        try:
            self.runner.run_model(batch)
        finally:
            for handle in handles:
                handle.remove()
        return max(sizes)
