"""A callback of ``transformers.Trainer`` that records the training path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from landscope.extras import import_optional
from landscope.training.recorder import Recorder, check_recorder

if TYPE_CHECKING:
    from transformers import TrainerCallback


def callback(recorder: Recorder) -> TrainerCallback:
    """Return a callback for ``transformers.Trainer(callbacks=[...])`` that calls the recorder.

    The recorder is called before the first step and after each step, decides which checkpoints it
    saves, and is closed when training ends. Its values are the last loss that the Trainer logged
    and the learning rate of the step.

    Args:
        recorder: The recorder of the folder to record into.

    Raises:
        RecorderError: When ``recorder`` is not an ``ls.Recorder``.
        MissingExtraError: When transformers is not installed.

    Example:
        >>> import landscope as ls
        >>> recording = ls.integrations.transformers.callback(ls.Recorder("run", every=10))
        >>> # Trainer(model, arguments, train_dataset=rows, callbacks=[recording]).train()
    """
    transformers = import_optional("transformers", extra="transformers")
    bases = (_Hooks, transformers.TrainerCallback)
    recorder_callback: Any = type("RecorderCallback", bases, {})
    instance: TrainerCallback = recorder_callback(check_recorder(recorder))
    return instance


class _Hooks:
    """The methods that a Trainer calls.

    A Trainer logs the loss of a step after the step, so a step is recorded when its loss is logged
    or when the next step begins.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.loss: dict[str, float] = {}
        self.learning_rate: float | None = None
        self.is_step_pending = False

    def __reduce__(self) -> tuple[Any, ...]:
        return callback, (self.recorder,)

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **objects: Any) -> None:
        """Record the initial weights."""
        self.loss, self.is_step_pending = {}, False
        self.recorder.close()  # an interrupted training left it open
        self.learning_rate = _learning_rate(objects)
        self._record(state, objects)

    def on_step_begin(self, _args: Any, state: Any, _control: Any, **objects: Any) -> None:
        """Record the last step if it was not logged, and note the learning rate of this one."""
        self._record_pending(state, objects)
        self.learning_rate = _learning_rate(objects)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Wait for the loss; the weights do not change before the next step begins."""
        self.is_step_pending = True

    def on_log(
        self, _args: Any, state: Any, _control: Any, logs: Any = None, **objects: Any
    ) -> None:
        """Record the step that was logged."""
        self.loss = {"loss": logs["loss"]} if "loss" in (logs or {}) else self.loss
        self._record_pending(state, objects)

    def on_train_end(self, _args: Any, state: Any, _control: Any, **objects: Any) -> None:
        """Record the last step."""
        self._record_pending(state, objects)
        self.recorder.close()

    def _record_pending(self, state: Any, objects: Mapping[str, Any]) -> None:
        if self.is_step_pending:
            self._record(state, objects)

    def _record(self, state: Any, objects: Mapping[str, Any]) -> None:
        self.is_step_pending = False
        self.recorder(
            objects["model"],
            step=state.global_step,
            epoch=state.epoch or 0.0,
            learning_rate=self.learning_rate,
            **self.loss,
        )


def _learning_rate(objects: Mapping[str, Any]) -> float | None:
    optimizer = objects.get("optimizer")
    return None if optimizer is None else float(optimizer.param_groups[0]["lr"])
