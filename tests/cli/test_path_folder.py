"""The paths in the folder of a run: they are read back, and their keys are those of version 0.1."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

import landscope as ls
from landscope import fingerprint
from landscope.analysis import path_projection
from landscope.cli import path_folder
from landscope.errors import FormatError
from landscope.training import principal_components
from tests import cases, walks


def test_a_path_is_computed_once_and_its_key_is_a_hash_of_plane_loss_and_checkpoints(
    tmp_path: Path,
) -> None:
    objective = cases.mlp().objective()
    center = objective.center
    rows = [{n: t + 0.1 * k * (k + len(n)) for n, t in center.items()} for k in range(4)]
    walks.write(tmp_path / "sgd", rows)
    trajectory = ls.Trajectory.open(tmp_path / "sgd")
    plane = path_projection.plane(principal_components.pca([trajectory]), objective)
    (path,) = path_folder.project_trajectories(plane, [trajectory], objective, tmp_path / "run")
    parts = {role: fingerprint.of_tensors(part) for role, part in plane.parts.items()}
    texts = [
        f"Plane {json.dumps(parts)}",
        str(objective.problem.fingerprints()),
        "0",
        "sgd",
        *(checkpoint.identity for checkpoint in trajectory),
    ]
    expected = hashlib.blake2b("\n".join(texts).encode(), digest_size=8).hexdigest()
    assert path.data.attrs["question"] == expected
    (stored,) = path_folder.read_paths(tmp_path / "run")
    assert stored.data.identical(path.data)


def test_what_a_killed_process_left_is_no_path(tmp_path: Path) -> None:
    (tmp_path / "paths").mkdir()
    (tmp_path / "paths" / ".0-sgd-x7_ab.nc").write_text("half of it")
    assert path_folder.read_paths(tmp_path) == []


def test_a_damaged_path_is_named(tmp_path: Path) -> None:
    (tmp_path / "paths").mkdir()
    (tmp_path / "paths" / "sgd.nc").write_text("no")
    with pytest.raises(FormatError, match=r"sgd\.nc cannot be read"):
        path_folder.read_paths(tmp_path)
