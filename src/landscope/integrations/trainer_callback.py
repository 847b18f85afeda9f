"""Trainers: the path that a ``transformers.Trainer`` takes, recorded by a callback of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from landscope.extras import import_optional
from landscope.training.recorder import Recorder, check_recorder

if TYPE_CHECKING:
    from transformers import TrainerCallback


def callback(recorder: Recorder) -> TrainerCallback:
    """Return what records the path of a ``transformers.Trainer``: pass it in ``callbacks=[...]``.

    The recorder is called before the first step and after each one, and decides itself what to
    keep; it is closed when training ends. Values are the loss that the Trainer logged last, and the
    learning rate of the step.

    Args:
        recorder: an ``ls.Recorder``.

    Raises:
        RecorderError: when it is none.
        MissingExtraError: when transformers is not installed.

    Example:
        >>> import landscope as ls
        >>> recording = ls.integrations.transformers.callback(ls.Recorder("run", every=10))
        >>> # Trainer(model, arguments, train_dataset=rows, callbacks=[recording]).train()
    """
    transformers = import_optional("transformers", extra="transformers")
    kind: Any = type("RecorderCallback", (_Hooks, transformers.TrainerCallback), {})
    made: TrainerCallback = kind(check_recorder(recorder))
    return made


class _Hooks:
    """What a Trainer calls. It logs the loss of a step after the step, so that is waited for."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.loss: dict[str, float] = {}
        self.rate: float | None = None
        self.due = False

    def __reduce__(self) -> tuple[Any, ...]:
        return callback, (self.recorder,)

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **given: Any) -> None:
        """Record the weights that training starts from."""
        self.loss, self.due = {}, False
        self.recorder.close()  # of a training that was interrupted
        self.rate = _rate(given)
        self._record(state, given)

    def on_step_begin(self, _args: Any, state: Any, _control: Any, **given: Any) -> None:
        """Record the last step, of which nothing was logged, and note the learning rate."""
        self._settle(state, given)
        self.rate = _rate(given)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Wait for the loss: the weights stay as they are until the next step begins."""
        self.due = True

    def on_log(self, _args: Any, state: Any, _control: Any, logs: Any = None, **given: Any) -> None:
        """Record the step that was logged."""
        self.loss = {"loss": logs["loss"]} if "loss" in (logs or {}) else self.loss
        self._settle(state, given)

    def on_train_end(self, _args: Any, state: Any, _control: Any, **given: Any) -> None:
        """Record the last step."""
        self._settle(state, given)
        self.recorder.close()

    def _settle(self, state: Any, given: Mapping[str, Any]) -> None:
        if self.due:
            self._record(state, given)

    def _record(self, state: Any, given: Mapping[str, Any]) -> None:
        self.due = False
        self.recorder(
            given["model"],
            step=state.global_step,
            epoch=state.epoch or 0.0,
            learning_rate=self.rate,
            **self.loss,
        )


def _rate(given: Mapping[str, Any]) -> float | None:
    optimizer = given.get("optimizer")
    return None if optimizer is None else float(optimizer.param_groups[0]["lr"])
