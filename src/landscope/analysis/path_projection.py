"""A path of training on a slice: where each checkpoint lies, and how far off the slice it is.

A contour shows losses on the slice, and a network in training is never on it: its loss stands
beside that of its projection, and its distance beside both. Nobody need read a height off the
contour that the network never had.

Source: Li, Xu, Taylor, Studer, Goldstein, NeurIPS 2018, arXiv 1712.09913, section 7.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch

from landscope import _version, fingerprint
from landscope.analysis.training_path import TrainingPath
from landscope.errors import ParamsError, SliceError
from landscope.objective.evaluation import Session
from landscope.objective.objective import Objective
from landscope.params import Params, check_like, dot, like, norm, states
from landscope.progress import Clock, Report, open_report
from landscope.slices.slices import Affine, Plane
from landscope.training.principal_components import PCA
from landscope.training.trajectory import Checkpoint, Trajectory

if TYPE_CHECKING:
    import xarray as xr

Method = Literal["lstsq", "cos"]

_STATISTICS = ("running_mean", "running_var")


def project(
    trajectory: Trajectory,
    slice: Affine,  # noqa: A002 - the field's word, and that of ls.scan
    objective: Objective | None = None,
    *,
    method: Method = "lstsq",
    progress: Report | bool | None = None,
) -> TrainingPath:
    """Return where the checkpoints of a trajectory lie on a slice, and how far off it.

    With the directions as columns of D, the coordinates of theta are those of the nearest point,
    argmin |center + D c - theta|.

    The two losses. "loss" is what the network had: the checkpoint's parameters with the buffers
    that were recorded with them. "projected_loss" is what the surface shows there: a point of the
    slice, evaluated as ``ls.scan`` does it, that is with the objective's own buffers where the
    slice does not move them. An objective with ``buffers="recompute"`` computes batch-norm
    statistics anew for both. The attribute "buffers" tells which ones the first loss had.

    Args:
        trajectory: of the same network.
        slice: a Line, a Plane or a Volume, over ``objective.center`` or ``objective.states``.
        objective: to evaluate; without one there are no losses.
        method: "lstsq", or "cos": the length of the projection along each direction by itself, as
            the 2018 scripts offer it: the same where directions are orthonormal, and wrong by
            their length and the angle between them where they are not.
        progress: A function that is called after each checkpoint with an ``ls.Progress``; True
            shows a bar.

    Raises:
        ParamsError: when the checkpoints lack a parameter of the slice, or have one that neither
            the slice nor the objective's model has.
        SliceError: for an unknown method, a slice without directions, or what is no trajectory.

    Cost: a few passes over the parameters and two over the data a checkpoint. One checkpoint is in
    memory at a time, beside the slice.

    Source: Li et al. 2018, arXiv 1712.09913, section 7.

    Example:
        >>> import tempfile, torch, landscope as ls
        >>> data = torch.randn(20, 4), torch.randint(3, (20,))
        >>> model, folder = torch.nn.Linear(4, 3), tempfile.mkdtemp()
        >>> with ls.Recorder(folder, every=1) as recorder:
        ...     for step in range(5):
        ...         _ = torch.nn.init.normal_(model.weight)
        ...         _ = recorder(model, step=step)
        >>> objective = ls.Objective(model, torch.nn.CrossEntropyLoss(), data)
        >>> trajectory = ls.Trajectory.open(folder)
        >>> plane = ls.paths.plane(ls.directions.pca(trajectory))
        >>> path = ls.paths.project(trajectory, plane, objective)
        >>> path.data["loss"].shape
        (5,)
    """
    if not isinstance(slice, Affine):
        raise SliceError(
            f"slice is a {type(slice).__name__}; a path is seen on a Line, a Plane or a Volume."
        )
    if method not in get_args(Method):
        raise SliceError(f"method={method!r}; expected 'lstsq' or 'cos'.")
    if not isinstance(trajectory, Trajectory):
        raise SliceError(
            f"trajectory is a {type(trajectory).__name__}; expected ls.Trajectory.open(folder)."
        )
    places, values = [], []
    clock, title = Clock(0, len(trajectory)), f"path of {trajectory.name}"
    with (
        open_report(progress, title, "checkpoints") as report,
        contextlib.ExitStack() as stack,
    ):
        session = None if objective is None else stack.enter_context(objective.problem.session())
        for k, checkpoint in enumerate(trajectory):
            known = checkpoint.states()
            point = _point(known, checkpoint, slice)
            places.append(_place(slice, point, method))
            if session is not None:
                values.append(_values(session, slice, places[-1], known))
            report(clock.progress(k + 1, {}))
    data = _dataset(slice, trajectory, places, values, objective)
    if objective is not None:
        data.attrs["buffers"] = _buffers(objective, trajectory)
    return TrainingPath(data.assign_attrs(method=method))


def plane(pca: PCA, objective: Objective | None = None) -> Plane:
    """Return the plane of the first two principal components, through their center.

    Args:
        pca: of ``ls.directions.pca``, with two components or more.
        objective: what will be evaluated: the plane is put on its device.

    Raises:
        SliceError: when there is one component only, or no PCA.
    """
    if not isinstance(pca, PCA):
        raise SliceError(
            f"pca is a {type(pca).__name__}; expected what ls.directions.pca(trajectory) returns."
        )
    if len(pca.directions) < 2:
        raise SliceError("pca has one component; a plane wants two: ls.directions.pca(..., 2).")
    device = torch.device("cpu") if objective is None else objective.device
    center, dx, dy = (
        like(part, {name: tensor.to(device) for name, tensor in part.items()})
        for part in (pca.center, *pca.directions[:2])
    )
    return Plane(center, dx, dy, labels=pca.labels[:2])


def identity(slice_: Affine) -> str:
    """Return a text that differs when slices differ: that of ``land.data``'s fingerprints."""
    parts = {role: fingerprint.of_tensors(part) for role, part in slice_.parts.items()}
    return f"{type(slice_).__name__} {json.dumps(parts)}"


