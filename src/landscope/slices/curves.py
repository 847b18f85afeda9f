"""Curves: one-dimensional slices that bend, from a first node to a last one.

Two minima are connected at low loss by a Bezier curve with one trained control point between them,
or by a polyline with one trained vertex: T. Garipov, P. Izmailov, D. Podoprikhin, D. Vetrov,
A. G. Wilson, *Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs*, NeurIPS 2018, arXiv
1802.10026, section 3. Polylines of many vertices: F. Draxler, K. Veschgini, M. Salmhofer,
F. A. Hamprecht, *Essentially No Barriers in Neural Network Energy Landscape*, ICML 2018, arXiv
1803.00885.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, final, get_args

import numpy as np
import torch
from numpy.polynomial import chebyshev
from torch import Tensor

from landscope.errors import SliceError
from landscope.params import Params, check_like, describe_size, like, norm, wrap
from landscope.slices.slices import Affine, Slice

Kind = Literal["bezier", "polyline"]

_HALVES = (torch.float16, torch.bfloat16)
_SLACK = 1e-9  # a coordinate may be outside of [0, 1] by this much, as an effect of rounding
_ROUNDING = 1e-14  # error of an inner product, relative to the largest one
_PIECE = 2**17  # entries of a tensor that are projected at once: 1 MiB a node in float64


@final
@dataclass(frozen=True, eq=False)
class Curve:
    """A curve through parameter space, from the first of its nodes (t = 0) to the last (t = 1).

    With n + 1 nodes p_0, ..., p_n:

    * "bezier": p(t) = sum over k of C(n, k) t^k (1 - t)^(n - k) p_k. The inner nodes are control
      points, which attract the curve; it passes through the first and the last node only.
    * "polyline": straight segments from node to node. Each takes an equal share of [0, 1], so
      node k is at t = k / n however far apart the nodes are: distances between parameters change
      when layers are rescaled so that the function remains the same; t = k / n does not.

    A curve ends at its nodes: coordinates outside [0, 1] are refused, and ``ls.scan`` goes from end
    to end unless the sampler has another span. With two nodes both kinds are the part of
    ``Line(a, between(a, b))`` from a to b.

    Args:
        nodes: Two nodes or more with the same names and shapes, from first to last, such as
            ``[a, bend, b]``. They are not copied, except to the device and dtype of the first.
        kind: "bezier" or "polyline".
        labels: The label of the axis in pictures.

    Raises:
        ParamsError: When the names or shapes of two nodes differ.
        SliceError: For fewer than two nodes, a node that is not finite, an unknown kind, or more
            or fewer labels than one.

    Cost: The memory of the nodes. Batch normalization needs statistics of its own at each point of
    a curve: use ``Objective(..., buffers="recompute")``.

    Source: Garipov et al. 2018, arXiv 1802.10026, section 3.

    Example:
        >>> import torch, landscope as ls
        >>> a, bend, b = ({"w": torch.tensor(w)} for w in ([0.0, 0.0], [1.0, 2.0], [2.0, 0.0]))
        >>> curve = ls.Curve([a, bend, b])
        >>> curve.at((0.5,))["w"]
        tensor([1., 1.])
        >>> (t,), distance = curve.project({"w": torch.tensor([1.0, 3.0])})
        >>> print(f"{t:.3f} {distance:.3f}")
        0.500 2.000
    """

    nodes: Sequence[Params]
    kind: Kind = "bezier"
    labels: tuple[str, ...] = field(default=("position on the curve",), kw_only=True)

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise SliceError(f'kind={self.kind!r}; expected "bezier" or "polyline".')
        labels: Any = self.labels
        if isinstance(labels, str) or len(labels) != 1:
            raise SliceError(
                f"labels={self.labels!r}; a curve has one axis: pass a tuple of one text, ('t',)."
            )
        object.__setattr__(self, "nodes", _prepare_nodes(self.nodes))

    def __repr__(self) -> str:
        size = describe_size(self.nodes[0])
        return f"<Curve: {self.kind} through {len(self.nodes)} nodes of {size}>"

    @property
    def dims(self) -> tuple[str, ...]:
        """The name of the axis: ("x",), like that of a Line."""
        return ("x",)

    @property
    def parts(self) -> Mapping[str, Params]:
        """The nodes, by kind and number."""
        return {f"{self.kind} node {k}": node for k, node in enumerate(self.nodes)}

    def at(self, coordinates: Sequence[float], out: Params | None = None) -> Params:
        """Return the point p(t) in new tensors; integer entries are those of the first node.

        Args:
            coordinates: One number t in [0, 1]; a bare number is accepted.
            out: The result of an earlier call, to be overwritten: no memory is allocated.

        Raises:
            SliceError: When there is not exactly one number, or it is outside [0, 1].

        Cost: One pass over the parameters for each node, or for two nodes of a polyline; a node of
        weight 0 costs nothing, so the first and the last node are returned exactly. float16 and
        bfloat16 are summed in float32, one tensor at a time, and rounded once.
        """
        weights = self._weights(self.check_position(coordinates))
        first = self.nodes[0]
        if out is None:
            out = like(first, {n: torch.empty_like(t) if t.is_floating_point() else t
                               for n, t in first.items()})  # fmt: skip
        terms = [(float(w), node) for w, node in zip(weights, self.nodes, strict=True) if w != 0.0]
        moving = [name for name, tensor in first.items() if tensor.is_floating_point()]
        precise = [name for name in moving if out[name].dtype not in _HALVES]
        for name in (name for name in moving if out[name].dtype in _HALVES):
            total = torch.empty_like(out[name], dtype=torch.float32)
            _combine([total], [(w, [node[name]]) for w, node in terms])
            out[name].copy_(total)
        if precise:
            target = [out[name] for name in precise]
            _combine(target, [(w, [node[n] for n in precise]) for w, node in terms])
        return out

    def project(self, params: Mapping[str, Tensor]) -> tuple[tuple[float, ...], float]:
        """Return the coordinate t of the nearest point of the curve, and the distance from it.

        The squared distance is a function of t, the inner products of the nodes and those with
        ``params``. All its local minima in [0, 1] are found: on a polyline segment by segment, on
        a Bezier curve from the roots of its derivative, a polynomial of degree 2n - 1. So the
        result is the global minimum; of several equal ones, the first.

        Args:
            params: A point with the names and shapes of the nodes.

        Returns:
            (coordinates, residual): (t,) with t in [0, 1], and the Euclidean distance off the
            curve. Both are NaN for a point that is not finite.

        Raises:
            ParamsError: When the point does not fit the nodes.

        Cost: Two passes over the nodes and the point, in float64; memory of some MiB for each node.
        """
        check_like(params, self.nodes[0], "params")
        count = len(self.nodes) - 1
        products = np.zeros((count + 1, count + 1))
        for piece in self._pieces(params):
            products += (piece @ piece.T).cpu().numpy()
        if not np.isfinite(products).all():
            return (math.nan,), math.nan
        gram, offset = products[:-1, :-1], products[:-1, -1]
        minima = _bezier_minima if self.kind == "bezier" else _polyline_minima
        steps = {t: _steps(self._weights(t)) for t in minima(gram, offset)}
        heights = {t: float(c @ gram @ c - 2 * c @ offset) for t, c in steps.items()}
        # Inner products give only half the digits of a distance: all near candidates are measured.
        most = min(heights.values()) + _ROUNDING * count * float(products.diagonal().max())
        near = [t for t, height in heights.items() if height <= most]
        rows = torch.tensor([[*-steps[t], 1.0] for t in near], dtype=torch.float64)
        squares = np.zeros(len(near))
        for piece in self._pieces(params):
            squares += (rows.to(piece.device) @ piece).square().sum(dim=1).cpu().numpy()
        nearest = int(squares.argmin())
        return (near[nearest],), math.sqrt(squares[nearest])

    def check_position(self, coordinates: Sequence[float]) -> float:
        """Return the one coordinate as a number t in [0, 1].

        Raises:
            SliceError: When there is not exactly one number, or it is outside [0, 1].
        """
        given = coordinates if isinstance(coordinates, Iterable) else (coordinates,)
        steps = tuple(float(c) for c in given)
        if len(steps) != 1:
            raise SliceError(
                f"coordinates={steps} has {len(steps)} numbers; a curve has the axis ('x',): pass"
                " one number."
            )
        if not -_SLACK <= steps[0] <= 1 + _SLACK:
            raise SliceError(
                f"coordinates={steps}; a curve runs from 0 (its first node) to 1 (its last): pass a"
                " number between them; to a sampler span=(0, 1), or to ls.scan a whole number."
            )
        return min(max(steps[0], 0.0), 1.0)

    def _weights(self, t: float) -> np.ndarray:
        """Return the weight of each node at t, shape (n + 1,); they are at least 0 and sum to 1."""
        count = len(self.nodes) - 1
        if self.kind == "bezier":
            return _bernstein(count, t)
        weights = np.zeros(count + 1)
        segment = min(int(t * count), count - 1)
        weights[segment + 1] = t * count - segment
        weights[segment] = 1.0 - weights[segment + 1]
        return weights

    def _pieces(self, point: Mapping[str, Tensor]) -> Iterator[Tensor]:
        """Yield the n edges p_(k+1) - p_k and ``point`` - p_0, shape (n + 1, entries), float64."""
        for name, tensor in self.nodes[0].items():
            if not tensor.is_floating_point():
                continue
            target = point[name].detach().to(tensor.device).reshape(-1)
            flat = [node[name].reshape(-1) for node in self.nodes]
            for start in range(0, tensor.numel(), _PIECE):
                stop = start + _PIECE
                rows = torch.stack([row[start:stop].double() for row in flat])
                offset = target[start:stop].double() - rows[0]
                yield torch.cat([rows.diff(dim=0), offset.unsqueeze(0)])


ReusableSlice = Affine | Curve
"""A slice whose ``at`` writes into the result of an earlier call."""


def default_span(slice_: Slice) -> tuple[float, float]:
    """Return the span of a slice's axes for samplers without one: all of a curve, else -1 to 1."""
    return (0.0, 1.0) if isinstance(slice_, Curve) else (-1.0, 1.0)


