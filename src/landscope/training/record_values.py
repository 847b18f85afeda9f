"""The arguments of a recorder's call as the numbers that are recorded."""

from __future__ import annotations

import math
import operator
from typing import Any

from torch import Tensor

from landscope.errors import RecorderError


def parse_step(value: Any) -> int:
    """Return a step.

    Raises:
        RecorderError: When it is not a whole number of 0 or more.
    """
    try:
        step = operator.index(value)
    except TypeError:
        step = -1
    if step < 0:
        raise RecorderError(f"step={value!r}; expected a whole number of 0 or more.")
    return step


def floor_epoch(epoch: float) -> int:
    """Return an epoch without its fraction.

    Raises:
        RecorderError: When it is not a finite number.
    """
    try:
        return math.floor(epoch)
    except (TypeError, ValueError, OverflowError) as error:
        raise RecorderError(f"epoch={epoch!r}; expected a number such as 3 or 3.5.") from error


def parse_number(name: str, value: Any) -> float:
    """Return a number, or the entry of a tensor that has one.

    Raises:
        RecorderError: When it is neither.
    """
    try:
        return float(value.detach() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        given = list(value.shape) if isinstance(value, Tensor) else repr(value)
        raise RecorderError(
            f"{name}={given} in a call of the recorder; expected a number or a tensor with one"
            " entry."
        ) from error


def parse_learning_rate(learning_rate: Any, optimizer: Any) -> float | None:
    """Return the learning rate that was passed, else that of the optimizer's first group.

    Raises:
        RecorderError: When the learning rate is not a number, or the optimizer has none.
    """
    if learning_rate is not None or optimizer is None:
        return None if learning_rate is None else parse_number("learning_rate", learning_rate)
    try:
        rate = optimizer.param_groups[0]["lr"]
    except (AttributeError, LookupError, TypeError) as error:
        raise RecorderError(
            f"optimizer={type(optimizer).__name__} has no param_groups[0]['lr']; expected an"
            " optimizer of torch, or learning_rate=."
        ) from error
    return parse_number("learning_rate", rate)
