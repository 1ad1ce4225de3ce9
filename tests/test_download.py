"""Fetching a file: whole, checked, or not at all."""

import hashlib
import socket
import time

import pytest

from skpadim import _download
from skpadim._download import DownloadError, download

CONTENT = bytes(range(256)) * 20_000  # 5 MB, several chunks
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_a_file_arrives_whole(serve, tmp_path):
    server = serve({"/file": CONTENT})
    target = tmp_path / "new" / "folder" / "file"
    download(f"{server.url}/file", target, sha256_prefix=SHA256[:8])
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("fault", ["wrong byte", "broken off", "not found"])
def test_a_faulty_transfer_leaves_what_was_there(serve, tmp_path, fault):
    server = serve({"/file": CONTENT[:-1] + b"?"} if fault == "wrong byte" else {"/file": CONTENT})
    server.bytes_withheld = 1000 if fault == "broken off" else 0
    path = "/file" if fault != "not found" else "/other"
    target = tmp_path / "file"
    target.write_bytes(b"before")
    message = {
        "wrong byte": "has SHA-256",
        "broken off": "broke off after 5120000 of 5121000 bytes|failed",
        "not found": "cannot be reached .*Not Found",
    }[fault]
    with pytest.raises(DownloadError, match=message):
        download(server.url + path, target, sha256_prefix=SHA256)
    assert target.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_cannot_be_made_is_named(serve, tmp_path):
    (tmp_path / "file").write_text("in the way")
    server = serve({"/file": CONTENT})
    with pytest.raises(DownloadError, match="file/sub cannot be written to"):
        download(f"{server.url}/file", tmp_path / "file" / "sub" / "x", sha256_prefix="")
    assert server.requests == []


def test_a_silent_host_is_given_up_on(tmp_path, monkeypatch):
    monkeypatch.setattr(_download, "CONNECT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        with pytest.raises(DownloadError, match="no answer within 0.3 seconds"):
            download(
                f"http://127.0.0.1:{silent.getsockname()[1]}/x", tmp_path / "x", sha256_prefix=""
            )
        assert time.monotonic() - start < 5
    assert list(tmp_path.iterdir()) == []


def _resume(server, target, **options):
    download(f"{server.url}/file", target, sha256_prefix=SHA256, resume=True, delay=0.01, **options)


def test_a_dropped_connection_is_taken_up_where_it_broke(serve, tmp_path):
    server = serve({"/file": CONTENT})
    server.faults = ["drop", "drop"]
    _resume(server, tmp_path / "file", n_retries=2)
    assert (tmp_path / "file").read_bytes() == CONTENT
    half = len(CONTENT) // 2
    assert server.ranges == [None, f"bytes={half}-", f"bytes={half + half // 2}-"]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_arrived_is_kept_for_the_next_call(serve, tmp_path):
    server = serve({"/file": CONTENT})
    server.faults = ["drop"]
    with pytest.raises(DownloadError, match="broke off after"):
        _resume(server, tmp_path / "file")
    assert (tmp_path / "file.part").stat().st_size == len(CONTENT) // 2
    _resume(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.ranges[1] == f"bytes={len(CONTENT) // 2}-"


def test_a_server_that_knows_no_ranges_sends_all_again(serve, tmp_path):
    server = serve({"/file": CONTENT})
    server.faults = ["drop", "ignore range"]
    _resume(server, tmp_path / "file", n_retries=1)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_part_of_another_file_is_thrown_away(serve, tmp_path):
    server = serve({"/file": CONTENT})
    for part in (b"?" * 1000, CONTENT + b"?"):  # wrong, and longer than the file
        (tmp_path / "file.part").write_bytes(part)
        _resume(server, tmp_path / "file", n_retries=1)
        assert (tmp_path / "file").read_bytes() == CONTENT
        (tmp_path / "file").unlink()


def test_a_complete_part_needs_no_request(serve, tmp_path):
    server = serve({"/file": CONTENT})
    (tmp_path / "file.part").write_bytes(CONTENT)
    _resume(server, tmp_path / "file")
    assert server.requests == []
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_errors_of_the_server_are_tried_again_and_refusals_are_not(serve, tmp_path):
    server = serve({"/file": CONTENT})
    server.faults = [503, 429]
    _resume(server, tmp_path / "file", n_retries=3)
    assert len(server.requests) == 3
    server.faults = [404] * 4
    with pytest.raises(DownloadError, match="Not Found"):
        _resume(server, tmp_path / "other", n_retries=3)
    assert len(server.requests) == 4
