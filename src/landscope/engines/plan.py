"""Plan: how points are evaluated on one machine.

Plans differ in speed. Their values differ by rounding only.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Self, final


@final
@dataclass(frozen=True)
class Plan:
    """How points are evaluated.

    Args:
        workers: The number of points that are evaluated at the same time, each in a thread.
        threads: The torch threads of each worker; None leaves torch's setting as it is.
        rows: The largest batch size; None takes the batches of the data.
        forward: The forward pass: "plain"; "fused" on a CPU (see
            :mod:`landscope.engines.fused`); "graphed" on a GPU (a CUDA graph); "compiled"
            (torch.compile).
        layout: The memory format of images: "contiguous" or "channels_last".
        points: The number of points in one vectorized pass (see
            :mod:`landscope.engines.vectorized`).
        plain: The seconds per sample of the plain pass, if they were measured.
    """

    workers: int = 1
    threads: int | None = None
    rows: int | None = None
    forward: str = "plain"
    layout: str = "contiguous"
    points: int = 1
    plain: float | None = dataclasses.field(default=None, compare=False)

    def __str__(self) -> str:
        """Return the plan in words."""
        words = [
            f"{self.workers} workers" if self.workers > 1 else "1 worker",
            *([f"{self.threads} threads each"] if self.threads else []),
            f"batches of {self.rows}" if self.rows else "batches as given",
            *([self.forward] if self.forward != "plain" else []),
            *([self.layout] if self.layout != "contiguous" else []),
            *([f"{self.points} points in a pass"] if self.points > 1 else []),
        ]
        return ", ".join(words)

    def dumps(self) -> str:
        """Return the plan as JSON; journals keep it in this form."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def loads(cls, text: str) -> Self:
        """Return the plan of a JSON text."""
        return cls(**json.loads(text))
