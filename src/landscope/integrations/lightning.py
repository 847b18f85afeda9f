"""PyTorch Lightning: a callback that records the training path.

It works with ``lightning`` and with ``pytorch_lightning``, depending on which one the program has
imported.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

from landscope.extras import import_optional
from landscope.training.recorder import Recorder, check_recorder

if TYPE_CHECKING:
    from lightning.pytorch import Callback

__all__ = ["callback"]

_LIBRARIES = "lightning.pytorch", "pytorch_lightning"
_ARGUMENTS = {"model", "step", "epoch", "learning_rate", "optimizer"}  # of Recorder.__call__


def callback(recorder: Recorder) -> Callback:
    """Return a callback for ``Trainer(callbacks=[...])`` that calls the recorder.

    The recorder is called with the LightningModule at the start of the fit, and then at the end of
    each epoch or every ``every`` steps (of the optimizers, ``trainer.global_step``). It receives
    the logged metrics (``callback_metrics``; those logged ``on_epoch`` are of the last finished
    epoch) and the current learning rate of the first optimizer. Lightning advances a schedule by
    epochs before an epoch ends, so there the rate is that of the next epoch. The recorder is closed
    when the fit ends. A fit that is resumed (``ckpt_path=``) continues its path.

    Args:
        recorder: The recorder of the folder to record into.

    Returns:
        A callback that is an instance of the Callback class of every imported Lightning library; it
        can be copied and pickled.

    Raises:
        RecorderError: When ``recorder`` is not an ``ls.Recorder``.
        MissingExtraError: When no Lightning library is installed.

    Example:
        >>> import landscope.integrations.lightning as integration
        >>> recorder = Recorder("run", every=100, keep=200)
        >>> trainer = dict(callbacks=[integration.callback(recorder)])  # Trainer(**trainer)
    """
    imported = [sys.modules[name] for name in _LIBRARIES if name in sys.modules]
    libraries = imported or [import_optional(_LIBRARIES[0], extra="lightning")]
    bases = tuple(library.Callback for library in libraries)
    recorder_callback: Any = type("RecorderCallback", (_Hooks, *bases), {})
    instance: Callback = recorder_callback(check_recorder(recorder))
    return instance


class _Hooks:
    """The methods that Lightning calls."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def __reduce__(self) -> tuple[Any, ...]:
        return callback, (self.recorder,)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.recorder.close()  # an interrupted fit left it open
        self._record(trainer, pl_module, trainer.current_epoch)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *about_batch: Any) -> None:
        if self.recorder.every != "epoch" and self.recorder.due(step=trainer.global_step):
            done, batches = about_batch[-1] + 1, trainer.num_training_batches
            part = done / batches if math.isfinite(batches) else 0.0
            self._record(trainer, pl_module, trainer.current_epoch + part)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if self.recorder.every == "epoch":
            self._record(trainer, pl_module, trainer.current_epoch + 1)

    def on_fit_end(self, *_: Any) -> None:
        self.recorder.close()

    def _record(self, trainer: Any, module: Any, epoch: float) -> None:
        values = {n: v for n, v in trainer.callback_metrics.items() if n not in _ARGUMENTS}
        optimizer = trainer.optimizers[0] if trainer.optimizers else None
        self.recorder(module, step=trainer.global_step, epoch=epoch, optimizer=optimizer, **values)


def __dir__() -> list[str]:
    return __all__
