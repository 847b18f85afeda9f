"""Every error that landscope raises, in one small tree.

    LandscopeError
    ├── ObjectiveError    (ValueError)    model, loss, data or metrics cannot be used together
    │   └── CallError     (RuntimeError)  the model or the loss failed on the very first batch
    ├── DeterminismError  (RuntimeError)  the same parameters gave two different losses
    ├── ParamsError       (ValueError)    names or shapes of parameters do not fit
    ├── DirectionError    (ValueError)    a direction cannot be made as asked
    ├── SliceError        (ValueError)    coordinates or directions of a slice are wrong
    ├── NumericsError     (ArithmeticError)  a computation gave NaN or infinity where it must not
    ├── SamplerError      (ValueError)    a resolution or a span is wrong
    ├── EngineError       (RuntimeError)  workers cannot be had, or were lost
    ├── JournalError      (RuntimeError)  a journal cannot be used, or answers another question
    ├── RecorderError     (RuntimeError)  a training cannot be recorded as asked
    ├── FormatError       (ValueError)    a file is not what it should be
    ├── DrawError         (ValueError)    a landscape cannot be drawn as asked
    ├── TrainingError     (ValueError)    a network cannot be trained as asked
    ├── TargetError       (ValueError)    the command line named something that is not there
    └── MissingExtraError (ImportError)   an optional library is not installed

Each text says what was given, what was expected and what to do, in sentences.
"""

__all__ = [
    "CallError",
    "DeterminismError",
    "DirectionError",
    "DrawError",
    "EngineError",
    "FormatError",
    "JournalError",
    "LandscopeError",
    "MissingExtraError",
    "NumericsError",
    "ObjectiveError",
    "ParamsError",
    "RecorderError",
    "SamplerError",
    "SliceError",
    "TargetError",
    "TrainingError",
]


class LandscopeError(Exception):
    """Any error raised by landscope itself."""


class ObjectiveError(LandscopeError, ValueError):
    """Model, loss, data or metrics cannot be used together."""


class CallError(ObjectiveError, RuntimeError):
    """The model or the loss failed on the very first batch."""


class DeterminismError(LandscopeError, RuntimeError):
    """The same parameters gave two different losses."""


class ParamsError(LandscopeError, ValueError):
    """Names or shapes of parameters do not fit."""


class DirectionError(LandscopeError, ValueError):
    """A direction cannot be made as asked."""


class SliceError(LandscopeError, ValueError):
    """Coordinates or directions of a slice are wrong."""


class NumericsError(LandscopeError, ArithmeticError):
    """A computation gave NaN or infinity where it must not."""


class SamplerError(LandscopeError, ValueError):
    """A resolution or a span is wrong."""


class EngineError(LandscopeError, RuntimeError):
    """Workers cannot be had, or were lost."""


class JournalError(LandscopeError, RuntimeError):
    """A journal cannot be used, or answers another question."""


class RecorderError(LandscopeError, RuntimeError):
    """A training cannot be recorded as asked."""


class FormatError(LandscopeError, ValueError):
    """A file is not what it should be."""


class DrawError(LandscopeError, ValueError):
    """A landscape cannot be drawn as asked."""


class TrainingError(LandscopeError, ValueError):
    """A network cannot be trained as asked."""


class TargetError(LandscopeError, ValueError):
    """The command line named something that is not there."""


class MissingExtraError(LandscopeError, ImportError):
    """An optional library is not installed."""


def __dir__() -> list[str]:
    return __all__
