"""Recipes: which line, plane or volume a command asks for, in words that fit in run.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from landscope.cli import run_folder
from landscope.errors import FormatError, SliceError
from landscope.formats import checkpoint, reference_h5
from landscope.objective.objective import Objective
from landscope.params import Params, like
from landscope.slices import directions, seeded_directions
from landscope.slices.normalization import Ignore, Normalize
from landscope.slices.slices import Affine, Direction, Line, Plane, Volume

_LABELS = {  # short, for they stand on axes; filter normalization is the rule
    "filter": "random direction",
    "layer": "layer-normalized direction",
    "weight": "weight-scaled direction",
    "dfilter": "direction, filters of norm 1,",
    "dlayer": "direction, layers of norm 1,",
    None: "unscaled direction",
}


@dataclass(frozen=True)
class Recipe:
    """How to make a slice around an objective's center.

    Args:
        toward: checkpoints of other models: coordinate 1 of the first axes is there.
        kept: a run's folder, or a direction file of the 2018 scripts, to take directions from.
        same: the direction of x for all axes.
        over: what moves: "parameters", "states" (batch-norm statistics as well), or None: states
            where there are other models to go to, for a solution is not complete without them.
        normalize: of random directions.
        ignore: of random directions.
        orthogonal: of random directions.
        select: name patterns of the parameters that random directions move; all if empty.
        seed: of random directions.
    """

    toward: tuple[Path, ...] = ()
    kept: Path | None = None
    same: bool = False
    over: str | None = None
    normalize: Normalize | None = "filter"
    ignore: Ignore | None = "biasbn"
    orthogonal: bool = True
    select: tuple[str, ...] = ()
    seed: int = 0

    def slice(self, objective: Objective, count: int) -> Affine:
        """Return the Line, Plane or Volume with ``count`` axes.

        Raises:
            SliceError: when it names more directions than there are axes.
            FormatError: when a file does not fit the model.
        """
        over = self.over or ("states" if self.toward else "parameters")
        center = objective.states if over == "states" else objective.center
        named = [*self._toward(center), *self._kept(center)]
        if len(named) > count:
            raise SliceError(
                f"{len(named)} directions are given for {count} axes: add --y (and --z), or give"
                " fewer directions."
            )
        if self.same and not named:
            named = self._random(objective, center, 1)
        if self.same:
            named = [named[0]] * count
        elif len(named) < count:
            named += self._random(objective, center, count)[len(named) :]
        labels = tuple(f"{label} {dim}" for (_, label), dim in zip(named, "xyz", strict=False))
        found = [direction for direction, _ in named]
        return (Line, Plane, Volume)[count - 1](center, *found, labels=labels)

    def _random(
        self, objective: Objective, center: Params, count: int
    ) -> list[tuple[Direction, str]]:
        """Return random directions: drawn again from the seed where memory is short."""
        asked: dict[str, Any] = {
            "normalize": self.normalize, "ignore": self.ignore, "orthogonal": self.orthogonal,
            "select": list(self.select) or None, "seed": self.seed,
        }  # fmt: skip
        make = seeded_directions.seeded if objective.problem.in_place else directions.random
        return [(direction, _LABELS[self.normalize]) for direction in make(center, count, **asked)]

    def _toward(self, center: Params) -> list[tuple[Direction, str]]:
        return [(directions.between(center, _weights(p, center)), f"towards {p.name},")
                for p in self.toward]  # fmt: skip

    def _kept(self, center: Params) -> list[tuple[Direction, str]]:
        if self.kept is None:
            return []
        found = (
            run_folder.directions(self.kept, center)
            if self.kept.is_dir()
            else reference_h5.read_directions(self.kept, center)
        )
        return [(direction, f"direction of {self.kept.name},") for direction in found]


def _weights(path: Path, center: Params) -> Params:
    """Return the tensors of a checkpoint that the center names."""
    state = checkpoint.read(path)
    missing = next((n for n in center if n not in state), None)
    if missing is not None:
        raise FormatError(f"{path} has no {missing!r}: it is of another network than the center.")
    odd = next((n for n, t in center.items() if state[n].shape != t.shape), None)
    if odd is not None:
        raise FormatError(
            f"{path}: {odd!r} has the shape {tuple(state[odd].shape)}; expected"
            f" {tuple(center[odd].shape)}: it is of another network than the center."
        )
    return like(center, {n: state[n].to(t) for n, t in center.items()})
