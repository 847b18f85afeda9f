"""Is this the whole surface? Do skip connections make it convex?

Two networks with 56 layers, alike but for their skip connections, trained alike on handwritten
digits. For each: the loss along random directions beside the sharpest and the most negative one and
the way from the initialization; the map of the Hessian's extreme eigenvalues over a plane (Li et
al. 2018, Figure 7, in the small); and a verdict in numbers.

    python examples/whole_surface.py [FOLDER]

Ten minutes on two cores; stop it at any moment, and the same command goes on.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import landscope as ls
from landscope.cli import report, run_folder
from landscope.progress import show_bar

NETWORKS = {"with skips": "digits_resnet56", "without skips": "digits_resnet56_noshort"}
SAMPLES = 256  # of 1,437, drawn once, for Hessians over the plane
MAP = ls.Grid(9, (-1.0, 1.0))  # as in the paper


def main(folder: Path) -> None:
    """Measure both networks, draw them side by side, and write the numbers."""
    wholes, maps = [], []
    for name in NETWORKS.values():
        objective = ls.zoo.objective(name)
        start = ls.params.parameters(ls.zoo.initial(name))
        with show_bar(f"profiles of {name}", "profiles") as tell:
            wholes.append(
                ls.representativeness(
                    objective,
                    initialization=start,
                    journal=folder / name,
                    progress=tell,
                )
            )
        dx, dy = ls.directions.random(objective.center)
        extremes = ls.curvature.hessian_extremes(samples=SAMPLES)
        with show_bar(f"convexity of {name}") as tell:
            maps.append(
                ls.scan(
                    objective,
                    ls.Plane(objective.center, dx, dy),
                    MAP,
                    quantities=(extremes,),
                    journal=folder / f"{name}.sqlite",
                    progress=tell,
                )
            )
    labels = list(NETWORKS)
    ls.draw.save(
        ls.draw.representativeness_figure(wholes, labels=labels), folder / "whole_surface.png"
    )
    ls.draw.save(ls.draw.convexity_figure(maps, labels=labels), folder / "convexity.png")
    told = {}
    for label, whole, land in zip(labels, wholes, maps, strict=True):
        ratio = land.data["convexity"]
        near = ratio.sel(x=slice(-0.26, 0.26), y=slice(-0.26, 0.26))
        told[label] = {
            "network": NETWORKS[label],
            **whole.numbers,
            "verdict": report.describe_representativeness(whole).splitlines(),
            "convexity at the minimum": float(ratio.sel(x=0, y=0)),
            "convexity within 0.25, median": float(near.median()),
            "convexity within 0.25, largest": float(near.max()),
            "convexity within 1, median": float(ratio.median()),
            "convexity within 1, largest": float(ratio.max()),
            "smallest eigenvalue within 0.25, median": float(
                land.data["hessian_min"].sel(x=slice(-0.26, 0.26), y=slice(-0.26, 0.26)).median()
            ),
            "products": float(land.data["hessian_products"].sum()),
        }
        print(f"\n{label}\n{report.describe_representativeness(whole)}")
    run_folder.write_json(folder / "whole_surface.json", told)
    print(json.dumps({k: v["convexity within 0.25, median"] for k, v in told.items()}))


if __name__ == "__main__":
    place = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/whole_surface")
    place.mkdir(parents=True, exist_ok=True)
    main(place)
