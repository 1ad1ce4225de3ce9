"""Images shared out to workers: the same results, errors as the user knows them, lost workers."""

import gc
import os
import pickle
import platform
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
import torch
from joblib import parallel_config
from joblib.externals import loky
from joblib.externals.loky.backend import context as loky_context
from joblib.externals.loky.process_executor import TerminatedWorkerError
from joblib.parallel import ThreadingBackend
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.model_selection import GridSearchCV

from skpadim.images._batches import Images
from skpadim.model_selection import NormalFold
from skpadim.streaming._chunks import batch_and_unit
from skpadim.streaming._parallel import (
    MAX_CHUNK,
    chunk_size,
    freed_memory_kept,
    map_chunks,
    part_size,
    split_images,
)

RESNET = {
    "backbone": "resnet18",
    "weights": None,
    "layers": ("layer1", "layer2"),
    "n_features": 30,
    "image_size": 32,
    "batch_size": 4,
}


@pytest.fixture(params=["embeddings fit", "moments only", "samples"])
def make(request, make_detector, monkeypatch):
    """Make a detector for each way in which a fit goes through the images."""
    if request.param == "moments only":
        monkeypatch.setattr("skpadim.streaming._learning.MAX_EMBEDDINGS_BYTES", 1)
    n_features = 60 if request.param == "samples" else 15

    def make(**parameters):
        return make_detector(**{**RESNET, "n_features": n_features, **parameters})

    return make


@pytest.fixture
def make_small(make_detector):
    return lambda **parameters: make_detector(**{**RESNET, **parameters})


