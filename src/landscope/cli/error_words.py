"""Errors in the words of the command line: options in place of arguments, and the user's own line.

The library speaks of its arguments (``workers=0``, "or None"); a command has options.
"""

from __future__ import annotations

import re
import site
import sysconfig
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

_ALIASES = {  # arguments of the library that have another name as an option
    "size": "--samples", "pattern": "--select", "eigenvalue_tol": "--tolerance",
    "num_vectors": "--vectors", "num_planes": "--planes",
}  # fmt: skip
_PYTHON = (  # what makes no sense in a shell -> what does
    (r", or None to measure\b", ", or leave it out to measure"),
    (r", or None\b", ", or leave it out"),
    (r", or a list of which of them, 0 to \d+", ""),
    (r"\bpath='([^']*)'", r"\1"),
    (r"\bls\.Recorder \(or landscope train --record\)", "landscope train --record"),
)
_PLACES = ("stdlib", "platstdlib", "purelib", "platlib")
_UNITS_OF_TIME = ("s", "sec", "seconds", "m", "min", "minute", "minutes", "h", "hour", "hours")


def explain(error: Exception, options: Mapping[str, str]) -> str:
    """Return the text of an error with options in place of arguments, and the line it comes from.

    Args:
        error: The error of a command.
        options: Argument -> option of the command, such as "learning_rate" -> "--learning-rate".
    """
    text = " ".join(str(error).split())
    is_ours = _began_in(Path(__file__).parent, error)  # in the words of the command line already
    for name, option in ({} if is_ours else {**_ALIASES, **options}).items():
        text = re.sub(rf"(?<![\w.-]){name}=(?=\S)", f"{option} ", text)
        text = text.replace(f"({name})", f"({option})")
    for pattern, words in _PYTHON:
        text = re.sub(pattern, words, text)
    line = find_user_line(error)
    return f"{text.rstrip('.')} ({line})." if line and line not in text else text


def _began_in(folder: Path, error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).parent == folder


def find_user_line(error: BaseException) -> str:
    """Return "file, line n" of the user's code in which an error began; "" if there is none."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    for each in reversed(chain):
        for frame in reversed(traceback.extract_tb(each.__traceback__)):
            if _is_of_user(frame.filename):
                return f"{Path(frame.filename).name}, line {frame.lineno}"
    return ""


def describe_usage(words: Sequence[str]) -> str:
    """Return what else to do after an error of usage; "" if there is nothing to add.

    Args:
        words: The words of the command line.
    """
    if "--budget" in words[:-2]:
        at = list(words).index("--budget")
        if words[at + 2] in _UNITS_OF_TIME:
            return (
                f"a time is one word: --budget {words[at + 1]}{words[at + 2][0]}, or in quotes:"
                f" --budget '{words[at + 1]} {words[at + 2]}'."
            )
    spans = [word for word in words if re.fullmatch(r"-?[\d.]+[,;]-?[\d.]+[,;]\d+", word)]
    return f"an axis is written with colons: {spans[0].replace(',', ':')}." if spans else ""


def _is_of_user(name: str) -> bool:
    """Tell whether a file is neither of Python, nor of an installed library, nor of landscope."""
    path = Path(name)
    if not path.is_file():
        return False
    homes = {Path(__file__).parents[1], *map(Path, site.getsitepackages())}
    homes |= {Path(sysconfig.get_path(place)) for place in _PLACES}
    return not any(home in path.resolve().parents or home in path.parents for home in homes)
