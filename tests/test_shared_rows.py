"""A tensor that several processes fill."""

import errno
import os
import pickle
import subprocess
import sys

import pytest
import torch

from skpadim._shared_rows import SharedRows

on_linux = pytest.mark.skipif(
    not hasattr(os, "memfd_create"), reason="the system has no memory without a name"
)


def arrive(shared):
    """As it is in another process."""
    return pickle.loads(pickle.dumps(shared))


FILL = """
import pickle, sys
shared = pickle.load(sys.stdin.buffer)
first, last = int(sys.argv[1]), int(sys.argv[2])
shared.rows(first, last).fill_(first)
"""


@on_linux
def test_processes_write_into_one_tensor():
    with SharedRows((8, 3, 1000)) as shared:
        sent = pickle.dumps(shared)
        processes = [
            subprocess.Popen([sys.executable, "-c", FILL, first, last], stdin=subprocess.PIPE)
            for first, last in ("25", "58")
        ]
        for process in processes:
            process.communicate(sent)
            assert process.returncode == 0
    assert torch.equal(shared.tensor[:2], torch.zeros(2, 3, 1000))
    assert torch.equal(shared.tensor[2:5], torch.full((3, 3, 1000), 2.0))
    assert torch.equal(shared.tensor[5:], torch.full((3, 3, 1000), 5.0))


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


@pytest.mark.parametrize("refused", ["os.posix_fallocate", "skpadim._shared_rows._identity"])
def test_where_there_is_none_it_is_plain_memory(refused, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(refused, refuse, raising=False)
    with SharedRows((8, 3)) as shared:
        shared.rows(2, 4).fill_(1)
        assert arrive(shared).rows(2, 4) is None
    assert torch.equal(shared.tensor[2:4], torch.ones(2, 3))


@on_linux
def test_where_memory_runs_out_there_are_no_rows_rather_than_a_crash(monkeypatch):
    allocate = os.posix_fallocate

    def refuse(descriptor, first, n_bytes):
        if first + n_bytes > 4 * 4 * 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        allocate(descriptor, first, n_bytes)

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with SharedRows((8, 3)) as shared:
        for somewhere in (shared, arrive(shared)):
            assert somewhere.rows(2, 4) is not None
            assert somewhere.rows(4, 6) is None