@pytest.fixture(params=["disk in common", "other machines"])
def results_folder(request, tmp_path, monkeypatch):
    """Temporary files for both ways in which results come back, as a glob of what waits there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if request.param == "disk in common":
        return lambda: list(tmp_path.glob("skpadim-*/*"))
    monkeypatch.setattr(
        "skpadim.streaming._parallel._folder_for_results", lambda: nullcontext("/not/there")
    )
    return lambda: list(tmp_path.glob("skpadim-*"))


def same_model(one, other, X, rtol=1e-6):
    assert one.n_samples_seen_ == other.n_samples_seen_
    assert_allclose(one.gaussian_.location_, other.gaussian_.location_, rtol=rtol, atol=1e-9)
    assert_allclose(one.training_scores_, other.training_scores_, rtol=rtol)
    assert_allclose(one.offset_, other.offset_, rtol=rtol)
    assert_allclose(one.score_samples(X), other.score_samples(X), rtol=rtol)


@pytest.fixture
def started_by_joblib():
    """Workers that joblib starts in its own way, with nothing imported."""
    before = loky_context.get_start_method()
    loky.get_reusable_executor().shutdown()
    loky_context.set_start_method(None, force=True)
    with parallel_config("loky", max_nbytes="1M"):
        yield
    loky.get_reusable_executor().shutdown()
    loky_context.set_start_method(before, force=True)


def test_workers_that_have_imported_nothing(started_by_joblib, make_small, parts, good):
    alone, shared = (make_small(n_jobs=n).fit(good) for n in (None, 2))  # of more than a megabyte
    same_model(shared, alone, parts.data)


def test_number_of_jobs_does_not_change_the_model(make, parts, good):
    alone, shared = make().fit(good), make(n_jobs=2).fit(good)
    same_model(shared, alone, parts.data)
    assert_allclose(shared.anomaly_map(parts.data), alone.anomaly_map(parts.data), rtol=1e-5)
    assert [len(maps) for maps in shared.iter_anomaly_maps(good)] == [4] * 6
    assert_array_equal(shared.predict(parts.data), alone.predict(parts.data))


def test_workers_may_be_threads(make_small, parts, good):
    alone = make_small().fit(good)
    with parallel_config("threading"):
        same_model(make_small(n_jobs=2).fit(good), alone, parts.data)


def test_two_fits_with_the_same_jobs_give_the_same_bits(make_small, good):
    first, second = make_small(n_jobs=2).fit(good), make_small(n_jobs=2).fit(good)
    assert_array_equal(first.training_scores_, second.training_scores_)


def test_partial_fit_shares_out_as_fit_does(make, parts, good):
    parted = make(n_jobs=2).partial_fit(good[:10]).partial_fit(good[10:])
    expected = make().fit(good).score_samples(parts.data)
    assert_allclose(parted.score_samples(parts.data), expected, rtol=1e-5)


@pytest.mark.parametrize("make", ["moments only"], indirect=True)
def test_the_second_pass_by_groups_is_shared_out(make, parts, good):
    groups = np.arange(len(good)) // 3
    alone, shared = (
        make(n_jobs=n_jobs, contamination=0.2).fit(good, groups=groups) for n_jobs in (None, 2)
    )
    same_model(shared, alone, parts.data)


def test_processes_share_a_folder_of_features(make_small, parts, tmp_path, monkeypatch):
    def scores(**parameters):
        search = GridSearchCV(
            make_small(contamination=0.2),
            {"layers": [("layer1",), ("layer2",)]},
            cv=NormalFold(2),
            scoring="roc_auc",
            refit=False,
        )
        search.set_params(**parameters).fit(parts.data, parts.target)
        return search.cv_results_["mean_test_score"]

    expected = scores()
    assert_allclose(scores(estimator__memory=tmp_path, n_jobs=2), expected, atol=1e-6)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 3 * len(parts.data)
    assert not list(tmp_path.rglob(".skpadim-*"))
    # A fingerprint is the same in every process: this one has nothing to compute.
    monkeypatch.setattr("skpadim.embedding._patch_embedder.iter_maps", None)
    assert_allclose(scores(estimator__memory=tmp_path), expected, atol=1e-6)


def test_a_bad_image_is_named_as_the_user_knows_it(make_detector, folder, tmp_path):
    paths = sorted(folder.iterdir())
    detector = make_detector(batch_size=4).fit(paths).set_params(n_jobs=2)
    before = pickle.dumps(detector)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"")
    with pytest.raises(ValueError, match=r"Image 21 \(.*bad.png\) is empty"):
        detector.fit([*paths[:21], bad, *paths[21:]])
    assert pickle.dumps(detector) == before
    with parallel_config("threading"), pytest.raises(ValueError, match="Image 30 has NaN"):
        detector.score_samples([np.zeros((9, 9))] * 30 + [np.full((9, 9), np.nan)])


def test_none_takes_the_workers_that_joblib_is_set_to(make_small, good, monkeypatch):
    processes = []
    monkeypatch.setattr(
        "skpadim.streaming._chunks.map_chunks",
        lambda *arguments, n_jobs, **options: (
            processes.append(joblib.effective_n_jobs(n_jobs))
            or map_chunks(*arguments, n_jobs=n_jobs, **options)
        ),
    )
    make_small().fit(good)
    assert processes == []
    with parallel_config("threading", n_jobs=2):
        make_small().fit(good)
    assert processes == [2]


def test_number_of_jobs_is_checked(make_detector, good):
    with pytest.raises(ValueError, match="'n_jobs' parameter of PadimDetector must be"):
        make_detector(n_jobs="many").fit(good)


def test_threads_of_torch_are_as_before(make_small, good):
    before = torch.get_num_threads()
    with parallel_config("threading"):
        make_small(n_jobs=2).fit(good)
    assert torch.get_num_threads() == before


def test_one_detector_scores_in_several_threads_at_once(make_small, parts, good):
    detector = make_small().fit(good)
    expected = [detector.score_samples(parts.data[i : i + 3]) for i in range(8)]
    detector = pickle.loads(pickle.dumps(detector))  # nothing is ready yet
    with ThreadPoolExecutor(2) as pool:
        scores = pool.map(lambda i: detector.score_samples(parts.data[i : i + 3]), range(8))
        for found, wanted in zip(scores, expected, strict=True):
            assert_allclose(found, wanted, rtol=1e-5)


def by_value(function):
    """Let a function be sent whole: workers cannot import this module."""
    function.__module__ = "__main__"
    return function


@by_value
def first_pixels(_model, images):
    return [int(images[i][0, 0, 0]) for i in range(len(images))]


@by_value
def large_result(n_bytes, images):
    return np.full(n_bytes, int(images[0][0, 0, 0]), dtype=np.uint8)


@by_value
def process(_model, images):
    time.sleep(0.05)
    return os.getpid()


@by_value
def die_once(mark, images):
    """Kill the process that is first to come to image 4."""
    if images[0][0, 0, 0] == 4 and not Path(mark).exists():
        Path(mark).write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return first_pixels(mark, images)


@by_value
def tasks_done(dask_worker):
    return dask_worker.state.executed_count


@pytest.fixture
def numbered():
    """Ten images, each of which holds its number."""
    return Images(np.arange(10, dtype=np.uint8).repeat(4).reshape(10, 2, 2))


@pytest.mark.parametrize("at_once", [None, 1, 3])
def test_each_chunk_comes_once_and_in_order(numbered, at_once):
    chunks = map_chunks(first_pixels, None, split_images(numbered, 3), n_jobs=2, at_once=at_once)
    assert list(chunks) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]


def test_engines_that_return_all_at_once_will_do(numbered):
    class NoGenerators(ThreadingBackend):
        supports_return_generator = False

    joblib.register_parallel_backend("no generators", NoGenerators)
    with parallel_config("no generators", n_jobs=2):
        chunks = map_chunks(first_pixels, None, split_images(numbered, 4), n_jobs=None)
        assert list(chunks) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_a_model_is_unpickled_once_by_each_process(numbered, tmp_path):
    class NotesItsArrival:
        """A model that writes a line wherever it is unpickled."""

        def __init__(self, log):
            self.log = log

        def __setstate__(self, state):
            vars(self).update(state)
            with open(self.log, "a") as file:
                file.write(f"{os.getpid()}\n")

    model = NotesItsArrival(tmp_path / "log")
    used = set(map_chunks(process, model, split_images(numbered, 1), n_jobs=2))
    arrived = (tmp_path / "log").read_text().split()
    assert len(arrived) == len(set(arrived)) <= 2
    assert used <= set(map(int, arrived))


def test_results_wait_in_files_and_leave_none(numbered, tmp_path, results_folder):
    size = 8 * 2**20
    chunks = map_chunks(large_result, size, split_images(numbered, 1), n_jobs=2)
    tracemalloc.start()
    try:
        for number, chunk in enumerate(chunks):
            assert (chunk == number).all()
            chunk[:] = 255  # it may be written to
            del chunk
            if number == 0:
                deadline = time.monotonic() + 60
                while len(results_folder()) < 9 and time.monotonic() < deadline:
                    time.sleep(0.05)
                assert len(results_folder()) == 9
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 * size  # of ten: the one held, compared; and one arriving, message and array
    assert not list(tmp_path.glob("skpadim-*"))


def test_a_model_is_sent_once_however_often_results_are_taken(numbered, monkeypatch):
    sent = []
    monkeypatch.setattr(
        "skpadim.streaming._parallel._send_ahead",
        lambda shipment: sent.append(shipment) or shipment,
    )
    chunks = map_chunks(first_pixels, None, split_images(numbered, 1), n_jobs=2, at_once=2)
    assert [number for (number,) in chunks] == list(range(10))
    assert len(sent) == 1


def test_a_model_that_cannot_be_sent_is_sent_again(numbered, monkeypatch):
    def fail_once(shipment):
        if not failed:
            failed.append(shipment)
            raise ConnectionError("on the way")
        return shipment

    failed = []
    monkeypatch.setattr("skpadim.streaming._parallel._send_ahead", fail_once)
    with pytest.warns(UserWarning, match="ConnectionError: on the way"):
        chunks = list(map_chunks(first_pixels, None, split_images(numbered, 5), n_jobs=2))
    assert chunks == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def test_a_lost_worker_costs_its_chunks_only(numbered, tmp_path):
    mark = str(tmp_path / "mark")
    with pytest.warns(UserWarning, match=r"A worker was lost .*\); what it had not"):
        chunks = list(map_chunks(die_once, mark, split_images(numbered, 2), n_jobs=2))
    assert chunks == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]


@pytest.mark.filterwarnings("ignore:A worker was lost")
def test_workers_that_are_always_lost_end_the_work(numbered):
    class LosesAll(ThreadingBackend):
        def submit(self, *_, **__):
            raise TerminatedWorkerError("killed")

    joblib.register_parallel_backend("loses all", LosesAll)
    with (
        parallel_config("loses all", n_jobs=2),
        pytest.raises(RuntimeError, match=r"Workers were lost 3 times.*killed.*use fewer"),
    ):
        list(map_chunks(first_pixels, None, split_images(numbered, 2), n_jobs=None))


# Joblib ends the workers with work that is given up.


def test_results_that_nobody_takes_leave_no_files(numbered, tmp_path, results_folder):
    chunks = map_chunks(large_result, 2**21, split_images(numbered, 1), n_jobs=2)
    next(chunks)
    chunks.close()
    deadline = time.monotonic() + 30
    while list(tmp_path.glob("skpadim-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
        gc.collect()  # what joblib has not taken from its workers
    assert not list(tmp_path.glob("skpadim-*"))


# Pages that are asked for anew when an array of 4 MiB is made and freed again: none, or all.
COUNT_PAGES = """
import resource
import numpy as np
from skpadim.streaming._parallel import freed_memory_kept

