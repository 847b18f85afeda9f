"""A text that every machine has: the sources of modules of Python's standard library.

The modules are part of every Python since 3.11, but their text differs between versions, and so do
networks that were trained on it. Each character is a token; characters that are not ASCII become
question marks.
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
PADDING = 0  # the token at the end of short rows
ALPHABET = "\0\n" + "".join(map(chr, range(32, 127)))  # a token is an index into it

_MODULE_LENGTH = 45_000  # characters used from each module; every module has more
_BLOCK_LENGTH = 4097  # characters: 64 windows of 64, and the character after the last window
_TEST_EVERY = 5  # every fifth block is for testing
_SHORT = 24  # characters; every passage has more


@lru_cache(maxsize=1)
def read_corpus() -> dict[str, str]:
    """Return the first 45,000 characters of the source of each of :data:`MODULES`, by name.

    Raises:
        TargetError: When a source is missing, as in a Python without its sources.
    """
    return {name: _read_source(name)[:_MODULE_LENGTH] for name in MODULES}


def identity() -> str:
    """Return a fingerprint of the corpus; it differs between versions of Python."""
    return fingerprint.of_text(*read_corpus().values())


def encode(text: str) -> Tensor:
    """Return the tokens of a text, shape (len(text),)."""
    return _build_table()[torch.tensor(list(text.encode("ascii", "replace")), dtype=torch.int64)]


def decode(tokens: Tensor) -> str:
    """Return the text of tokens [t], without the padding."""
    return "".join(ALPHABET[k] for k in tokens.tolist() if k != PADDING)


def cut_blocks(*, train: bool = True) -> dict[str, list[str]]:
    """Return blocks of 4,097 characters of each module, by name; every fifth is for testing.

    Training and test blocks do not overlap, and both come from all over each module.
    """
    by_name = {}
    for name, text in read_corpus().items():
        blocks = [text[k : k + _BLOCK_LENGTH] for k in range(0, len(text), _BLOCK_LENGTH)]
        by_name[name] = [
            block for k, block in enumerate(blocks) if (k % _TEST_EVERY < _TEST_EVERY - 1) == train
        ]
    return by_name


def cut_windows(length: int, *, train: bool = True) -> tuple[Tensor, Tensor]:
    """Return all windows of the text as inputs [n, t], and targets [n, t], the next characters.

    Windows are adjacent; the character after a window is the first one of the next window.

    Args:
        length: The length t of a window.
        train: Whether to cut the training text instead of the test text.
    """
    blocks = [block for blocks in cut_blocks(train=train).values() for block in blocks]
    windows = [encode(b).unfold(0, length + 1, length) for b in blocks if len(b) > length]
    tokens = torch.cat(windows)
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def cut_lines(count: int, *, train: bool = True) -> tuple[Tensor, Tensor]:
    """Return lines of unequal length as inputs [n, t] and targets [n, t], padded at their ends.

    Args:
        count: The number of lines, evenly spaced over the corpus.
        train: Whether to cut the training text instead of the test text.
    """
    blocks = [block for blocks in cut_blocks(train=train).values() for block in blocks]
    lines = [line for block in blocks for line in block.splitlines()[1:-1] if line.strip()]
    rows = [encode(f"{lines[k]}\n") for k in space_evenly(len(lines), count)]
    return pad([row[:-1] for row in rows]), pad([row[1:] for row in rows])


def cut_passages(length: int, *, train: bool = True) -> tuple[Tensor, Tensor]:
    """Return passages [n, t], padded at their ends, and labels [n]: the module of each passage.

    A passage is a line, or several short lines, without indentation.

    Args:
        length: The maximum length t of a passage; longer ones are truncated.
        train: Whether to cut the training text instead of the test text.
    """
    passages: list[Tensor] = []
    labels: list[int] = []
    for label, blocks in enumerate(cut_blocks(train=train).values()):
        texts = [text for block in blocks for text in _cut_block(block, length)]
        passages += map(encode, texts)
        labels += [label] * len(texts)
    return pad(passages, length), torch.tensor(labels)


def pad(rows: list[Tensor], length: int | None = None) -> Tensor:
    """Return rows of unequal length as one tensor [n, t], with :data:`PADDING` at their ends."""
    length = max(map(len, rows)) if length is None else length
    return torch.stack([F.pad(row, (0, length - len(row)), value=PADDING) for row in rows])


def space_evenly(total: int, count: int) -> list[int]:
    """Return ``count`` evenly spaced indices below ``total``; all of them if there are fewer."""
    count = min(count, total)
    return [k * total // count for k in range(count)]


def _cut_block(block: str, length: int) -> list[str]:
    """Return the passages of a block, without its first and last line, which are incomplete.

    A passage ends with the line that makes it longer than ``_SHORT``.
    """
    passages, passage = [], ""
    for line in block.splitlines()[1:-1]:
        passage = f"{passage}\n{line.strip()}".strip()
        if len(passage) > _SHORT:
            passages.append(passage[:length])
            passage = ""
    return passages


def _read_source(name: str) -> str:
    """Return the source of a module without importing it; it may be in an archive."""
    spec = importlib.util.find_spec(name)
    loader = spec.loader if spec else None
    text = loader.get_source(name) if isinstance(loader, InspectLoader) else None
    if not text:
        raise TargetError(
            f"the source of Python's module {name!r} is missing, and the text networks need it: use"
            " a Python that has the sources of its standard library."
        )
    return text


@lru_cache(maxsize=1)
def _build_table() -> Tensor:
    """Return the token of each of the 128 ASCII characters; control characters become spaces."""
    return torch.tensor([max(ALPHABET.find(chr(k)), 0) or ALPHABET.index(" ") for k in range(128)])
