"""Slices: low-dimensional sets of parameters, addressed by coordinates.

Line(center, dx)            center + x dx
Plane(center, dx, dy)       center + x dx + y dy
Volume(center, dx, dy, dz)  center + x dx + y dy + z dz

Slices that bend are in ``curves``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, final

import torch
from torch import Tensor

from landscope.errors import SliceError
from landscope.params import Params, check_like, describe_size, dot, like, norm, wrap
from landscope.slices.seeded_directions import Seeded

Direction = Params | Seeded
"""A direction in parameter space: stored tensors, or tensors that are drawn from a seed."""

_SINGULAR = 1e-12  # smallest eigenvalue of the cosines, and relative cutoff of the pseudoinverse


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
        """
        check_like(params, self.center, "params")
        offset = {
            n: params[n].detach().to(t.device).double() - t.double()
            for n, t in self.center.items()
            if t.is_floating_point()
        }
        gram = torch.tensor(
            [[dot(_select(a, offset), b) for b in self.directions] for a in self.directions],
            dtype=torch.float64,
        )
        products = torch.tensor([dot(offset, d) for d in self.directions], dtype=torch.float64)
        steps = tuple(float(c) for c in _solve(gram, products))
        residual = {
            n: t - sum(c * d[n].double() for c, d in zip(steps, self.directions, strict=True))
            for n, t in offset.items()
        }
        return steps, norm(residual)

    def check_coordinates(self, coordinates: Sequence[float]) -> tuple[float, ...]:
        """Return the coordinates as numbers, one per axis.

        Raises:
            SliceError: When there are more or fewer than axes.
        """
        given = coordinates if isinstance(coordinates, Iterable) else (coordinates,)
        steps = tuple(float(c) for c in given)
        if len(steps) != len(self.directions):
            raise SliceError(
                f"coordinates={steps} has {len(steps)} numbers; this {type(self).__name__.lower()}"
                f" has the axes {self.dims}: pass one number for each axis."
            )
        return steps

    def _check(self) -> None:
        for dim, direction in zip(self.dims, self.directions, strict=True):
            if isinstance(direction, Seeded):  # seeded() has checked that it is finite
                direction.check(self.center, f"direction {dim}")
                continue
            check_like(direction, self.center, f"direction {dim}")
            if not math.isfinite(norm(direction)):
                raise SliceError(
                    f"direction {dim} holds NaN or infinity; a slice needs finite directions."
                )
        if self.labels and len(self.labels) != len(self.directions):
            raise SliceError(
                f"labels={self.labels} names {len(self.labels)} axes; there are"
                f" {len(self.directions)}."
            )


def _wrap_and_check(slice_: Affine, names: Sequence[str]) -> None:
    """Replace plain dicts by Params, in a slice that was just made, and check that they fit."""
    for name in names:
        part = getattr(slice_, name)
        if not isinstance(part, Seeded):
            object.__setattr__(slice_, name, wrap(part))
    slice_._check()


def _solve(gram: Tensor, products: Tensor) -> Tensor:
    """Solve for coordinates; lengths of the directions may differ by many orders of magnitude."""
    lengths = gram.diagonal().sqrt()
    cosines = gram / torch.outer(lengths, lengths)
    coordinates: Tensor
    if lengths.min() > 0 and torch.linalg.eigvalsh(cosines)[0] > _SINGULAR:
        coordinates = torch.linalg.solve(cosines, products / lengths) / lengths
    else:
        coordinates = torch.linalg.pinv(gram, hermitian=True, rtol=_SINGULAR) @ products
    return coordinates


def _select(direction: Direction, names: Iterable[str]) -> dict[str, Tensor]:
    return {n: direction[n] for n in names}


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
        SliceError: When the direction is not finite.

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
        dy: The direction of y; it may be ``dx`` itself.
        labels: The labels of the axes in pictures.

    Raises:
        ParamsError: When names or shapes differ.
        SliceError: When a direction is not finite.
    """

    center: Params
    dx: Direction
    dy: Direction
    labels: tuple[str, ...] = field(default=(), kw_only=True)

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

    Raises:
        ParamsError: When names or shapes differ.
        SliceError: When a direction is not finite.
    """

    center: Params
    dx: Direction
    dy: Direction
    dz: Direction
    labels: tuple[str, ...] = field(default=(), kw_only=True)

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
