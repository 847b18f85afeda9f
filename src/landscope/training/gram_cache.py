"""The products of checkpoints that an earlier call of ``pca`` computed, kept in their folder."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Sequence
from typing import final

import numpy as np

from landscope import fingerprint
from landscope.files import write_atomically
from landscope.training.trajectory import Trajectory


@final
class GramCache:
    """The stored Gram matrix, without the rows and columns of checkpoints that no longer exist.

    Args:
        trajectories: The trajectories, whose checkpoints are numbered one after the other. The
            cache is in the folder of the first.
        ignore: As in ``pca``; each choice has a file of its own.
    """

    def __init__(self, trajectories: Sequence[Trajectory], ignore: str | None) -> None:
        first = trajectories[0][0]
        vectors = sorted(name for name, layout in first.layouts.items() if layout.vector)
        others = [trajectory.folder.resolve() for trajectory in trajectories[1:]]
        key = fingerprint.of_text(ignore, first.names, vectors, *others)
        self.path = trajectories[0].folder / f".gram-{key}.npz"
        identities = [f"{k} {c.identity}" for k, t in enumerate(trajectories) for c in t]
        stored, gram = self._read()
        rows = {identity: row for row, identity in enumerate(stored)}
        known = [k for k, identity in enumerate(identities) if identity in rows]
        known.sort(key=lambda k: rows[identities[k]])
        if not known or rows[identities[known[0]]] != 0:  # products are relative to the first row
            known = []
        new = sorted(set(range(len(identities))) - set(known))
        self.order = [*known, *new]  # the numbers of all checkpoints, those in the cache first
        kept = [rows[identities[k]] for k in known]
        self.gram = gram[np.ix_(kept, kept)]  # shape (k, k), the products of those in the cache
        self._identities = [identities[k] for k in self.order]

    def _read(self) -> tuple[list[str], np.ndarray]:
        try:
            with self.path.open("rb") as file, np.load(file) as stored:
                return stored["checkpoints"].tolist(), stored["gram"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return [], np.empty((0, 0))

    def write(self, gram: np.ndarray) -> None:
        """Keep the products of all checkpoints, in the order of ``order``, shape (n, n).

        Nothing is kept where the folder cannot be written.
        """
        with contextlib.suppress(OSError), write_atomically(self.path) as part:
            np.savez(part, checkpoints=np.array(self._identities), gram=gram)