def pages():
    start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(2**20, dtype=np.float32)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start) / 20

pages()
before = pages()
with freed_memory_kept():
    pages()
    within = pages()
    with freed_memory_kept():
        pass
    still_within = pages()
print(before, within, still_within, pages())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_memory_is_kept_within_a_task_only():
    environment = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    environment["MALLOC_TRIM_THRESHOLD_"] = "65536"
    command = [sys.executable, "-c", COUNT_PAGES]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    before, within, still_within, after = map(float, run.stdout.split())
    assert max(within, still_within) < min(before, after) / 4


def test_where_the_environment_says_nothing_glibc_adapts_by_itself(monkeypatch):
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    monkeypatch.setattr("skpadim.streaming._parallel._glibc", None)  # which is not called
    with freed_memory_kept():
        pass


# A real cluster on this machine: a scheduler and two processes.

on_dask = pytest.mark.filterwarnings("default")  # of Dask's own making


@pytest.fixture(scope="module")
def client(start_process):
    dask, distributed = map(pytest.importorskip, ("dask", "distributed"))
    start_process("")  # the server that the workers are forked from, with all imported
    settings = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with (
        dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}),
        distributed.LocalCluster(**settings) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def test_parts_of_the_state_are_not_more_than_the_parent_can_take_in():
    sizes = {n: part_size(100_000, n, 32, 4, 100) for n in (2, 8, 80, 100, 1000)}
    # With 816 images a part, worker and parent take equally long.
    assert sizes == {2: 3848, 8: 3128, 80: 1252, 100: 1000, 1000: 816}
    assert part_size(40, 1000, 32, 4, 100) == 32


