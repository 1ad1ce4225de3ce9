"""Images shared out to workers by joblib: processes of this machine, or of a cluster.

Chunks of the images go out, one result a chunk comes back, in order. Which engine runs them (loky
by default; Dask, Ray, Spark, threads) is what :func:`joblib.parallel_config` says. Nothing here
knows what is computed.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import tempfile
import threading
import traceback
import uuid
import warnings
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from typing import Any, TypeVar

import joblib
import numpy as np
import torch
from tqdm.auto import tqdm

from skpadim._freed_memory import freed_memory_kept

Model = TypeVar("Model")
Result = TypeVar("Result")

# Results above this many bytes wait for their turn in a file.
_MAX_WAITING_BYTES = 2**20
# A model up to this size is sent to Dask's workers again and again.
_MAX_BYTES_WITH_TASKS = 2**25
# So many times in a row may all workers be lost without a single chunk done.
_MAX_FAILURES = 3


def count_workers(n_jobs: int | None) -> int:
    """Number of workers that `n_jobs` means, by joblib's rules for the engine that is set."""
    return joblib.effective_n_jobs(n_jobs)


def map_chunks(
    work: Callable[..., Result],
    model: Model,
    chunks: Sequence[tuple],
    *,
    n_jobs: int | None,
    at_once: int | None = None,
    description: str | None = None,
) -> Iterator[Result]:
    """Yield ``work(model, *chunk)`` for each chunk, in order.

    Results that arrive before their turn wait in temporary files, so that there are never more
    than two in memory: the one that the caller has, and one that is arriving.

    Parameters
    ----------
    work : callable
        A function of a module, which workers can import.
    model : object
        Sent to each worker once.
    chunks : sequence of tuples
        Images (anything with a length), and what else `work` takes of a chunk.
    n_jobs : int or None
        As everywhere in scikit-learn.
    at_once : int, default=None
        Chunks that are computed before the caller has taken them all; None for no limit.
    description : str, default=None
        Of a progress bar; None for no bar.

    Raises
    ------
    Exception
        What `work` raises, as it raises it.
    RuntimeError
        If workers are lost (killed, for want of memory say) again and again. A worker that is lost
        now and then costs the chunks that it had not delivered, which are done again, with a
        warning.
    """
    shipment, sent = _Shipment.of(model), None
    done = failures = 0
    n_images = sum(len(images) for images, *_ in chunks)
    with (
        closing(shipment),
        tqdm(
            total=n_images, desc=description, unit="image", disable=None if description else True
        ) as progress,
    ):
        while done < len(chunks):
            batch = chunks[done : done + (at_once or len(chunks))]
            delivered, loss = 0, None
            try:
                sent = sent or _send_ahead(shipment)
            except Exception as error:  # of the engine
                loss, batch = error, []
            with closing(_outcomes(work, sent, batch, n_jobs)) as outcomes:
                while delivered < len(batch):
                    try:
                        outcome = next(outcomes)
                    except Exception as error:  # of the engine: those of the work are outcomes
                        loss = error
                        break
                    if not isinstance(outcome, _Outcome):  # as Dask's cancelled tasks give
                        loss = outcome
                        break
                    yield outcome.get()
                    progress.update(len(batch[delivered][0]))
                    delivered += 1
            done += delivered
            if loss is None:
                continue
            sent = None  # copies may be lost with the workers that held them
            failures = 0 if delivered else failures + 1
            problem = f"{type(loss).__name__}: {str(loss).partition(chr(10))[0]}"
            if failures == _MAX_FAILURES:
                raise RuntimeError(
                    f"Workers were lost {_MAX_FAILURES} times in a row before any of them had done "
                    f"{len(chunks[done][0])} images ({problem:.300}). They may have too little "
                    "memory: use fewer (n_jobs), or a smaller batch_size."
                ) from (loss if isinstance(loss, BaseException) else None)
            warnings.warn(
                f"A worker was lost ({problem:.300}); what it had not delivered is done again.",
                stacklevel=2,
            )


