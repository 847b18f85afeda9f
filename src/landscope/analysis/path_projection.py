"""The projection of a training path onto a slice: coordinates, distances to the slice, losses.

A contour shows the loss on the slice, and a network in training is never exactly on it. So the loss
of each checkpoint is given together with the loss of its projection, and with its distance; no
height of the contour is mistaken for a loss that the network had.

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
from landscope.scanning.description import axis_attributes, list_units
from landscope.slices.slices import Affine, Plane
from landscope.training.principal_components import PCA
from landscope.training.trajectory import Checkpoint, Trajectory

if TYPE_CHECKING:
    import xarray as xr

    Variable = tuple[str, np.ndarray, dict[str, str]]  # dimension, values, attributes

Method = Literal["lstsq", "cos"]

_STATISTICS = ("running_mean", "running_var")
_RECORDED = {"step": "step of training", "epoch": "epoch", "learning_rate": "learning rate"}


def project(
    trajectory: Trajectory,
    slice: Affine,  # noqa: A002 - the field's word, and that of ls.scan
    objective: Objective | None = None,
    *,
    method: Method = "lstsq",
    progress: Report | bool | None = None,
) -> TrainingPath:
    """Return where the checkpoints of a trajectory lie on a slice, and how far off it.

    The coordinates of a checkpoint theta are those of the nearest point of the slice:

        argmin_c |center + D c - theta|,  with the directions as the columns of D

    Two losses are computed. "loss" is the loss that the network had: that of the checkpoint's
    parameters with the buffers that were recorded with them. "projected_loss" is the height of the
    surface: that of a point of the slice as ``ls.scan`` evaluates it, with the objective's own
    buffers unless the slice moves them. An objective with ``buffers="recompute"`` computes the
    batch-norm statistics anew for both. The attribute "buffers" names the buffers of the first
    loss.

    Args:
        trajectory: A trajectory of the same network.
        slice: A Line, a Plane or a Volume, over ``objective.center`` or ``objective.states``.
        objective: The objective to evaluate; without one there are no losses.
        method: "lstsq", or "cos" as in the 2018 scripts: the length of the projection onto each
            direction by itself. The two agree for orthonormal directions; otherwise "cos" is wrong,
            because it ignores that directions have lengths other than 1 and overlap.
        progress: A function that is called after each checkpoint with an ``ls.Progress``; True
            shows a bar.

    Raises:
        ParamsError: When the checkpoints lack a parameter of the slice, or have one that neither
            the slice nor the objective's model has.
        SliceError: When the method is unknown, the slice has no directions, or ``trajectory`` is
            not a Trajectory.

    Cost: for each checkpoint, a few passes over the parameters and two over the data. One
    checkpoint is in memory at a time, in addition to the slice.

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
    _check_arguments(trajectory, slice, method)
    placements, values = [], []
    clock, title = Clock(0, len(trajectory)), f"path of {trajectory.name}"
    with (
        open_report(progress, title, "checkpoints") as report,
        contextlib.ExitStack() as stack,
    ):
        session = None if objective is None else stack.enter_context(objective.problem.session())
        for k, checkpoint in enumerate(trajectory):
            recorded = checkpoint.states()
            point = _select_point(recorded, checkpoint, slice)
            placements.append(_locate(slice, point, method))
            if session is not None:
                values.append(_evaluate(session, slice, placements[-1], recorded))
            report(clock.progress(k + 1, {}))
    data = _dataset(slice, trajectory, placements)
    if objective is not None:
        data = data.assign(_loss_variables(objective, values))
        data.attrs["buffers"] = _describe_buffers(objective, trajectory)
    return TrainingPath(data.assign_attrs(method=method))


def plane(pca: PCA, objective: Objective | None = None) -> Plane:
    """Return the plane of the first two principal components, through their center.

    Args:
        pca: The result of ``ls.directions.pca``, with two components or more.
        objective: The objective that will be evaluated; the plane is put on its device.

    Raises:
        SliceError: When there is only one component, or ``pca`` is not a PCA.
    """
    if not isinstance(pca, PCA):
        raise SliceError(
            f"pca is a {type(pca).__name__}; expected what ls.directions.pca(trajectory) returns."
        )
    if len(pca.directions) < 2:
        raise SliceError("pca has one component; a plane needs two: ls.directions.pca(..., 2).")
    device = torch.device("cpu") if objective is None else objective.device
    center, dx, dy = (
        like(part, {name: tensor.to(device) for name, tensor in part.items()})
        for part in (pca.center, *pca.directions[:2])
    )
    for k, direction in enumerate((dx, dy)):
        direction.record_origin(
            kind="principal component", index=k, checkpoints=pca.checkpoints, ignore=pca.ignore
        )
    return Plane(center, dx, dy, labels=pca.labels[:2])


def fingerprint_slice(slice_: Affine) -> str:
    """Return a text that differs when slices differ, as in the provenance of a landscape."""
    parts = {role: fingerprint.of_tensors(part) for role, part in slice_.parts.items()}
    return f"{type(slice_).__name__} {json.dumps(parts)}"


def _check_arguments(trajectory: Trajectory, slice_: Affine, method: str) -> None:
    if not isinstance(slice_, Affine):
        raise SliceError(
            f"slice is a {type(slice_).__name__}; expected a Line, a Plane or a Volume, onto which"
            " checkpoints can be projected."
        )
    if method not in get_args(Method):
        raise SliceError(f"method={method!r}; expected 'lstsq' or 'cos'.")
    if not isinstance(trajectory, Trajectory):
        raise SliceError(
            f"trajectory is a {type(trajectory).__name__}; expected ls.Trajectory.open(folder)."
        )


