"""Which images a command line names: folders, files, and lists of both. Needs no torch."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from skpadim.files._files import check_output_file
from skpadim.images._files import files_left_out, list_images

_LITTER = ("thumbs.db", "desktop.ini")  # of file managers, which nobody takes for images


def tell_on_terminal(text: str) -> None:
    """Say on a terminal what will be done, before what takes seconds."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr)


def counted(number: int, one: str) -> str:
    """As "1 image" or "2 images"."""
    return f"{number} {one}{'s' * (number != 1)}"


def tell_skipped(number: int) -> str:
    """What is added to a line of what was done."""
    return f"; {counted(number, 'image')} could not be read" if number else ""


class GivenImages(NamedTuple):
    """Images, each once."""

    paths: list[Path]  # in the order in which they were given; those of a folder sorted
    root: Path  # absolute; all lie in it or below, and differ by their names from there
    folders: list[Path]  # those that were given

    def relative(self, path: Path) -> Path:
        """The name of an image from `root`."""
        return Path(os.path.relpath(path, self.root))


def collect_images(names: Iterable[str], list_name: str | None = None) -> GivenImages:
    """Find the images of folders, files, and lists: `list_name`, and standard input at "-"."""
    names = list(names)
    lists = [name for name in names if name == "-"] + ([list_name] if list_name else [])
    given = [Path(name) for name in names if name != "-"]
    for path in given:  # but not what lists name: it may be gone when it is read, too
        try:
            os.stat(path)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{path} does not exist.") from error
        except (OSError, ValueError):
            continue  # what cannot be reached is told when it is its turn
    for name in dict.fromkeys(lists):
        given += _read_list(name)
    if not given:
        raise ValueError("The list of images is empty.")
    folders = dict.fromkeys(path for path in given if os.path.isdir(path))
    found: dict[str, Path] = {}
    n_found = 0
    for path in given:
        images = list_images(path) if path in folders else [path]
        n_found += len(images)
        for image in images:
            found.setdefault(os.path.abspath(image), image)
    _tell_left_out(folders, found)
    if n_found > len(found):
        warnings.warn(
            f"Images named more than once are taken once, {len(found)} of {n_found} names.",
            stacklevel=2,
        )
    places = {os.path.abspath(path if path in folders else path.parent) for path in given}
    return GivenImages(list(found.values()), Path(os.path.commonpath(places)), list(folders))


def find_readable(paths: Sequence[Path]) -> list[int]:
    """Places of the images that can be read, with a warning of each of the others."""
    from skpadim.images._batches import find_problems

    problems = find_problems(paths)
    for path, problem in zip(paths, problems, strict=True):
        if problem is not None:
            warnings.warn(f"{path} {problem} It is left out.", stacklevel=3)
    return [index for index, problem in enumerate(problems) if problem is None]


def check_outside(option: str, path: Path, given: GivenImages) -> None:
    """See that pictures to be written will not lie among the images."""
    if path.is_file() and any(each.exists() and path.samefile(each) for each in given.paths):
        raise ValueError(f"{option} {path} is one of the images: give another name.")
    for folder in given.folders:
        if path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(
                f"{option} {path} lies in {folder}: the pictures would be taken for images the "
                "next time. Give a place outside of it."
            )


def check_folder(option: str, folder: Path, given: GivenImages) -> None:
    """See that a folder can be filled with pictures of images, and is none of theirs."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{option} {folder} is a file; give the name of a folder.")
    check_outside(option, folder, given)
    if any(path.parent.resolve() == folder.resolve() for path in given.paths):
        raise ValueError(
            f"{option} {folder} is the folder of some of the images: give another one for the "
            "pictures."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(f"{option} {folder} cannot be made ({error.strerror}).") from error
    longest = max((path.name for path in given.paths), key=lambda name: len(os.fsencode(name)))
    check_output_file(folder / f"{longest}.tiff")


def _read_list(name):
    """Paths of a list, one a line; names that are not UTF-8 are read as they are."""
    if name == "-":
        content = getattr(sys.stdin, "buffer", sys.stdin).read()
    elif Path(name).is_dir() or not Path(name).exists():
        raise FileNotFoundError(f"--files-from {name} is not a file.")
    else:
        content = Path(name).read_bytes().removeprefix(b"\xef\xbb\xbf")
    return [Path(os.fsdecode(line)) for line in content.splitlines() if line.strip()]


def _tell_left_out(folders, found):
    """Warn of files that are no images by their suffix; hidden ones are nobody's concern."""
    left_out = {
        os.path.abspath(path): path  # each once, though folders lie in one another
        for folder in folders
        for path in files_left_out(folder)
        if path.name.lower() not in _LITTER and os.path.abspath(path) not in found
    }
    if left_out:
        some = ", ".join(map(str, [*left_out.values()][:3])) + ", …" * (len(left_out) > 3)
        some += "; links to folders are not followed" * any(map(os.path.isdir, left_out))
        are = "file is" if len(left_out) == 1 else "files are"
        warnings.warn(
            f"{len(left_out)} {are} left out, not ending as images do: {some}", stacklevel=3
        )
