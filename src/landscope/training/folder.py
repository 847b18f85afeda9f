"""The folder of a training: its path, what was asked, and what is needed to go on.

DIR/000001234.safetensors       checkpoints, by step: the folder is a trajectory
DIR/training.json               what was asked
DIR/training-state.safetensors  what is needed to go on after the last whole epoch
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, final

import torch
from torch import Tensor, nn

from landscope._version import __version__
from landscope.errors import FormatError, RecorderError
from landscope.files import whole
from landscope.training.recorder import Recorder

ASKED, STATE = "training.json", "training-state.safetensors"
_CHECKPOINT = re.compile(r"\d+\.safetensors|model_\d+\.t7")
_SHOWN = 4  # differences that a sentence tells


@final
class TrainingFolder:
    """Where a training keeps its checkpoints, and what it needs to go on.

    Args:
        path: made when training begins.
        every: a checkpoint an epoch, or one in so many steps.
        keep: at most so many; None for all.

    Raises:
        RecorderError: when ``every`` or ``keep`` is wrong.
    """

    def __init__(self, path: Path, every: Literal["epoch"] | int, keep: int | None) -> None:
        self.path, self.every = path, every
        self._recorder = Recorder(path, every, keep=keep)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._recorder.close()

    def begin(self, asked: Mapping[str, Any], question: Mapping[str, Any]) -> None:
        """Note what is asked, or check that it is what was asked before.

        Raises:
            RecorderError: when it is not, or the folder cannot be written.
        """
        told = json.loads(json.dumps({**asked, **question}, default=str))
        try:
            self._note(told)
        except OSError as error:
            raise RecorderError(
                f"folder {self.path} cannot be written to ({error}): choose another."
            ) from error
        before = self._noted()
        if any(before.get(name) != told[name] for name in question):
            names = [name for name in told if before.get(name) != told[name]]
            parts = [f"{n} was {before.get(n, 'not set')}, now {told[n]}" for n in names[:_SHOWN]]
            raise RecorderError(
                f"{self.path} holds another training: {'; '.join(parts)}"
                f"{'; and more' if len(names) > _SHOWN else ''}. Nothing was mixed in: ask for the"
                " same training, or choose another folder."
            )

    def _note(self, told: Mapping[str, Any]) -> None:
        """Write what is asked, unless something was asked before."""
        self.path.mkdir(parents=True, exist_ok=True)
        file = self.path / ASKED
        if file.is_file():
            return
        if any(_CHECKPOINT.fullmatch(other.name) for other in self.path.iterdir()):
            raise RecorderError(
                f"{self.path} holds checkpoints of something else (it has no {ASKED}): choose"
                " another folder."
            )
        versions = {"landscope": __version__, "torch": torch.__version__}
        with whole(file) as part:
            part.write_text(json.dumps({**told, **versions}, indent=2) + "\n")

    def _noted(self) -> dict[str, Any]:
        file = self.path / ASKED
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
        """Take a checkpoint when it is due; an epoch has so many ``steps``."""
        if step % (steps if self.every == "epoch" else self.every) == 0:
            self._recorder(
                model, step=step, epoch=step / steps, learning_rate=learning_rate, **values
            )

    def keep(self, tensors: Mapping[str, Tensor], told: Mapping[str, Any]) -> None:
        """Keep what a later session needs, in one file that is there whole or not at all."""
        from safetensors.torch import save_file

        self._recorder.close()  # a session that goes on from here finds every checkpoint up to here
        own = {n: t.detach().cpu().clone().contiguous() for n, t in tensors.items()}
        with whole(self.path / STATE) as part:
            save_file(own, part, {"landscope": json.dumps({"version": 1, **told})})

    def kept(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return what the last session kept; None when it kept nothing.

        Raises:
            FormatError: when that is damaged.
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
