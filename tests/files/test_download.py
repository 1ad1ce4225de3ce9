"""Fetching a file: whole, checked, or not at all."""

import hashlib
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from skpadim.files import _download
from skpadim.files._download import DownloadError, download

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


@pytest.fixture
def answer():
    """Start a server that sends bytes as they are given, an answer a connection; gives its URL.

    An answer is bytes, or an iterable of bytes that are sent one after the other.
    """
    closing = threading.Event()
    listeners = []

    def send(connection, pieces):
        with connection, suppress(OSError):
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(65536)
            for piece in [pieces] if isinstance(pieces, bytes) else pieces:
                if closing.is_set():
                    break
                connection.sendall(piece)

    def accept(listener, answers):
        for pieces in answers:
            with suppress(OSError):
                connection, _ = listener.accept()
                threading.Thread(target=send, args=(connection, pieces), daemon=True).start()

    def start(*answers):
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        threading.Thread(target=accept, args=(listener, answers), daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/file"

    yield start
    closing.set()
    for listener in listeners:
        listener.close()


def _head(*lines, status="200 OK"):
    return "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *lines, "")).encode()


SMALL = b"0123456789"
SMALL_SHA256 = hashlib.sha256(SMALL).hexdigest()


@pytest.mark.parametrize(
    ("answered", "message"),
    [
        (_head("Content-Length: many") + SMALL, "a Content-Length that is no number: 'many'"),
        (_head("Content-Length: -5") + SMALL, "a Content-Length that is no number: '-5'"),
        (_head("Content-Length: 1_0") + SMALL, "a Content-Length that is no number: '1_0'"),
        (_head("Content-Length: ") + SMALL, "a Content-Length that is no number: ''"),
        (_head("Content-Length: 10", "Content-Length: 7") + SMALL, "Content-Length that is no num"),
        (_head("Content-Length: 99") + SMALL, "broke off after 10 of 99 bytes"),
        (_head("Content-Length: 101") + SMALL, "sends 101 bytes, and the file has at most 100"),
        (_head() + bytes(101), "sends more bytes, and the file has at most 100"),
        (_head("Transfer-Encoding: chunked") + b"zz\r\n", "broke off after 0 bytes"),
        (_head("Transfer-Encoding: chunked") + b"5\r\n01234\r\n", "has SHA-256|broke off after 5"),
        (_head("Content-Type: text/html") + b"<html>", "has SHA-256 .* It is a web page, perhaps"),
        (_head(status="204 No Content"), "has SHA-256"),
        (
            _head("Content-Range: bytes 5-9/10", status="206 Partial") + SMALL[5:],
            "sent another part",
        ),
        (_head("Content-Range: nonsense", status="206 Partial") + SMALL, "sent another part"),
        (
            _head("Content-Range: bytes 0-4/10", status="206 P") + SMALL[:5],
            "broke off after 5 of 10",
        ),
        (
            _head("Location: file:///etc/passwd", status="302 Found"),
            "cannot be reached .*file:///etc/passwd",
        ),
        (_head("Location: ftp://127.0.0.1/x", status="301 Moved"), "leads to ftp://127.0.0.1/x"),
        (_head("Location: http://[", status="302 Found"), "cannot be reached"),
        (_head(status="416 Range Not Satisfiable"), "cannot be reached .*Range Not Satisfiable"),
        (_head(status="200000 OK"), "cannot be reached"),
        (_head("X: " + "x" * 70_000), "cannot be reached"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "cannot be reached"),
        (b"", "cannot be reached"),
    ],
)
@pytest.mark.parametrize("resume", [False, True])
def test_odd_answers_are_told_in_words(answer, tmp_path, answered, message, resume):
    url = answer(answered)
    with pytest.raises(DownloadError, match=message) as caught:
        download(url, tmp_path / "file", sha256_prefix=SMALL_SHA256, max_bytes=100, resume=resume)
    assert url in str(caught.value)
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} <= ({"file.part"} if resume else set())


def test_an_encrypted_connection_is_not_given_up_for_a_plain_one():
    request = _download.urllib.request.Request("https://127.0.0.1/x")
    for url in ("http://127.0.0.1/x", "data:,x", "//[x"):
        with pytest.raises((_download.urllib.error.HTTPError, ValueError)) as caught:
            _download._Redirections().redirect_request(request, None, 302, "Found", {}, url)
        getattr(caught.value, "close", str)()
    request = _download._Redirections().redirect_request(
        request, None, 302, "Found", {}, "https://127.0.0.1/y"
    )
    assert request.full_url == "https://127.0.0.1/y"


