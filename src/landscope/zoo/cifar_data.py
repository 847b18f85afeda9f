"""CIFAR-10 in its published files, read without torchvision and without trusting pickles.

The data set exists in two formats: Python batches (one pickled dictionary each) and binary batches
(records of one label byte and 3,072 pixel bytes). Both are read into memory, from the archive or
from a folder. Unpickling creates nothing but dictionaries, lists, numbers, text, bytes and arrays
of numbers; arrays are created by this module and not by the functions that the file names.

Source: Krizhevsky, 2009, Learning Multiple Layers of Features from Tiny Images;
https://www.cs.toronto.edu/~kriz/cifar.html for the layout.
"""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, NoReturn, cast

import numpy as np
import torch
from torch import Tensor

from landscope.errors import FormatError

MEAN = (125.3 / 255, 123.0 / 255, 113.9 / 255)  # red, green, blue in [0, 1]; as in the 2018 scripts
STD = (63.0 / 255, 62.1 / 255, 66.7 / 255)

_CLASSES = 10
_PIXELS = 3 * 32 * 32
_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST = ("test_batch",)
_PLACES = (  # where the data can be inside a folder, in order of preference
    "cifar-10-batches-py",
    "cifar-10-batches-bin",
    "cifar-10-python.tar.gz",
    "cifar-10-binary.tar.gz",
)
_DAMAGED = (OSError, EOFError, tarfile.TarError, zlib.error)


