"""Slices: low-dimensional sets of parameters, addressed by coordinates.

Line(center, d)             center + x d
Plane(center, dx, dy)       center + x dx + y dy
Volume(center, dx, dy, dz)  center + x dx + y dy + z dz
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, final

import torch
from torch import Tensor

from landscope.errors import SliceError
from landscope.params import Params, check_like, dot, like, norm, wrap
from landscope.slices.seeded_directions import Seeded

Direction = Params | Seeded
"""Stored, or drawn again from its seed."""


class Slice(Protocol):
    """What a scan needs to know of a slice."""

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the axes, e.g. ("x", "y")."""
        ...

    @property
    def parts(self) -> Mapping[str, Direction]:
        """The tensors that define the slice, by role: what a run keeps and fingerprints."""
        ...

    def at(self, coordinates: Sequence[float]) -> Params:
        """Return the parameters at the coordinates, one number an axis."""
        ...

    def project(self, params: Mapping[str, Tensor]) -> tuple[tuple[float, ...], float]:
        """Return the nearest coordinates and the distance off the slice."""
        ...


class Affine:
    """center + sum of coordinate x direction: what Line, Plane and Volume share.

    Not for use by itself: a Line, a Plane and a Volume say how many directions there are.
    """

    center: Params
    labels: tuple[str, ...]

    @property
    def directions(self) -> tuple[Direction, ...]:
        """The directions, in the order of the axes."""
        raise NotImplementedError

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the axes."""
        return ("x", "y", "z")[: len(self.directions)]

    @property
    def parts(self) -> Mapping[str, Direction]:
        """The center and the directions."""
        return {"center": self.center, **dict(zip(self.dims, self.directions, strict=True))}

    def at(self, coordinates: Sequence[float], out: Params | None = None) -> Params:
        """Return center + sum of coordinate x direction, new tensors but for integer entries.

        Args:
            coordinates: one number an axis; a bare number is taken for a line.
            out: what an earlier call returned, to be written over: no memory is taken.

        Raises:
            SliceError: when there are not as many coordinates as axes.

        Cost: one pass over the parameters an axis; coordinates that are 0 cost nothing, so the
        center is returned exactly.
        """
        steps = self.steps(coordinates)
        if out is None:
            out = like(self.center, {n: t.detach().clone() if t.is_floating_point() else t
                                     for n, t in self.center.items()})  # fmt: skip
            written = self._moving(out)
        else:
            written = self._moving(out)
            torch._foreach_copy_(written, self._moving(self.center))
        for step, direction in zip(steps, self.directions, strict=True):
            if step == 0.0:
                continue
            if isinstance(direction, Seeded):  # one tensor at a time is in memory
                for name in direction.moved:
                    out[name].add_(direction[name], alpha=step)
            else:
                torch._foreach_add_(written, self._moving(direction), alpha=step)
        return out

    def _moving(self, params: Params) -> list[Tensor]:
        return [params[n] for n, t in self.center.items() if t.is_floating_point()]

    def project(self, params: Mapping[str, Tensor]) -> tuple[tuple[float, ...], float]:
        """Return the least-squares coordinates of a point and its distance off the slice.

        Args:
            params: a point with the names and shapes of the center.

        Returns:
            (coordinates, residual): one number an axis, and the Euclidean distance from the
            point to the slice. Directions need not be orthogonal; where they are linearly
            dependent the coordinates of least norm are returned.

        Raises:
            ParamsError: when the point does not fit the center.
        """
        check_like(params, self.center, "params")
        offset = {
            n: params[n].detach().to(t.device).double() - t.double()
            for n, t in self.center.items()
            if t.is_floating_point()
        }
        gram = torch.tensor(
            [[dot(_only(a, offset), b) for b in self.directions] for a in self.directions],
            dtype=torch.float64,
        )
        right = torch.tensor([dot(offset, d) for d in self.directions], dtype=torch.float64)
        found = _solve(gram, right)
        steps = tuple(float(c) for c in found)
        left = {
            n: t - sum(c * d[n].double() for c, d in zip(steps, self.directions, strict=True))
            for n, t in offset.items()
        }
        return steps, norm(left)

    def steps(self, coordinates: Sequence[float]) -> tuple[float, ...]:
        """Return the coordinates as numbers, one an axis.

        Raises:
            SliceError: when there are not as many as axes.
        """
        given = coordinates if isinstance(coordinates, Iterable) else (coordinates,)
        steps = tuple(float(c) for c in given)
        if len(steps) != len(self.directions):
            raise SliceError(
                f"coordinates={steps} has {len(steps)} numbers; this {type(self).__name__.lower()}"
                f" has the axes {self.dims}: pass one number an axis."
            )
        return steps

    def _check(self) -> None:
        for dim, direction in zip(self.dims, self.directions, strict=True):
            if isinstance(direction, Seeded):  # finite, or it would not have been made
                direction.check(self.center, f"direction {dim}")
                continue
            check_like(direction, self.center, f"direction {dim}")
            if not all(math.isfinite(v) for v in [norm(direction)]):
                raise SliceError(
                    f"direction {dim} holds NaN or infinity; a slice needs finite directions."
                )
        if self.labels and len(self.labels) != len(self.directions):
            raise SliceError(
                f"labels={self.labels} names {len(self.labels)} axes; there are"
                f" {len(self.directions)}."
            )


def _settle(slice_: Affine, names: Sequence[str]) -> None:
    """Turn plain dicts into Params and check that they fit."""
    for name in names:
        given = getattr(slice_, name)
        if not isinstance(given, Seeded):
            object.__setattr__(slice_, name, wrap(given))
    slice_._check()


def _solve(gram: Tensor, right: Tensor) -> Tensor:
    """Solve for coordinates; lengths of the directions may differ by many orders of magnitude."""
    lengths = gram.diagonal().sqrt()
    cosines = gram / torch.outer(lengths, lengths)
    found: Tensor
    if lengths.min() > 0 and torch.linalg.eigvalsh(cosines)[0] > 1e-12:
        found = torch.linalg.solve(cosines, right / lengths) / lengths
    else:
        found = torch.linalg.pinv(gram, hermitian=True, rtol=1e-12) @ right
    return found


def _only(params: Direction, names: Mapping[str, object]) -> dict[str, Tensor]:
    return {n: params[n] for n in names}


@final
@dataclass(frozen=True, eq=False)
class Line(Affine):
    """The line center + x d.

    Args:
        center: where x = 0.
        d: the direction; x counts in units of it.
        labels: what the axis shows, for pictures.

    Raises:
        ParamsError: when names or shapes differ.
        SliceError: when the direction is not finite.
    """

    center: Params
    d: Direction
    labels: tuple[str, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        _settle(self, ("center", "d"))

    @property
    def directions(self) -> tuple[Direction, ...]:
        """The one direction."""
        return (self.d,)


@final
@dataclass(frozen=True, eq=False)
class Plane(Affine):
    """The plane center + x dx + y dy.

    Args:
        center: where x = y = 0.
        dx: the direction of x.
        dy: the direction of y; it may be ``dx`` itself.
        labels: what the axes show, for pictures.

    Raises:
        ParamsError: when names or shapes differ.
        SliceError: when a direction is not finite.
    """

    center: Params
    dx: Direction
    dy: Direction
    labels: tuple[str, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        _settle(self, ("center", "dx", "dy"))

    @property
    def directions(self) -> tuple[Direction, ...]:
        """The two directions."""
        return (self.dx, self.dy)


@final
@dataclass(frozen=True, eq=False)
class Volume(Affine):
    """The volume center + x dx + y dy + z dz.

    Args:
        center: where x = y = z = 0.
        dx: the direction of x.
        dy: the direction of y.
        dz: the direction of z.
        labels: what the axes show, for pictures.

    Raises:
        ParamsError: when names or shapes differ.
        SliceError: when a direction is not finite.
    """

    center: Params
    dx: Direction
    dy: Direction
    dz: Direction
    labels: tuple[str, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        _settle(self, ("center", "dx", "dy", "dz"))

    @property
    def directions(self) -> tuple[Direction, ...]:
        """The three directions."""
        return (self.dx, self.dy, self.dz)