def _outcomes(work, sent, chunks, n_jobs):
    """Outcomes of all chunks, in order, as they come in."""
    settings = {"n_jobs": n_jobs, "batch_size": 1}
    try:
        parallel = joblib.Parallel(return_as="generator", **settings)
    except ValueError:  # an engine that can only return all at once
        parallel = joblib.Parallel(**settings)
    n_threads = torch.get_num_threads()
    share = max(1, n_threads // count_workers(n_jobs))
    outcomes = iter(
        parallel(joblib.delayed(_run)(work, sent, chunk, _process(), share) for chunk in chunks)
    )
    try:
        while True:  # "yield from" would close them, with a warning
            yield next(outcomes)
    except StopIteration:
        return
    finally:
        torch.set_num_threads(n_threads)
        if isinstance(outcomes, Generator):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of tasks that are given up
                outcomes.close()


def _send_ahead(shipment):
    """What tasks are given for the shipment: it, or where Dask has put it.

    A small one goes along with each task, so that Dask can do a task again anywhere. Of a large
    one each of Dask's workers gets a copy before the tasks: joblib would give one worker the only
    copy, and wait forever for tasks that cannot start should that worker be lost.
    """
    client = getattr(joblib.parallel.get_active_backend()[0], "client", None)
    if not hasattr(client, "scatter") or shipment.nbytes <= _MAX_BYTES_WITH_TASKS:
        return shipment
    sending = client.scatter(shipment, broadcast=True, hash=False, asynchronous=True)
    sent = asyncio.run_coroutine_threadsafe(sending, client.loop.asyncio_loop).result(
        timeout=60 + shipment.nbytes / 1e6  # it may never end if a worker is lost meanwhile
    )
    if sent.status != "finished":
        raise ConnectionError(f"the model could not be sent: {sent.status}")
    return sent


def _run(work, shipment, chunk, parent, share_of_threads):
    """Work on one chunk, in the worker."""
    if _process() == parent:  # a thread; to processes their engine gives a share of the cores
        torch.set_num_threads(share_of_threads)
    try:
        with freed_memory_kept():
            return _Outcome(work(shipment.open(), *chunk))
    except Exception as error:
        return _Outcome(error=error, where=traceback.format_exc())


# Tells processes apart, on whatever machines they are.
_IMPORT = uuid.uuid4().hex


def _process():
    return _IMPORT, os.getpid()  # a fork has the import in common


class _Shipment:
    """A model on its way to the workers: pickled once, and unpickled once by each process."""

    def __init__(self, name, pickled):
        self._name, self._pickled = name, pickled

    @classmethod
    def of(cls, model) -> _Shipment:
        """Pack a model."""
        # With cloudpickle, which takes classes of the user's script along. An array, because
        # joblib shares large arrays between the processes of a machine.
        pickled = pickle.dumps(joblib.wrap_non_picklable_objects(model, keep_wrapper=False))
        return cls(uuid.uuid4().hex, np.frombuffer(pickled, dtype=np.uint8))

    @property
    def nbytes(self):
        """Size of the message."""
        return self._pickled.nbytes

    def open(self):
        """The model; the last one is kept, for the chunks that are to come."""
        with _opening:
            if self._name not in _opened:
                _opened.clear()
                _opened[self._name] = pickle.loads(self._pickled.data)
            return _opened[self._name]

    def close(self):
        """Forget the model in this process."""
        _opened.pop(self._name, None)


_opened: dict[str, Any] = {}
_opening = threading.Lock()


class _Outcome:
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


class _WaitingOutcome(_Outcome):
    """An outcome that waits in a temporary file, from its arrival until it is asked for."""

    def __init__(self, pickled):
        with tempfile.NamedTemporaryFile(prefix="skpadim-", delete=False) as file:
            self._remove = weakref.finalize(self, _remove, file.name)
            file.write(pickled)
        self._path = file.name

    def get(self):
        with open(self._path, "rb") as file:
            outcome = _Outcome(*pickle.load(file).values())
        self._remove()
        return outcome.get()


class _WorkerError(Exception):
    """Where in a worker an error was raised: its traceback, as text."""

    def __str__(self):
        return f"\n\n{self.args[0]}"


def _arrive(pickled):
    """An outcome in the process that asked for it."""
    if len(pickled) > _MAX_WAITING_BYTES:
        return _WaitingOutcome(pickled)
    return _Outcome(*pickle.loads(pickled).values())


def _remove(path):
    with suppress(FileNotFoundError):
        os.remove(path)