def load_tensors(
    path: str | os.PathLike[str],
    *,
    train: bool = True,
    normalize: bool = True,
    split: int = 1,
    seed: int = 0,
    corrupt: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Return CIFAR-10 as inputs and targets, prepared as in the 2018 scripts.

    For one seed, which labels are replaced does not depend on ``split``, and a larger ``corrupt``
    replaces all labels that a smaller one does, and more.

    Args:
        path: The archive or the folder, as for :func:`read`.
        train: Whether to return the 50,000 training images instead of the 10,000 test images.
        normalize: Whether to subtract MEAN and divide by STD; otherwise the inputs are in [0, 1].
        split: The inverse of the fraction of images that is used, at least 1. The images are chosen
            at random and stay in file order.
        seed: The seed of the corruption and the split.
        corrupt: The fraction in [0, 1] of images whose label is replaced by a uniformly random
            label (which is the correct one in a tenth of the cases).

    Returns:
        The inputs, float32 [n, 3, 32, 32], and the targets, int64 [n].

    Raises:
        FormatError: When the data cannot be read, or split or corrupt is out of range.

    Source: Li et al., 2018, arXiv 1712.09913; corrupted labels: Zhang et al., 2016,
    arXiv 1611.03530, section 2.
    """
    if not 0.0 <= corrupt <= 1.0:
        raise FormatError(f"corrupt={corrupt} is not a share: give a number from 0 to 1.")
    if split < 1 or split % 1:
        raise FormatError(f"split={split} keeps 1/split of the images: give a whole number from 1.")
    images, labels = read(path, train=train)
    if split > len(images):
        raise FormatError(
            f"split={split} leaves none of the {len(images)} images: give a smaller split."
        )
    generator = torch.Generator().manual_seed(seed)
    targets = torch.from_numpy(labels)
    count = len(targets)
    replaced = torch.randperm(count, generator=generator)[: round(corrupt * count)]
    targets[replaced] = torch.randint(_CLASSES, (count,), generator=generator)[: len(replaced)]
    rows = torch.randperm(count, generator=generator)[: count // int(split)].sort().values
    return preprocess(images[rows.numpy()], normalize=normalize), targets[rows]


def preprocess(images: np.ndarray, *, normalize: bool = True) -> Tensor:
    """Return images as inputs of a network: scaled to [0, 1], then (x - MEAN) / STD per channel.

    Args:
        images: The images, uint8 [n, h, w, 3].
        normalize: Whether to standardize the channels; otherwise the inputs are in [0, 1].

    Returns:
        The inputs, float32 [n, 3, h, w].

    Raises:
        FormatError: When the images are not uint8 or have another shape.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise FormatError(
            f"images are {images.dtype} of shape {images.shape}; expected uint8 of shape"
            " (n, height, width, 3)."
        )
    inputs = torch.from_numpy(np.array(images.transpose(0, 3, 1, 2), order="C")).float().div_(255)
    if normalize:
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        inputs.sub_(mean).div_(std)
    return inputs


def read(path: str | os.PathLike[str], *, train: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Return the images and labels of CIFAR-10 in file order.

    Args:
        path: The path of cifar-10-python.tar.gz or cifar-10-binary.tar.gz, of the folder that one
            of them was extracted to, or of a folder that contains one of these.
        train: Whether to read the five training batches instead of the test batch.

    Returns:
        The images, uint8 [n, 32, 32, 3], and the labels, int64 [n], from 0 to 9.

    Raises:
        FormatError: When the path does not exist, a batch is missing or damaged, a label is out of
            range, or a batch tries to load anything but numbers, text and arrays.
    """
    path = Path(path)
    if not path.exists():
        raise FormatError(
            f"{path} does not exist: give the archive cifar-10-python.tar.gz or"
            " cifar-10-binary.tar.gz, or the folder that it was extracted to."
        )
    names = _TRAIN if train else _TEST
    parts = dict(_read_batches(path, names))
    missing = [name for name in names if name not in parts]
    if missing:
        raise FormatError(
            f"{path} holds no {', '.join(missing)}: give cifar-10-python.tar.gz,"
            " cifar-10-binary.tar.gz, or a folder that contains one of them or its content."
        )
    planes = np.concatenate([parts[name][0] for name in names])
    labels = np.concatenate([parts[name][1] for name in names])
    return np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), labels


def _read_batches(
    path: Path, names: tuple[str, ...]
) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    """Yield the name and the content (planes uint8 [n, 3072], labels int64 [n]) of each batch."""
    names_of_files = {**{f"{name}.bin": name for name in names}, **{name: name for name in names}}
    try:
        for name, content in _read_files(path, names_of_files):
            parse = _parse_binary if name.endswith(".bin") else _parse_pickle
            yield names_of_files[name], parse(content, f"{path}: {name}")
    except _DAMAGED as error:
        reason = str(error).partition("\n")[0].rstrip(":")
        raise FormatError(
            f"{path} cannot be read ({reason}): it is damaged or incomplete; get it again."
        ) from error


def _read_files(path: Path, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the wanted files in an archive, in a folder, or in the first place inside a folder."""
    if path.is_file():
        with tarfile.open(path) as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                if name in wanted and member.isfile():
                    file = cast("IO[bytes]", archive.extractfile(member))  # None for folders only
                    yield name, file.read()
        return
    here = [path / name for name in wanted if (path / name).is_file()]
    inside = [path / place for place in _PLACES if (path / place).exists()]
    if here:
        yield from ((file.name, file.read_bytes()) for file in here)
    elif inside:
        yield from _read_files(inside[0], wanted)


def _parse_binary(content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    if not content or len(content) % (1 + _PIXELS):
        raise FormatError(
            f"{where} is truncated: {len(content)} bytes are not a whole number of records of"
            f" {1 + _PIXELS} bytes; get it again."
        )
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, 1 + _PIXELS)
    return records[:, 1:], _check_labels(records[:, 0].astype(np.int64), where)


def _parse_pickle(content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        batch = _Reader(io.BytesIO(content), where).load()
        fields = {_to_text(name): value for name, value in batch.items()}
        planes, labels = _to_array(fields["data"]), _to_array(fields["labels"])
    except FormatError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise FormatError(
            f"{where} is truncated or not a batch of CIFAR-10 ({type(error).__name__}: {error});"
            " get it again."
        ) from error
    if planes.dtype != np.uint8 or planes.shape != (labels.size, _PIXELS) or labels.ndim != 1:
        raise FormatError(
            f"{where} is truncated or not a batch of CIFAR-10: it holds {planes.dtype} of shape"
            f" {planes.shape} with {labels.size} labels; expected uint8 of shape (n, {_PIXELS})"
            " with n labels."
        )
    return planes, _check_labels(labels, where)


def _check_labels(labels: np.ndarray, where: str) -> np.ndarray:
    """Return the labels as int64 if they are whole numbers from 0 to 9, else raise FormatError."""
    wrong = labels[~np.isin(labels, np.arange(_CLASSES))]
    if wrong.size or labels.dtype.kind not in "iu":
        raise FormatError(
            f"{where} has labels that are not whole numbers from 0 to {_CLASSES - 1}"
            f" ({', '.join(map(repr, wrong[:3].tolist())) or labels.dtype}): get it again."
        )
    return labels.astype(np.int64)


class _Reader(pickle.Unpickler):
    """Loads plain values and arrays of numbers, and refuses everything else that a file names."""

    def __init__(self, file: io.BytesIO, where: str) -> None:
        super().__init__(file, encoding="bytes")
        self.where = where

    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): _Array,
            ("numpy._core.multiarray", "_reconstruct"): _Array,
            ("numpy", "ndarray"): _Array,
            ("numpy", "dtype"): _Dtype,
            ("_codecs", "encode"): _encode,
            ("__builtin__", "bytes"): _create_empty_bytes,
        }
        return allowed.get((module, name)) or self._refuse(module, name)

    def _refuse(self, module: str, name: str) -> NoReturn:
        raise FormatError(
            f"{self.where} tries to load {module}.{name}; a batch of CIFAR-10 needs nothing but"
            " arrays and bytes, so this is not the published file: get it again from"
            " https://www.cs.toronto.edu/~kriz/cifar.html."
        )


class _Array:
    """An array as its pickle describes it; ``numpy`` creates the real one."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def numpy(self) -> np.ndarray:
        _, shape, dtype, fortran, content = self.state
        values = np.frombuffer(content, dtype=dtype.numpy())
        return values.reshape(shape, order="F" if fortran else "C")


class _Dtype:
    """A dtype as its pickle describes it: a letter with a size, then a byte order."""

    def __init__(self, code: str | bytes, *_: object) -> None:
        self.code = _to_text(code)
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = _to_text(state[1])

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.code)


def _to_array(value: object) -> np.ndarray:
    return value.numpy() if isinstance(value, _Array) else np.asarray(value)


def _to_text(value: str | bytes) -> str:
    return value.decode("ascii") if isinstance(value, bytes) else value


def _encode(text: str, encoding: str | bytes) -> bytes:
    """Return bytes that were pickled as text, as Python 3 does in protocol 2."""
    if _to_text(encoding) != "latin1":
        raise ValueError(f"bytes were written as {encoding!r}")
    return text.encode("latin1")


def _create_empty_bytes() -> bytes:
    """Return empty bytes, which Python 3 pickles as a call in protocol 2."""
    return b""
