"""Calls: how the inputs of a batch are passed to a model.

A batch is divided into inputs and targets, and the signature of the model's ``forward`` decides
whether the inputs are one argument, several, or named ones:

    batch                       forward                 call
    (x, y)                      forward(x)              model(x)
    ((a, b), y), (a, b, y)      forward(a, b)           model(a, b)
    ((a, b), y)                 forward(pair)           model((a, b))
    ({"a": a, "b": b}, y)       forward(a, b)           model(a=a, b=b)
    {"a": a, "b": b, "y": y}    forward(a, b)           model(a=a, b=b)
    ({"a": a, "b": b}, y)       forward(batch)          model({"a": a, "b": b})
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, final

from torch import nn

from landscope.objective import nested_batches
from landscope.objective.forward_pass import Forward

_EMPTY = inspect.Parameter.empty
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_WRAPPERS = {  # of torch, and the attribute in which each keeps the model
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "OptimizedModule": "_orig_mod",
}

Result = TypeVar("Result")

Way = Literal["one", "several", "named"]
"""Inputs are one argument, several positional arguments, or keyword arguments."""


@final
class Caller:
    """Calls a model on the inputs of batches; the signature of its ``forward`` decides how.

    Args:
        model: The model whose signature decides.

    Attributes:
        prefer_several: Whether a tuple of inputs is passed as several arguments where the
            signature allows both.
    """

    def __init__(self, model: nn.Module) -> None:
        self.signature = _find_signature(model)
        self.prefer_several = False
        self._ways: dict[tuple[type, int], Way] = {}

    def split(self, batch: Any) -> tuple[Any, Any]:
        """Return inputs and targets of a batch.

        Raises:
            ObjectiveError: When the batch has neither of the forms of this module.
        """
        if isinstance(batch, tuple | list) and len(batch) == self._count_required() + 1 > 2:
            return tuple(batch[:-1]), batch[-1]
        inputs, targets = nested_batches.split(batch)
        if isinstance(batch, Mapping) and not isinstance(inputs, Mapping):
            name = next(name for name, value in batch.items() if value is inputs)
            if self._is_named(name):
                return {name: inputs}, targets
        return inputs, targets

    def call(self, forward: Forward, inputs: Any) -> Any:
        """Return the outputs of a forward pass, which takes the arguments of the model."""
        if not isinstance(inputs, tuple | list | dict):
            return forward(inputs)
        key = type(inputs), len(inputs)
        way = self._ways.get(key) or self._ways.setdefault(key, self.choose_way(inputs))
        if isinstance(inputs, dict) and way == "named":
            return forward(**inputs)
        return forward(*inputs) if way == "several" else forward(inputs)

    def choose_way(self, inputs: Any) -> Way:
        """Return how inputs are passed to the model."""
        if isinstance(inputs, dict):
            names = self.signature.parameters if self.signature else {}
            is_one = self._binds(inputs) and not self._binds(**inputs) and not names & inputs.keys()
            return "one" if is_one else "named"
        several = self.may_be_several(inputs)
        return "several" if several and (self.prefer_several or not self._binds(inputs)) else "one"

    def may_be_several(self, inputs: Any) -> bool:
        """Return whether inputs are a tuple or list that the model can take as arguments."""
        is_plain = type(inputs) in (tuple, list) and len(inputs) > 0
        return is_plain and self.signature is not None and self._binds(*inputs)

    def run_first(self, run: Callable[[], Result], batch: Any) -> Result:
        """Return what a function computes of the first batch; it is tried in both ways."""
        try:
            return run()
        except Exception:
            if not self.try_several(batch):
                raise
        return run()

    def try_several(self, batch: Any) -> bool:
        """Pass a tuple as several arguments from now on; return False where this changes nothing.

        Args:
            batch: A batch on which the model failed.
        """
        if self.prefer_several or not isinstance(batch, tuple | list) or len(batch) != 2:
            return False
        if not self.may_be_several(batch[0]) or self.choose_way(batch[0]) == "several":
            return False
        self.prefer_several, self._ways = True, {}
        return True

    def _binds(self, *inputs: Any, **named: Any) -> bool:
        if self.signature is None:
            return True
        try:
            self.signature.bind(*inputs, **named)
        except TypeError:
            return False
        return True

    def _count_required(self) -> int:
        """Return the number of positional arguments without a default."""
        parameters = self.signature.parameters.values() if self.signature else ()
        return sum(p.kind in _POSITIONAL and p.default is _EMPTY for p in parameters)

    def _is_named(self, name: str) -> bool:
        """Whether a single input has the name of an argument that is not the first."""
        names = list(self.signature.parameters.values()) if self.signature else []
        is_keyword = any(p.name == name and p.kind is p.KEYWORD_ONLY for p in names)
        return is_keyword or name in [p.name for p in names[1:]]


def describe_arguments(model: nn.Module) -> str:
    """Return the arguments of a model's ``forward`` in words; "" if they are not known."""
    signature = _find_signature(model)
    if signature is None:
        return ""
    names = [str(p).partition(":")[0].partition("=")[0] for p in signature.parameters.values()]
    return ", ".join(names)


def _find_signature(model: nn.Module) -> inspect.Signature | None:
    """Return the signature of a model's ``forward``, that of the model inside torch's wrappers."""
    inner = model
    while (attribute := _WRAPPERS.get(type(inner).__name__)) is not None:
        inner = inner.get_submodule(attribute)
    try:
        return inspect.signature(inner.forward)
    except (TypeError, ValueError):  # a function of C, or of TorchScript
        return None
