"""How results come back from workers: in files where both have a disk in common, else as messages.

What workers find out about many images is large. A message is copied at each station between the
processes; a file is written once, and mapped into memory by the process that reads it.
"""

from __future__ import annotations

import os
import pickle
import tempfile
import uuid
import weakref
from contextlib import suppress
from typing import Any

import joblib

# Messages above this many bytes wait for their turn in a file.
_MAX_WAITING_BYTES = 2**20


class Outcome:
    """What a chunk has given, or the error that it has raised."""

    def __init__(self, result: Any = None, error: Exception | None = None, where: str = ""):
        self._result, self._error, self._where = result, error, where

    def get(self):
        """The result; raises the error."""
        if self._error is not None:
            raise self._error from _WorkerError(self._where)
        return self._result

    def __reduce__(self):
        return _arrive, (pickle.dumps(vars(self), protocol=5),)


class _OutcomeInFile(Outcome):
    """A result that a worker has written to a file."""

    def __init__(self, path):
        self._path = path

    def get(self):
        result = joblib.load(self._path, mmap_mode="c")
        _remove(self._path)  # what is mapped stays
        return result

    def __reduce__(self):
        return _OutcomeInFile, (self._path,)


class _WaitingOutcome(Outcome):
    """An outcome that waits in a temporary file, from its arrival until it is asked for."""

    def __init__(self, pickled):
        with tempfile.NamedTemporaryFile(prefix="skpadim-", delete=False) as file:
            self._remove = weakref.finalize(self, _remove, file.name)
            file.write(pickled)
        self._path = file.name

    def get(self):
        with open(self._path, "rb") as file:
            outcome = Outcome(*pickle.load(file).values())
        self._remove()
        return outcome.get()


class _WorkerError(Exception):
    """Where in a worker an error was raised: its traceback, as text."""

    def __str__(self):
        return f"\n\n{self.args[0]}"


def folder_for_results() -> tempfile.TemporaryDirectory:
    """A new folder, a context, that goes when it ends with what is left in it."""
    return tempfile.TemporaryDirectory(prefix="skpadim-", ignore_cleanup_errors=True)


def outcome_in_file(result: Any, folder: str) -> Outcome:
    """An outcome whose result is in a file of `folder`.

    Where that cannot be written, on another machine or because it is full, the outcome has the
    result itself.
    """
    path = os.path.join(folder, uuid.uuid4().hex)
    try:
        joblib.dump(result, path)
    except OSError:
        _remove(path)
        return Outcome(result)
    return _OutcomeInFile(path)


def _arrive(pickled):
    """An outcome in the process that asked for it."""
    if len(pickled) > _MAX_WAITING_BYTES:
        return _WaitingOutcome(pickled)
    return Outcome(*pickle.loads(pickled).values())


def _remove(path):
    with suppress(FileNotFoundError, PermissionError):  # Windows keeps what is mapped
        os.remove(path)
