"""Fetching one file over HTTP: bounded waiting, resumed, checked by hash, never half-written."""

from __future__ import annotations

import hashlib
import os
import queue
import re
import threading
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

from tqdm.auto import tqdm

# Without a network, looking up the host's name alone can hang for long, whatever the time-out of
# the connection; so the wait for the first byte is bounded as a whole.
CONNECT_SECONDS = 6.0
READ_SECONDS = 30.0
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
    resume: bool = False,
    n_retries: int = 0,
    delay: float = 1.0,
    description: str | None = None,
) -> None:
    """Fetch `url` to `path`, which is replaced only by a complete file with the right hash.

    Parameters
    ----------
    url : str
    path : Path
        Folders are made as needed.
    sha256_prefix : str
        First hexadecimal digits of the SHA-256 of the file.
    resume : bool, default=False
        Whether what has arrived before an interruption is kept, as ``<path>.part``, for the next
        call to go on with. Since that name is the same for all, the caller sees to it that no two
        threads or processes fetch to the same path at once; without `resume` they may.
    n_retries : int, default=0
        How often to try again after a lost connection, silence or an error of the server. With or
        without `resume`, a retry goes on where the attempt before it ended.
    delay : float, default=1.0
        Seconds between attempts.
    description : str or None, default=None
        If given, the label of a progress bar, on a terminal only.

    Raises
    ------
    DownloadError
        If there is no answer within six seconds, if reading stalls for 30, if the server refuses,
        or if the file is not the expected one.
    """
    path = Path(path)
    name = path.name if resume else f"{path.name}.{os.getpid()}-{threading.get_ident()}"
    part = path.with_name(f"{name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
    except OSError as error:
        raise DownloadError(f"{path.parent} cannot be written to ({error}).") from error
    try:
        with open(part, "r+b") as file:
            transfer = _Transfer(url, file, sha256_prefix, description)
            for retries_left in range(n_retries, -1, -1):
                try:
                    transfer.attempt()
                    break
                except _InterruptedDownloadError:
                    if not retries_left:
                        raise
                    time.sleep(delay)
        os.replace(part, path)
    except DownloadError:
        raise
    except OSError as error:
        raise DownloadError(f"fetching {url} to {path} failed ({error}).") from error
    finally:
        if part.exists() and not (resume and part.stat().st_size):
            part.unlink()


class _Transfer:
    """Attempts to complete a file, each from where the one before it ended."""

    def __init__(self, url, file, sha256_prefix, description):
        self.url = url
        self.file = file
        self.sha256_prefix = sha256_prefix
        self.description = description
        self.version = None  # what the server calls the version of which the file has a part

    def attempt(self):
        """Complete the file, or raise; after a wrong hash the file is empty."""
        self.file.seek(0)
        digest = hashlib.sha256()
        while chunk := self.file.read(_CHUNK_BYTES):
            digest.update(chunk)
        resumed_at = self.file.tell()
        if resumed_at and digest.hexdigest().startswith(self.sha256_prefix):
            return  # it was stopped between the last byte and its renaming
        with self._request(resumed_at) as response:
            if response.status != 206:  # the whole file, though the rest of it was asked for
                resumed_at = 0
                digest = hashlib.sha256()
                self._empty()
            self.version = _version(response)
            self._receive(response, resumed_at, digest)
        if not digest.hexdigest().startswith(self.sha256_prefix):
            self._empty()
            # After a resumption the part may be to blame, from a file that has changed since.
            kind = _InterruptedDownloadError if resumed_at else DownloadError
            raise kind(
                f"what {self.url} sent has SHA-256 {digest.hexdigest()[:12]}…, not "
                f"{self.sha256_prefix[:12]}…."
            )

    def _request(self, start):
        """Open the URL at a byte; without one, or if the server cannot, at the first."""
        headers = {}
        if start:
            headers["Range"] = f"bytes={start}-"
            if self.version:
                headers["If-Range"] = self.version
        try:
            response = _open(urllib.request.Request(self.url, headers=headers))
        except DownloadError as error:
            if getattr(error.__cause__, "code", None) == 416:  # the part is longer than the file
                self._empty()
            raise
        if response.status == 206:
            given = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
            if given is None or int(given[1]) != start:
                response.close()
                self._empty()
                raise _InterruptedDownloadError(f"{self.url} sent another part than was asked for.")
        return response

    def _receive(self, response, start, digest):
        """Append what comes to the file and to the digest."""
        length = response.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        with tqdm(
            desc=self.description,
            initial=start,
            total=total,
            unit="B",
            unit_scale=True,
            disable=True if self.description is None else None,
        ) as progress:
            while True:
                try:
                    chunk = response.read(_CHUNK_BYTES)
                except (OSError, HTTPException) as error:
                    raise _InterruptedDownloadError(
                        f"{self.url} broke off after {self.file.tell()} bytes ({error})."
                    ) from error
                if not chunk:
                    break
                digest.update(chunk)
                self.file.write(chunk)
                progress.update(len(chunk))
        if total is not None and self.file.tell() != total:
            raise _InterruptedDownloadError(
                f"{self.url} broke off after {self.file.tell()} of {total} bytes."
            )

    def _empty(self):
        self.file.seek(0)
        self.file.truncate()


def _version(response):
    """A mark of the file's version that the server accepts as If-Range: a strong ETag, or None."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else None


def _open(request):
    """Open a URL, or raise within `CONNECT_SECONDS`."""
    url = request.full_url
    outcome = queue.SimpleQueue()
    given_up = threading.Event()

    def connect():
        try:
            # A new opener each time: urlopen keeps the proxies that it found at its first call.
            response = urllib.request.build_opener().open(request, timeout=READ_SECONDS)
        except Exception as error:  # handed to the waiting thread
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            outcome.put(error)
        else:
            if given_up.is_set():
                response.close()
            outcome.put(response)

    threading.Thread(target=connect, daemon=True).start()
    try:
        response = outcome.get(timeout=CONNECT_SECONDS)
    except queue.Empty:
        given_up.set()
        raise _InterruptedDownloadError(
            f"{url} gave no answer within {CONNECT_SECONDS:g} seconds."
        ) from None
    if isinstance(response, Exception):
        reason = getattr(response, "reason", None) or response
        status = getattr(response, "code", 500)
        final = 400 <= status < 500 and status not in _PASSING_STATUSES
        kind = DownloadError if final else _InterruptedDownloadError
        raise kind(f"{url} cannot be reached ({reason}).") from response
    return response
