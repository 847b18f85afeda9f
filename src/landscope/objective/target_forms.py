"""Target forms: what the targets of a loss are, so that metrics read them as the loss does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Classes:
    """Class indices, or the probabilities of classes; outputs have a value for each class.

    Args:
        ignored: The index that does not count; None if each counts.
    """

    ignored: int | None = None

    axis = 1  # of the classes, in outputs


@final
@dataclass(frozen=True)
class Tokens:
    """Class indices by position; outputs have the classes along their last axis.

    Args:
        ignored: The indices that do not count.
        shift: Whether outputs at position t are compared with the target at t + 1.
    """

    ignored: tuple[int, ...]
    shift: bool = False


@final
@dataclass(frozen=True)
class Labels:
    """Yes or no for each output.

    Args:
        threshold: Outputs above it mean yes: 0 for logits and scores, 0.5 for probabilities.
        target_threshold: Targets above it mean yes: 0.5 for 0 and 1, 0 for -1 and +1.
    """

    threshold: float
    target_threshold: float


@final
@dataclass(frozen=True)
class Numbers:
    """Numbers to fit; they may be classes in one-hot code."""


@final
@dataclass(frozen=True)
class Unclassed:
    """Targets of which no class follows.

    Args:
        reason: What outputs and targets are, as a clause.
    """

    reason: str


Form = Classes | Tokens | Labels | Numbers | Unclassed
"""What the targets of a loss are; None where it is unknown: a function of the user."""