def _select_point(recorded: Params, checkpoint: Checkpoint, slice_: Affine) -> Params:
    """Return the tensors of a checkpoint that a slice moves.

    Raises:
        ParamsError: When one is missing, or the slice does not move a parameter.
    """
    moved = {name: recorded[name] for name in slice_.center if name in recorded}
    try:
        check_like(moved, slice_.center, str(checkpoint.path))
    except ParamsError as error:
        raise ParamsError(
            f"{error} The slice and the trajectory are of different networks, or the slice is over"
            " objective.states and the buffers were not recorded."
        ) from error
    extra = next(
        (name for name in checkpoint.select_parameters(recorded) if name not in moved), None
    )
    if extra is not None:
        raise ParamsError(
            f"{checkpoint.path} has the parameter {extra!r}, which the slice does not have, so a"
            " distance would leave it out: use a slice over all parameters; or, where it is a"
            " buffer, name the parameters with ls.Trajectory.open(folder, like=objective.center)."
        )
    return like(slice_.center, moved)


@dataclass(frozen=True)
class _Placement:
    """Where a checkpoint lies."""

    coordinates: tuple[float, ...]
    distance: float  # from the checkpoint to the point with these coordinates
    relative_distance: float  # the same, divided by the distance to the center


def _locate(slice_: Affine, point: Params, method: Method) -> _Placement:
    offset = {
        name: point[name].to(tensor.device).double() - tensor.double()
        for name, tensor in slice_.center.items()
        if tensor.is_floating_point()
    }
    from_center = norm(offset)
    if method == "lstsq":
        coordinates, distance = slice_.project(point)
    else:
        coordinates, distance = _project_each(offset, slice_)
    return _Placement(coordinates, distance, distance / from_center if from_center else 0.0)


def _project_each(
    offset: dict[str, torch.Tensor], slice_: Affine
) -> tuple[tuple[float, ...], float]:
    """Return the lengths along each direction by itself, and the distance to their sum.

    Args:
        offset: The vector from the center to the point; it is changed in place.
        slice_: The slice.
    """
    directions = [{name: d[name] for name in offset} for d in slice_.directions]
    lengths = [norm(d) for d in directions]
    coordinates = tuple(
        dot(offset, d) / length if length else 0.0
        for d, length in zip(directions, lengths, strict=True)
    )
    for coordinate, d in zip(coordinates, directions, strict=True):
        for name, tensor in offset.items():
            tensor.sub_(d[name].double(), alpha=coordinate)
    return coordinates, norm(offset)


def _evaluate(
    session: Session, slice_: Affine, placement: _Placement, recorded: Params
) -> dict[str, float]:
    """Return loss and metrics at a checkpoint and at its projection."""
    params = recorded
    if session.recompute:
        kept = {n: t for n, t in params.items() if n.rpartition(".")[2] not in _STATISTICS}
        params = like(recorded, kept)
    at_checkpoint = session.evaluate(params)
    at_projection = session.evaluate(slice_.at(placement.coordinates))
    return {
        **{_name_in_path(n): value for n, value in at_checkpoint.items()},
        **{f"projected_{_name_in_path(n)}": value for n, value in at_projection.items()},
    }


def _name_in_path(quantity: str) -> str:
    """Return the name of a quantity in a path, where the training loss is "the" loss."""
    return "loss" if quantity == "train_loss" else quantity


def _dataset(
    slice_: Affine, trajectory: Trajectory, placements: Sequence[_Placement]
) -> xr.Dataset:
    """Return coordinates, distances, and what was recorded with the checkpoints."""
    import xarray as xr

    variables = {
        dim: _variable([p.coordinates[k] for p in placements], **axis_attributes(slice_, dim))
        for k, dim in enumerate(slice_.dims)
    }
    variables["distance"] = _variable(
        [p.distance for p in placements], long_name="distance off the slice"
    )
    variables["relative_distance"] = _variable(
        [p.relative_distance for p in placements],
        long_name="distance off the slice, as a share of that from the center",
    )
    for name, long_name in _RECORDED.items():
        recorded = [getattr(checkpoint, name) for checkpoint in trajectory]
        numbers = [math.nan if v is None else float(v) for v in recorded]
        variables[name] = _variable(numbers, long_name=long_name)
    attributes = {
        "title": trajectory.name,
        "folder": str(trajectory.folder),
        "slice": fingerprint_slice(slice_),
        "made_with": f"landscope {_version.__version__}",
    }
    return xr.Dataset(variables, attrs=attributes)


def _variable(values: Sequence[float], *, long_name: str, units: str = "1") -> Variable:
    return "checkpoint", np.array(values), {"units": units, "long_name": long_name}


def _loss_variables(
    objective: Objective, values: Sequence[Mapping[str, float]]
) -> dict[str, Variable]:
    """Return loss and metrics at the checkpoints and at their projections, with their units."""
    units = list_units(objective.problem)
    variables = {}
    for name in values[0]:
        quantity = name.removeprefix("projected_")
        place = "the checkpoint" if name == quantity else "its projection"
        kind = quantity.removeprefix("train_").removeprefix("test_")
        variables[name] = _variable(
            [value[name] for value in values],
            long_name=f"{quantity.replace('_', ' ')} at {place}",
            units=units.get(kind, ""),
        )
    return variables


def _describe_buffers(objective: Objective, trajectory: Trajectory) -> str:
    """Return, in words, with which buffers the loss at a checkpoint was computed."""
    floating = states(objective.model)
    buffers = {name for name, _ in objective.model.named_buffers() if name in floating}
    if objective.problem.buffers == "recompute":
        return "recomputed"
    if not buffers:
        return "none"
    return "of the checkpoint" if buffers <= set(trajectory[-1].states()) else "of the objective"
