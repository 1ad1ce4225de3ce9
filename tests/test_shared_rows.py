"""A tensor that several processes fill."""

import errno
import multiprocessing
import os
import pickle
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

from skpadim._shared_rows import SharedRows

on_linux = pytest.mark.skipif(
    not hasattr(os, "memfd_create"), reason="the system has no memory without a name"
)


def arrive(shared):
    """As it is in another process."""
    return pickle.loads(pickle.dumps(shared))


def fill(shared, number):
    rows = shared.rows(2 * number, 2 * number + 2)
    rows.fill_(number)
    return os.getpid()


@on_linux
def test_processes_write_into_one_tensor():
    spawn = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with SharedRows((8, 3, 1000)) as shared, ProcessPoolExecutor(2, spawn) as pool:
        processes = list(pool.map(fill, [shared] * 4, range(4)))
    assert os.getpid() not in processes
    expected = torch.arange(4.0).repeat_interleave(2)[:, None, None].expand(8, 3, 1000)
    assert torch.equal(shared.tensor, expected)


@on_linux
def test_it_is_found_up_to_the_end_of_the_context():
    with SharedRows((8, 3)) as shared:
        arrived = arrive(shared)
        arrived.rows(0, 2).fill_(1)
    assert arrived.rows(0, 2) is None
    assert torch.equal(shared.tensor[:2], torch.ones(2, 3))


@on_linux
def test_another_machine_is_given_no_rows(monkeypatch):
    with SharedRows((8, 3)) as shared:
        _, *status = shared._identity
        monkeypatch.setattr(shared, "_identity", ("another", *status))
        assert arrive(shared).rows(0, 2) is None


@on_linux
def test_another_file_of_that_name_is_not_touched(tmp_path):
    (tmp_path / "other").write_bytes(bytes(8 * 3 * 4))
    with SharedRows((8, 3)) as shared, open(tmp_path / "other", "r+b") as other:
        arrived = arrive(shared)
        os.dup2(other.fileno(), shared._descriptor)  # as in a container with processes of its own
        assert arrived.rows(0, 2) is None


def test_where_there_is_not_enough_it_is_plain_memory(monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    with SharedRows((8, 3)) as shared:
        shared.rows(2, 4).fill_(1)
        assert arrive(shared).rows(2, 4) is None
    assert torch.equal(shared.tensor[2:4], torch.ones(2, 3))
