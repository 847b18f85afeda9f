"""Shipping: what a worker process needs of a job, in one file that is written once.

The file is a safetensors file, named by a fingerprint of its content. It holds the tensors
(weights, directions, data), which every worker maps into its memory, so that a machine holds them
once however many workers it has; and, as bytes, the rest of the job (the structure of the model,
the loss, the quantities), pickled with references to those tensors.

landscope unpickles no file of a user. This one it wrote itself, in this session, and a worker
loads the pickle only when its fingerprint is the one that its driver names.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import io
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, final

import torch
from torch import Tensor, nn

from landscope.engines.job import Job
from landscope.errors import EngineError
from landscope.files import cache_folder, write_atomically
from landscope.objective.batches import Batches
from landscope.objective.global_state import preserve_global_state
from landscope.objective.objective import Objective
from landscope.tensorfile import NAMES, Entry, encode_entries, encode_header

Make = Callable[[], Objective]
"""A function that builds the objective in the worker."""

_ALIGNED = 64  # bytes, to which torch aligns its memory; how kernels round may depend on it
_SMALL = 1024  # bytes; a smaller tensor stays in the pickle
_WEEK = 7 * 86400.0  # seconds after which a file that nobody used is removed
_PICKLE = "pickle"


@final
@dataclass(frozen=True)
class Parcel:
    """Where a job lies for workers.

    Args:
        path: of the file.
        digest: fingerprint of the pickle in it, which names every tensor by its fingerprint.
        size: bytes of the file.
    """

    path: str
    digest: str
    size: int

    @property
    def here(self) -> bool:
        """Whether this process sees the file."""
        path = Path(self.path)
        return path.is_file() and path.stat().st_size == self.size

    def moved(self, folder: str | os.PathLike[str] | None = None) -> Parcel:
        """Return the parcel of the same content in another folder, by default this machine's."""
        return replace(self, path=str(_folder(folder) / Path(self.path).name))

    def write(self, content: Any) -> None:
        """Write the file, whose bytes came in another way."""
        with write_atomically(Path(self.path)) as part:
            part.write_bytes(content)


def pack(
    job: Job,
    *,
    folder: str | os.PathLike[str] | None = None,
    make: Make | None = None,
    cloudpickle: ModuleType | None = None,
) -> Parcel:
    """Return a parcel with a job in it; the file is written unless it is there.

    Args:
        job: what to ship; of its fields the objective, the slice, the quantities and the axes.
        folder: where the file goes; ``shared`` in the cache folder if not given. Workers on other
            machines see it only when it is a folder that all of them share.
        make: builds the objective in the worker, in the place of shipping it.
        cloudpickle: the module that pickles; cloudpickle where it is installed, if not given.

    Raises:
        EngineError: when something in the job cannot be pickled, or the file cannot be written.

    Cost: a pass over all bytes for their fingerprints, and one to write them the first time.
    """
    if job.objective.problem.in_place:
        raise EngineError(
            "an objective with in_place=True moves the weights of this process: use the engine"
            " Local, or make it with in_place=False for workers in other processes."
        )
    objective = make or _carried(job.objective)
    question = job.objective.problem.fingerprints() if make else None
    module, references = cloudpickle or _cloudpickle(), _References()
    where = _pickled(job.slice, references, module)
    asked = tuple(job.quantities), tuple(job.axes)
    content = _pickled((objective, where, asked, question), references, module)
    digest = _digest(content)
    rest = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    place = _folder(folder)
    path = place / f"{digest}.safetensors"
    head, pieces = _laid_out({_PICKLE: rest, **references.flat})
    size = len(head) + sum(t.nbytes for t in pieces)
    parcel = Parcel(str(path), digest, size)
    try:
        place.mkdir(parents=True, exist_ok=True)
        _tidy(place)
        if parcel.here:
            os.utime(path)
        else:
            _write(path, head, pieces)
    except OSError as error:
        raise EngineError(
            f"what workers need cannot be written to {place} ({error}): pass folder=, a folder"
            " with room for the weights, the directions and the data."
        ) from error
    return parcel


