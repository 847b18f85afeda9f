"""Slices: low-dimensional sets of parameters, addressed by coordinates.

Line(center, dx)            center + x dx
Plane(center, dx, dy)       center + x dx + y dy
Volume(center, dx, dy, dz)  center + x dx + y dy + z dz

Slices that bend are in ``curves``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, final

import torch
from torch import Tensor

from landscope.errors import SliceError
from landscope.params import Params, check_like, describe_size, like, wrap
from landscope.slices.direction_checks import check_center, check_directions
from landscope.slices.least_squares import BLOCK, reduce_rows, solve_triangle
from landscope.slices.seeded_directions import Seeded

Direction = Params | Seeded
"""A direction in parameter space: stored tensors, or tensors that are drawn from a seed."""


class Slice(Protocol):
    """Everything that the library reads of a slice."""

    @property
    def dims(self) -> tuple[str, ...]:
        """The names of the axes, e.g. ("x", "y")."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the axes in pictures, one per axis, or () for the default ones."""
        ...

    @property
    def parts(self) -> Mapping[str, Direction]:
        """The tensors that define the slice, by role; they are stored and fingerprinted."""
        ...

    def at(self, coordinates: Sequence[float]) -> Params:
        """Return the parameters at the coordinates, one number per axis."""
        ...

    def project(self, params: Mapping[str, Tensor]) -> tuple[tuple[float, ...], float]:
        """Return the coordinates of the nearest point of the slice, and the distance from it."""
        ...


class Affine(ABC):
    """The slice center + sum over axes of coordinate x direction, such as a Line or a Plane."""

    center: Params
    labels: tuple[str, ...]
    dependent: bool = False

    @property
    @abstractmethod
    def directions(self) -> tuple[Direction, ...]:
        """The directions, in the order of the axes."""

    def __repr__(self) -> str:
        names = [f" ({label})" for label in self.labels] or [""] * len(self.dims)
        axes = ", ".join(f"{dim}{name}" for dim, name in zip(self.dims, names, strict=True))
        return f"<{type(self).__name__} along {axes}, around {describe_size(self.center)}>"

    @property
    def dims(self) -> tuple[str, ...]:
        """The names of the axes."""
        return ("x", "y", "z")[: len(self.directions)]

    @property
    def parts(self) -> Mapping[str, Direction]:
        """The center and the directions."""
        return {"center": self.center, **dict(zip(self.dims, self.directions, strict=True))}

    def at(self, coordinates: Sequence[float], out: Params | None = None) -> Params:
        """Return center + sum of coordinate x direction, as new tensors except for integer entries.

        Args:
            coordinates: One number per axis; a bare number is accepted for a line.
            out: The result of an earlier call, to be overwritten: no memory is allocated.

        Raises:
            SliceError: When the number of coordinates is not the number of axes.

        Cost: One pass over the parameters for each axis. Coordinates that are 0 cost nothing, so
        the center is returned exactly.
        """
        steps = self.check_coordinates(coordinates)
        if out is None:
            out = like(self.center, {n: t.detach().clone() if t.is_floating_point() else t
                                     for n, t in self.center.items()})  # fmt: skip
            tensors = self._moving(out)
        else:
            tensors = self._moving(out)
            torch._foreach_copy_(tensors, self._moving(self.center))
        for step, direction in zip(steps, self.directions, strict=True):
            if step == 0.0:
                continue
            if isinstance(direction, Seeded):  # one tensor at a time is in memory
                for name in direction.moving:
                    out[name].add_(direction[name], alpha=step)
            else:
                torch._foreach_add_(tensors, self._moving(direction), alpha=step)
        return out

    def _moving(self, params: Params) -> list[Tensor]:
        """Return the floating-point tensors, which move along the slice."""
        return [params[n] for n, t in self.center.items() if t.is_floating_point()]

    def project(self, params: Mapping[str, Tensor]) -> tuple[tuple[float, ...], float]:
        """Return the least-squares coordinates of a point, and its distance off the slice.

            coordinates = argmin over c of |params - center - sum over axes of c x direction|

        Args:
            params: A point with the names and shapes of the center.

        Returns:
            (coordinates, residual): one number per axis, and the Euclidean distance from the point
            to the slice. Directions need not be orthogonal; where they are linearly dependent, the
            coordinates of least norm are returned.

        Raises:
            ParamsError: When the point does not fit the center.

        Cost and accuracy: one pass over the parameters in float64, in blocks of 65,536. The
        relative error of a coordinate is about 1e-16 / the angle between the directions.
        """
        check_like(params, self.center, "params")
        count = len(self.directions) + 1
        return solve_triangle(reduce_rows(self._columns(params), count))

    def _columns(self, params: Mapping[str, Tensor]) -> Iterator[Tensor]:
        """Yield (directions, params - center), some rows at a time, shape (rows, d + 1)."""
        for name, tensor in self.center.items():
            if not tensor.is_floating_point():
                continue
            given = [*(d[name] for d in self.directions), params[name].detach(), tensor.detach()]
            flat = [t.to(tensor.device).reshape(-1) for t in given]
            for pieces in zip(*(t.split(BLOCK) for t in flat), strict=True):
                *directions, there, here = (piece.double() for piece in pieces)
                yield torch.stack([*directions, there - here], dim=1)

    def check_coordinates(self, coordinates: Sequence[float]) -> tuple[float, ...]:
        """Return the coordinates as numbers, one per axis.

        Raises:
            SliceError: When there are more or fewer than axes.
        """
        given = coordinates if isinstance(coordinates, Iterable) else (coordinates,)
        try:
            steps = tuple(float(c) for c in given)
        except (TypeError, ValueError):
            raise SliceError(
                f"coordinates={coordinates!r}; expected one number for each axis of {self.dims}."
            ) from None
        if len(steps) != len(self.directions):
            raise SliceError(
                f"coordinates={steps} has {len(steps)} numbers; this {type(self).__name__.lower()}"
                f" has the axes {self.dims}: pass one number for each axis."
            )
        return steps

    def _check(self) -> None:
        labels: Any = self.labels
        if isinstance(labels, str) or len(labels) not in (0, len(self.directions)):
            raise SliceError(
                f"labels={self.labels!r}; expected a tuple of {len(self.directions)} texts, one for"
                f" each axis ({', '.join(self.dims)}), or ()."
            )
        for dim, direction in zip(self.dims, self.directions, strict=True):
            if isinstance(direction, Seeded):
                direction.check(self.center, f"direction {dim}")
            else:
                check_like(direction, self.center, f"direction {dim}")
        check_center(self.center)
        check_directions(self.dims, self.directions, dependent=self.dependent)


