"""Fetching one file over HTTP: bounded waiting, checked by hash, never half-written."""

from __future__ import annotations

import hashlib
import os
import queue
import threading
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

# Without a network, looking up the host's name alone can hang for long, whatever the time-out of
# the connection; so the wait for the first byte is bounded as a whole.
CONNECT_SECONDS = 6.0
READ_SECONDS = 30.0
_CHUNK_BYTES = 2**20


class DownloadError(OSError):
    """A file could not be fetched; the message says why."""


def download(url: str, path: Path, *, sha256_prefix: str) -> None:
    """Fetch `url` to `path`, which is replaced only by a complete file with the right hash.

    Parameters
    ----------
    url : str
    path : Path
        Folders are made as needed.
    sha256_prefix : str
        First hexadecimal digits of the SHA-256 of the file.

    Raises
    ------
    DownloadError
        If there is no answer within six seconds, if reading stalls for 30, if the server refuses,
        or if the file is not the expected one.
    """
    path = Path(path)
    # Of its own for each thread and process that fetches the same file.
    part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
    except OSError as error:
        raise DownloadError(f"{path.parent} cannot be written to ({error}).") from error
    try:
        with _open(url) as response, open(part, "wb") as file:
            digest = hashlib.sha256()
            while chunk := response.read(_CHUNK_BYTES):
                digest.update(chunk)
                file.write(chunk)
            expected = response.headers.get("Content-Length")
            if expected is not None and file.tell() != int(expected):
                raise DownloadError(f"{url} broke off after {file.tell()} of {expected} bytes.")
        if not digest.hexdigest().startswith(sha256_prefix):
            raise DownloadError(
                f"what {url} sent has SHA-256 {digest.hexdigest()[:12]}…, not {sha256_prefix}…."
            )
        os.replace(part, path)
    except DownloadError:
        raise
    except (OSError, HTTPException) as error:
        raise DownloadError(f"fetching {url} to {path} failed ({error}).") from error
    finally:
        part.unlink(missing_ok=True)


def _open(url):
    """Open a URL, or raise within `CONNECT_SECONDS`."""
    outcome = queue.SimpleQueue()
    given_up = threading.Event()

    def connect():
        try:
            # A new opener each time: urlopen keeps the proxies that it found at its first call.
            response = urllib.request.build_opener().open(url, timeout=READ_SECONDS)
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
        raise DownloadError(f"{url} gave no answer within {CONNECT_SECONDS:g} seconds.") from None
    if isinstance(response, Exception):
        reason = getattr(response, "reason", None) or response
        raise DownloadError(f"{url} cannot be reached ({reason}).") from response
    return response
