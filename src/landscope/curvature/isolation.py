"""What every curvature matrix needs: an objective that permits it, and a model of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from landscope.errors import ObjectiveError, ParamsError
from landscope.objective.objective import Objective
from landscope.objective.problem import Problem


@contextlib.contextmanager
def isolate(objective: Objective) -> Iterator[None]:
    """Leave global state as it is, and differentiate in whichever mode the caller is."""
    with (
        objective.problem.isolation(),
        torch.inference_mode(mode=False),
        torch.enable_grad(),
    ):
        yield


def clone(objective: Objective) -> Problem:
    """Return the problem with a model of its own, which may stay at a point."""
    try:
        return objective.problem.clone()
    except Exception as error:  # a user's model may raise anything when it is copied
        raise ObjectiveError(
            f"the model cannot be copied ({type(error).__name__}: {error}), which curvature needs"
            " so that yours stays as it is: keep computed tensors, locks and open files out of its"
            " attributes."
        ) from error


def check_objective(objective: Any) -> None:
    """Check that curvature can be computed of an objective.

    Raises:
        ObjectiveError: When it is none, of weighted samples, or in bfloat16.
    """
    if not isinstance(objective, Objective):
        raise ObjectiveError(
            f"objective is a {type(objective).__name__}; expected an ls.Objective(model, loss,"
            " data)."
        )
    if objective.problem.weights is not None:
        raise ObjectiveError(
            "curvature cannot be computed of a calibrated subset (samples=Calibrated(...)): leave"
            " it out, or give the quantity samples of its own, such as"
            " hessian_extremes(samples=600)."
        )
    if objective.problem.precision == "bfloat16":
        raise ObjectiveError(
            "precision='bfloat16' has too few digits for second derivatives: make the objective"
            " with precision='float32' or 'float64'."
        )


def report_misfit(v: Any, expected: str) -> ParamsError:
    """Return the error of a vector that does not fit a matrix."""
    shape = tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__
    return ParamsError(
        f"v is {shape}; expected Params or {expected}: one entry for each parameter by which the"
        " operator differentiates."
    )
