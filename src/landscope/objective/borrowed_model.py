"""Borrowing a user's model: its tensors are swapped for others and swapped back afterwards.

The memory of the user's parameters and buffers is never written to. While ``.data`` of a tensor
points to other memory, its own memory stays as it was, so the model is restored bit for bit.

A forward pass may write into its own weights: an embedding with ``max_norm``, a clamp under
``no_grad``. So a point is evaluated in a private copy. What is too large to copy (frozen
parameters, and all with ``in_place=True``) is watched while the first batch is evaluated; what is
written into has a private copy from then on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor, nn

from landscope.errors import ObjectiveError, ParamsError
from landscope.objective.global_state import preserve_global_state
from landscope.objective.module_attributes import ModuleAttributes
from landscope.objective.write_watch import WriteWatch, equal_bits
from landscope.params import Params, check_like, named_tensors, wrap

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # a norm in training mode


@final
class BorrowedModel:
    """A model whose tensors can be swapped until it is restored.

    Args:
        model: The user's module.
        device: The device of the tensors while the model is borrowed; None leaves each where it is,
            and evaluates parameters in the memory in which they are given.
        dtype: The dtype of its floating-point tensors while it is borrowed; None leaves each as it
            is.

    Attributes:
        tensors: The parameters and buffers by name.
        scratch: A point that is overwritten before each use, so that it is not copied; None if
            there is none.
        written: The names of the tensors into which the forward pass writes, as seen in the first
            :meth:`watch`; without the statistics of norms.
        changed: The names of other attributes of modules that the forward pass sets: flags, caches.
    """

    def __init__(
        self, model: nn.Module, device: torch.device | None, dtype: torch.dtype | None
    ) -> None:
        self.model, self.device, self.dtype = model, device, dtype
        self.tensors = dict(named_tensors(model))
        self.scratch: Params | None = None
        self.written: list[str] = []
        self.changed: list[str] = []
        unique = {id(t): t for t in self.tensors.values()}
        self._originals = [(t, t.data) for t in unique.values()]
        self._gradients = [(p, p.grad) for p in model.parameters()]
        for parameter, _ in self._gradients:  # a loss may call backward()
            parameter.grad = None
        self._modes = [(m, m.training) for m in model.modules()]
        self._attributes = ModuleAttributes(model)
        self._is_watched = False
        self._private = {id(b) for b in model.buffers()}
        self._swapped = set(unique)  # at first no tensor is on the device
        self._last_params: Mapping[str, Tensor] | None = None
        self._last_addresses: list[int] = []
        self._places: dict[int, tuple[Tensor, Tensor, int]] = {}  # tensor, its memory, the address
        self._copies: dict[int, tuple[Tensor, Tensor]] = {}  # private copies, and their sources
        self._plain_copies: list[tuple[Tensor, Tensor]] = []  # the same of plain tensors

    def check_fit(self, params: Mapping[str, Tensor], center: Mapping[str, Tensor]) -> None:
        """Check that the model has tensors of the same names and shapes, which can be swapped.

        Args:
            params: The tensors to swap in.
            center: The trainable parameters; offloaded ones must be these in ``params``.

        Raises:
            ParamsError: When a name is unknown or a shape differs.
            ObjectiveError: When an offloaded parameter has another value.
        """
        wrap(params)
        unknown = next((n for n in params if n not in self.tensors), None)
        if unknown is not None:
            raise ParamsError(
                f"params has {unknown!r}, which the model does not have: take params from"
                " objective.center or objective.states."
            )
        expected = {n: self.tensors[n] for n in params}
        check_like(params, expected, "params")
        offloaded = [n for n, tensor in expected.items() if tensor.is_meta]
        if any(params[n].data_ptr() != center[n].data_ptr() for n in offloaded):
            raise ObjectiveError(
                f"params has its own value for {offloaded[0]!r}, which is offloaded: such a model"
                " moves only along a slice, in ls.scan."
            )

    def set_params(self, params: Mapping[str, Tensor]) -> None:
        """Swap these tensors in, and the user's for all other names.

        Whatever a forward pass has changed is as it was. Passing the same mapping again, after its
        tensors were written in place, is cheap.
        """
        self._attributes.reset()
        if params is not self._last_params or _addresses(params) != self._last_addresses:
            self._swap(params)
        for tensor, memory, address in self._places.values():
            if tensor.data_ptr() != address:  # a forward pass replaced tensor.data
                tensor.data = memory
        pairs = [*self._copies.values(), *self._plain_copies]
        if pairs:
            torch._foreach_copy_([copy for copy, _ in pairs], [source for _, source in pairs])

    def renew(self) -> None:
        """Begin the current point again: undo what forward passes have changed since."""
        if self._last_params is not None:
            self.set_params(self._last_params)

    def _swap(self, params: Mapping[str, Tensor]) -> None:
        given = {id(self.tensors[n]): v.detach() for n, v in params.items()}
        self._copies = {}
        owns = params is self.scratch and not self.written
        copies_given = self.device is not None and not owns
        for tensor, data in self._originals:
            key = id(tensor)
            source = given.get(key, data)
            is_copied = key in given and (copies_given or source.is_inference())
            if key in self._private or (is_copied and not data.is_meta):
                self._copy(tensor, source)
            elif data.is_meta:
                continue  # offloaded: its values are changed when they are loaded
            elif key in given:
                self._place(tensor, source.to(self.device or data.device, self._dtype_of(data)))
                if tensor.data_ptr() != source.data_ptr():  # of another device or dtype
                    self._copy(tensor, source)
            elif key in self._swapped:
                self._place(tensor, data.to(self.device or data.device, self._dtype_of(data)))
        self._swapped = set(given)
        self._last_params, self._last_addresses = params, _addresses(params)

    def _copy(self, tensor: Tensor, source: Tensor) -> None:
        """Give a tensor memory of its own, into which the source is copied at each point."""
        device, dtype = self.device or source.device, self._dtype_of(source)
        memory = torch.empty_like(source, device=device, dtype=dtype)  # others may hold the last
        self._place(tensor, memory)
        self._copies[id(tensor)] = memory, source

    def _place(self, tensor: Tensor, memory: Tensor) -> None:
        tensor.data = memory
        self._places[id(tensor)] = tensor, memory, tensor.data_ptr()

    def _dtype_of(self, data: Tensor) -> torch.dtype:
        return self.dtype if data.is_floating_point() and self.dtype else data.dtype

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Watch the first forward pass for writes into the model's own tensors.

        Afterwards ``written`` says which these are. What was computed inside may refer to memory
        that is as it was before: after a write, :meth:`renew` and compute it again.
        """
        if self._is_watched or self._last_params is None:
            yield
            return
        shared = [place for key, place in self._places.items() if key not in self._copies]
        plain = list(self._attributes.list_plain_tensors())
        versions = {id(t): _version(t) for t, _ in self._originals}
        watch = WriteWatch([*(memory for _, memory, _ in shared), *(t for _, t in plain)])
        try:
            with watch.observe():
                yield
        finally:
            self._is_watched = True
            written, plain_names = self._find_written(versions), []
            for position, values in watch.saved.items():
                if position < len(shared):
                    written.add(id(shared[position][0]))
                    self._private.add(id(shared[position][0]))
                else:
                    name, tensor = plain[position - len(shared)]
                    plain_names.append(name)
                    self._protect_plain(tensor, values)
            names = [n for n, t in self.tensors.items() if id(t) in written]
            replaced, self.changed = self._attributes.find_changes()
            names += [*plain_names, *replaced]
            self.written = [n for n in names if n.rpartition(".")[2] not in STATISTICS]
            if self.written:
                self._swap(self._last_params)

    def _find_written(self, versions: Mapping[int, int]) -> set[int]:
        """Return the ids of tensors that were replaced or written into, where that can be seen."""
        written = {id(t) for t, _ in self._originals if _version(t) != versions[id(t)]}
        for key, (tensor, _, address) in self._places.items():
            copy, source = self._copies.get(key, (tensor.data, tensor.data))
            if tensor.data_ptr() != address or not equal_bits(copy, source.to(copy)):
                written.add(key)
        return written

    def _protect_plain(self, tensor: Tensor, values: Tensor) -> None:
        """Replace a plain tensor that a pass wrote into by a private copy."""
        copy = values.clone()
        self._attributes.replace(tensor, copy)
        self._plain_copies.append((copy, values))

    @contextmanager
    def preserve_attributes(self) -> Iterator[None]:
        """Restore what is neither parameter nor buffer: a tracer runs the code of a model, too."""
        plain = [t for _, t in self._attributes.list_plain_tensors()]
        try:
            with WriteWatch(plain).observe():
                yield
        finally:
            self._attributes.restore()

    def restore(self) -> None:
        """Restore every tensor with its gradient, every attribute and every training flag."""
        self._attributes.restore()
        for tensor, data in self._originals:
            tensor.data = data
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        for module, training in self._modes:
            module.training = training


def describe_writes(names: Sequence[str]) -> str:
    """Return the note on a forward pass that writes into tensors of these names."""
    others = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return (
        f"the forward pass writes into the model's own {', '.join(names[:2])}{others}: each point"
        " begins with its own values, and each batch of a point sees what the batches before it"
        " have written"
    )


def _version(tensor: Tensor) -> int:
    """Return how often operators wrote into a tensor; those of inference mode do not count."""
    return 0 if tensor.is_inference() else tensor._version


def _addresses(params: Mapping[str, Tensor]) -> list[int]:
    """Return where the tensors are in memory: a tensor that was replaced is elsewhere."""
    return [tensor.data_ptr() for tensor in params.values()]


@contextmanager
def borrow(
    model: nn.Module, device: torch.device | None, dtype: torch.dtype | None
) -> Iterator[BorrowedModel]:
    """Borrow a model; afterwards its tensors and flags, and the global state, are as before."""
    with preserve_global_state():
        borrowed = BorrowedModel(model, device, dtype)
        try:
            yield borrowed
        finally:
            borrowed.restore()
