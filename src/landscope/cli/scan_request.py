"""A scan request: which loss, on which slice, at which points, with which samples.

The commands fill it from their options, make from it what a scan needs (its slice by
``slice_options.make_slice``), and record it in run.json. Torch is imported inside the methods, so
that ``--help`` is quick.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscope.cli.options import Ignore, Moved, Normalize
from landscope.errors import SamplerError

if TYPE_CHECKING:
    from landscope.objective.objective import Objective
    from landscope.objective.quantities import Quantity
    from landscope.sampling.calibrated import Calibrated
    from landscope.sampling.grid import Sampler

Span = tuple[float | None, float | None, int]  # first, last, points; ends are None for "auto"


_EXACT = 1e-9  # steps of an axis
_FEWEST_SAMPLES = 72  # two for each of the 36 points at which all data is used
_MOST_CELLS = 10_000_000  # 80 MB for each quantity


@dataclass(frozen=True)
class ScanRequest:
    """What a command scans; the defaults are those of the command line.

    Args:
        target: ``file.py:function``, ``package.module:function`` or ``zoo:NAME``.
        spans: (first, last, points) of each axis; the ends are None where they are searched for.
        checkpoint: Weights to load into the model first.
        toward: Checkpoints of other models: coordinate 1 of the first axes lies there.
        directions: A run's folder or a direction file of the 2018 scripts.
        same: Whether all axes use the direction of x.
        normalize: The scaling of random directions.
        ignore: The parameters that random directions leave unchanged.
        orthogonal: Whether random directions are orthogonal, filter by filter.
        select: Name patterns of the parameters that random directions move; all if empty.
        over: What moves; None for parameters, and for states (batch-norm statistics as well) with
            ``toward``, because another solution is incomplete without its statistics.
        seed: The seed of random directions.
        arguments: ``name=value`` texts for the target's function.
        adaptive: Whether only the points that matter are evaluated.
        tolerance: The error of ln(loss) that an adaptive scan aims at.
        samples: The number of samples to draw; None for all data.
        budget: The time for the scan, such as "5m".
        average: The radius of the neighborhood to average the loss over as well.
        error_bars: Whether to measure standard errors of the loss.
    """

    target: str
    spans: tuple[Span, ...] = ((-1.0, 1.0, 51),) * 2
    checkpoint: Path | None = None
    toward: tuple[Path, ...] = ()
    directions: Path | None = None
    same: bool = False
    normalize: Normalize = "filter"
    ignore: Ignore = "biasbn"
    orthogonal: bool = True
    select: tuple[str, ...] = ()
    over: Moved | None = None
    seed: int = 0
    arguments: tuple[str, ...] = ()
    adaptive: bool = False
    tolerance: float = 0.03
    samples: int | None = None
    budget: str | None = None
    average: float | None = None
    error_bars: bool = False

    def check(self) -> None:
        """Refuse options that are out of range, before anything is loaded.

        Raises:
            SamplerError: When one is; the text names it.
        """
        from landscope.scanning.budget import parse_budget

        if self.samples is not None and self.samples < _FEWEST_SAMPLES:
            raise SamplerError(
                f"--samples {self.samples}; expected {_FEWEST_SAMPLES} or more, such as 600: all"
                " data is used at 36 points, and at least twice as many samples at the others."
                " Leave it out to use all data everywhere."
            )
        if self.average is not None and not 0 < self.average < math.inf:
            raise SamplerError(f"--average {self.average:g}; expected a size above 0, such as 0.1.")
        if not 0 < self.tolerance < math.inf:
            raise SamplerError(f"--tolerance {self.tolerance:g}; expected more than 0, as 0.03.")
        if self.budget is not None:
            try:
                parse_budget(self.budget)
            except SamplerError:
                raise SamplerError(
                    f"--budget {self.budget}; expected a time above 0, such as 60s, 5m or 2h."
                ) from None

    def make_objective(self) -> Objective:
        """Return the objective of the target, with the weights of the checkpoint.

        Raises:
            TargetError: When the target does not exist, or returns no Objective.
            FormatError: When the checkpoint does not fit the model.
        """
        from landscope.cli import targets

        self.check()
        return targets.load_objective(
            self.target, arguments=self.arguments, checkpoint=self.checkpoint
        )

    def make_sampler(self) -> Sampler:
        """Return the sampler that chooses the points.

        Raises:
            SamplerError: When some axes are auto and others are not, or a number is out of range.
        """
        from landscope.sampling.adaptive import Adaptive
        from landscope.sampling.grid import Grid

        self.check()
        resolution = [points for *_, points in self.spans]
        ends = [(first, last) for first, last, _ in self.spans]
        if (None, None) in ends and set(ends) != {(None, None)}:
            raise SamplerError(
                "one axis is auto and another is not: give the ends of all, or of none."
            )
        span: Any = "auto" if (None, None) in ends else ends
        if self.adaptive:
            return Adaptive(tolerance=self.tolerance, resolution=resolution, span=span)
        return Grid(resolution, span)

    def advise_toward(self) -> str:
        """Return which axes put both models of --toward on the grid; "" if they are on it."""
        texts = []
        for dim, _, (first, last, points) in zip("xyz", self.toward, self.spans, strict=False):
            if first is None or last is None or first > 0 or last < 1:
                continue
            fits = [n for n in range(2, 2 * points) if _holds_both(first, last, n)]
            if fits and points not in fits:
                best = min(fits, key=lambda n: abs(n - points))
                texts.append(f"--{dim}={first:g}:{last:g}:{best}")
        return (
            f"the models at 0 and 1 are between points of the grid; on it with {' '.join(texts)}."
            if texts else ""
        )  # fmt: skip

    def make_samples(self) -> Calibrated | None:
        """Return the choice of samples; None for all data."""
        from landscope.sampling.calibrated import Calibrated

        return None if self.samples is None else Calibrated(self.samples)

    def make_quantities(self) -> list[Quantity]:
        """Return the quantities to measure besides the loss."""
        from landscope.analysis.averages import loss_stderr, neighborhood_average

        averages = [] if self.average is None else [neighborhood_average(self.average)]
        return [*averages, *([loss_stderr] if self.error_bars else [])]

    def record(self, *names: str) -> dict[str, Any]:
        """Return the request for run.json, with keys that stay the same between versions.

        Args:
            names: The keys to return; all if none is given.
        """
        entries = {
            "target": self.target, "checkpoint": self.checkpoint, "spans": self.spans,
            "toward": self.toward or None, "directions": self.directions, "same": self.same,
            "normalize": self.normalize, "ignore": self.ignore, "orthogonal": self.orthogonal,
            "select": self.select or None, "over": self.over, "seed": self.seed,
            "set": self.arguments or None, "adaptive": self.adaptive, "tolerance": self.tolerance,
            "samples": self.samples, "budget": self.budget, "average": self.average,
            "error_bars": self.error_bars,
        }  # fmt: skip
        return {name: entries[name] for name in names or entries}


def _holds_both(first: float, last: float, points: int) -> bool:
    """Tell whether 0 and 1 are among the points of an axis."""
    steps = [(value - first) / (last - first) * (points - 1) for value in (0.0, 1.0)]
    return all(abs(step - round(step)) < _EXACT for step in steps)


def parse_spans(*texts: str | None) -> tuple[Span, ...]:
    """Return the span of each axis; those of the paper's plane if no axis is given.

    Args:
        texts: ``first:last:points`` or ``auto:points`` for x, y and z; None where not given.

    Raises:
        SamplerError: When an axis is left out before another, or a text is not a span.
    """
    given = [text for text in texts if text is not None]
    if not given:
        return ScanRequest.spans
    if texts[0] is None:
        later = "y" if texts[1] is not None else "z"
        raise SamplerError(f"--{later} is given without --x: name the axes in order.")
    if texts[1] is None and texts[2] is not None:
        raise SamplerError("--z is given without --y: name the axes in order.")
    spans = tuple(_parse_span(f"--{dim}", text) for dim, text in zip("xyz", given, strict=False))
    cells = math.prod(points for *_, points in spans)
    if cells > _MOST_CELLS:
        raise SamplerError(
            f"{' x '.join(str(points) for *_, points in spans)} are {cells:,} points; expected"
            f" {_MOST_CELLS:,} at most: give each axis fewer points."
        )
    return spans


def _parse_span(option: str, text: str) -> Span:
    try:
        if text.partition(":")[0] == "auto":
            span: Span = (None, None, int(text.partition(":")[2] or 51))
        else:
            first, last, points = text.split(":")
            span = float(first), float(last), int(points)
    except ValueError:
        raise SamplerError(
            f"{option}: axis {text!r}; expected first:last:points, such as -1:1:51, or auto:points."
        ) from None
    _check_span(option, text, span)
    return span


def _check_span(option: str, text: str, span: Span) -> None:
    """Refuse an axis without points, and one that does not run from a lower to a higher end."""
    first, last, points = span
    if points < 1:
        raise SamplerError(f"{option} {text} has {points} points; expected 1 or more.")
    if first is None or last is None:
        return
    if not (math.isfinite(first) and math.isfinite(last)):
        raise SamplerError(f"{option} {text} has an end that is not finite: give two numbers.")
    if first > last:
        raise SamplerError(
            f"{option} {text} runs from {first:g} to {last:g}: swap them, {option}="
            f"{last:g}:{first:g}:{points}."
        )
    if (first == last) != (points == 1):
        problem = "has equal ends" if first == last else "has two ends and one point"
        raise SamplerError(
            f"{option} {text} {problem}: for a single point give {option}={first:g}:{first:g}:1,"
            f" for a picture an axis such as {option}=-1:1:51."
        )
