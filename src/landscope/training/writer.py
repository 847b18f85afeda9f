"""One thread that writes the checkpoints of a folder to the disk, while training continues."""

from __future__ import annotations

import os
import queue
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, final

from torch import Tensor

from landscope.errors import RecorderError
from landscope.files import write_atomically
from landscope.tensorfile import Entry
from landscope.training.checkpoint_buffer import CheckpointBuffer, arrange

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows: two processes in one folder go unnoticed
    fcntl = None  # type: ignore[assignment]

BUFFERS = 2  # one is written while the other is filled
_LOCK = ".lock"


@dataclass(frozen=True, eq=False)
class WriteTask:
    """A checkpoint to write.

    Args:
        buffer: The filled buffer.
        path: The file.
        metadata: The texts in the header of the file.
        superseded: The files to remove once the checkpoint is on the disk.
    """

    buffer: CheckpointBuffer
    path: Path
    metadata: Mapping[str, str]
    superseded: Sequence[Path] = ()


@final
class Writer:
    """The only thread that writes into a folder.

    An earlier writer of this process for the same folder is stopped first: it writes the tasks that
    it has, and provides no more buffers. Memory: two buffers, however slow the disk is.

    Args:
        folder: The folder, which is created if it does not exist.

    Raises:
        RecorderError: When the folder cannot be created, or another process writes into it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = os.getpid()
        self._stopped = False
        place = folder.resolve()
        if (predecessor := _WRITERS.get(place)) is not None:
            predecessor.stop()
        self._lock = _lock_folder(folder)
        _WRITERS[place] = self
        # Simple queues, because a finalizer may run in the middle of one of their own calls.
        self._tasks: queue.SimpleQueue[WriteTask | threading.Event | None] = queue.SimpleQueue()
        self._free: queue.SimpleQueue[CheckpointBuffer] = queue.SimpleQueue()
        self._finished = threading.Event()  # join() is not enough: interrupted once, it returns
        self._allocated = 0
        self._layout: dict[str, Entry] = {}
        self._failures: list[tuple[Path, Exception]] = []
        self._thread = threading.Thread(target=self._work, name="landscope recorder", daemon=True)
        self._thread.start()

    def acquire_buffer(self, tensors: Mapping[str, Tensor]) -> CheckpointBuffer:
        """Return a buffer to fill; the call waits while all buffers are being written.

        Raises:
            RecorderError: When the writer was stopped.
        """
        if self._stopped:
            raise RecorderError(
                f"folder={str(self.folder)!r} is being recorded into by another recorder of this"
                " program, which began later: give each training run a folder of its own, or"
                " close() this recorder to continue the folder after the other."
            )
        if self._free.empty() and self._allocated < BUFFERS:
            self._layout = self._layout or arrange(tensors)
            pinned = any(tensor.is_cuda for tensor in tensors.values())
            buffer = CheckpointBuffer(self._layout, pinned=pinned)
            self._allocated += 1
            return buffer
        return self._free.get()

    def release_buffer(self, buffer: CheckpointBuffer) -> None:
        """Take back a buffer that will not be written."""
        buffer.wait()
        self._free.put(buffer)

    def submit(self, task: WriteTask) -> None:
        """Queue a checkpoint; it gets its name when the whole file is on the disk."""
        self._tasks.put(task)

    def wait(self) -> None:
        """Wait until all queued checkpoints are written."""
        done = threading.Event()
        self._tasks.put(done)
        done.wait()

    @property
    def has_failed(self) -> bool:
        """Whether there are failures that have not been raised yet."""
        return bool(self._failures)

    def raise_failures(self) -> None:
        """Raise the failures since the last call, if there are any.

        Raises:
            RecorderError: When a checkpoint could not be written; the text names the first one.
        """
        if self._failures and self.process == os.getpid():
            failures, self._failures = self._failures, []
            path, error = failures[0]
            more = f", and {len(failures) - 1} more," if len(failures) > 1 else ""
            raise RecorderError(
                f"{path}{more} could not be written ({error}): make room, or record into another"
                " folder. Earlier checkpoints are complete, and the next call tries again."
            ) from error

    def stop(self) -> None:
        """Write all queued checkpoints and end the thread; in a forked process, do nothing."""
        if self.process != os.getpid():
            return
        self._stopped = True
        self._tasks.put(None)
        if (
            threading.current_thread() is not self._thread
        ):  # which may run the recorder's finalizer, too
            self._finished.wait()
            self._thread.join()

    def close(self) -> None:
        """Stop, and raise the failures.

        Raises:
            RecorderError: As in :meth:`raise_failures`.
        """
        self.stop()
        self.raise_failures()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            if isinstance(task, threading.Event):
                task.set()
                continue
            try:
                task.buffer.wait()
                _write(task)
            except Exception as error:  # an error of any type is raised at the next call
                self._failures.append((task.path, error))
            finally:
                self._free.put(task.buffer)
        self._lock.close()
        self._finished.set()


# A writer without an owner, or whose owner was interrupted, stays here until its thread has ended.
_WRITERS: weakref.WeakValueDictionary[Path, Writer] = weakref.WeakValueDictionary()


def _write(task: WriteTask) -> None:
    with write_atomically(task.path) as part, part.open("wb") as file:
        task.buffer.write(file, task.metadata)
        file.flush()
        # Without fsync a power cut can leave a short file under the final name.
        os.fsync(file.fileno())
    for path in task.superseded:
        path.unlink(missing_ok=True)


def _lock_folder(folder: Path) -> IO[bytes]:
    """Return the locked lock file of a folder; the system unlocks it when the process dies."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / _LOCK).open("ab")
    except OSError as error:
        raise RecorderError(
            f"folder={str(folder)!r} cannot be written ({error}): choose a folder that you may"
            " write to."
        ) from error
    if fcntl is not None:
        try:
            # A lock of the process: workers of a DataLoader that outlive a killed training run for
            # some seconds do not hold it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise RecorderError(
                f"folder={str(folder)!r} is being recorded into by another process: give each"
                " training run a folder of its own."
            ) from error
        except OSError:  # pragma: no cover - file systems without locks
            pass
    return file
