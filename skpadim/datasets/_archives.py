"""Unpacking an archive: nothing outside the folder, and the whole of it or nothing."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

from tqdm.auto import tqdm

from skpadim._files import folder_written_whole

# An archive of images hardly shrinks them: what grows more than this is made to fill the disk.
_MAX_RATIO = 20
_MAX_BYTES = 2**28  # of archives that are too small for a ratio
_BLOCK_BYTES = 4096


class ArchiveError(OSError):
    """An archive cannot be unpacked; the message says why."""


def unpack(archive: Path, folder: Path, description: str | None = None) -> None:
    """Unpack a tar or zip archive to a folder that appears when all of it is there.

    Members are written as plain files and folders of this user, without the permissions and
    owners that the archive records.

    Parameters
    ----------
    archive : Path
    folder : Path
        Must not exist yet. Two calls at once for one folder are for the caller to prevent.
    description : str or None, default=None
        If given, the label of a progress bar, on a terminal only.

    Raises
    ------
    ArchiveError
        If the archive is damaged, encrypted, or no archive; if a member would be written outside
        the folder or is neither a file nor a folder; if there is far more in it than its size
        lets expect; or if the files cannot be written. Nothing is left.
    """
    try:
        with (
            folder_written_whole(folder) as unfinished,
            _open(archive) as members,
            tqdm(
                desc=description,
                unit="B",
                unit_scale=True,
                disable=True if description is None else None,
            ) as progress,
        ):
            n_bytes_left = _MAX_BYTES + _MAX_RATIO * archive.stat().st_size
            for name, n_bytes, source in members:
                # An empty file takes room, too.
                n_bytes_left -= max(n_bytes, _BLOCK_BYTES)
                if n_bytes_left < 0:
                    raise ArchiveError(
                        f"{archive} would take up more than {_MAX_RATIO} times its size: nothing "
                        "was unpacked."
                    )
                target = unfinished / _check_name(archive, name)
                if source is None:
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with open(target, "wb") as file:
                    shutil.copyfileobj(source, file, 2**20)
                    progress.update(file.tell())
    except ArchiveError:
        raise
    except OSError as error:
        raise ArchiveError(f"{archive} cannot be unpacked to {folder} ({error}).") from error
    except Exception as error:  # each kind of archive has errors of its own
        raise ArchiveError(f"{archive} is damaged, or no archive ({error}).") from error


@contextmanager
def _open(archive) -> Iterator[Iterator[tuple]]:
    """Names and sizes of an archive's members, each with a file to read, or None for a folder."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            yield _zip_members(archive, file)
    else:
        with tarfile.open(archive) as file:
            yield _tar_members(archive, file)


def _zip_members(archive, file):
    for member in file.infolist():
        mode = member.external_attr >> 16  # of Unix; 0 where another system packed it
        if member.flag_bits & 1:
            raise ArchiveError(
                f"{archive} is encrypted ({member.filename!r}), and there is no password to give: "
                "nothing was unpacked."
            )
        if member.is_dir():
            yield member.filename, 0, None
        elif stat.S_IFMT(mode) in (0, stat.S_IFREG):
            with file.open(member) as source:
                yield member.filename, member.file_size, source
        else:
            raise _neither(archive, member.filename)


def _tar_members(archive, file):
    for member in file:
        if member.isdir():
            yield member.name, 0, None
        elif member.isreg():
            with file.extractfile(member) as source:
                yield member.name, member.size, source
        else:
            raise _neither(archive, member.name)


def _neither(archive, name):
    return ArchiveError(
        f"{archive} holds {name!r}, which is neither a file nor a folder but a link or a device: "
        "nothing was unpacked."
    )


def _check_name(archive, name):
    """The member's name if it stays in the folder, on any system."""
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        if path.anchor or ".." in path.parts:
            raise ArchiveError(
                f"{archive} holds {name!r}, which would be written outside of the folder: nothing "
                "was unpacked."
            )
    return name