def test_chunks_and_no_length_are_fine(answer, tmp_path):
    chunked = _head("Transfer-Encoding: chunked", "Content-Length: 3")
    for answered in (_head() + SMALL, chunked + b"4\r\n0123\r\n6\r\n456789\r\n0\r\n\r\n"):
        download(answer(answered), tmp_path / "file", sha256_prefix=SMALL_SHA256, max_bytes=10)
        assert (tmp_path / "file").read_bytes() == SMALL


def _endless(piece, head=b""):
    yield head
    while True:
        time.sleep(0.02)
        yield piece


@pytest.mark.parametrize(
    "answered",
    [
        _endless(b"x", _head()),
        _endless(b"x", _head("Content-Length: 5000")),
        _endless(b"1\r\nx\r\n", _head("Transfer-Encoding: chunked")),
        _endless(b"0", _head("Transfer-Encoding: chunked")),  # a length of a chunk without an end
        _endless(b"", _head()),
    ],
)
def test_a_server_that_trickles_is_given_up_on(answer, tmp_path, monkeypatch, answered):
    monkeypatch.setattr(_download, "READ_SECONDS", 0.3)
    start = time.monotonic()
    with pytest.raises(DownloadError, match="is too slow: it sent [0-9]+ bytes in 0.3|timed out"):
        download(answer(answered), tmp_path / "file", sha256_prefix=SMALL_SHA256)
    assert time.monotonic() - start < 5
    assert list(tmp_path.iterdir()) == []


def test_headers_that_trickle_are_given_up_on(answer, tmp_path, monkeypatch):
    monkeypatch.setattr(_download, "CONNECT_SECONDS", 0.3)
    with pytest.raises(DownloadError, match="no answer within 0.3 seconds"):
        download(answer(_endless(b"x", b"HTTP/1.1 ")), tmp_path / "x", sha256_prefix="0")


def test_a_slow_transfer_is_taken_up_where_it_was(answer, tmp_path, monkeypatch):
    monkeypatch.setattr(_download, "READ_SECONDS", 0.3)
    rest = _head("Content-Range: bytes 4-9/10", status="206 Partial") + SMALL[4:]
    url = answer(_endless(b"", _head("Content-Length: 10") + SMALL[:4]), rest)
    download(url, tmp_path / "file", sha256_prefix=SMALL_SHA256, n_retries=1, delay=0)
    assert (tmp_path / "file").read_bytes() == SMALL


def test_too_long_a_part_is_thrown_away(serve, tmp_path):
    server = serve({"/file": CONTENT})
    (tmp_path / "file.part").write_bytes(CONTENT + b"?")
    _resume(server, tmp_path / "file", max_bytes=len(CONTENT))
    assert server.ranges == [None]
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.skipif(os.name != "posix", reason="links of Unix")
@pytest.mark.parametrize("kind", ["link", "dangling link", "second name", "pipe"])
def test_what_was_laid_in_the_place_of_the_part_is_not_written_to(serve, tmp_path, kind):
    server = serve({"/file": CONTENT})
    victim, part = tmp_path / "victim", tmp_path / "home" / "file.part"
    part.parent.mkdir()
    if kind != "dangling link":
        victim.write_bytes(b"precious")
    if kind == "second name":
        part.hardlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(part)
    else:
        part.symlink_to(victim)
    _resume(server, part.with_name("file"))
    assert [path.name for path in part.parent.iterdir()] == ["file"]
    assert not part.with_name("file").is_symlink()
    assert part.with_name("file").read_bytes() == CONTENT
    assert victim.read_bytes() == b"precious" if kind != "dangling link" else not victim.exists()


@pytest.mark.skipif(os.name != "posix", reason="modes of Unix")
@pytest.mark.parametrize("resume", [False, True])
def test_others_may_read_what_was_downloaded_as_the_umask_says(serve, tmp_path, resume):
    server = serve({"/file": CONTENT})
    before = os.umask(0o022)
    try:
        download(f"{server.url}/file", tmp_path / "file", sha256_prefix=SHA256, resume=resume)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL")
def test_what_a_killed_process_left_is_removed(serve, answer, tmp_path):
    program = (
        "import pathlib, sys\n"
        "from skpadim.files._download import download\n"
        "download(sys.argv[1], pathlib.Path(sys.argv[2]), sha256_prefix='0')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, answer(_endless(b"x", _head())), str(tmp_path / "file")],
        cwd=Path(__file__).parents[2],
    )
    while not list(tmp_path.iterdir()) and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert len(list(tmp_path.iterdir())) == 1
    download(f"{serve({'/file': CONTENT}).url}/file", tmp_path / "file", sha256_prefix=SHA256)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