def check_axes(slice_: Slice, axes: Sequence[np.ndarray]) -> None:
    """Check that no coordinate lies beyond the ends of a slice.

    Raises:
        SliceError: When one does; the message names the first.
    """
    if isinstance(slice_, Curve):
        for (coordinate,) in zip(*axes, strict=True):
            slice_.check_position((float(coordinate),))


def _prepare_nodes(nodes: Any) -> tuple[Params, ...]:
    """Return detached nodes on the device and in the dtypes of the first.

    Raises:
        ParamsError: When the names or shapes of two nodes differ.
        SliceError: For fewer than two nodes, or a node that is not finite.
    """
    if isinstance(nodes, Mapping) or not isinstance(nodes, Iterable):
        raise SliceError(
            f"nodes is a {type(nodes).__name__}; expected a list of two nodes or more, such as"
            " [a, bend, b]."
        )
    known = [wrap(node) for node in nodes]
    if len(known) < 2:
        raise SliceError(
            f"nodes has {len(known)} nodes; a curve needs two or more, such as [a, b]."
        )
    first, prepared = known[0], []
    for k, node in enumerate(known):
        check_like(node, first, f"node {k}")
        prepared.append(like(first, {n: node[n].detach().to(t) for n, t in first.items()}))
        if not math.isfinite(norm(prepared[-1])):
            raise SliceError(f"node {k} holds NaN or infinity; a curve needs finite nodes.")
    return tuple(prepared)


