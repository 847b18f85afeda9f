"""Slices from options: the line, plane or volume that a request describes."""

from __future__ import annotations

from pathlib import Path

from landscope.cli import report, run_folder
from landscope.cli.scan_request import ScanRequest
from landscope.errors import SliceError
from landscope.formats import checkpoint, reference_h5
from landscope.objective.objective import Objective
from landscope.params import Params, like
from landscope.slices import directions, seeded_directions
from landscope.slices.slices import Affine, Direction, Line, Plane, Volume

_LABELS = {  # short, because they label axes; filter normalization is the default
    "filter": "random direction",
    "layer": "layer-normalized direction",
    "weight": "weight-scaled direction",
    "dfilter": "direction, filters of norm 1,",
    "dlayer": "direction, layers of norm 1,",
    "none": "unscaled direction",
}
_Labeled = tuple[Direction, str]


def make_slice(request: ScanRequest, objective: Objective) -> Affine:
    """Return the Line, Plane or Volume of a request, with an axis for each of its spans.

    Raises:
        SliceError: When more directions are given than there are axes.
        FormatError: When a file does not fit the model.
    """
    count = len(request.spans)
    moved = request.over or ("states" if request.toward else "parameters")
    center = objective.states if moved == "states" else objective.center
    labeled = [*_toward_models(request, center), *_read_directions(request, center)]
    if len(labeled) > count:
        raise SliceError(
            f"{len(labeled)} directions are given for {count} axes: add --y (and --z), or give"
            " fewer directions."
        )
    if request.same:
        labeled = (labeled or _random_directions(request, objective, center, 1))[:1] * count
    elif len(labeled) < count:
        labeled += _random_directions(request, objective, center, count)[len(labeled) :]
    labels = tuple(f"{label} {dim}" for (_, label), dim in zip(labeled, "xyz", strict=False))
    along = [direction for direction, _ in labeled]
    if count == 1:
        return Line(center, *along, labels=labels)
    kind = (Plane, Volume)[count - 2]
    return kind(center, *along, labels=labels, dependent=request.same or bool(request.directions))


def _random_directions(
    request: ScanRequest, objective: Objective, center: Params, count: int
) -> list[_Labeled]:
    """Return random directions, which are drawn again from the seed where memory is short."""
    draw = seeded_directions.seeded if objective.problem.in_place else directions.random
    drawn = draw(
        center, count, normalize=None if request.normalize == "none" else request.normalize,
        ignore=None if request.ignore == "none" else request.ignore,
        orthogonal=request.orthogonal, select=list(request.select) or None, seed=request.seed,
    )  # fmt: skip
    return [(direction, _LABELS[request.normalize]) for direction in drawn]


def _toward_models(request: ScanRequest, center: Params) -> list[_Labeled]:
    return [(_point_at(path, center), f"towards {path.name},") for path in request.toward]


def _point_at(path: Path, center: Params) -> Params:
    direction = directions.between(center, _read_weights(path, center))
    return direction.record_origin(**direction.origin, file=path.name)


def _read_directions(request: ScanRequest, center: Params) -> list[_Labeled]:
    path = request.directions
    if path is None:
        return []
    is_run = path.is_dir()
    read = run_folder.read_directions if is_run else reference_h5.read_directions
    known = read(path, center)
    for direction in known:
        if isinstance(direction, Params) and direction.origin.get("kind", "vector") == "vector":
            direction.record_origin(kind="file", file=path.name)
    return [(direction, f"direction of {path.name},") for direction in known]


def _read_weights(path: Path, center: Params) -> Params:
    """Return the tensors of a checkpoint that the center names."""
    state, notes = checkpoint.select(center, path)
    for note in notes:
        report.print_warning(f"{path.name}: {note}")
    return like(center, {n: state[n].to(t) for n, t in center.items()})
