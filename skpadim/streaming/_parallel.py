"""Chunks of images shared out by joblib, to processes of this machine or of a cluster.

How many images make a chunk, how results and errors come back, and what is done about workers that
are lost. Which engine runs them (loky by default; Dask, Ray, Spark, threads) is what
:func:`joblib.parallel_config` says. Nothing here knows what is computed.
"""

from __future__ import annotations

import asyncio
import ctypes
import math
import os
import pickle
import tempfile
import threading
import traceback
import uuid
import warnings
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from functools import cache
from typing import Any, NamedTuple, TypeVar

import joblib
import numpy as np
import torch

from skpadim._progress import progress_of
from skpadim.machine._thread_limits import threads_limited
from skpadim.machine._torch_state import own_torch_state

Model = TypeVar("Model")
Result = TypeVar("Result")

MAX_CHUNK = 4096  # images
# Shares of the work for each worker: few, as each costs a message; more than one, so that all end
# at about the same time, and little is lost with a worker.
_CHUNKS_PER_WORKER = 4
# A model up to this size is sent to Dask's workers again and again.
_MAX_BYTES_WITH_TASKS = 2**20
# Messages above this size wait for their turn in a file.
_MAX_WAITING_BYTES = 2**20
# So many times in a row may all workers be lost without a single chunk done.
_MAX_FAILURES = 3


def count_workers(n_jobs: int | None) -> int:
    """Number of workers that `n_jobs` means, by joblib's rules for the engine that is set."""
    return joblib.effective_n_jobs(n_jobs)


