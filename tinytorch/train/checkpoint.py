"""Checkpoints in a folder: written whole or not at all, found by step number, checked when they are read.

    >>> import tinytorch as tt
    >>> from tinytorch.train.checkpoint import Checkpoints
    >>> kept = Checkpoints("run", keep=2)
    >>> for step in 10, 20, 30:
    ...     path = kept.save({"weight": tt.full((2,), float(step))}, step)
    >>> [path.name for path in kept.paths()]
    ['step-00000030.safetensors', 'step-00000020.safetensors']
    >>> kept.latest()[1]["weight"].numpy()
    array([30., 30.], dtype=float32)

Each is one safetensors file (`tt.save`), with a checksum over all that it holds. It is written under another name,
flushed to the disk and then renamed; so a run that is killed, or a disk that is full, costs no checkpoint before it.
"""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
import warnings
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from tinytorch.frontends.tree import flatten
from tinytorch.ir.errors import FormatError, OpError, TinyTorchError
from tinytorch.look import units
from tinytorch.store import load, save
from tinytorch.tensor import Tensor

FORMAT = "tinytorch.checkpoint/1"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NAME = re.compile(r"step-(\d{8,})\.safetensors")


class CheckpointError(TinyTorchError, OSError):
    """A checkpoint that cannot be written; those before it, and the model in memory, are unharmed.

    >>> issubclass(CheckpointError, OSError)
    True
    """


class Checkpoints:
    """The checkpoints of a run.

    Args:
        directory: where they stand; made when the first is written.
        keep: how many of the newest stay; None for all.
    Raises:
        OpError: keep < 1.

    >>> Checkpoints("nothing yet").latest() is None
    True
    """

    def __init__(self, directory: str | Path, keep: int | None = 3) -> None:
        if keep is not None and keep < 1:
            raise OpError(f"Trainer(keep={keep}): expected to keep 1 or more checkpoints, or None for all")
        self.directory, self.keep = Path(directory), keep

    def paths(self) -> list[Path]:
        """The checkpoints, newest first."""
        found = [(int(match[1]), path) for path in self._files() if (match := NAME.fullmatch(path.name))]
        return [path for _, path in sorted(found, reverse=True)]

    def save(self, state: Mapping[str, Any], step: int) -> Path:
        """Write the state after `step`, and remove what is no longer kept.

        Raises:
            CheckpointError: it could not be written; nothing has changed.
        """
        path = self.directory / f"step-{step:08d}.safetensors"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            save(seal(state), path)
        except OSError as error:
            raise CheckpointError(error.errno, self._trouble(path, state, error)) from error
        for old in self.paths()[self.keep:] if self.keep is not None else ():
            with contextlib.suppress(OSError):
                old.unlink()
        return path

    def latest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint that is whole, and its state; None if there are none. Damaged ones are warned of.

        Raises:
            FormatError: there are checkpoints, but none is whole.
        """
        faults = []
        for path in self.paths():
            try:
                state = read(path)
            except FormatError as error:
                faults.append(str(error))
                continue
            for fault in faults:
                warnings.warn(f"a checkpoint is damaged, going on from {path.name}: {fault}", stacklevel=2)
            return path, state
        if faults:
            raise FormatError(f"{self.directory}: no checkpoint is whole: {'; '.join(faults)}")
        return None

    def sweep(self) -> None:
        """Remove what a killed run left half written."""
        for path in self._files():
            if path.name.endswith(".part") and NAME.match(path.name):
                with contextlib.suppress(OSError):
                    path.unlink()

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """One run at a time has the directory, which is made where it is missing. The claim dies with its process.

        Raises:
            CheckpointError: nothing can be written there, which is better known before hours of training than after.
            OpError: another run has it.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            claim = (self.directory / ".lock").open("a")
        except OSError as error:
            raise CheckpointError(error.errno, f"{self.directory}: no checkpoint can be written there: "
                                  f"{error.strerror or error}; give Trainer(directory=…) a folder of yours") from error
        with claim:
            if not _lock(claim):
                raise OpError(f"fit: another run trains in {self.directory} right now: wait for its end, or give "
                              "Trainer(directory=…) another folder")
            yield

    def _files(self) -> list[Path]:
        return list(self.directory.iterdir()) if self.directory.is_dir() else []

    def _trouble(self, path: Path, state: Mapping[str, Any], error: OSError) -> str:
        needs = sum(leaf.numpy().nbytes for leaf in flatten(state)[0] if isinstance(leaf, Tensor))
        folder = next((p for p in (self.directory, *self.directory.resolve().parents) if p.exists()), Path("."))
        older = self.paths()
        newest = f"the newest is {older[0].name}" if older else "there are none"
        room = (f" It needs {units.nbytes(needs)}, the disk has {units.nbytes(shutil.disk_usage(folder).free)} left."
                if error.errno in FULL else "")
        return (f"{path}: the checkpoint cannot be written: {error.strerror or error}.{room} Checkpoints before it are "
                f"whole ({newest}), and the model is as it was; {'make room' if room else 'mend that'}, and call "
                "trainer.save()")


def _lock(file: IO[str]) -> bool:
    """Whether the file is ours now; also where files cannot be locked."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # not on this system, or not on this disk
        pass
    return True


def seal(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state with its format and a checksum."""
    return {"format": FORMAT, "checksum": checksum(state), "state": dict(state)}


def read(path: str | Path) -> dict[str, Any]:
    """The state that a checkpoint holds.

    Raises:
        FormatError: the file is missing, truncated, altered, or no checkpoint.
    """
    found = load(path)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise FormatError(f"{path}: not a checkpoint of a Trainer (expected format {FORMAT!r})")
    state: dict[str, Any] = found.get("state", {})
    if checksum(state) != found.get("checksum"):
        raise FormatError(f"{path}: damaged: its checksum is not that of its content")
    return state


def checksum(state: Any, total: int = 0) -> int:
    """CRC-32 of all tensors, plain values and names, in an order that saving and loading keeps."""
    if isinstance(state, Mapping):
        for key in sorted(state, key=repr):
            total = checksum(state[key], zlib.crc32(repr(key).encode(), total))
        return total
    if isinstance(state, (list, tuple)):
        for part in state:
            total = checksum(part, zlib.crc32(b"[" if isinstance(state, list) else b"(", total))
        return total
    array = state.numpy() if isinstance(state, Tensor) else state
    if not isinstance(array, np.ndarray):
        return zlib.crc32(repr(state).encode(), total)
    total = zlib.crc32(f"{array.dtype}{array.shape}".encode(), total)
    return zlib.crc32(np.ascontiguousarray(array).tobytes(), total)
