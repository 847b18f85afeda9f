"""Description: what a landscape says besides its numbers. The journal keeps it.

With it, a journal alone gives the landscape of a scan that was stopped.
"""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch

from landscope import _version
from landscope.objective.problem import Problem
from landscope.slices.slices import Slice


@final
@dataclass(frozen=True)
class Description:
    """The names, units, labels and origin of the values of a scan, in plain values.

    Args:
        dims: The names of the axes, x first.
        axes: The coordinates along each axis, x first.
        labels: The labels of the axes, x first; () for the default ones.
        quantities: The names of the losses and metrics, in order.
        units: The units of the loss and of each metric, by name.
        attributes: Where the values come from, as attributes of the dataset.
        rows: The number of samples of the data; 0 if unknown.
        anchors: The number of points at which all samples are evaluated; 0 if no samples are drawn.
        notes: Notes on the data.
    """

    dims: tuple[str, ...]
    axes: tuple[Sequence[float], ...]
    labels: tuple[str, ...] = ()
    quantities: tuple[str, ...] = ("loss",)
    units: Mapping[str, str] = dataclasses.field(default_factory=dict)
    attributes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    rows: int = 0
    anchors: int = 0
    notes: tuple[str, ...] = ()

    def dumps(self) -> str:
        """Return the description as text, for :func:`loads`."""
        return json.dumps(dataclasses.asdict(self))


def loads(text: str) -> Description:
    """Return the description whose text :meth:`Description.dumps` returned."""
    stored: dict[str, Any] = json.loads(text)
    fields: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in stored.items()}
    return Description(**fields)


def axis_attributes(slice_: Slice | Description, dim: str) -> dict[str, str]:
    """Return the attributes of the coordinates along an axis."""
    labels = dict(zip(slice_.dims, slice_.labels, strict=False))
    return {"units": "1", "long_name": labels.get(dim, f"direction {dim}")}


def list_units(problem: Problem) -> dict[str, str]:
    """Return the units of the loss and of each metric, by name."""
    return {
        "loss": problem.loss.units,
        **{name: metric.units for name, metric in problem.metrics.items()},
    }


def list_quantities(problem: Problem) -> tuple[str, ...]:
    """Return the names of the losses and metrics, in order."""
    return tuple(prefix + n for prefix in problem.batches for n in ("loss", *problem.metrics))


def describe_origin(problem: Problem, fingerprints: Mapping[str, str]) -> dict[str, str]:
    """Return where a result comes from; nothing in it changes from one run to the next."""
    return {
        **problem.describe(),
        "fingerprints": json.dumps(dict(fingerprints)),
        "made_with": f"landscope {_version.__version__}, torch {torch.__version__},"
        f" numpy {np.__version__}, Python {platform.python_version()}",
    }
