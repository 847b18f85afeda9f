"""The folder of a training run: its checkpoints, its settings, and the state to resume from.

DIR/000001234.safetensors       checkpoints, named by their steps: the folder is a trajectory
DIR/training.json               the settings
DIR/training-state.safetensors  the state after the last whole epoch
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, final

import torch
from torch import Tensor, nn

from landscope._version import __version__
from landscope.errors import FormatError, RecorderError
from landscope.files import write_atomically
from landscope.training.recorder import Recorder

SETTINGS, STATE = "training.json", "training-state.safetensors"
_STATE_VERSION = 1
_CHECKPOINT = re.compile(r"\d+\.safetensors|model_\d+\.t7")
_MAX_DIFFERENCES = 4  # that an error message lists


@final
class TrainingFolder:
    """The checkpoints of a training run, and the state to resume it from.

    Args:
        path: The folder, created when training begins.
        every: "epoch" for a checkpoint at each epoch, or the number of steps between checkpoints.
        keep: The largest number of checkpoints; None for all.

    Raises:
        RecorderError: When ``every`` or ``keep`` is out of range.
    """

    def __init__(self, path: Path, every: Literal["epoch"] | int, keep: int | None) -> None:
        self.path, self.every = path, every
        self._recorder = Recorder(path, every, keep=keep)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._recorder.close()

    def begin(self, asked: Mapping[str, Any], question: Mapping[str, Any]) -> None:
        """Write the settings of a training run, or check that they are those of an earlier session.

        Args:
            asked: Settings that are only recorded, such as the options of a command.
            question: Settings that identify the training run.

        Raises:
            RecorderError: When the folder holds another training run, or cannot be written.
        """
        settings = json.loads(json.dumps({**asked, **question}, default=str))
        try:
            self._write_settings(settings)
        except OSError as error:
            raise RecorderError(
                f"folder {self.path} cannot be written to ({error}): choose another."
            ) from error
        before = self._read_settings()
        if any(before.get(name) != settings[name] for name in question):
            names = [name for name in settings if before.get(name) != settings[name]]
            differences = [
                f"{name} was {before.get(name, 'not set')}, now {settings[name]}"
                for name in names[:_MAX_DIFFERENCES]
            ]
            raise RecorderError(
                f"{self.path} holds another training run: {'; '.join(differences)}"
                f"{'; and more' if len(names) > _MAX_DIFFERENCES else ''}. Nothing was mixed in:"
                " continue the same training, or choose another folder."
            )

    def _write_settings(self, settings: Mapping[str, Any]) -> None:
        """Write the settings, unless an earlier session did."""
        self.path.mkdir(parents=True, exist_ok=True)
        file = self.path / SETTINGS
        if file.is_file():
            return
        if any(_CHECKPOINT.fullmatch(other.name) for other in self.path.iterdir()):
            raise RecorderError(
                f"{self.path} holds checkpoints of something else (it has no {SETTINGS}): choose"
                " another folder."
            )
        versions = {"landscope": __version__, "torch": torch.__version__}
        with write_atomically(file) as part:
            part.write_text(json.dumps({**settings, **versions}, indent=2) + "\n")

    def _read_settings(self) -> dict[str, Any]:
        file = self.path / SETTINGS
        try:
            return dict(json.loads(file.read_text()))
        except ValueError as error:
            raise FormatError(f"{file} is damaged ({error}): choose another folder.") from error

    def record(
        self,
        model: nn.Module,
        step: int,
        *,
        steps: int,
        learning_rate: float,
        values: Mapping[str, float],
    ) -> None:
        """Take a checkpoint if one is due.

        Args:
            model: The model.
            step: The step of training, 0 before the first.
            steps: The number of steps in an epoch.
            learning_rate: The learning rate at this step.
            values: Losses and metrics by name.
        """
        if step % (steps if self.every == "epoch" else self.every) == 0:
            self._recorder(
                model, step=step, epoch=step / steps, learning_rate=learning_rate, **values
            )

    def save_state(self, tensors: Mapping[str, Tensor], progress: Mapping[str, Any]) -> None:
        """Replace the state that a later session resumes from.

        Args:
            tensors: The tensors of model and optimizer.
            progress: The rest of the state, as JSON.
        """
        from safetensors.torch import save_file

        self._recorder.close()  # so that a session that resumes here has every checkpoint
        copies = {n: t.detach().cpu().clone().contiguous() for n, t in tensors.items()}
        metadata = {"landscope": json.dumps({"version": _STATE_VERSION, **progress})}
        with write_atomically(self.path / STATE) as part:
            save_file(copies, part, metadata)

    def load_state(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return the tensors and the progress that the last session saved; None without any.

        Raises:
            FormatError: When the file is damaged.
        """
        from safetensors import SafetensorError, safe_open

        for part in self.path.glob(f".{Path(STATE).stem}-*"):  # of a session that was killed
            part.unlink(missing_ok=True)
        path = self.path / STATE
        if not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
                return tensors, json.loads(file.metadata()["landscope"])
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise FormatError(
                f"{path} is damaged ({error}): delete it to begin again, or choose another folder."
            ) from error
