"""Serialization: one file, written once, with everything that worker processes need of a job.

The file is a safetensors file that is named by a fingerprint of its content. It holds the tensors
(weights, directions, data); every worker maps them into its memory, so a machine holds them once,
however many workers it has. It also holds, as bytes, a pickle of the rest of the job (the structure
of the model, the loss, the quantities) with references to the tensors.

landscope unpickles no file of a user. It wrote this file itself, in the same session, and a worker
loads the pickle only if its fingerprint is the one that the driver names.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, final

import torch
from torch import Tensor

from landscope.engines.job import Job
from landscope.engines.pickling import (
    ALIGNMENT,
    References,
    dump,
    find_cloudpickle,
    fingerprint_bytes,
    load,
)
from landscope.errors import EngineError
from landscope.files import cache_folder, write_atomically
from landscope.objective.batches import Batches
from landscope.objective.global_state import preserve_global_state
from landscope.objective.objective import Objective
from landscope.tensorfile import NAMES, Entry, encode_entries, encode_header

Make = Callable[[], Objective]
"""A function that builds the objective in the worker."""

_WEEK = 7 * 86400.0  # seconds after which an unused file is removed
_PICKLE = "pickle"


@final
@dataclass(frozen=True)
class Payload:
    """The file of a job.

    Args:
        path: The path of the file.
        digest: The fingerprint of its pickle, which names every tensor by a fingerprint.
        size: The size of the file in bytes.
    """

    path: str
    digest: str
    size: int

    @property
    def is_here(self) -> bool:
        """Whether this process sees the file."""
        path = Path(self.path)
        return path.is_file() and path.stat().st_size == self.size

    def in_folder(self, folder: str | os.PathLike[str] | None = None) -> Payload:
        """Return the same payload in another folder, by default in this machine's cache."""
        return replace(self, path=str(_payload_folder(folder) / Path(self.path).name))

    def write(self, content: Any) -> None:
        """Write the file from bytes that were received."""
        with write_atomically(Path(self.path)) as part:
            part.write_bytes(content)


def pack(
    job: Job,
    *,
    folder: str | os.PathLike[str] | None = None,
    make: Make | None = None,
    cloudpickle: ModuleType | None = None,
) -> Payload:
    """Return the payload of a job; the file is written unless it exists.

    Args:
        job: The job. Its objective, slice, quantities and axes are packed.
        folder: The folder of the file; ``shared`` in the cache folder if not given. Workers on
            other machines see the file only in a folder that all of them share.
        make: A function that builds the objective in the worker, instead of packing it.
        cloudpickle: The module that pickles; if not given, cloudpickle where it is installed.

    Raises:
        EngineError: When a part of the job cannot be pickled, or the file cannot be written.

    Cost: a pass over all bytes for their fingerprints, and one to write them the first time.
    """
    if job.objective.problem.in_place:
        raise EngineError(
            "an objective with in_place=True moves the weights of this process: use the engine"
            " Local, or make it with in_place=False for workers in other processes."
        )
    references = References()
    content = _pickle_job(job, make, references, cloudpickle or find_cloudpickle())
    digest = fingerprint_bytes(content)
    pickled = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    header, pieces = _lay_out({_PICKLE: pickled, **references.tensors})
    size = len(header) + sum(t.nbytes for t in pieces)
    path = _payload_folder(folder) / f"{digest}.safetensors"
    payload = Payload(str(path), digest, size)
    _write_once(payload, header, pieces)
    return payload


def _pickle_job(
    job: Job, make: Make | None, references: References, cloudpickle: ModuleType
) -> bytes:
    objective = make or _strip(job.objective)
    fingerprints = job.objective.problem.fingerprints() if make else None
    slice_ = dump(job.slice, references, cloudpickle)
    measured = tuple(job.quantities), tuple(job.axes)
    return dump((objective, slice_, measured, fingerprints), references, cloudpickle)