@pytest.mark.parametrize(
    ("n_images", "n_workers", "batch_size"),
    [(600, 2, 32), (64, 2, 32), (5000, 3, 32), (100_000, 7, 32), (130, 4, 32), (600, 2, 64)],
)
def test_workers_get_as_many_images_each_and_a_batch_or_more(n_images, n_workers, batch_size):
    numbers = n_images, n_workers, batch_size, 4
    for size in (chunk_size(*numbers), part_size(*numbers, 100)):
        assert batch_size <= size <= MAX_CHUNK
        chunks = [min(size, n_images - start) for start in range(0, n_images, size)]
        shares = [sum(chunks[worker::n_workers]) for worker in range(n_workers)]
        assert max(shares) <= 1.06 * n_images / n_workers + 4


@pytest.mark.parametrize(
    ("batch_size", "device", "expected"),
    [(32, "cpu", 76), (32, torch.device("cpu"), 76), (32, "cuda", 96), (30, "cpu", 90)],
)
def test_the_network_takes_a_workers_images_as_it_would_take_all(batch_size, device, expected):
    embedder = SimpleNamespace(batch_size=batch_size, device=device)
    assert chunk_size(600, 2, *batch_and_unit(embedder)) == expected  # 75 would be even


@on_dask
@pytest.mark.parametrize(
    ("make", "results_folder"),
    [("embeddings fit", "disk in common"), ("moments only", "other machines")],
    indirect=True,
)
def test_the_model_is_that_of_one_process(client, make, parts, good, results_folder):
    alone = make().fit(good)
    with parallel_config("dask"):
        same_model(make().fit(good), alone, parts.data)


@on_dask
def test_many_images_are_scored_by_both_workers(client, make_detector, good):
    images = np.concatenate([good] * 20)[:, ::2, ::2]
    detector = make_detector(image_size=32).fit(good[:, ::2, ::2])
    expected = detector.score_samples(images)
    client.wait_for_workers(2)
    before = client.run(tasks_done)
    with parallel_config("dask"):
        assert_allclose(detector.score_samples(images), expected, rtol=1e-6)
    assert all(done > before[worker] for worker, done in client.run(tasks_done).items())


@on_dask
@pytest.mark.parametrize("make", ["moments only"], indirect=True)
def test_a_killed_worker_does_not_spoil_a_fit(client, make, parts, good, monkeypatch):
    many = np.concatenate([good] * 10)
    alone = make().fit(many)
    client.wait_for_workers(2)
    killed = []

    def map_and_kill(*arguments, **options):
        for part in map_chunks(*arguments, **options):
            if not killed:  # one part is there, others are to come
                killed.append(min(client.run(os.getpid).values()))
                os.kill(killed[0], signal.SIGKILL)
            yield part

    monkeypatch.setattr("skpadim.streaming._chunks.map_chunks", map_and_kill)
    with parallel_config("dask"):
        shared = make().fit(many)
    assert killed
    same_model(shared, alone, parts.data)
