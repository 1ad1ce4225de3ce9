"""Batches reach a GPU whole and in order, by way of memory that is not overwritten too early.

The streams and events here are stand-ins that note what is asked of them; `test_gpu.py` has the
real ones, where there is a GPU.
"""

from contextlib import contextmanager

import pytest
import torch

from skpadim.images._gpu_copies import copied_ahead, filled


def make_batches(n_batches, n_images=3, dtype=torch.uint8):
    generator = torch.Generator().manual_seed(0)
    shape = (n_images, 3, 4, 5)
    batches = [torch.randint(256, shape, generator=generator) for _ in range(n_batches)]
    return [batch.to(dtype) if dtype == torch.uint8 else batch / 255 for batch in batches]


@pytest.fixture
def log(monkeypatch):
    """What was asked of streams and events, in order."""
    asked = []

    class Event:
        def __init__(self):
            self.recorded, self.of_copy = 0, True

        def record(self, stream=None):
            self.recorded += 1
            self.of_copy = stream is None
            asked.append("copy begun" if self.of_copy else "use noted")

        def synchronize(self):
            asked.append("buffer free" if self.of_copy else "use awaited")

    class Stream:
        def __init__(self, device=None):
            pass

        def wait_event(self, event):
            assert event.recorded > 0
            asked.append("wait")

    @contextmanager
    def stream(_):
        yield

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: asked.append("held"))
    return asked


@pytest.mark.parametrize("n_batches", [0, 1, 2, 7])
@pytest.mark.parametrize("as_list", [True, False])
def test_batches_arrive_whole_and_in_order(log, n_batches, as_list):
    batches = make_batches(n_batches)
    sent = [list(batch) for batch in batches] if as_list else batches
    received = [batch.clone() for batch in copied_ahead(sent, torch.device("cpu"))]
    assert len(received) == n_batches
    assert all(torch.equal(got, batch) for got, batch in zip(received, batches, strict=True))


def test_the_next_copy_is_begun_before_a_batch_is_used(log):
    for _ in copied_ahead(make_batches(4), torch.device("cpu")):
        log.append("used")
    begun = [log[:i].count("copy begun") for i, what in enumerate(log) if what == "used"]
    assert begun == [2, 3, 4, 4]
    for i, what in enumerate(log):
        if what == "used":
            assert log[i - 2 : i] == ["wait", "held"]
        if what == "copy begun":
            assert log[i - 1] == "buffer free"


def test_few_batches_wait_on_the_device(log):
    for _ in copied_ahead(make_batches(9), torch.device("cpu")):
        log.append("used")
    waiting = [0]
    for what in log:
        waiting.append(waiting[-1] + (what == "use noted") - (what == "use awaited"))
    assert log.count("use noted") == 8  # after the last one nothing is sent
    assert max(waiting) == 3
    assert waiting[-1] == 2
    # A batch is used when the one after it has been sent.
    assert log.index("use noted") > log.index("used") > log.index("copy begun")


def test_batches_of_any_size_and_kind_follow_each_other(log):
    batches = [
        *make_batches(2),
        *make_batches(1, n_images=5),
        *make_batches(2, dtype=torch.float32),
        *make_batches(3, n_images=2),
    ]
    received = [batch.clone() for batch in copied_ahead(batches, torch.device("cpu"))]
    assert all(torch.equal(got, batch) for got, batch in zip(received, batches, strict=True))


def test_one_float_image_makes_a_batch_of_floats():
    (pixels,), (floats,) = make_batches(1, 1), make_batches(1, 1, torch.float32)
    memory = filled(None, [pixels[0], floats[0]])
    expected = torch.cat([pixels / 255, floats])
    torch.testing.assert_close(memory.permute(0, 3, 1, 2), expected)


def test_memory_is_used_again_where_a_batch_fits():
    first, second = make_batches(2)
    memory = filled(None, first)
    assert filled(memory, second[:2]) is memory
    assert filled(memory, torch.cat([first, second])) is not memory
    assert filled(memory, first.float()) is not memory