def _wrap_and_check(slice_: Affine, names: Sequence[str]) -> None:
    """Replace plain dicts by Params, in a slice that was just made, and check that they fit."""
    for name in names:
        part = getattr(slice_, name)
        if not isinstance(part, Seeded):
            object.__setattr__(slice_, name, wrap(part))
    slice_._check()


@final
@dataclass(frozen=True, eq=False, repr=False)
class Line(Affine):
    """The line center + x dx.

    Args:
        center: The point at x = 0.
        dx: The direction of x; its length is that of one unit of x.
        labels: The label of the axis in pictures.

    Raises:
        ParamsError: When names or shapes differ.
        SliceError: When the center holds NaN, or the direction is zero or not finite.

    Example:
        >>> import torch, landscope as ls
        >>> line = ls.Line({"w": torch.zeros(2)}, {"w": torch.tensor([3.0, 4.0])})
        >>> line.at((2.0,))["w"]
        tensor([6., 8.])
        >>> line.project({"w": torch.tensor([4.0, -3.0])})  # orthogonal to the line
        ((0.0,), 5.0)
    """

    center: Params
    dx: Direction
    labels: tuple[str, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        _wrap_and_check(self, ("center", "dx"))

    @property
    def directions(self) -> tuple[Direction, ...]:
        """The direction."""
        return (self.dx,)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Plane(Affine):
    """The plane center + x dx + y dy.

    Args:
        center: The point at x = y = 0.
        dx: The direction of x; its length is that of one unit of x.
        dy: The direction of y.
        labels: The labels of the axes in pictures.
        dependent: Whether directions may be parallel or otherwise linearly dependent.

    Raises:
        ParamsError: When names or shapes differ.
        SliceError: When the center holds NaN, or a direction is zero, not finite, or dependent
            on the others without ``dependent=True``.
    """

    center: Params
    dx: Direction
    dy: Direction
    labels: tuple[str, ...] = field(default=(), kw_only=True)
    dependent: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        _wrap_and_check(self, ("center", "dx", "dy"))

    @property
    def directions(self) -> tuple[Direction, ...]:
        """The two directions."""
        return (self.dx, self.dy)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Volume(Affine):
    """The volume center + x dx + y dy + z dz.

    Args:
        center: The point at x = y = z = 0.
        dx: The direction of x; its length is that of one unit of x.
        dy: The direction of y.
        dz: The direction of z.
        labels: The labels of the axes in pictures.
        dependent: Whether directions may be parallel or otherwise linearly dependent.

    Raises:
        ParamsError: When names or shapes differ.
        SliceError: When the center holds NaN, or a direction is zero, not finite, or dependent
            on the others without ``dependent=True``.
    """

    center: Params
    dx: Direction
    dy: Direction
    dz: Direction
    labels: tuple[str, ...] = field(default=(), kw_only=True)
    dependent: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        _wrap_and_check(self, ("center", "dx", "dy", "dz"))

    @property
    def directions(self) -> tuple[Direction, ...]:
        """The three directions."""
        return (self.dx, self.dy, self.dz)


def check_slice(slice_: object) -> None:
    """Check that an argument is a slice.

    Raises:
        SliceError: If it lacks a member of Slice.
    """
    missing = [n for n in ("dims", "labels", "parts", "at", "project") if not hasattr(slice_, n)]
    if missing or isinstance(slice_, type):
        raise SliceError(
            f"slice is a {type(slice_).__name__}; expected an ls.Line, ls.Plane, ls.Volume or"
            f" ls.Curve, or an object with the members of one (missing: {', '.join(missing)})."
        )
