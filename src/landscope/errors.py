"""Every error that landscope raises, in one small tree.

    LandscopeError
    ├── ObjectiveError    (ValueError)    model, loss, data or metrics cannot be used together
    │   └── CallError     (RuntimeError)  the model or the loss failed on a batch
    ├── DeterminismError  (RuntimeError)  the same parameters gave two different losses
    ├── ParamsError       (ValueError)    names or shapes of parameters do not fit
    ├── DirectionError    (ValueError)    a direction cannot be constructed
    ├── SliceError        (ValueError)    coordinates or directions of a slice are wrong
    ├── NumericsError     (ArithmeticError)  a computation gave NaN or infinity where it must not
    ├── SamplerError      (ValueError)    a resolution or a span is wrong
    ├── EngineError       (RuntimeError)  workers cannot be started, or were lost
    ├── JournalError      (RuntimeError)  a journal cannot be used, or belongs to another scan
    ├── RecorderError     (RuntimeError)  a training run cannot be recorded
    ├── FormatError       (ValueError)    a file cannot be read or written
    ├── DrawError         (ValueError)    a landscape cannot be drawn this way
    ├── TrainingError     (ValueError)    a network cannot be trained this way
    ├── TargetError       (ValueError)    a target of the command line or the zoo is wrong
    └── MissingExtraError (ImportError)   an optional library is not installed

Each message says in sentences what was given, what was expected, and what to do.
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
    """The base class of all errors that landscope raises."""


class ObjectiveError(LandscopeError, ValueError):
    """Model, loss, data or metrics cannot be used together."""


class CallError(ObjectiveError, RuntimeError):
    """The model or the loss failed on a batch."""


class DeterminismError(LandscopeError, RuntimeError):
    """The same parameters gave two different losses."""


class ParamsError(LandscopeError, ValueError):
    """Names or shapes of parameters do not fit."""


class DirectionError(LandscopeError, ValueError):
    """A direction cannot be constructed."""


class SliceError(LandscopeError, ValueError):
    """Coordinates or directions of a slice are wrong."""


class NumericsError(LandscopeError, ArithmeticError):
    """A computation gave NaN or infinity where it must not."""


class SamplerError(LandscopeError, ValueError):
    """A resolution or a span is wrong."""


class EngineError(LandscopeError, RuntimeError):
    """Workers cannot be started, or were lost."""


class JournalError(LandscopeError, RuntimeError):
    """A journal cannot be used, or belongs to another scan."""


class RecorderError(LandscopeError, RuntimeError):
    """A training run cannot be recorded."""


class FormatError(LandscopeError, ValueError):
    """A file cannot be read or written."""


class DrawError(LandscopeError, ValueError):
    """A landscape cannot be drawn this way."""


class TrainingError(LandscopeError, ValueError):
    """A network cannot be trained this way."""


class TargetError(LandscopeError, ValueError):
    """A target of the command line or the zoo is wrong."""


class MissingExtraError(LandscopeError, ImportError):
    """An optional library is not installed."""


def __dir__() -> list[str]:
    return __all__
