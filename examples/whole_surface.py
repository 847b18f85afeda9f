"""Is this the whole surface? Do skip connections make it convex?

Two networks with 56 layers that differ only in their skip connections, trained in the same way on
handwritten digits. For each network: the loss along random directions, along the sharpest and the
most negative direction, and from the initialization to the minimum; a map of the extreme
eigenvalues of the Hessian over a plane (a small version of Figure 7 of Li et al. 2018); and a
verdict in numbers.

    python examples/whole_surface.py [FOLDER]

This takes ten minutes on two cores. After an interruption the same command continues.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import landscope as ls
from landscope.analysis.representative_planes import Representativeness
from landscope.cli import run_folder
from landscope.progress import show_bar

NETWORKS = {"with skips": "digits_resnet56", "without skips": "digits_resnet56_noshort"}
SAMPLES = 256  # of the 1,437 samples, for the Hessians over the plane
MAP = ls.Grid(9, (-1.0, 1.0))  # as in the paper
NEAR = slice(-0.26, 0.26)


def main(folder: Path) -> None:
    """Measure both networks, draw them side by side, and write the numbers."""
    labels = list(NETWORKS)
    profiles = [measure_profiles(name, folder) for name in NETWORKS.values()]
    maps = [map_convexity(name, folder) for name in NETWORKS.values()]
    figure = ls.draw.representativeness_figure(profiles, labels=labels)
    ls.draw.save(figure, folder / "whole_surface.png")
    ls.draw.save(ls.draw.convexity_figure(maps, labels=labels), folder / "convexity.png")
    numbers = {
        label: {"network": NETWORKS[label], **summarize(whole, land)}
        for label, whole, land in zip(labels, profiles, maps, strict=True)
    }
    for label, whole in zip(labels, profiles, strict=True):
        print(f"\n{label}\n{whole.verdict}")
    run_folder.write_json(folder / "whole_surface.json", numbers)
    print(json.dumps({k: v["convexity within 0.25, median"] for k, v in numbers.items()}))


def measure_profiles(name: str, folder: Path) -> Representativeness:
    """Return what random planes show of a network, compared with all directions."""
    objective = ls.zoo.objective(name)
    start = ls.params.parameters(ls.zoo.initial(name))
    with show_bar(f"profiles of {name}", "profiles") as progress:
        return ls.representativeness(
            objective, initialization=start, journal=folder / name, progress=progress
        )


def map_convexity(name: str, folder: Path) -> ls.Landscape:
    """Return the extreme eigenvalues of the Hessian over a random plane."""
    objective = ls.zoo.objective(name)
    plane = ls.Plane(objective.center, *ls.directions.random(objective.center))
    extremes = ls.curvature.hessian_extremes(samples=SAMPLES)
    journal = folder / f"{name}.sqlite"
    with show_bar(f"convexity of {name}") as progress:
        return ls.scan(
            objective, plane, MAP, quantities=(extremes,), journal=journal, progress=progress
        )


def summarize(profiles: Representativeness, land: ls.Landscape) -> dict[str, Any]:
    """Return the numbers of a network."""
    ratio = land.data["convexity"]
    near = ratio.sel(x=NEAR, y=NEAR)
    smallest = land.data["hessian_min"].sel(x=NEAR, y=NEAR)
    return {
        **profiles.numbers,
        "verdict": profiles.verdict.splitlines(),
        "convexity at the minimum": float(ratio.sel(x=0, y=0)),
        "convexity within 0.25, median": float(near.median()),
        "convexity within 0.25, largest": float(near.max()),
        "convexity within 1, median": float(ratio.median()),
        "convexity within 1, largest": float(ratio.max()),
        "smallest eigenvalue within 0.25, median": float(smallest.median()),
        "products": float(land.data["hessian_products"].sum()),
    }


if __name__ == "__main__":
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/whole_surface")
    out.mkdir(parents=True, exist_ok=True)
    main(out)
