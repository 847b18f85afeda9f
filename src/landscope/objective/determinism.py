"""Determinism: before a scan the center is evaluated twice."""

from __future__ import annotations

import math

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from landscope.errors import DeterminismError
from landscope.objective.problem import Problem

_DROPOUTS = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)


def check_determinism(problem: Problem) -> list[str]:
    """Check that two evaluations of the center give the same values.

    Returns:
        The notes of the session on the model and the loss.

    Raises:
        DeterminismError: When the values differ; the message names the suspects.
    """
    with problem.session() as session:
        first, second = session.evaluate(None), session.evaluate(None)
    for name, value in first.items():
        repeated = second[name]
        if value != repeated and not (math.isnan(value) and math.isnan(repeated)):
            raise DeterminismError(
                f"{name} at the center was {value!r} and then {repeated!r}: a surface of a random"
                f" function means nothing. {_describe_suspects(problem)}"
            )
    return list(dict.fromkeys(session.notes))


def _describe_suspects(problem: Problem) -> str:
    """Return a sentence that names what may have used random numbers."""
    training = [(n, m) for n, m in problem.model.named_modules() if m.training]
    suspects = [
        f"dropout in training mode ({n or 'the model'})"
        for n, m in training
        if isinstance(m, _DROPOUTS)
    ][:1]
    suspects += [
        f"batch norm in training mode ({n or 'the model'})"
        for n, m in training
        if isinstance(m, _NormBase)
    ][:1]
    if problem.streamed:
        suspects.append("streamed data that change from pass to pass (shuffling, augmentation)")
    if not suspects:
        suspects.append("random numbers in the model or the loss, or nondeterministic kernels")
    return (
        f"Suspects: {'; '.join(suspects)}. Call model.eval(), fix the seed of the random"
        " numbers, or cache the data with cache=True."
    )
