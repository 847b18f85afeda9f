"""Curvature over a slice: the map of the paper's Figure 7, as a quantity of a scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from torch import Tensor

from landscope.curvature.eigensolver import extremes
from landscope.curvature.hessian import Hessian
from landscope.curvature.lanczos import random_vector
from landscope.errors import NumericsError
from landscope.objective.objective import Objective
from landscope.objective.quantities import Chained
from landscope.params import Params

_OTHERS = 0.3  # length of the random part of a start, beside two unit eigenvectors
_TOLERANCE = 0.01  # what a map can show; the 2018 scripts ask for the same


@final
@dataclass(frozen=True)
class HessianExtremes(Chained):
    """The quantity that :func:`hessian_extremes` returns."""

    select: Any
    kind: Any
    tolerance: float
    samples: int | None
    seed: int

    def follow(
        self, objective: Objective, params: Params, state: Any
    ) -> tuple[dict[str, float], Any]:
        """Return the extremes at a point, from the eigenvectors of a point near by."""
        start = None
        if state is None:
            hessian = Hessian(
                objective, params, select=self.select, kind=self.kind, samples=self.samples,
                seed=self.seed,
            )  # fmt: skip
        else:
            hessian, start = state[0].at(params), state[1]
        try:
            found = extremes(hessian, tolerance=self.tolerance, start=start, seed=self.seed)
        except NumericsError:  # the loss overflows here: a hole in the map, as in the surface
            nothing = dict.fromkeys(("hessian_min", "hessian_max", "convexity"), float("nan"))
            return {**nothing, "hessian_products": float("nan")}, (hessian, None)
        values = {
            "hessian_min": found.smallest,
            "hessian_max": found.largest,
            "convexity": found.convexity,
            "hessian_products": float(found.products),
        }
        return values, (hessian, _around(found.vectors, self.seed))


def _around(vectors: Tensor, seed: int) -> Tensor:
    """Return where to start near these eigenvectors, with something of every other direction.

    What a start lacks is found late or never. Over a 9 x 9 map of a digits network one value was 7%
    off without the random part, and none by more than 2% with it, at as many products.
    """
    other = random_vector(vectors.shape[1], vectors, seed)
    start: Tensor = vectors.sum(dim=0) + _OTHERS * other / other.norm()
    return start


def hessian_extremes(
    *,
    select: Any = None,
    kind: str = "hessian",
    tolerance: float = _TOLERANCE,
    samples: int | None = None,
    seed: int = 0,
) -> HessianExtremes:
    """Return a quantity for ``ls.scan``: the extreme eigenvalues of the Hessian at every point.

    Args:
        select: by which parameters to differentiate; see :class:`Hessian`.
        kind: "hessian", "ggn" or "fisher".
        tolerance: of each eigenvalue, as a share of its size (of a thousandth of the largest
            where that is more).
        samples: of the data, drawn once; all if None.
        seed: of the first vector and of the draw.

    Returns:
        Columns ``hessian_min``, ``hessian_max``, ``convexity`` = |min / max| (the paper's ratio:
        near 0 where what bends downwards is small beside what bends upwards; ``hessian_min``
        tells whether anything bends downwards at all) and ``hessian_products``, what it cost.

    Cost: 12 to 20 products a point on digits networks, each a backward pass or two over the data.
    A point starts from the eigenvectors of its neighbor (see :mod:`landscope.engines.chains`).

    Source: Li et al. 2018, arXiv 1712.09913, section 6 and Figure 7.

    Example:
        >>> import torch, landscope as ls
        >>> data = torch.randn(20, 4), torch.randint(3, (20,))
        >>> objective = ls.Objective(torch.nn.Linear(4, 3), torch.nn.CrossEntropyLoss(), data)
        >>> line = ls.Line(objective.center, ls.directions.random(objective.center, 1)[0])
        >>> extremes = ls.curvature.hessian_extremes()
        >>> land = ls.scan(objective, line, ls.Grid(3), quantities=(extremes,))
        >>> bool((land.data["hessian_min"] <= land.data["hessian_max"]).all())
        True
    """
    return HessianExtremes(select, kind, tolerance, samples, seed)