def unpack(parcel: Parcel, *, device: torch.device | None = None) -> Job:
    """Return the job in a parcel, its tensors mapped into memory.

    Args:
        parcel: as :func:`pack` gave it.
        device: where the objective is to compute; where it did if None.

    Raises:
        EngineError: when the file cannot be seen, is another one, or cannot be loaded here.
    """
    from safetensors import safe_open

    if not parcel.here:
        raise EngineError(
            f"a worker does not see {parcel.path}, which holds what it needs: pass folder=, a"
            " folder that the machines of all workers share."
        )
    with safe_open(parcel.path, framework="pt") as file:
        content = file.get_tensor(_PICKLE).numpy().tobytes()
        if _digest(content) != parcel.digest:
            raise EngineError(f"{parcel.path} is not the file that was written: remove it.")
        find = functools.cache(file.get_tensor)
        try:
            objective, where, asked, question = _Unpickler(content, find, device).load()
            slice_ = _Unpickler(where, find, device, everything=device is not None).load()
        except (ImportError, AttributeError) as error:
            raise EngineError(
                f"a worker cannot load the job ({type(error).__name__}: {error}): install the same"
                " packages where the workers run, and define model and loss in a module that can"
                " be imported there; or pass make=, a function that builds the objective."
            ) from error
    if question is not None:
        objective = _made(objective, question)
    if device is not None:
        objective = Objective.of(objective.problem.to(device))
    quantities, axes = asked
    return Job(objective, slice_, quantities, axes=axes)


def _made(make: Make, expected: Mapping[str, str]) -> Objective:
    """Return the objective that a function makes, after checking that it is the driver's."""
    objective = make()
    if not isinstance(objective, Objective):
        raise EngineError(
            f"make= returned a {type(objective).__name__} in a worker; expected an ls.Objective."
        )
    found = objective.problem.fingerprints()
    other = [n for n in expected if found.get(n) != expected[n] and n != "device"]
    if other:
        raise EngineError(
            f"make= built another objective in a worker: {', '.join(other)} differ from the"
            " driver's. Fix its seeds, and let it load the same weights and data."
        )
    return objective


def _carried(objective: Objective) -> Objective:
    """Return an objective without what a worker does not need: data that are kept, once."""
    problem = objective.problem
    with preserve_global_state(*problem.sources.values()):
        batches = {n: _carried_batches(b) for n, b in problem.batches.items()}
    sources = {n: b.source for n, b in batches.items()}
    return Objective.of(replace(problem, batches=batches, sources=sources))


def _carried_batches(batches: Batches) -> Batches:
    walked = batches.to(batches.device)
    if not walked.streamed:
        walked.source = ()  # the batches of the first walk are kept: the data are these
    return walked


def _pickled(thing: Any, references: _References, cloudpickle: ModuleType) -> bytes:
    """Return a pickle of a thing, with references in the place of its tensors."""
    base: Any = cloudpickle.Pickler

    class Pickler(base):  # type: ignore[misc]  # of one module or another
        def persistent_id(self, value: Any) -> Any:
            return references.to(value)

    buffer = io.BytesIO()
    try:
        with _by_value(cloudpickle):
            Pickler(buffer, protocol=5).dump(thing)
    except Exception as error:  # pickling fails with errors of any type
        raise EngineError(
            f"the objective cannot be sent to workers ({type(error).__name__}: {error}). Define"
            " model, loss and data without open files, locks, generators or connections, and"
            " functions at module level; or pass make=, a function at module level that builds the"
            " objective in the worker."
        ) from error
    return buffer.getvalue()


def _cloudpickle() -> ModuleType:
    """Return cloudpickle, which takes functions of scripts and notebooks too, else pickle."""
    try:
        return importlib.import_module("cloudpickle")
    except ImportError:
        return pickle


@contextlib.contextmanager
def _by_value(module: ModuleType) -> Iterator[None]:
    """Let functions travel by value where a worker could not import their modules."""
    if module is pickle:
        yield
        return
    registered = set(module.list_registry_pickle_by_value())
    lost = [m for n, m in list(sys.modules.items()) if n not in registered and _is_lost(n, m)]
    for other in lost:
        module.register_pickle_by_value(other)
    try:
        yield
    finally:
        for other in lost:
            module.unregister_pickle_by_value(other)


def _is_lost(name: str, module: Any) -> bool:
    """Whether a module is made of a file that an import by its name would not find."""
    path = getattr(module, "__file__", None)
    if not isinstance(path, str) or not path.endswith(".py") or name.startswith("__"):
        return False
    if getattr(module, "__name__", None) != name:
        return False
    return not _is_found(name.partition(".")[0])


def _is_found(package: str) -> bool:
    finders = (getattr(finder, "find_spec", None) for finder in sys.meta_path)
    return any(find is not None and find(package, None) is not None for find in finders)