def unpack(payload: Payload, *, device: torch.device | None = None) -> Job:
    """Return the job of a payload, with its tensors mapped into memory.

    Args:
        payload: The payload that :func:`pack` returned.
        device: The device on which the objective computes; None keeps the driver's.

    Raises:
        EngineError: When the file is missing, is another file, or cannot be loaded here.
    """
    from safetensors import safe_open

    if not payload.is_here:
        raise EngineError(
            f"a worker does not see {payload.path}, which holds what it needs: pass folder=, a"
            " folder that the machines of all workers share."
        )
    with safe_open(payload.path, framework="pt") as file:
        content = file.get_tensor(_PICKLE).numpy().tobytes()
        if fingerprint_bytes(content) != payload.digest:
            raise EngineError(f"{payload.path} is not the file that was written: remove it.")
        find = functools.cache(file.get_tensor)
        try:
            objective, pickled_slice, measured, fingerprints = load(content, find, device)
            slice_ = load(pickled_slice, find, device, move_all=device is not None)
        except (ImportError, AttributeError) as error:
            raise EngineError(
                f"a worker cannot load the job ({type(error).__name__}: {error}): install the same"
                " packages where the workers run, and define model and loss in a module that can"
                " be imported there; or pass make=, a function that builds the objective."
            ) from error
    if fingerprints is not None:
        objective = _build(objective, fingerprints)
    if device is not None:
        objective = Objective.of(objective.problem.to(device))
    quantities, axes = measured
    return Job(objective, slice_, quantities, axes=axes)


def _build(make: Make, expected: Mapping[str, str]) -> Objective:
    """Return the objective that a function builds, after checking that it is the driver's."""
    objective = make()
    if not isinstance(objective, Objective):
        raise EngineError(
            f"make= returned a {type(objective).__name__} in a worker; expected an ls.Objective."
        )
    actual = objective.problem.fingerprints()
    different = [n for n in expected if actual.get(n) != expected[n] and n != "device"]
    if different:
        raise EngineError(
            f"make= built another objective in a worker: {', '.join(different)} differ from the"
            " driver's. Fix its seeds, and let it load the same weights and data."
        )
    return objective


def _strip(objective: Objective) -> Objective:
    """Return an objective without what a worker does not need: a second copy of cached data."""
    problem = objective.problem
    with preserve_global_state(*problem.sources.values()):
        batches = {n: _strip_batches(b) for n, b in problem.batches.items()}
    sources = {n: b.source for n, b in batches.items()}
    return Objective.of(replace(problem, batches=batches, sources=sources))


def _strip_batches(batches: Batches) -> Batches:
    loaded = batches.to(batches.device)
    if not loaded.streamed:
        loaded.source = ()  # the batches of the first pass are cached: they are the data
    return loaded


def _lay_out(tensors: Mapping[str, Tensor]) -> tuple[bytes, list[Tensor]]:
    """Return the header of a safetensors file and the tensors that follow it.

    Each tensor begins at the same offset from a multiple of 64 bytes as in the driver, so that
    kernels round identically; safetensors itself aligns to 8. The header is padded with spaces, and
    each gap between tensors is a tensor too, because the format allows no holes.
    """
    entries: dict[str, Entry] = {}
    pieces: list[Tensor] = []
    position = 0
    for name, tensor in tensors.items():
        offset = int(name.partition("+")[2] or 0)
        gap = torch.zeros((offset - position) % ALIGNMENT, dtype=torch.uint8)
        for key, piece in ((f"gap.{len(pieces)}", gap), (name, tensor)):
            if piece.nbytes:
                shape = tuple(piece.shape)
                entries[key] = Entry(NAMES[piece.dtype], shape, position, piece.nbytes)
                pieces.append(piece)
                position += piece.nbytes
    return encode_header(encode_entries(entries), alignment=ALIGNMENT), pieces


def _write_once(payload: Payload, header: bytes, pieces: Iterable[Tensor]) -> None:
    """Write the file of a payload, or mark it as used if it exists."""
    path = Path(payload.path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_unused(path.parent)
        if payload.is_here:
            os.utime(path)
            return
        with write_atomically(path) as part, part.open("wb") as file:
            file.write(header)
            for piece in pieces:
                file.write(piece.view(torch.uint8).numpy().data)
    except OSError as error:
        raise EngineError(
            f"the file for workers cannot be written to {path.parent} ({error}): pass folder=, a"
            " folder with room for the weights, the directions and the data."
        ) from error


def _payload_folder(folder: str | os.PathLike[str] | None) -> Path:
    return cache_folder() / "shared" if folder is None else Path(folder)


def _remove_unused(folder: Path) -> None:
    """Remove files that were not used for a week; workers that have one open keep it."""
    for path in folder.glob("*.safetensors"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _WEEK:
                path.unlink()
