"""Images shared out to workers by joblib: processes of this machine, or of a cluster.

Chunks of the images go out, one result a chunk comes back, in order. Which engine runs them (loky
by default; Dask, Ray, Spark, threads) is what :func:`joblib.parallel_config` says. Nothing here
knows what is computed.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import threading
import traceback
import uuid
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, nullcontext
from typing import Any, NamedTuple, TypeVar

import joblib
import numpy as np
import torch

from skpadim._freed_memory import freed_memory_kept
from skpadim._outcomes import Outcome, folder_for_results, outcome_in_file
from skpadim._progress import progress_of
from skpadim._thread_limits import threads_limited
from skpadim._torch_state import own_torch_state

Model = TypeVar("Model")
Result = TypeVar("Result")

# A model up to this size is sent to Dask's workers again and again.
_MAX_BYTES_WITH_TASKS = 2**20
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

    Results come back, and wait for their turn, in temporary files, so that there are never more
    than two in memory: the one that the caller has, and one that is arriving. Workers on other
    machines, which cannot write there, send them.

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
        folder_for_results() as folder,
        progress_of(n_images, description) as progress,
    ):
        while done < len(chunks):
            batch = chunks[done : done + (at_once or len(chunks))]
            delivered, loss = 0, None
            try:
                sent = sent or _send_ahead(shipment)
            except Exception as error:  # of the engine
                loss, batch = error, []
            with closing(_outcomes(work, sent, batch, folder, n_jobs)) as outcomes:
                while delivered < len(batch):
                    try:
                        outcome = next(outcomes)
                    except Exception as error:  # of the engine: those of the work are outcomes
                        loss = error
                        break
                    if not isinstance(outcome, Outcome):  # as Dask's cancelled tasks give
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


def _outcomes(work, sent, chunks, folder, n_jobs):
    """Outcomes of all chunks, in order, as they come in."""
    settings = {"n_jobs": n_jobs, "batch_size": 1}
    try:
        parallel = joblib.Parallel(return_as="generator", **settings)
    except ValueError:  # an engine that can only return all at once
        parallel = joblib.Parallel(**settings)
    share = max(1, torch.get_num_threads() // count_workers(n_jobs))
    parent = _Parent(_process(), share, folder)
    outcomes = iter(parallel(joblib.delayed(_run)(work, sent, chunk, parent) for chunk in chunks))
    try:
        while True:  # "yield from" would close them, with a warning
            yield next(outcomes)
    except StopIteration:
        return
    finally:
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


class _Parent(NamedTuple):
    """What a worker is told about the process that asked.

    Attributes
    ----------
    process : tuple
        Tells it from others.
    share_of_threads : int
        For workers that are its threads; to processes their engine gives a share of the cores.
    folder : str
        Where it looks for results.
    """

    process: tuple
    share_of_threads: int
    folder: str


def _run(work, shipment, chunk, parent):
    """Work on one chunk, in the worker."""
    is_thread = _process() == parent.process
    limit = threads_limited(parent.share_of_threads) if is_thread else nullcontext()
    try:
        with limit, own_torch_state(), freed_memory_kept():
            result = work(shipment.open(), *chunk)
            return Outcome(result) if is_thread else outcome_in_file(result, parent.folder)
    except Exception as error:
        return Outcome(error=error, where=traceback.format_exc())


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
