"""Which way does an optimizer go, and what does a plane show of it?

Networks trained on handwritten digits by SGD, Adam and SAM: each path in the plane of its first two
principal components (Li et al. 2018, Figure 9, in the small), and all of a network in one plane,
with what these do not show: how far off the plane the path runs, and the loss that the network had
where the surface shows another. Where the learning rate falls the path has a kink: how much it
turns there is measured beside how much it turns elsewhere.

    python examples/paths.py [FOLDER]

The networks of the paper walk 58,000 steps before the learning rate falls: long after weight decay
forgot where they came from (2,000 steps, at a learning rate of 0.1 and a momentum of 0.9). These
walk 360, so weight decay is ten times as strong.

Six minutes on one core; stop it at any moment, and the same command goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import landscope as ls
from landscope.cli import run_folder
from landscope.progress import show_bar
from landscope.training.loop import train
from landscope.training.optimizers import Course
from landscope.zoo import digits

NETWORKS = ("digits_mlp", "digits_resnet8", "digits_resnet8_noshort")
COURSES = {
    label: Course(
        optimizer, weight_decay=5e-3, batch_size=32, epochs=40, drops=(8, 24, 34), factor=0.2
    )
    for label, optimizer in (("SGD", "sgd"), ("Adam", "adam"), ("SAM", "sam"))
}
POINTS = 25  # an axis
WINDOW = 3  # checkpoints before and after one, between which it turns


def main(folder: Path) -> None:
    """Train, draw each path by itself and all of a network together, and write the numbers."""
    told: dict[str, dict[str, object]] = {}
    for network in NETWORKS:
        walked = []
        for label, course in COURSES.items():
            trajectory, objective = trained(network, label, course, folder)
            pca = ls.directions.pca(trajectory)
            land, (path,) = surface(objective, pca, [trajectory], folder / network / label)
            stem = f"paths_{network}_{label.lower()}"
            ls.draw.save(ls.draw.path_figure(land, path), folder / f"{stem}.png")
            ls.draw.save(ls.draw.path_surface(land, path), folder / f"{stem}_surface.png")
            told[f"{network}, {label}"] = measured(trajectory, pca, path)
            walked.append(trajectory)
        pca = ls.directions.pca(walked)
        land, paths = surface(objective, pca, walked, folder / network / "together")
        ls.draw.save(ls.draw.path_figure(land, paths), folder / f"paths_{network}_together.png")
        told[f"{network}, together"] = {"shares": pca.explained_variance_ratio.tolist()}
    run_folder.write_json(folder / "paths.json", told)
    (folder / "paths.md").write_text(table(told))
    print(table(told))


def trained(
    network: str, label: str, course: Course, folder: Path
) -> tuple[ls.Trajectory, ls.Objective]:
    """Return the path that training takes, and the objective where it ends."""
    place = folder / network / label
    with show_bar(f"{label} trains {network}", "steps", values=True) as tell:
        made = train(objective_of(digits.initial(network)), course, record=place, progress=tell)
    return ls.Trajectory.open(place, label), objective_of(made.model)


def objective_of(model: torch.nn.Module) -> ls.Objective:
    """Return the loss on the digits; far from where training ends batch norm needs statistics."""
    return ls.Objective(
        model, torch.nn.CrossEntropyLoss(), digits.load_data(), buffers="recompute",
        metrics={"accuracy": ls.losses.accuracy},
    )  # fmt: skip


def surface(
    objective: ls.Objective, pca: ls.directions.PCA, walked: Sequence[ls.Trajectory], place: Path
) -> tuple[ls.Landscape, list[ls.paths.TrainingPath]]:
    """Return the plane of principal components as a surface, and the paths on it."""
    plane = ls.paths.plane(pca, objective)
    paths = [ls.paths.project(one, plane, objective) for one in walked]
    grid = ls.Grid(POINTS, ls.paths.spans(paths))
    with show_bar(f"surface of {place.parent.name}, {place.name}") as tell:
        return ls.scan(objective, plane, grid, journal=f"{place}.sqlite", progress=tell), paths


def measured(
    trajectory: ls.Trajectory, pca: ls.directions.PCA, path: ls.paths.TrainingPath
) -> dict[str, object]:
    """Return how much of a path its plane holds, where it turns, and how far off it runs."""
    last = trajectory[-1].values
    flat = np.stack([path.data["x"].values, path.data["y"].values], axis=1)
    whole = np.stack(
        [ls.params.flatten(checkpoint.params()).double().numpy() for checkpoint in trajectory]
    )
    apart = path.data["loss"].values / path.data["projected_loss"].values
    return {
        "loss": last["loss"],
        "accuracy": last["accuracy"],
        "shares": pca.explained_variance_ratio.tolist(),
        "turns in the plane": turns(flat, trajectory.drops),
        "turns of all weights": turns(whole, trajectory.drops),
        "distance, largest": float(path.data["distance"].max()),
        "distance, median share": float(path.data["relative_distance"].median()),
        "length, straight": float(np.linalg.norm(whole[0] - whole[-1])),
        "loss over that of the projection, largest": float(np.max(apart)),
    }


def turns(points: np.ndarray, drops: Sequence[int]) -> dict[str, float]:
    """Return by how many degrees a path turns at its first drop, and where there is no drop."""
    angles = {}
    for k in range(WINDOW, len(points) - WINDOW):
        before, after = points[k] - points[k - WINDOW], points[k + WINDOW] - points[k]
        cosine = before @ after / (np.linalg.norm(before) * np.linalg.norm(after))
        angles[k] = float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))
    elsewhere = [a for k, a in angles.items() if min(abs(k - drop) for drop in drops) >= WINDOW]
    return {
        "first drop": angles[drops[0]],
        "elsewhere, median": float(np.median(elsewhere)),
        "elsewhere, largest": max(elsewhere),
        "checkpoint of the largest": float(next(k for k in angles if angles[k] == max(elsewhere))),
    }


def table(told: dict[str, dict[str, object]]) -> str:
    """Return the numbers as a table in Markdown."""
    heads = (
        "path", "accuracy", "PC 1 + PC 2", "turn at the first drop", "turn elsewhere: median",
        "largest", "off the plane: largest", "median share", "loss / loss of the projection",
    )  # fmt: skip
    rows = ["| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
    for name, found in told.items():
        shares: object = found["shares"]
        assert isinstance(shares, list)
        cells = [name, "", f"{100 * sum(shares):.0f}%"]
        turn = found.get("turns in the plane")
        if isinstance(turn, dict):
            cells[1] = f"{found['accuracy']:.1f}%"
            first, median, largest, place = turn.values()
            cells += [f"{first:.0f}°", f"{median:.0f}°", f"{largest:.0f}° (epoch {place:.0f})"]
            cells += [
                f"{found['distance, largest']:.1f} of {found['length, straight']:.1f}",
                f"{100 * float(str(found['distance, median share'])):.0f}%",
                f"up to {found['loss over that of the projection, largest']:.1f}",
            ]
        rows.append("| " + " | ".join(cells + [""] * (len(heads) - len(cells))) + " |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    place = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/paths")
    place.mkdir(parents=True, exist_ok=True)
    main(place)