def chunk_size(n_images: int, n_workers: int, batch_size: int, unit: int) -> int:
    """Number of images that a worker takes at a time: each takes as many, a batch or more.

    Which images go through a network at once changes how results are rounded. So these are whole
    units, of as many images as it takes at once.
    """
    rounds = min(_CHUNKS_PER_WORKER, n_images // (n_workers * batch_size))
    rounds = max(1, rounds, math.ceil(n_images / (n_workers * MAX_CHUNK)))
    return _in_units(n_images / (n_workers * rounds), batch_size, unit)


def part_size(n_images: int, n_workers: int, batch_size: int, unit: int, n_features: int) -> int:
    """Number of images of a part of a model's state, as :func:`chunk_size` says them.

    Workers learn from images side by side; the parent takes parts in one after the other. In the
    time that it needs for one, a worker embeds some ``n_features / 15`` images. With as many parts
    as this makes of the square root, the slowest worker and the parent take equally long, and more
    workers would wait for the parent. With more parts than workers, each worker has as many.
    """
    balanced = math.sqrt(n_images * n_features / 15)
    size = max(min(balanced, MAX_CHUNK), chunk_size(n_images, n_workers, batch_size, unit))
    rounds = n_images / (size * n_workers)
    if rounds > 1:  # rather fewer than more, so that the parent keeps up
        rounds = max(math.floor(rounds), math.ceil(n_images / (n_workers * MAX_CHUNK)))
        n_parts = n_workers * rounds
    else:
        n_parts = math.ceil(n_images / size)
    return _in_units(n_images / n_parts, batch_size, unit)


def _in_units(size, batch_size, unit):
    return unit * math.ceil(max(math.ceil(size), batch_size) / unit)


def split_images(images, size: int) -> list[tuple]:
    """Chunks of so many images for :func:`map_chunks`."""
    starts = range(0, len(images), size)
    return [(images.part(start, min(start + size, len(images))),) for start in starts]


def map_chunks(
    work: Callable[..., Result],
    model: Model,
    chunks: Sequence[tuple],
    *,
    n_jobs: int | None,
    at_once: int | None = None,
    description: str | None = None,
) -> Iterator[Result]:
    """Yield ``work(model, *chunk)`` for each chunk, in order; raise what `work` raises, as it does.

    `work` is a function of a module, which workers can import; the model is sent to each of them
    once; a chunk is a tuple of images (anything with a length) and what else `work` takes. With
    `at_once`, no more chunks are computed before the caller has taken them all. Results wait in
    temporary files (workers on other machines, which cannot write there, send them), so that only
    two are ever in memory: the caller's, and one that is arriving. No description, no progress bar.

    A worker that is lost (killed, for want of memory say) costs the chunks that it had not
    delivered, which are done again, with a warning; after some times in a row, it is a
    RuntimeError.
    """
    shipment, sent = _Shipment.of(model), None
    done = failures = 0
    n_images = sum(len(images) for images, *_ in chunks)
    with (
        closing(shipment),
        _folder_for_results() as folder,
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
                    # As Dask's cancelled tasks give.
                    if not isinstance(outcome, (_Outcome, _OutcomeInFile)):
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
    """What tasks are given for the shipment: it, or where Dask has put it."""
    # A small one goes along with each task, so that Dask can do a task again anywhere. Of a large
    # one each of Dask's workers gets a copy before the tasks: joblib would give one worker the only
    # copy, and wait forever for tasks that cannot start should that worker be lost.
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
    """What a worker is told about the process that asked."""

    process: tuple  # tells it from others
    share_of_threads: int  # for workers that are its threads; engines give processes theirs
    folder: str  # where it looks for results


def _run(work, shipment, chunk, parent):
    """Work on one chunk, in the worker."""
    is_thread = _process() == parent.process
    limit = threads_limited(parent.share_of_threads) if is_thread else nullcontext()
    try:
        with limit, own_torch_state(), freed_memory_kept():
            outcome = _Outcome(work(shipment.open(), *chunk))
            return outcome if is_thread else outcome.in_file(parent.folder)
    except Exception as error:
        return _Outcome(error=error, where=traceback.format_exc())


class _Outcome:
    """What a chunk has given, or the error that it has raised."""

    def __init__(self, result: Any = None, error: Exception | None = None, where: str = ""):
        self.result, self.error, self.where = result, error, where

    def get(self):
        """The result; raises the error."""
        if self.error is not None:
            raise self.error from _WorkerError(self.where)
        return self.result

    def in_file(self, folder):
        """The same in a file of `folder`; itself if that is not here (another machine), or full."""
        # A message is copied at each station between the processes; a file is written once, and
        # mapped into memory by the process that reads it.
        path = os.path.join(folder, uuid.uuid4().hex)
        try:
            joblib.dump(vars(self), path)
        except OSError:
            _remove(path)
            return self
        return _OutcomeInFile(path)

    def __reduce__(self):
        return _arrive, (pickle.dumps(vars(self), protocol=5),)


class _OutcomeInFile:
    """An outcome that is in a file until it is asked for."""

    def __init__(self, path, is_message=False):
        self._path, self._is_message = path, is_message

    def get(self):
        if self._is_message:
            with open(self._path, "rb") as file:
                outcome = _Outcome(**pickle.load(file))  # with fewer copies than joblib makes of it
        else:
            outcome = _Outcome(**joblib.load(self._path, mmap_mode="c"))
        _remove(self._path)  # what is mapped stays
        return outcome.get()


def _arrive(pickled):
    """An outcome that came as a message; a large one waits for its turn in a file."""
    if len(pickled) <= _MAX_WAITING_BYTES:
        return _Outcome(**pickle.loads(pickled))
    with tempfile.NamedTemporaryFile(prefix="skpadim-", delete=False) as file:
        outcome = _OutcomeInFile(file.name, is_message=True)
        weakref.finalize(outcome, _remove, file.name)
        file.write(pickled)
    return outcome


class _WorkerError(Exception):
    """Where in a worker an error was raised: its traceback, as text."""

    def __str__(self):
        return f"\n\n{self.args[0]}"


def _folder_for_results():
    """A new folder, a context, that goes when it ends with what is left in it."""
    return tempfile.TemporaryDirectory(prefix="skpadim-", ignore_cleanup_errors=True)


def _remove(path):
    with suppress(FileNotFoundError, PermissionError):  # Windows keeps what is mapped
        os.remove(path)


# Tells processes apart, on whatever machines they are.
_IMPORT = uuid.uuid4().hex


def _process():
    return _IMPORT, os.getpid()  # a fork has the import in common


class _Shipment:
    """A model on its way to the workers: pickled once, and unpickled once by each process."""

    def __init__(self, name, pickled):
        self._name, self._pickled = name, pickled

    @classmethod
    def of(cls, model):
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


# What glibc itself goes up to when it may adapt: blocks of this size come from the system, and
# free memory of twice as much at the end of the heap returns to it.
_MMAP_THRESHOLD = 32 * 2**20
_TRIM_THRESHOLD = 2 * _MMAP_THRESHOLD
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_DEFAULT_MMAP_THRESHOLD = 128 * 2**10
_tasks = 0
_counting = threading.Lock()


@contextmanager
def freed_memory_kept():
    """Within the block glibc keeps freed memory, if the environment has told it not to.

    Dask starts its workers with ``MALLOC_TRIM_THRESHOLD_=65536``, so that the system sees what is
    free. Then glibc asks the system anew for every feature map, and the system clears the pages
    first: embedding takes nearly twice as long. Afterwards the environment's setting holds again.
    """
    global _tasks
    trim = _setting("MALLOC_TRIM_THRESHOLD_", _TRIM_THRESHOLD)
    libc = _glibc() if trim < _TRIM_THRESHOLD else None
    if libc is None:
        yield
        return
    with _counting:
        _tasks += 1
        libc.mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD)
        libc.mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD)
    try:
        yield
    finally:
        with _counting:
            _tasks -= 1
            if _tasks == 0:  # no other thread of the worker has a task
                mmap = _setting("MALLOC_MMAP_THRESHOLD_", _DEFAULT_MMAP_THRESHOLD)
                libc.mallopt(_M_MMAP_THRESHOLD, mmap)
                libc.mallopt(_M_TRIM_THRESHOLD, trim)
                libc.malloc_trim(0)


@cache
def _glibc():
    """The C library of this process if it is glibc, else None."""
    try:
        libc = ctypes.CDLL(None)
        return libc if libc.gnu_get_libc_version and libc.mallopt and libc.malloc_trim else None
    except (AttributeError, OSError, TypeError):  # TypeError on Windows
        return None


def _setting(name, default):
    """A number of bytes from the environment."""
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else default
