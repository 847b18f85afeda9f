"""Measurements of curvature as they are read back from a run, to be drawn again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscope.cli.opened_run import CURVATURE, WHOLE
from landscope.errors import FormatError

if TYPE_CHECKING:
    import numpy as np

    from landscope.analysis.representative_planes import Representativeness
    from landscope.curvature.spectral_density import Spectrum

_ARRAYS = ("nodes", "weights", "outliers", "grid", "density", "origin")  # of a spectrum


def record_spectrum(spectrum: Spectrum) -> dict[str, Any]:
    """Return a spectrum in plain values."""
    arrays = {name: getattr(spectrum, name).tolist() for name in _ARRAYS}
    return {**arrays, "width": spectrum.width, "size": spectrum.size, "products": spectrum.products}


def read_spectrum(run: Path) -> Spectrum:
    """Return the spectrum of a run of ``landscope curvature``.

    Raises:
        FormatError: When the file is damaged, or of version 0.1, which kept no density.
    """
    from landscope.curvature.spectral_density import Spectrum

    values = _read(run / CURVATURE)["spectrum"]
    missing = [name for name in _ARRAYS if name not in values]
    if missing:
        raise FormatError(
            f"{run / CURVATURE} was written by version 0.1 and has no {missing[0]}: repeat its"
            " landscope curvature to draw it again; spectrum.png is in the folder."
        )
    fields: dict[str, Any] = {n: _as_array(v) if n in _ARRAYS else v for n, v in values.items()}
    return Spectrum(**fields)


def read_profiles(run: Path) -> Representativeness:
    """Return what pictures show of a run of ``landscope whole``.

    The curvatures along single directions are not recorded; they are NaN.

    Raises:
        FormatError: When the file is damaged.
    """
    import numpy as np
    import torch

    from landscope.analysis.representative_planes import Representativeness
    from landscope.curvature.eigensolver import Extremes

    values = _read(run / WHOLE)
    try:
        ends = [[values["hessian_min"], values["hessian_max"]],
                [values["hessian_min_residual"], values["hessian_max_residual"]]]  # fmt: skip
        value, residual = (torch.tensor(pair, dtype=torch.float64) for pair in ends)
        extremes = Extremes(value, torch.zeros(2), residual, (), converged=True, products=0)
        names = ("distances", "random", "sharpest", "steepest", "initialization")
        arrays: dict[str, Any] = {
            n: None if values[n] is None else _as_array(values[n]) for n in names
        }
        unknown = np.full(len(values["random"]), np.nan)
        return Representativeness(
            **arrays, initialization_at=values["initialization_distance"], curvatures=unknown,
            plane_smallest=unknown, extremes=extremes, loss=values["loss"], unit=values["unit"],
            size=values["parameters"],
        )  # fmt: skip
    except (KeyError, TypeError) as error:
        raise FormatError(f"{run / WHOLE} is damaged ({error}): repeat the command.") from error


def _as_array(values: Any) -> np.ndarray:
    """Return nested lists as float64, null as NaN."""
    import numpy as np

    return np.array(values, dtype=np.float64)


def _read(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text()))
    except (ValueError, TypeError, OSError) as error:
        raise FormatError(f"{file} is damaged ({error}): repeat the command.") from error
