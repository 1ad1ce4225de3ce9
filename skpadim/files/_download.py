"""Fetching one file over HTTP: in bounded time, resumed, checked by hash, never half-written."""

from __future__ import annotations

import hashlib
import os
import queue
import re
import stat
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPResponse
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlparse

from tqdm.auto import tqdm

from skpadim.files._files import written_whole

# Without a network, looking up the host's name alone can hang for long, whatever the time-out of
# the connection; so the wait for the first byte is bounded as a whole.
CONNECT_SECONDS = 6.0
# In any such time a server sends at least so much; with the size, this bounds the time in all.
READ_SECONDS = 30.0
MIN_BYTES_PER_SECOND = 5000
_CHUNK_BYTES = 2**20
# Statuses of the 4xx kind that may pass: time-out, range not satisfiable, too many requests.
_PASSING_STATUSES = (408, 416, 429)


class DownloadError(OSError):
    """A file could not be fetched; the message says why."""


class _InterruptedDownloadError(DownloadError):
    """The same again: another attempt may succeed."""


def download(
    url: str,
    path: Path,
    *,
    sha256_prefix: str,
    max_bytes: int = 2**32,
    resume: bool = False,
    n_retries: int = 0,
    delay: float = 1.0,
    description: str | None = None,
) -> None:
    """Fetch `url` to `path`, which is replaced only by a complete file with the right hash.

    A retry, after `delay` seconds, goes on where the attempt before it ended. With `resume` so does
    the next call: what has arrived stays as ``<path>.part``. That name is the same for all, so the
    caller sees to it that no two threads or processes fetch to the same path at once; without
    `resume` they may. A server that sends more than `max_bytes` is refused. `description` labels a
    progress bar, on a terminal only. All that goes wrong, slowness too, is a DownloadError.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(f"{path.parent} cannot be written to ({error}).") from error
    try:
        with _resumed(path) if resume else _fresh(path) as file:
            transfer = _Transfer(url, file, sha256_prefix, max_bytes, description)
            for retries_left in range(n_retries, -1, -1):
                try:
                    transfer.attempt()
                    break
                except _InterruptedDownloadError:
                    if not retries_left:
                        raise
                    time.sleep(delay)
    except DownloadError:
        raise
    except OSError as error:
        raise DownloadError(f"fetching {url} to {path} failed ({error}).") from error


def check_answered(url: str) -> None:
    """Raise a DownloadError unless a server answers within seconds, be it with an error."""
    try:
        _Answer(url, {"Range": "bytes=0-0"}).leave()
    except DownloadError as error:
        if not isinstance(getattr(error.__cause__, "code", None), int):
            raise


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _fresh(path) -> Iterator[BinaryIO]:
    """An empty file that becomes `path` at the end."""
    with written_whole(path) as part, open(part, "r+b") as file:
        yield file


@contextmanager
def _resumed(path) -> Iterator[BinaryIO]:
    """The part that there is, or an empty file, that becomes `path` or stays for the next time."""
    part = path.with_name(f"{path.name}.part")
    try:
        with os.fdopen(_open_part(part), "r+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        with suppress(FileNotFoundError):
            if not part.lstat().st_size:
                part.unlink()


def _open_part(part):
    """Descriptor of the part; what someone else has put at its well-known name is removed."""
    flags = os.O_RDWR | getattr(os, "O_BINARY", 0)
    with suppress(FileNotFoundError):
        if not _is_own(part.lstat()):  # a link, say, to what must not be written
            part.unlink()
    with suppress(FileExistsError):
        return os.open(part, flags | os.O_CREAT | os.O_EXCL, 0o666)
    descriptor = os.open(part, flags | getattr(os, "O_NOFOLLOW", 0))
    if _is_own(os.fstat(descriptor)):
        return descriptor
    os.close(descriptor)
    raise DownloadError(f"{part} was changed by someone else just now.")


def _is_own(status):
    """Whether a file is a plain one of this user, with no second name."""
    mine = not hasattr(os, "geteuid") or status.st_uid == os.geteuid()
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and mine


class _Transfer:
    """Attempts to complete a file, each from where the one before it ended."""

    def __init__(self, url, file, sha256_prefix, max_bytes, description):
        self.url = url
        self.file = file
        self.sha256_prefix = sha256_prefix
        self.max_bytes = max_bytes
        self.description = description
        self.version = None  # what the server calls the version of which the file has a part

    def attempt(self):
        """Complete the file, or raise; after a wrong hash the file is empty."""
        resumed_at, digest = self._read_part()
        if resumed_at and digest.hexdigest().startswith(self.sha256_prefix):
            return  # it was stopped between the last byte and its renaming
        with self._request(resumed_at) as answer:
            if answer.status != 206:  # the whole file, though the rest of it was asked for
                resumed_at = 0
                digest = hashlib.sha256()
                self._empty()
            self.version = answer.version
            self._receive(answer, resumed_at, digest)
        if not digest.hexdigest().startswith(self.sha256_prefix):
            self._empty()
            # After a resumption the part may be to blame, from a file that has changed since.
            kind = _InterruptedDownloadError if resumed_at else DownloadError
            page = " It is a web page, perhaps of a log-in or a notice." if answer.is_page else ""
            raise kind(
                f"what {self.url} sent has SHA-256 {digest.hexdigest()[:12]}…, not "
                f"{self.sha256_prefix[:12]}….{page}"
            )

    def _read_part(self):
        """Length and digest of what is there."""
        self.file.seek(0)
        digest = hashlib.sha256()
        while chunk := self.file.read(_CHUNK_BYTES):
            digest.update(chunk)
        if self.file.tell() > self.max_bytes:
            self._empty()
            return 0, hashlib.sha256()
        return self.file.tell(), digest

    def _request(self, start):
        """Open the URL at a byte; without one, or if the server cannot, at the first."""
        headers = {}
        if start:
            headers["Range"] = f"bytes={start}-"
            if self.version:
                headers["If-Range"] = self.version
        try:
            answer = _Answer(self.url, headers)
        except DownloadError as error:
            if getattr(error.__cause__, "code", None) == 416:  # the part is longer than the file
                self._empty()
            raise
        if answer.status == 206 and answer.start != start:
            answer.leave()
            self._empty()
            raise _InterruptedDownloadError(f"{self.url} sent another part than was asked for.")
        return answer

    def _receive(self, answer, start, digest):
        """Append what comes to the file and to the digest."""
        total = answer.total(start)
        if total is not None and total > self.max_bytes:
            raise self._too_long(total)
        with tqdm(
            desc=self.description,
            initial=start,
            total=total,
            unit="B",
            unit_scale=True,
            disable=True if self.description is None else None,
        ) as progress:
            for chunk in answer.chunks():
                if self.file.tell() + len(chunk) > self.max_bytes:
                    self._empty()
                    raise self._too_long("more")
                digest.update(chunk)
                self.file.write(chunk)
                progress.update(len(chunk))
        if total is not None and self.file.tell() != total:
            raise _InterruptedDownloadError(
                f"{self.url} broke off after {self.file.tell()} of {total} bytes."
            )

    def _too_long(self, found):
        return DownloadError(
            f"{self.url} sends {found} bytes, and the file has at most {self.max_bytes}."
        )

    def _empty(self):
        self.file.seek(0)
        self.file.truncate()


class _Answer:
    """What a server answers, awaited in a thread of its own so that no wait is unbounded."""

    def __init__(self, url, headers):
        self._url = url
        self._items = queue.Queue(maxsize=4)
        self._left = False
        request = urllib.request.Request(url, headers=headers)
        threading.Thread(target=self._fetch, args=[request], daemon=True).start()
        try:
            response = self._items.get(timeout=CONNECT_SECONDS)
        except queue.Empty:
            self.leave()
            raise _InterruptedDownloadError(
                f"{url} gave no answer within {CONNECT_SECONDS:g} seconds."
            ) from None
        if isinstance(response, Exception):
            reason = getattr(response, "reason", None) or response
            status = getattr(response, "code", 500)
            final = isinstance(status, int) and status < 500 and status not in _PASSING_STATUSES
            kind = DownloadError if final else _InterruptedDownloadError
            raise kind(f"{url} cannot be reached ({_one_line(reason)}).") from response
        self._headers = response.headers
        self.status = response.status
        tag = self._headers.get("ETag", "")
        self.version = tag if tag.startswith('"') else None  # If-Range takes a strong one only
        self._range = re.match(
            r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)\s*$",
            self._headers.get("Content-Range", ""),
            re.ASCII,
        )
        self.start = None if self._range is None else int(self._range[1])  # first byte of a part
        self.is_page = self._headers.get_content_type() == "text/html"

    def total(self, start):
        """Length of the whole file, as far as it is told; raises if that is nonsense."""
        if self.status == 206 and self._range[3] != "*":
            return int(self._range[3])
        lengths = set(self._headers.get_all("Content-Length", []))
        if not lengths or "Transfer-Encoding" in self._headers:
            return None
        length = lengths.pop().strip()
        if lengths or not re.fullmatch(r"\d{1,18}", length, re.ASCII):
            raise _InterruptedDownloadError(
                f"{self._url} announces a Content-Length that is no number: {length[:20]!r}."
            )
        return start + int(length)

    def chunks(self) -> Iterator[bytes]:
        """What is sent, as it comes; raises if that breaks off or is too slow."""
        n_bytes = n_bytes_before = 0
        deadline = time.monotonic() + READ_SECONDS
        while True:
            seconds_left = deadline - time.monotonic()
            if seconds_left <= 0:
                if n_bytes - n_bytes_before < READ_SECONDS * MIN_BYTES_PER_SECOND:
                    raise _InterruptedDownloadError(
                        f"{self._url} is too slow: it sent {n_bytes - n_bytes_before} bytes in "
                        f"{READ_SECONDS:g} seconds."
                    )
                n_bytes_before = n_bytes
                deadline = time.monotonic() + READ_SECONDS
                continue
            try:
                item = self._items.get(timeout=seconds_left)
            except queue.Empty:
                continue
            if isinstance(item, Exception):
                raise _InterruptedDownloadError(
                    f"{self._url} broke off after {n_bytes} bytes ({_one_line(item)})."
                ) from item
            if not item:
                return
            n_bytes += len(item)
            yield item

    def leave(self):
        """Want no more: the thread ends when it next hears of the server."""
        self._left = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.leave()

    def _fetch(self, request):
        """Hand over the response, then what it holds up to b"" at its end, or an error."""
        try:
            # A new opener each time: urlopen keeps the proxies that it found at its first call.
            opener = urllib.request.build_opener(_Redirections)
            with opener.open(request, timeout=READ_SECONDS) as response:
                item: HTTPResponse | bytes = response
                while self._hand_over(item) and item != b"":
                    item = response.read1(_CHUNK_BYTES)
        except Exception as error:  # each layer has its own kinds, and servers find them all
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            self._hand_over(error)

    def _hand_over(self, item):
        """Wait until there is room for an item; False if nobody wants it."""
        while not self._left:
            with suppress(queue.Full):
                self._items.put(item, timeout=0.5)
                return True
        return False


class _Redirections(urllib.request.HTTPRedirectHandler):
    """Follows those that stay with HTTP, and with encryption where there was some."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        scheme = urlparse(newurl).scheme
        if scheme != "https" and (req.type, scheme) != ("http", "http"):
            raise urllib.error.HTTPError(
                req.full_url, code, f"it leads to {newurl}, which is not followed", headers, fp
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def http_error_302(self, req, fp, code, msg, headers):
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except Exception:  # an address that is none, say
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _one_line(reason):
    """What a server says, fit to be shown."""
    return "".join(c if c.isprintable() else " " for c in str(reason)).strip()
