"""Samplers: which points of a slice are evaluated.

A sampler defines the axes of a picture and, given the values so far, the points to evaluate next.
It keeps no state: the values come from the journal, so a scan that was killed resumes where it
stopped. As in the package *adaptive*, a sampler only asks for points; a scan evaluates them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, final, runtime_checkable

import numpy as np

from landscope.errors import SamplerError

if TYPE_CHECKING:
    from landscope.sampling.prediction import Prediction, Values

Span = tuple[float, float]

_T = TypeVar("_T")


@runtime_checkable
class Sampler(Protocol):
    """The methods of a sampler that a scan calls; they depend on their arguments only."""

    def axes(self, dims: Sequence[str]) -> tuple[np.ndarray, ...]:
        """Return the coordinates along each axis, in the order of ``dims`` (x first)."""
        ...

    def ask(self, shape: Sequence[int], known: Values) -> list[int]:
        """Return the flat indices to evaluate next, x running fastest; none at the end."""
        ...

    def fill(self, shape: Sequence[int], known: Values) -> Prediction | None:
        """Return predictions for the points that were not asked for; None without predictions."""
        ...

    def with_span(self, find: Callable[[], Sequence[Span]]) -> Sampler:
        """Return a sampler whose span is known: that of ``find()`` if its own is "auto"."""
        ...

    def expected_points(self, shape: Sequence[int]) -> int:
        """Return approximately how many points will be evaluated, for cost estimates."""
        ...


@final
@dataclass(frozen=True)
class Grid:
    """Every point of a regular grid.

    Args:
        resolution: The number of points along each axis: one number for all, or one per axis, x
            first.
        span: The (first, last) coordinate: one pair for all axes, or one pair per axis. "auto"
            lets ``ls.scan`` find how far the picture must reach. An axis of one point lies at
            0, the center, if the span is symmetric, else at the first coordinate, as in
            ``numpy.linspace``; there both ends may be equal.

    Raises:
        SamplerError: For a resolution below 1, a span that runs backwards or is not finite, or
            equal ends of an axis of several points.

    Example:
        >>> [axis.tolist() for axis in Grid((3, 2), ((-1, 1), (0, 1))).axes(("x", "y"))]
        [[-1.0, 0.0, 1.0], [0.0, 1.0]]
    """

    resolution: int | Sequence[int] = 51
    span: Sequence[float] | Sequence[Sequence[float]] | str = (-1.0, 1.0)

    def __post_init__(self) -> None:
        for resolution in _as_list(self.resolution):
            if not _is_count(resolution):
                raise SamplerError(
                    f"resolution={self.resolution!r}; expected whole numbers of 1 or more."
                )
        if self.span != "auto":
            counts, spans = _as_list(self.resolution), self._spans()
            axes = max(len(counts), len(spans))
            for count, span in zip(_extend(counts, axes), _extend(spans, axes), strict=False):
                self._check_span(span, count)

    def axes(self, dims: Sequence[str]) -> tuple[np.ndarray, ...]:
        """Return the coordinates along each axis.

        Raises:
            SamplerError: When resolution or span are given for another number of axes than
                ``dims`` has, or the span is not known yet.
        """
        if self.span == "auto":
            raise SamplerError(
                "span='auto' has no coordinates of its own: ls.scan finds them; pass a pair here."
            )
        counts = _one_per_axis("resolution", _as_list(self.resolution), dims)
        spans = _one_per_axis("span", self._spans(), dims)
        return tuple(_axis(int(n), s) for n, s in zip(counts, spans, strict=True))

    def ask(self, shape: Sequence[int], known: Mapping[int, object]) -> list[int]:
        """Return every index that is not known yet, row by row."""
        return [k for k in range(math.prod(shape)) if k not in known]

    def fill(self, shape: Sequence[int], known: Mapping[int, object]) -> None:
        """Return None: points that were not evaluated are left empty."""
        del shape, known

    def with_span(self, find: Callable[[], Sequence[Span]]) -> Grid:
        """Return the grid itself, or if its span is "auto", the grid on the span of ``find()``."""
        return replace(self, span=find()) if self.span == "auto" else self

    def expected_points(self, shape: Sequence[int]) -> int:
        """Return the number of all points."""
        return math.prod(shape)

    def _spans(self) -> list[Span]:
        try:
            pairs = np.asarray(self.span, dtype=np.float64).reshape(-1, 2)
        except (TypeError, ValueError):
            raise SamplerError(
                f"span={self.span!r}; expected a pair (first, last), or one pair per axis."
            ) from None
        return [(float(first), float(last)) for first, last in pairs]

    def _check_span(self, span: Span, count: int) -> None:
        first, last = span
        if not (math.isfinite(first) and math.isfinite(last)):
            raise SamplerError(f"span={self.span!r}; expected finite coordinates.")
        if first > last or (first == last and count > 1):
            remedy = (
                "swap them" if first > last else "both may be equal only on an axis of one point"
            )
            raise SamplerError(
                f"span={self.span!r} runs from {first:g} to {last:g}; the first coordinate must"
                f" be below the last: {remedy}."
            )


def as_sampler(sampler: Sampler | int | None, span: Span) -> Sampler:
    """Return the sampler that is given, or the grid of a given number of points on a span.

    Args:
        sampler: A sampler, a whole number, or None for ``Grid()`` on the span.
        span: The (first, last) coordinate of that grid on all axes.

    Raises:
        SamplerError: For anything else.
    """
    given: Any = sampler
    if given is None:
        return Grid(span=span)
    if isinstance(given, Sampler) and not isinstance(given, type):
        return given
    if not _is_count(given):
        raise SamplerError(
            f"sampler={given!r}; expected a whole number of points along each axis such as 51, or a"
            " sampler such as ls.Grid(51, (-1, 1)) or ls.Adaptive()."
        )
    return Grid(int(given), span)


def _axis(count: int, span: Span) -> np.ndarray:
    """Return points from first to last, exactly symmetric, so that a centered axis holds 0.0."""
    steps = np.arange(count, dtype=np.float64)
    first, last = span
    if count == 1:
        return steps + (0.0 if first == -last else first)
    points: np.ndarray = (first * (count - 1 - steps) + last * steps) / (count - 1)
    points[[0, -1]] = span  # the quotient may miss them by one rounding
    return points


def _is_count(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer):
        return False
    return bool(value >= 1 and value % 1 == 0)


def _as_list(value: int | Sequence[int]) -> list[int]:
    return list(value) if isinstance(value, Sequence) else [value]


def _extend(values: list[_T], axes: int) -> list[_T]:
    """Return one value for each axis, also if one for all axes is given."""
    return values * axes if len(values) == 1 else values


def _one_per_axis(what: str, values: list[_T], dims: Sequence[str]) -> list[_T]:
    """Return one value per axis, from one value for all axes or one per axis."""
    extended = _extend(values, len(dims))
    if len(extended) != len(dims):
        raise SamplerError(
            f"{what} is given for {len(values)} axes; the slice has {len(dims)}"
            f" ({', '.join(dims)}): give one for all, or one per axis."
        )
    return extended
