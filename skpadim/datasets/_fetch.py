"""Public data sets from the network to a folder, once: fetched, checked, unpacked.

An archive is hostile until it is unpacked: nothing is written outside the folder, and the whole of
it appears or nothing.
"""

from __future__ import annotations

import difflib
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import urlparse

from sklearn.utils import Bunch
from tqdm.auto import tqdm

from skpadim.datasets._public import DATASETS
from skpadim.files._download import download, file_sha256
from skpadim.files._files import folder_written_whole, locked

# An archive of images hardly shrinks them: what grows more than this is made to fill the disk.
_MAX_RATIO = 20
_MAX_BYTES = 2**28  # of archives that are too small for a ratio
_BLOCK_BYTES = 4096


@dataclass(frozen=True)
class Archive:
    """Where a data set can be fetched."""

    url: str
    sha256: str
    root: str = "."  # the archive's folder that holds the categories
    max_bytes: int = 8 * 10**9  # with room to spare; a server that sends more is refused

    @property
    def file_name(self) -> str:
        """Name of the archive when it is downloaded by hand."""
        return Path(urlparse(self.url).path).name


ARCHIVES = {
    "mvtec_ad": Archive(
        "https://www.mydrive.ch/shares/38536/3830184030e49fe74747669442f0f283/download/"
        "420938113-1629960298/mvtec_anomaly_detection.tar.xz",
        "cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d",
        max_bytes=6 * 10**9,
    ),
    "btad": Archive(
        "https://avires.dimi.uniud.it/papers/btad/btad.zip",
        "461c9387e515bfed41ecaae07c50cf6b10def647b36c9e31d239ab2736b10d2a",
        "BTech_Dataset_transformed",
    ),
    "visa": Archive(
        "https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar",
        "2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362",
        max_bytes=4 * 10**9,
    ),
}


def get_data_home(data_home=None) -> Path:
    """Folder in which fetched data sets are kept.

    Parameters
    ----------
    data_home : path or None, default=None
        None is the environment variable ``SKPADIM_DATA`` if it is set, else ``~/skpadim_data``.

    Returns
    -------
    data_home : Path
        It need not exist.

    Examples
    --------
    >>> from skpadim.datasets import get_data_home
    >>> get_data_home("data").name
    'data'
    """
    if data_home is None:
        data_home = os.environ.get("SKPADIM_DATA") or Path("~", "skpadim_data")
    return Path(data_home).expanduser().absolute()


def fetch_mvtec_ad(
    category,
    *,
    data_home=None,
    subset="all",
    download_if_missing=True,
    n_retries=3,
    delay=1.0,
    return_X_y=False,
    as_frame=False,
) -> Bunch | tuple:
    """Load a category of MVTec AD, and fetch the data set first if it is not there.

    The archive (4.9 GB, all categories) is fetched once, resumed where it was interrupted,
    checked by SHA-256, unpacked, and removed. One that you have downloaded yourself and put into
    `data_home` under its own name is used instead, and left there. The data set's licence
    (CC BY-NC-SA 4.0) does not allow commercial use.

    Parameters
    ----------
    category : str
        For instance "bottle".
    data_home : path or None, default=None
        Folder to keep the data set in, see :func:`get_data_home`; it gets a folder for each data
        set.
    subset : {"train", "test", "all"}, default="all"
        Split to load.
    download_if_missing : bool, default=True
        Whether the network may be used; if not, what is missing raises an error.
    n_retries : int, default=3
        How often a broken transfer is taken up again.
    delay : float, default=1.0
        Seconds between attempts.
    return_X_y, as_frame : bool, default=False
        As for :func:`load_mvtec_ad`.

    Returns
    -------
    images : Bunch
        As from :func:`load_mvtec_ad`.

    Raises
    ------
    ValueError
        If there is no such category.
    OSError
        If the data set is not there and cannot be fetched. The message says where to download it
        by hand, and where to put it. What has arrived is kept for the next call.

    Examples
    --------
    >>> from skpadim.datasets import fetch_mvtec_ad
    >>> train = fetch_mvtec_ad("bottle", subset="train")  # doctest: +SKIP
    """
    root = _fetch("mvtec_ad", category, data_home, download_if_missing, n_retries, delay)
    return DATASETS["mvtec_ad"].load(root, category, subset, return_X_y, as_frame)