def _combine(out: list[Tensor], terms: Sequence[tuple[float, list[Tensor]]]) -> None:
    """Write the sum of weight x tensor into ``out``."""
    (weight, tensors), *others = terms
    torch._foreach_copy_(out, tensors)
    if weight != 1.0:
        torch._foreach_mul_(out, weight)
    for weight, tensors in others:
        torch._foreach_add_(out, tensors, alpha=weight)


def _bernstein(degree: int, t: float) -> np.ndarray:
    """Return the Bernstein polynomials of a degree at t, shape (degree + 1,).

    By de Casteljau's recursion, in which nothing cancels: the relative error of each is at most
    some degree x 1e-16.
    """
    weights = np.ones(1)
    for _ in range(degree):
        weights = np.append((1.0 - t) * weights, 0.0) + np.append(0.0, t * weights)
    return weights


def _steps(weights: np.ndarray) -> np.ndarray:
    """Return the steps along the edges, shape (n,): p(t) = p_0 + sum of step x edge."""
    steps: np.ndarray = np.cumsum(weights[::-1])[::-1][1:]
    return steps


def _polyline_minima(gram: np.ndarray, offset: np.ndarray) -> list[float]:
    """Return the local minima in [0, 1] of the squared distance from a polyline, at least one.

    Args:
        gram: Inner products of the edges, shape (n, n).
        offset: Those of the edges with the offset of the point from the first node, shape (n,).
    """
    count = len(offset)
    lengths = gram.diagonal()  # squared
    starts = np.tril(gram, -1).sum(axis=1) - offset  # half the slopes where the segments begin
    ends = starts + lengths  # and where they end
    inner = np.flatnonzero((starts < 0) & (ends > 0))
    nodes = np.flatnonzero(np.append(True, ends <= 0) & np.append(starts >= 0, True))
    minima = [*(inner - starts[inner] / lengths[inner]), *nodes]
    return [min(float(m) / count, 1.0) for m in sorted(minima)]


def _bezier_minima(gram: np.ndarray, offset: np.ndarray) -> list[float]:
    """Return stationary points in [0, 1] of the squared distance, and its minima at the ends.

    Args:
        gram: Inner products of the edges, shape (n, n).
        offset: Those of the edges with the offset of the point from the first node, shape (n,).

    The derivative is expanded in Chebyshev polynomials on [0, 1], where its roots are the
    eigenvalues of the colleague matrix (I. J. Good, *The colleague matrix, a Chebyshev analogue of
    the companion matrix*, Q. J. Math. 1961): powers of t would lose digits. Of a pair of complex
    roots the real part is taken: rounding makes one of a double root.
    """
    count = len(offset)

    def slope(t: float) -> float:
        along = gram @ _steps(_bernstein(count, t)) - offset
        return float(_bernstein(count - 1, t) @ along)

    def slopes(x: Any) -> Any:
        return np.array([slope((v + 1) / 2) for v in x])

    series: Any = chebyshev.chebinterpolate(slopes, 2 * count - 1)
    series = chebyshev.chebtrim(series, tol=1e-15 * float(np.abs(series).max()))
    roots = (np.real(chebyshev.chebroots(series)) + 1) / 2
    minima = [float(t) for t in roots[np.abs(roots - 0.5) <= 0.5 + _SLACK].clip(0.0, 1.0)]
    minima += [0.0] * (slope(0.0) >= 0) + [1.0] * (slope(1.0) <= 0)
    return sorted(minima)
