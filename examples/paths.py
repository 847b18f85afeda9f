"""Which path does an optimizer take, and what does a plane show of it?

Networks are trained on handwritten digits with SGD, Adam and SAM. Each path is drawn in the plane
of its first two principal components (a small version of Figure 9 of Li et al. 2018), and the three
paths of a network are drawn in one plane. The numbers say what the pictures do not show: the
distance of the path from the plane, and the loss of the network where the surface shows another
loss. Paths turn where the learning rate drops; this angle is compared with the angles elsewhere.

    python examples/paths.py [FOLDER]

The networks of the paper take 58,000 steps before the learning rate drops, long after weight decay
has removed the influence of the initialization (2,000 steps for a learning rate of 0.1 and a
momentum of 0.9). These networks take 360 steps, so their weight decay is ten times as strong.

This takes six minutes on one core. After an interruption the same command continues.
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
POINTS = 25  # per axis
WINDOW = 3  # an angle is measured between the steps of 3 checkpoints before and after


def main(folder: Path) -> None:
    """Train the networks, draw the paths one by one and together, and write the numbers."""
    rows: dict[str, dict[str, object]] = {}
    for network in NETWORKS:
        trajectories = []
        for label, course in COURSES.items():
            trajectory, objective = train_network(network, label, course, folder)
            pca = ls.directions.pca(trajectory)
            land, (path,) = scan_surface(objective, pca, [trajectory], folder / network / label)
            stem = f"paths_{network}_{label.lower()}"
            ls.draw.save(ls.draw.path_figure(land, path), folder / f"{stem}.png")
            ls.draw.save(ls.draw.path_surface(land, path), folder / f"{stem}_surface.png")
            rows[f"{network}, {label}"] = measure_path(trajectory, pca, path)
            trajectories.append(trajectory)
        pca = ls.directions.pca(trajectories)
        land, paths = scan_surface(objective, pca, trajectories, folder / network / "together")
        ls.draw.save(ls.draw.path_figure(land, paths), folder / f"paths_{network}_together.png")
        rows[f"{network}, together"] = {"shares": pca.explained_variance_ratio.tolist()}
    run_folder.write_json(folder / "paths.json", rows)
    (folder / "paths.md").write_text(format_table(rows))
    print(format_table(rows))


def train_network(
    network: str, label: str, course: Course, folder: Path
) -> tuple[ls.Trajectory, ls.Objective]:
    """Return the trajectory of a training, and the objective of the trained network."""
    record = folder / network / label
    initial = make_objective(digits.initial(network))
    with show_bar(f"{label} trains {network}", "steps", values=True) as report:
        trained = train(initial, course, record=record, progress=report)
    return ls.Trajectory.open(record, label), make_objective(trained.model)


def make_objective(model: torch.nn.Module) -> ls.Objective:
    """Return the loss on the digits, with batch-norm statistics that fit every point."""
    return ls.Objective(
        model, torch.nn.CrossEntropyLoss(), digits.load_data(), buffers="recompute",
        metrics={"accuracy": ls.losses.accuracy},
    )  # fmt: skip


def scan_surface(
    objective: ls.Objective,
    pca: ls.directions.PCA,
    trajectories: Sequence[ls.Trajectory],
    place: Path,
) -> tuple[ls.Landscape, list[ls.paths.TrainingPath]]:
    """Return the surface over the plane of principal components, and the paths in this plane."""
    plane = ls.paths.plane(pca, objective)
    paths = [ls.paths.project(trajectory, plane, objective) for trajectory in trajectories]
    grid, journal = ls.Grid(POINTS, ls.paths.spans(paths)), f"{place}.sqlite"
    with show_bar(f"surface of {place.parent.name}, {place.name}") as report:
        return ls.scan(objective, plane, grid, journal=journal, progress=report), paths


def measure_path(
    trajectory: ls.Trajectory, pca: ls.directions.PCA, path: ls.paths.TrainingPath
) -> dict[str, object]:
    """Return the variance that a plane explains, the angles of a path, and its distances."""
    last = trajectory[-1].values
    in_plane = np.stack([path.data["x"].values, path.data["y"].values], axis=1)
    weights = np.stack(
        [ls.params.flatten(checkpoint.params()).double().numpy() for checkpoint in trajectory]
    )
    loss_ratio = path.data["loss"].values / path.data["projected_loss"].values
    return {
        "loss": last["loss"],
        "accuracy": last["accuracy"],
        "shares": pca.explained_variance_ratio.tolist(),
        "turns in the plane": measure_turns(in_plane, trajectory.drops),
        "turns of all weights": measure_turns(weights, trajectory.drops),
        "distance, largest": float(path.data["distance"].max()),
        "distance, median share": float(path.data["relative_distance"].median()),
        "length, straight": float(np.linalg.norm(weights[0] - weights[-1])),
        "loss over that of the projection, largest": float(np.max(loss_ratio)),
    }


def measure_turns(points: np.ndarray, drops: Sequence[int]) -> dict[str, float]:
    """Return the angles of a path in degrees: at the first drop of the rate, and elsewhere."""
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


def format_table(paths: dict[str, dict[str, object]]) -> str:
    """Return the numbers as a table in Markdown."""
    heads = (
        "path", "accuracy", "PC 1 + PC 2", "turn at the first drop", "turn elsewhere: median",
        "largest", "off the plane: largest", "median share", "loss / loss of the projection",
    )  # fmt: skip
    rows = ["| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
    for name, numbers in paths.items():
        shares: object = numbers["shares"]
        assert isinstance(shares, list)
        cells = [name, "", f"{100 * sum(shares):.0f}%"]
        turn = numbers.get("turns in the plane")
        if isinstance(turn, dict):
            cells[1] = f"{numbers['accuracy']:.1f}%"
            first, median, largest, epoch = turn.values()
            cells += [f"{first:.0f}°", f"{median:.0f}°", f"{largest:.0f}° (epoch {epoch:.0f})"]
            cells += [
                f"{numbers['distance, largest']:.1f} of {numbers['length, straight']:.1f}",
                f"{100 * float(str(numbers['distance, median share'])):.0f}%",
                f"up to {numbers['loss over that of the projection, largest']:.1f}",
            ]
        rows.append("| " + " | ".join(cells + [""] * (len(heads) - len(cells))) + " |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/paths")
    out.mkdir(parents=True, exist_ok=True)
    main(out)
