"""The training behind a folder of checkpoints: the loss that ``landscope train`` recorded there."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from landscope.cli import report, targets
from landscope.errors import FormatError, TargetError
from landscope.objective.objective import Objective
from landscope.params import check_like, named_tensors
from landscope.training import augmentation
from landscope.training.trajectory import Checkpoint

_RECORD = "training.json"  # what `landscope train` wrote to the folder of a trajectory
_LOSS_KEYS = ("target", "data", "loss", "penalty")  # of its entries, those that define the loss


@dataclass(frozen=True)
class RecordedTraining:
    """The loss that a network was trained on.

    Args:
        target: As in ``targets.load_objective``.
        arguments: ``name=value`` texts for the target's function.
        label_noise: The share of random labels; None if ``landscope train`` did not train it.
        seed: The seed of the random labels.
    """

    target: str
    arguments: tuple[str, ...] = ()
    label_noise: float | None = None
    seed: int = 0

    def make_objective(self, checkpoint: Checkpoint) -> Objective:
        """Return the objective, with the weights and statistics of a checkpoint.

        Raises:
            TargetError: When the target does not exist, or returns no Objective.
            FormatError: When the checkpoint does not fit the model.
        """
        if self.target.startswith("zoo:"):  # a network of the zoo is trained unless it has weights
            objective = targets.load_objective(
                self.target, arguments=self.arguments, checkpoint=checkpoint.path
            )
        else:
            objective = _load_states(
                targets.load_objective(self.target, arguments=self.arguments), checkpoint
            )
        if self.label_noise is None:
            return objective
        objective.model.eval()  # training evaluated in this mode, whatever the target's mode is
        return augmentation.corrupt_labels(objective, self.label_noise, seed=self.seed)


def find_training(
    folders: Sequence[Path], target: str | None, arguments: Sequence[str]
) -> RecordedTraining:
    """Return the training of a target, or the one recorded in the first folder.

    A warning names folders that were trained on another loss.

    Args:
        folders: Folders of checkpoints.
        target: The target on the command line; None for the recorded one.
        arguments: ``name=value`` texts, which follow the recorded ones.

    Raises:
        TargetError: When no target is named or recorded.
        FormatError: When a record is damaged.
    """
    first, *others = (_read_record(folder) for folder in folders)
    if target is not None and target != first.get("target"):
        return RecordedTraining(target, tuple(arguments))
    if "target" not in first:
        raise TargetError(
            f"{folders[0]} does not say what was trained (it has no {_RECORD}): pass --target"
            " file.py:function, package.module:function or zoo:NAME."
        )
    for folder, record in zip(folders[1:], others, strict=True):
        different = [n for n in _LOSS_KEYS if n in record and record[n] != first.get(n)]
        if different:
            report.print_warning(
                f"{folder} and {folders[0]} differ in the {different[0]} that they were trained"
                f" with: all losses here are those of {folders[0]}."
            )
    recorded = [f"{name}={value}" for name, value in first["set"].items()]
    return RecordedTraining(
        str(first["target"]), (*recorded, *arguments), first["label_noise"], first["seed"]
    )


def _read_record(folder: Path) -> dict[str, Any]:
    """Return what ``landscope train`` recorded in a folder; without a target if it did not."""
    file = folder / _RECORD
    try:
        record = dict(json.loads(file.read_text())) if file.is_file() else {}
        return {
            **record,
            "set": dict(record.get("set", {})),
            "label_noise": float(record.get("label_noise", 0.0)),
            "seed": int(record.get("seed", 0)),
        }
    except (ValueError, TypeError) as error:
        raise FormatError(f"{file} is damaged ({error}): pass --target.") from error


def _load_states(objective: Objective, checkpoint: Checkpoint) -> Objective:
    """Return the objective centered on a checkpoint, with the buffers that were recorded."""
    tensors = dict(named_tensors(objective.model))
    names = checkpoint.names or tuple(objective.center)  # of files that do not record them
    states = dataclasses.replace(checkpoint, names=names).states()
    missing = next((name for name in objective.center if name not in states), None)
    unknown = next((name for name in states if name not in tensors), None)
    if missing or unknown:
        owner = f"{checkpoint.path} has no" if missing else "the model of the target has no"
        raise FormatError(
            f"{owner} {missing or unknown!r}: pass the --target that was trained, and its --set."
        )
    check_like(states, {name: tensors[name] for name in states}, str(checkpoint.path))
    with torch.no_grad():
        for name, tensor in states.items():
            tensors[name].copy_(tensor)
    return Objective.of(objective.problem.recenter())