def fetch_btad(
    category,
    *,
    data_home=None,
    subset="all",
    download_if_missing=True,
    n_retries=3,
    delay=1.0,
    return_X_y=False,
    as_frame=False,
) -> Bunch | tuple:
    """Load a category of BTAD, and fetch the data set first if it is not there.

    See :func:`fetch_mvtec_ad` for how; for the licence see the `DESCR` of what is returned.

    Parameters
    ----------
    category : {"01", "02", "03"}
    data_home, subset, download_if_missing, n_retries, delay, return_X_y, as_frame
        As for :func:`fetch_mvtec_ad`.

    Returns
    -------
    images : Bunch
        As from :func:`load_btad`.

    Raises
    ------
    ValueError, OSError
        As :func:`fetch_mvtec_ad`.

    Examples
    --------
    >>> from skpadim.datasets import fetch_btad
    >>> train = fetch_btad("01", subset="train")  # doctest: +SKIP
    """
    root = _fetch("btad", category, data_home, download_if_missing, n_retries, delay)
    return DATASETS["btad"].load(root, category, subset, return_X_y, as_frame)


def fetch_visa(
    category,
    *,
    data_home=None,
    subset="all",
    download_if_missing=True,
    n_retries=3,
    delay=1.0,
    return_X_y=False,
    as_frame=False,
) -> Bunch | tuple:
    """Load a category of VisA, and fetch the data set first if it is not there.

    See :func:`fetch_mvtec_ad` for how. The licence is CC BY 4.0.

    Parameters
    ----------
    category : str
        For instance "candle".
    data_home, subset, download_if_missing, n_retries, delay, return_X_y, as_frame
        As for :func:`fetch_mvtec_ad`.

    Returns
    -------
    images : Bunch
        As from :func:`load_visa`.

    Raises
    ------
    ValueError, OSError
        As :func:`fetch_mvtec_ad`.

    Examples
    --------
    >>> from skpadim.datasets import fetch_visa
    >>> train = fetch_visa("candle", subset="train")  # doctest: +SKIP
    """
    root = _fetch("visa", category, data_home, download_if_missing, n_retries, delay)
    return DATASETS["visa"].load(root, category, subset, return_X_y, as_frame)


def _fetch(name, category, data_home, download_if_missing, n_retries, delay):
    """Folder of a data set's categories, after fetching it where it is missing."""
    dataset, archive = DATASETS[name], ARCHIVES[name]
    if category not in dataset.categories:
        near = difflib.get_close_matches(str(category).lower(), dataset.categories, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"category={category!r}: {dataset.title} has no such category.{hint} Its categories "
            f"are {', '.join(map(repr, dataset.categories))}."
        )
    home = get_data_home(data_home)
    folder = home / name
    if folder.is_dir():  # it appears when all of it is there
        return folder / archive.root
    by_hand = home / archive.file_name
    fetched = home / f".{name}.archive"
    try:
        if not (download_if_missing or by_hand.is_file()):
            raise FileNotFoundError(f"It is not in {home}, and download_if_missing is False.")
        home.mkdir(parents=True, exist_ok=True)
        with locked(folder):  # others that want the same wait here
            if folder.is_dir():
                return folder / archive.root
            if by_hand.is_file():
                _check_archive(by_hand, archive)
                unpack(by_hand, folder, f"Unpacking {dataset.title}")
                return folder / archive.root
            # One that is there was checked when it came, and may have changed since.
            if not (fetched.is_file() and file_sha256(fetched) == archive.sha256):
                download(
                    archive.url,
                    fetched,
                    sha256_prefix=archive.sha256,
                    max_bytes=archive.max_bytes,
                    resume=True,
                    n_retries=n_retries,
                    delay=delay,
                    description=f"Fetching {dataset.title}",
                )
            unpack(fetched, folder, f"Unpacking {dataset.title}")
            fetched.unlink()
    except OSError as error:
        raise type(error)(
            f"{dataset.title} cannot be had: {error} You can download {archive.url} yourself "
            f"(SHA-256 {archive.sha256}) and put it at {by_hand}."
        ) from error
    return folder / archive.root


def _check_archive(path, archive):
    """Raise if a file is not the archive."""
    digest = file_sha256(path)
    if digest != archive.sha256:
        raise ArchiveError(
            f"{path} is another file, or incomplete: its SHA-256 is {digest}. It was left as it "
            "is; remove it to have it fetched."
        )


class ArchiveError(OSError):
    """An archive cannot be unpacked; the message says why."""


def unpack(archive: Path, folder: Path, description: str | None = None) -> None:
    """Unpack a tar or zip archive to a new folder that appears when all of it is there.

    Members are written as plain files and folders of this user, without the permissions and
    owners that the archive records. What stops it is an :class:`ArchiveError`.
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
