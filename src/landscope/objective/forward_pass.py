"""The forward pass of a session: the model's own, or a faster one with the same values."""

from __future__ import annotations

from typing import Any, Protocol, final

from torch import nn


class Forward(Protocol):
    """A forward pass of a model whose parameters change from point to point."""

    def refresh(self) -> None:
        """Adopt the parameters that the model has now."""
        ...

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Return the outputs of the model."""
        ...


@final
class PlainForward:
    """The model's own forward pass."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def refresh(self) -> None:
        """Do nothing: the model reads its parameters at every pass."""

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Return the outputs of the model."""
        return self.model(*inputs, **named)