def _point(known: Params, checkpoint: Checkpoint, slice_: Affine) -> Params:
    """Return the tensors of a checkpoint that a slice moves.

    Raises:
        ParamsError: when one is missing, or a parameter is left that the slice does not move.
    """
    found = {name: known[name] for name in slice_.center if name in known}
    try:
        check_like(found, slice_.center, str(checkpoint.path))
    except ParamsError as error:
        raise ParamsError(
            f"{error} The slice and the trajectory are of two networks, or the slice is over"
            " objective.states and the buffers were not recorded."
        ) from error
    extra = next((name for name in checkpoint.parameters(known) if name not in found), None)
    if extra is not None:
        raise ParamsError(
            f"{checkpoint.path} has the parameter {extra!r}, which the slice has not, so a distance"
            " would leave it out: take a slice over all parameters; or, where it is a buffer, name"
            " the parameters with ls.Trajectory.open(folder, like=objective.center)."
        )
    return like(slice_.center, found)


@dataclass(frozen=True)
class _Place:
    """Where a checkpoint lies."""

    coordinates: tuple[float, ...]
    distance: float  # to the point with these coordinates
    relative: float  # as a share of the distance to the center


def _place(slice_: Affine, point: Params, method: Method) -> _Place:
    offset = {
        name: point[name].to(tensor.device).double() - tensor.double()
        for name, tensor in slice_.center.items()
        if tensor.is_floating_point()
    }
    far = norm(offset)
    if method == "lstsq":
        coordinates, distance = slice_.project(point)
    else:
        moving = [{name: d[name] for name in offset} for d in slice_.directions]
        lengths = [norm(d) for d in moving]
        coordinates = tuple(
            dot(offset, d) / length if length else 0.0
            for d, length in zip(moving, lengths, strict=True)
        )
        for step, d in zip(coordinates, moving, strict=True):
            for name, tensor in offset.items():
                tensor.sub_(d[name].double(), alpha=step)
        distance = norm(offset)
    return _Place(coordinates, distance, distance / far if far else 0.0)


def _values(session: Session, slice_: Affine, place: _Place, known: Params) -> dict[str, float]:
    """Return loss and metrics at a checkpoint and at its projection."""
    given = known
    if session.recompute:
        left = {n: t for n, t in known.items() if n.rpartition(".")[2] not in _STATISTICS}
        given = like(known, left)
    there, projected = session.values(given), session.values(slice_.at(place.coordinates))
    return {
        **{_name(n): value for n, value in there.items()},
        **{f"projected_{_name(n)}": value for n, value in projected.items()},
    }


def _name(quantity: str) -> str:
    """Return the name of a quantity in a path, where the loss that was trained is the loss."""
    return "loss" if quantity == "train_loss" else quantity


def _dataset(
    slice_: Affine,
    trajectory: Trajectory,
    places: Sequence[_Place],
    values: Sequence[Mapping[str, float]],
    objective: Objective | None,
) -> xr.Dataset:
    import xarray as xr

    labels = dict(zip(slice_.dims, slice_.labels, strict=False))
    columns: dict[str, tuple[list[float], str, str]] = {
        dim: ([place.coordinates[k] for place in places], "1", labels.get(dim, f"direction {dim}"))
        for k, dim in enumerate(slice_.dims)
    }
    columns["distance"] = [p.distance for p in places], "1", "distance off the slice"
    columns["relative_distance"] = (
        [p.relative for p in places], "1", "distance off the slice, as a share of that from the"
        " center")  # fmt: skip
    for name, long_name in (("step", "step of training"), ("epoch", "epoch"),
                            ("learning_rate", "learning rate")):  # fmt: skip
        noted = [getattr(checkpoint, name) for checkpoint in trajectory]
        columns[name] = [math.nan if v is None else float(v) for v in noted], "1", long_name
    if objective is not None:
        units = {"loss": objective.problem.loss.units}
        units |= {name: metric.units for name, metric in objective.problem.metrics.items()}
        for name in values[0]:
            columns[name] = [v[name] for v in values], *_described(name, units)
    attributes = {
        "title": trajectory.name,
        "folder": str(trajectory.folder),
        "slice": identity(slice_),
        "made_with": f"landscope {_version.__version__}",
    }
    return xr.Dataset(
        {
            name: ("checkpoint", np.array(column), {"units": unit, "long_name": text})
            for name, (column, unit, text) in columns.items()
        },
        attrs=attributes,
    )


def _described(name: str, units: Mapping[str, str]) -> tuple[str, str]:
    """Return the unit of a quantity, and what it is in words."""
    plain = name.removeprefix("projected_")
    kind = plain.removeprefix("train_").removeprefix("test_")
    where = "its projection" if name != plain else "the checkpoint"
    return units.get(kind, ""), f"{plain.replace('_', ' ')} at {where}"


def _buffers(objective: Objective, trajectory: Trajectory) -> str:
    """Return, in words, with which buffers the loss at a checkpoint was computed."""
    own = states(objective.model)
    buffers = {name for name, _ in objective.model.named_buffers() if name in own}
    if objective.problem.buffers == "recompute":
        return "recomputed"
    if not buffers:
        return "none"
    return "of the checkpoint" if buffers <= set(trajectory[-1].states()) else "of the objective"
