"""Unpacking an archive: nothing outside the folder, and the whole of it or nothing."""

from __future__ import annotations

import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

from tqdm.auto import tqdm

_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError)


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
        If the archive is damaged, or no archive; if a member would be written outside the folder
        or is neither a file nor a folder; or if the files cannot be written. Nothing is left.
    """
    unfinished = folder.with_name(f".{folder.name}.unpacking")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
        unfinished.mkdir(parents=True)
        with (
            _open(archive) as members,
            tqdm(
                desc=description,
                unit="B",
                unit_scale=True,
                disable=True if description is None else None,
            ) as progress,
        ):
            for name, source in members:
                target = unfinished / _check_name(archive, name)
                if source is None:
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with open(target, "wb") as file:
                    shutil.copyfileobj(source, file, 2**20)
                    progress.update(file.tell())
        os.rename(unfinished, folder)
    except ArchiveError:
        raise
    except _DAMAGED as error:
        raise ArchiveError(f"{archive} is damaged, or no archive ({error}).") from error
    except OSError as error:
        raise ArchiveError(f"{archive} cannot be unpacked to {folder} ({error}).") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def _open(archive) -> Iterator[Iterator[tuple]]:
    """Names of an archive's members, each with a file to read from, or None for a folder."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            yield _zip_members(file)
    else:
        with tarfile.open(archive) as file:
            yield _tar_members(archive, file)


def _zip_members(file):
    for member in file.infolist():
        if member.is_dir():
            yield member.filename, None
        else:
            with file.open(member) as source:
                yield member.filename, source


def _tar_members(archive, file):
    for member in file:
        if member.isdir():
            yield member.name, None
        elif member.isreg():
            with file.extractfile(member) as source:
                yield member.name, source
        else:
            raise ArchiveError(
                f"{archive} holds {member.name!r}, which is neither a file nor a folder but a "
                "link or a device: nothing was unpacked."
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
