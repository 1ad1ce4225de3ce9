"""Files and folders that are written whole or not at all, and a check before any work of them.

What is unfinished has a random name beside the one that it will get, and is locked by the process
that writes it. The system drops the locks of a process that ends: so what a killed one has left is
known, and removed by the next that writes to that folder.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
import shutil
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: there left-overs stay
    fcntl = None

# Some file systems keep the locks of one machine from the others, so what is unfinished is
# removed on the machine that it was begun on.
_MACHINE = f"{zlib.crc32(platform.node().encode()):08x}"
_UNFINISHED = re.compile(rf"\.skpadim-(lock|{_MACHINE})-[0-9a-f]{{16}}-", re.ASCII)


def check_output_file(path: Path) -> None:
    """See, before any work, that :func:`written_whole` can write a file; it leaves no trace.

    A file that is there will be replaced, which takes permission to write to it and to its folder.
    Raises an OSError that tells what is in the way, a ValueError if no file can have that name.
    """
    target, _ = _find_target(path)
    if target is not None:
        _remove_left_overs(target.parent)
        part, descriptor = _begin(target, _new_file)
        os.close(descriptor)
        part.unlink(missing_ok=True)


@contextmanager
def written_whole(path: Path, durable: bool = True) -> Iterator[Path]:
    """Give a temporary path to write to; at the end, and only without an error, it becomes `path`.

    The temporary name ends as that of `path` does, so that formats can be told by it. A file that
    is replaced hands on its mode and, where that is allowed, its owner. What a link points to is
    replaced, not the link. A pipe, a device or an open file (/dev/stdout) gets all at the end. If
    `durable`, not even a loss of power leaves half of a file; without, for what can be had again,
    it is quicker. Raises as :func:`check_output_file`.
    """
    target, status = _find_target(path)
    if target is None:
        with tempfile.TemporaryDirectory(prefix="skpadim-") as folder:
            part = Path(folder, _tail(Path(path)))
            part.touch()
            yield part
            with open(part, "rb") as source, _open_stream(path) as sink:
                shutil.copyfileobj(source, sink)
        return
    _remove_left_overs_once(target.parent)
    mode = 0o666 if status is None else stat.S_IMODE(status.st_mode) & 0o777
    part, descriptor = _begin(target, lambda part: _new_file(part, mode | 0o600))
    try:
        yield part
        if durable:
            with open(part, "r+b") as file:
                os.fsync(file.fileno())
        if status is not None:
            with suppress(OSError, AttributeError):  # of another user; on Windows
                os.chown(part, status.st_uid, status.st_gid)
            os.chmod(part, mode)
        if fcntl is None:  # Windows renames no open file
            os.close(descriptor)
            descriptor = None
        os.replace(part, target)
        if durable:
            _sync_folder(target.parent)
    finally:
        if descriptor is not None:
            os.close(descriptor)
        part.unlink(missing_ok=True)


def open_stream(path: Path):
    """Open a pipe, a device or an open file to write to; None for what is written whole."""
    target, _ = _find_target(path)
    return _open_stream(path) if target is None else None


@contextmanager
def folder_written_whole(folder: Path) -> Iterator[Path]:
    """Give a temporary folder to fill; at the end, and only without an error, it becomes `folder`.

    Folders above it are made as needed, and go again after an error. One that is there, or such a
    file, is a FileExistsError.
    """
    folder = Path(os.path.abspath(folder))
    _check_absent(folder)
    made = [parent for parent in folder.parents if not parent.exists()]
    part = descriptor = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_overs(folder.parent)
        part, descriptor = _begin(folder, _new_folder)
        yield part
        for place, _, names in os.walk(part, topdown=False):
            for name in names:
                with open(Path(place, name), "r+b") as file:
                    os.fsync(file.fileno())
            _sync_folder(place)
        _check_absent(folder)  # os.rename replaces one that is empty
        os.rename(part, folder)
        _sync_folder(folder.parent)
    finally:
        if descriptor is not None:
            os.close(descriptor)
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)
        with suppress(OSError):  # not empty: it is done, or others have written there
            for parent in made:
                parent.rmdir()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until no other process or thread is in this context for the same path.

    The path need not exist. The lock is a file beside it, which is there only as long as it is
    held; that of a process that was killed holds nobody up.
    """
    path = Path(os.path.realpath(path))
    name = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    lock = path.with_name(f".skpadim-lock-{name}-")
    if fcntl is None:
        from filelock import FileLock

        with FileLock(lock):  # on Windows it removes its file
            yield
        return
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        with suppress(OSError):  # another user's
            os.fchmod(descriptor, 0o666)  # for others who may write to this folder
        _lock(descriptor)
        if _is_at(descriptor, lock):
            break
        os.close(descriptor)  # of the holder before, who has removed it
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _find_target(path) -> tuple[Path | None, os.stat_result | None]:
    """What will be replaced, behind all links, or None for a stream; its status if it is there."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        status = None
    except OSError as error:
        raise _in_words(error, path) from error
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)!r} can be no file's name ({error}).") from error
    if status is not None and stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(f"{path} is a folder; give the name of a file in it.")
    number = None if status is None else _descriptor(path)
    if number is not None or (status is not None and not stat.S_ISREG(status.st_mode)):
        if stat.S_ISSOCK(status.st_mode) and number is None:
            raise OSError(f"{path} is a socket and cannot be written; give the name of a file.")
        if not os.access(path, os.W_OK):
            raise PermissionError(f"{path} cannot be written: this user has no permission to.")
        tempfile.gettempdir()  # where it is kept until it is whole
        return None, status
    target = Path(os.path.realpath(path))
    folder = target.parent
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}, the folder of {target.name}, does not exist.")
    if not os.access(folder, os.W_OK):
        raise PermissionError(
            f"{path} cannot be written: this user has no permission to write to its folder."
        )
    if status is not None:
        _check_replaceable(path, status, folder.stat())
    return target, status


def _check_replaceable(path, status, folder_status):
    """Raise if a file is there to stay."""
    try:
        os.close(os.open(path, os.O_WRONLY))
    except OSError as error:
        raise type(error)(
            f"{path} is there, and this user may not change it ({error.strerror}). Give another "
            "name, or see to it that it can be written."
        ) from error
    # In such folders, as /tmp is one, files are removed and renamed by their owners.
    if folder_status.st_mode & stat.S_ISVTX and os.geteuid() not in (
        0,
        status.st_uid,
        folder_status.st_uid,
    ):
        raise PermissionError(
            f"{path} is another user's, and in its folder nobody else may replace it. Give another "
            "name."
        )


def _descriptor(path) -> int | None:
    """Number of the file open in this process that a path stands for, as /dev/stdout does."""
    for _ in range(40):  # more links than a system follows
        folder, name = os.path.split(os.path.abspath(path))
        folder = os.path.realpath(folder)
        if re.fullmatch(rf"/dev/fd|/proc/{os.getpid()}(/task/\d+)?/fd", folder):
            return int(name)
        path = os.path.join(folder, name)
        if not os.path.islink(path):
            break
        path = os.path.join(folder, os.readlink(path))
    return None


def _open_stream(path):
    """Open what is not replaced. What an open file has already, or gets later, stays."""
    number = _descriptor(path)
    return open(path, "wb") if number is None else os.fdopen(os.dup(number), "wb")


def _begin(target: Path, make: Callable[[Path], int | None]) -> tuple[Path, int | None]:
    """Make an unfinished file or folder beside a target, and lock it."""
    while True:
        part = target.with_name(f".skpadim-{_MACHINE}-{secrets.token_hex(8)}-{_tail(target)}")
        try:
            descriptor = make(part)
        except OSError as error:
            raise _in_words(error, target) from error
        if fcntl is None:
            return part, descriptor
        _lock(descriptor)
        if _is_at(descriptor, part):
            return part, descriptor
        os.close(descriptor)  # taken for a left-over before it was locked


def _new_file(part, mode=0o666):
    return os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)


def _new_folder(part):
    os.mkdir(part)
    return None if fcntl is None else os.open(part, os.O_RDONLY)


def _tail(target):
    """The end of a name, short enough to be put behind others."""
    return target.name[-20:]


def _in_words(error, path):
    return type(error)(f"{path} cannot be written ({error.strerror}).")


def _lock(descriptor, wait=True):
    """Lock a file until it is closed; whether that was possible."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # held by another, or a file system without locks
        return False
    return True


def _is_at(descriptor, path):
    """Whether an open file is what a path leads to."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _check_absent(folder):
    with suppress(FileNotFoundError, NotADirectoryError):
        try:
            os.lstat(folder)
        except OSError as error:
            raise _in_words(error, folder) from error
        raise FileExistsError(f"{folder} exists and is not overwritten.")


def _remove_left_overs(folder):
    """Remove what killed processes of this user have left unfinished in a folder."""
    if fcntl is None:
        return
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in [entry for entry in entries if _UNFINISHED.match(entry.name)]:
            with suppress(OSError):
                _remove_if_dead(entry.path, entry.is_dir(follow_symlinks=False))


_remove_left_overs_once = lru_cache(1000)(_remove_left_overs)


def _remove_if_dead(path, is_folder):
    access = os.O_RDONLY if is_folder else os.O_RDWR  # what a lock takes on NFS
    descriptor = os.open(path, access | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if status.st_uid == os.geteuid() and _lock(descriptor, wait=False):
            if is_folder:
                shutil.rmtree(path)
            elif stat.S_ISREG(status.st_mode):
                os.unlink(path)
    finally:
        os.close(descriptor)


def _sync_folder(folder):
    """See to it that new names are on the disk, where the file system can do that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
