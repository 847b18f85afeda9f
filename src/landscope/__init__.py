"""landscope: see and measure the loss landscape of any PyTorch model.

The public names, and nothing else; each is loaded on first use, so that ``import landscope`` and
``landscope --help`` are quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from landscope import _version

if TYPE_CHECKING:
    from landscope import (
        directions,
        draw,
        engines,
        errors,
        formats,
        integrations,
        losses,
        params,
        zoo,
    )
    from landscope.adaptive import Adaptive
    from landscope.analysis import curvature, trajectory
    from landscope.analysis.averages import loss_stderr, neighborhood_average
    from landscope.analysis.ensembles import ensemble
    from landscope.analysis.whole import representativeness
    from landscope.calibration import Calibrated
    from landscope.cost import Cost, estimate
    from landscope.journal import Journal
    from landscope.landscape import Landscape, load
    from landscope.objective import Objective
    from landscope.recorder import Recorder
    from landscope.sampling import Grid
    from landscope.scanning import scan
    from landscope.slices import Line, Plane, Volume
    from landscope.trajectories import Trajectory

__version__ = _version.VERSION

_HOMES = {
    "Adaptive": "adaptive",
    "Calibrated": "calibration",
    "Cost": "cost",
    "Grid": "sampling",
    "Journal": "journal",
    "Landscape": "landscape",
    "Line": "slices",
    "Objective": "objective",
    "Plane": "slices",
    "Recorder": "recorder",
    "Trajectory": "trajectories",
    "Volume": "slices",
    "ensemble": "analysis.ensembles",
    "estimate": "cost",
    "load": "landscape",
    "loss_stderr": "analysis.averages",
    "neighborhood_average": "analysis.averages",
    "representativeness": "analysis.whole",
    "scan": "scanning",
}
_MODULES = {
    **{
        name: name
        for name in (
            "directions", "draw", "engines", "errors", "formats", "integrations", "losses",
            "params", "zoo",
        )
    },
    "curvature": "analysis.curvature",
    "trajectory": "analysis.trajectory",
}  # fmt: skip

__all__ = [
    "Adaptive",
    "Calibrated",
    "Cost",
    "Grid",
    "Journal",
    "Landscape",
    "Line",
    "Objective",
    "Plane",
    "Recorder",
    "Trajectory",
    "Volume",
    "__version__",
    "curvature",
    "directions",
    "draw",
    "engines",
    "ensemble",
    "errors",
    "estimate",
    "formats",
    "integrations",
    "load",
    "loss_stderr",
    "losses",
    "neighborhood_average",
    "params",
    "representativeness",
    "scan",
    "trajectory",
    "zoo",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"landscope.{_MODULES[name]}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"landscope.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'landscope' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
