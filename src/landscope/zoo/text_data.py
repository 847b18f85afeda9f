"""Text that every machine has: sources and documentation of Python's standard library.

The modules are in every Python from 3.11 on, but their text differs from version to version, and so
do networks that were trained on it. A character is a token; what is not ASCII is a question mark.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from importlib.abc import InspectLoader

import torch
import torch.nn.functional as F
from torch import Tensor

from landscope import fingerprint
from landscope.errors import TargetError

MODULES = (
    "argparse", "difflib", "inspect", "ipaddress", "mailbox", "statistics", "subprocess", "tarfile",
)  # fmt: skip
PADDING = 0  # the token that fills rows up
ALPHABET = "\0\n" + "".join(map(chr, range(32, 127)))  # a token is a place in it

_MODULE = 45_000  # characters of each module; all of them have more
_BLOCK = 4097  # characters; 64 windows of 64 and the character that follows the last
_TESTED = 5  # one block of so many is for testing
_SHORT = 24  # characters; a passage has more


@lru_cache(maxsize=1)
def corpus() -> dict[str, str]:
    """Return name -> the first 45,000 characters of the source of each of :data:`MODULES`.

    Raises:
        TargetError: when a source is not there, as in a Python that was stripped of them.
    """
    return {name: _source(name)[:_MODULE] for name in MODULES}


def identity() -> str:
    """Return a fingerprint of the corpus; it differs from one version of Python to another."""
    return fingerprint.of_text(*corpus().values())


def encode(text: str) -> Tensor:
    """Return the tokens of a text, shape (len(text),)."""
    return _table()[torch.tensor(list(text.encode("ascii", "replace")), dtype=torch.int64)]


def decode(tokens: Tensor) -> str:
    """Return the text of tokens [t], without padding."""
    return "".join(ALPHABET[k] for k in tokens.tolist() if k != PADDING)


def blocks(*, train: bool = True) -> dict[str, list[str]]:
    """Return name -> pieces of each module, of 4,097 characters: one of five is a test piece.

    Training and test pieces share no place of the text, and both come from all over each module.
    """
    found = {}
    for name, text in corpus().items():
        pieces = [text[k : k + _BLOCK] for k in range(0, len(text), _BLOCK)]
        found[name] = [p for k, p in enumerate(pieces) if (k % _TESTED < _TESTED - 1) == train]
    return found


def windows(length: int, *, train: bool = True) -> tuple[Tensor, Tensor]:
    """Return inputs [n, t] and targets [n, t], the characters that follow: all windows of a set.

    Windows lie side by side; the character that follows one is the first of the next.

    Args:
        length: t, of a window.
        train: of the training text or the test text.
    """
    pieces = [piece for pieces in blocks(train=train).values() for piece in pieces]
    cut = [encode(p).unfold(0, length + 1, length) for p in pieces if len(p) > length]
    whole = torch.cat(cut)
    return whole[:, :-1].contiguous(), whole[:, 1:].contiguous()


def lines(count: int, *, train: bool = True) -> tuple[Tensor, Tensor]:
    """Return inputs [n, t] and targets [n, t] of lines of unequal length, padded at their ends.

    Args:
        count: how many lines, evenly spaced over the corpus.
        train: of the training text or the test text.
    """
    pieces = [piece for pieces in blocks(train=train).values() for piece in pieces]
    found = [line for piece in pieces for line in piece.splitlines()[1:-1] if line.strip()]
    chosen = [encode(f"{found[k]}\n") for k in spaced(len(found), count)]
    return padded([c[:-1] for c in chosen]), padded([c[1:] for c in chosen])


def passages(length: int, *, train: bool = True) -> tuple[Tensor, Tensor]:
    """Return passages [n, t], padded at their ends, and labels [n]: which module each is from.

    A passage is a line, or several that are short, without what indents them.

    Args:
        length: t, of the longest passage; what is longer is cut.
        train: of the training text or the test text.
    """
    found: list[Tensor] = []
    labels: list[int] = []
    for label, pieces in enumerate(blocks(train=train).values()):
        cut = [passage for piece in pieces for passage in _cut(piece, length)]
        found += map(encode, cut)
        labels += [label] * len(cut)
    return padded(found, length), torch.tensor(labels)


def padded(rows: list[Tensor], length: int | None = None) -> Tensor:
    """Return rows of unequal length as one tensor [n, t], filled up with :data:`PADDING`."""
    length = max(map(len, rows)) if length is None else length
    return torch.stack([F.pad(row, (0, length - len(row)), value=PADDING) for row in rows])


def spaced(total: int, count: int) -> list[int]:
    """Return ``count`` places of ``total``, evenly spaced; all of them when there are fewer."""
    count = min(count, total)
    return [k * total // count for k in range(count)]


def _cut(piece: str, length: int) -> list[str]:
    """Return passages of a piece, at most so long, without its first and last line: they are cut.

    A passage ends with the line that makes it long enough.
    """
    found, held = [], ""
    for line in piece.splitlines()[1:-1]:
        held = f"{held}\n{line.strip()}".strip()
        if len(held) > _SHORT:
            found.append(held[:length])
            held = ""
    return found


def _source(name: str) -> str:
    """Return the source of a module, which is not imported; it may lie in an archive."""
    spec = importlib.util.find_spec(name)
    loader = spec.loader if spec else None
    text = loader.get_source(name) if isinstance(loader, InspectLoader) else None
    if not text:
        raise TargetError(
            f"the source of Python's module {name!r} is not there, and the networks of text read"
            " it: use a Python that has the sources of its standard library."
        )
    return text


@lru_cache(maxsize=1)
def _table() -> Tensor:
    """Return the token of each of the 128 characters of ASCII; other control ones are spaces."""
    return torch.tensor([max(ALPHABET.find(chr(k)), 0) or ALPHABET.index(" ") for k in range(128)])