@final
class _References:
    """What stands for tensors in pickles, and the tensors: fingerprint -> values in a row."""

    def __init__(self) -> None:
        self.flat: dict[str, Tensor] = {}
        self._numbers: dict[int, int] = {}
        self._kept: list[Tensor] = []  # alive meanwhile, so that no id is used twice

    def to(self, value: Any) -> Any:
        """Return what stands for a tensor or a device; None for anything else."""
        if isinstance(value, torch.device):
            return ("device", value.type)
        kind = type(value)
        if kind is not Tensor and kind is not nn.Parameter:
            return None
        if value.dtype not in NAMES or value.layout is not torch.strided:
            return None
        number = self._numbers.setdefault(id(value), len(self._numbers))
        self._kept.append(value)
        flat, stride = _flat(value.detach())
        content = flat.view(torch.uint8).numpy()
        source: Any = bytes(content)
        offset = value.data_ptr() % _ALIGNED if value.device.type == "cpu" else 0
        if flat.nbytes >= _SMALL:
            source = f"{_digest(content)}+{offset}"
            self.flat.setdefault(source, flat)
        return (
            kind.__name__, number, source, offset, str(value.dtype), tuple(value.shape), stride,
            value.requires_grad, value.device.type,
        )  # fmt: skip


@final
class _Unpickler(pickle.Unpickler):
    """Puts tensors in the places of their references.

    Args:
        content: the pickle.
        find: fingerprint -> values in a row.
        device: where tensors of another device than the CPU go.
        everything: whether those of the CPU go there as well.
    """

    def __init__(
        self,
        content: bytes,
        find: Callable[[str], Tensor],
        device: torch.device | None,
        *,
        everything: bool = False,
    ) -> None:
        super().__init__(io.BytesIO(content))
        self._find, self._device, self._everything = find, device, everything
        self._made: dict[int, Any] = {}

    def persistent_load(self, reference: Any) -> Any:
        """Return the tensor or the device that a reference stands for, the same each time."""
        if reference[0] == "device":
            return self._place(reference[1])
        kind, number, source, offset, dtype, shape, stride, requires_grad, device = reference
        if number not in self._made:
            found = isinstance(source, str)
            flat = self._find(source) if found else _of_bytes(source, offset, dtype)
            tensor = flat.as_strided(shape, stride).to(self._place(device))
            if kind == "Parameter":
                tensor = nn.Parameter(tensor, requires_grad)
            self._made[number] = tensor.requires_grad_(requires_grad)
        return self._made[number]

    def _place(self, kind: str) -> torch.device:
        if kind == "cpu" and not self._everything:
            return torch.device(kind)
        return self._device or torch.device(kind)


def _flat(tensor: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """Return the values in the order in which they lie in memory, on the CPU, and the strides."""
    order = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)
    if not tensor.permute(order).is_contiguous():  # overlapping, or with holes
        tensor, order = tensor.contiguous(), list(range(tensor.ndim))
    flat = tensor.permute(order).reshape(-1).to("cpu")
    return flat.as_strided(flat.shape, (1,)), tensor.stride()  # one number may keep any stride


def _of_bytes(content: bytes, offset: int, dtype: str) -> Tensor:
    """Return values so many bytes after a multiple of 64, where all of torch's memory begins."""
    flat = torch.empty(offset + len(content), dtype=torch.uint8)
    flat[offset:] = torch.tensor(list(content), dtype=torch.uint8)
    kind = getattr(torch, dtype.removeprefix("torch."))
    found: Tensor = flat[offset:].view(kind)
    return found


def _digest(content: Any) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _laid_out(tensors: Mapping[str, Tensor]) -> tuple[bytes, list[Tensor]]:
    """Return the head of a safetensors file and what follows it.

    Each tensor begins as many bytes after a multiple of 64 as it does in the driver, so that
    kernels round alike; safetensors itself aligns to 8. The head is filled up with spaces, and
    what is between the tensors is a tensor too, as the format wants no holes.
    """
    entries: dict[str, Entry] = {}
    pieces: list[Tensor] = []
    place = 0
    for name, tensor in tensors.items():
        offset = int(name.partition("+")[2] or 0)
        gap = torch.zeros((offset - place) % _ALIGNED, dtype=torch.uint8)
        for key, piece in ((f"gap.{len(pieces)}", gap), (name, tensor)):
            if piece.nbytes:
                shape = tuple(piece.shape)
                entries[key] = Entry(NAMES[piece.dtype], shape, place, piece.nbytes)
                pieces.append(piece)
                place += piece.nbytes
    return encode_header(encode_entries(entries), alignment=_ALIGNED), pieces


def _write(path: Path, head: bytes, pieces: Iterable[Tensor]) -> None:
    with write_atomically(path) as part, part.open("wb") as file:
        file.write(head)
        for piece in pieces:
            file.write(piece.view(torch.uint8).numpy().data)


def _folder(given: str | os.PathLike[str] | None) -> Path:
    return cache_folder() / "shared" if given is None else Path(given)


def _tidy(folder: Path) -> None:
    """Remove files that nobody used for a week; workers that have one open keep it."""
    for path in folder.glob("*.safetensors"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _WEEK:
                path.unlink()
