"""Where a category of a data set lies: the folders it must have, and what to say if it has not."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """The folders that make a folder a category of a data set.

    Attributes
    ----------
    title : str
        Of the data set, for messages.
    categories : tuple of str
        The data set's own, in the usual order of tables.
    folders : tuple of tuple of str
        Alternatives; each is a set of folders, relative to the category's, that must all exist.
    """

    title: str
    categories: tuple[str, ...]
    folders: tuple[tuple[str, ...], ...]

    def matches(self, folder: Path) -> bool:
        """Whether a folder is laid out as a category."""
        return any(all(os.path.isdir(folder / name) for name in names) for names in self.folders)

    def describe(self) -> str:
        """The folders of a category in words."""
        return ", or ".join(
            " and ".join(f"<category>/{name}" for name in names) for names in self.folders
        )


def find_category_folder(layout: Layout, root, category) -> Path:
    """Folder of a category.

    Raises
    ------
    TypeError
        If the category is not a name.
    FileNotFoundError, NotADirectoryError, PermissionError
        If there is no such category below the root. The message says what was found there.
    """
    if not isinstance(category, str) or not category:
        raise TypeError(
            f"category={category!r} must be the name of a category of {layout.title}, "
            f"for instance {layout.categories[0]!r}."
        )
    folder = Path(root) / category
    if layout.matches(folder):
        return folder
    names = subfolders(root)
    if os.path.isfile(folder):
        raise NotADirectoryError(f"{folder} is a file; a category of {layout.title} is a folder.")
    if os.path.isdir(folder):
        raise FileNotFoundError(
            f"{folder} is not laid out as a category of {layout.title}: looked for "
            f"{layout.describe()}. Its folders are {_quoted(subfolders(folder))}."
        )
    found = _in_usual_order(layout, (name for name in names if layout.matches(Path(root) / name)))
    if not found:
        raise _nothing_found(layout, Path(root), names)
    near = difflib.get_close_matches(category.lower(), found, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise FileNotFoundError(
        f"{root} has no category {category!r}.{hint} Its categories are {_quoted(found)}."
    )


def list_categories(layout: Layout, root) -> list[str]:
    """Names of the categories below a root: known ones in their usual order, then the others.

    Raises
    ------
    FileNotFoundError, NotADirectoryError, PermissionError
        If there are none.
    """
    names = subfolders(root)
    found = _in_usual_order(layout, (name for name in names if layout.matches(Path(root) / name)))
    if not found:
        raise _nothing_found(layout, Path(root), names)
    return found


def subfolders(folder) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones."""
    return sorted(
        entry.name for entry in scan(folder) if not entry.name.startswith(".") and entry.is_dir()
    )


def scan(folder) -> list[os.DirEntry]:
    """Entries of a folder.

    Raises
    ------
    FileNotFoundError, NotADirectoryError, PermissionError
        With a message that says what to do.
    """
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        message = f"{folder} does not exist (current folder: {Path.cwd()})."
        raise FileNotFoundError(message) from None
    except NotADirectoryError:
        raise NotADirectoryError(f"{folder} is a file; a folder is needed.") from None
    except PermissionError:
        raise PermissionError(
            f"{folder} cannot be read: this user has no permission to list it. Ask its owner for "
            "the right to read and enter it (chmod u+rx)."
        ) from None


def _in_usual_order(layout, names):
    rank = {name: index for index, name in enumerate(layout.categories)}
    return sorted(names, key=lambda name: (rank.get(name, len(rank)), name))


def _nothing_found(layout, root, names):
    """The error for a root without categories, which tells a root one level off."""
    if layout.matches(root):
        resolved = root.resolve()
        return FileNotFoundError(
            f"{root} is a category of {layout.title} itself: give the folder above it, "
            f"root={str(resolved.parent)!r}, and category={resolved.name!r}."
        )
    if any(layout.matches(above) for above in root.resolve().parents):
        return FileNotFoundError(
            f"{root} lies inside of a category of {layout.title}: give the folder that holds the "
            "categories."
        )
    for name in names:
        below = _readable_subfolders(root / name)
        inner = [each for each in below if layout.matches(root / name / each)]
        if inner:
            return FileNotFoundError(
                f"{root} has no categories of {layout.title}, but its folder {name!r} has "
                f"({_quoted(inner)}): give root={str(root / name)!r}."
            )
    return FileNotFoundError(
        f"{root} has no categories of {layout.title}: looked for {layout.describe()}. Its "
        f"folders are {_quoted(names)}."
    )


def _readable_subfolders(folder):
    try:
        return subfolders(folder)
    except PermissionError:
        return []


def _quoted(names):
    if not names:
        return "none"
    shown = ", ".join(repr(name) for name in names[:15])
    return shown + (f" and {len(names) - 15} more" if len(names) > 15 else "")
