"""A data set's categories: the folders they lie in, their images and masks, the Bunch of these."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from skpadim.images._files import IMAGE_SUFFIXES
from skpadim.images._masks import unaligned_masks
from skpadim.images._unaligned import unaligned_images

GOOD = "good"
UNKNOWN = "unknown"


class Sample(NamedTuple):
    """An image: where it is, its split, its kind ("good" or of defect), and its mask's path."""

    path: str
    split: str
    kind: str
    mask: str | None = None


@dataclass(frozen=True)
class DataSet:
    """A data set of categories."""

    name: str
    title: str  # for people
    categories: tuple[str, ...]  # its own, in the usual order of tables
    # Alternatives; each is a set of folders, relative to a category's, that must all exist.
    folders: tuple[tuple[str, ...], ...]
    description: str
    read: Callable[[Path, list[str]], list[Sample]]  # samples of some splits of a category
    splits: tuple[str, ...] = ("train", "test")
    more_splits: tuple[str, ...] = ()  # that are no part of "all"
    read_mask: Callable[[str], object] = str  # what the path of a mask becomes

    def matches(self, folder: Path) -> bool:
        """Whether a folder is laid out as a category."""
        return any(all(os.path.isdir(folder / name) for name in names) for names in self.folders)

    def describe_folders(self) -> str:
        """The folders of a category in words."""
        return ", or ".join(
            " and ".join(f"<category>/{name}" for name in names) for names in self.folders
        )

    def load(
        self,
        root,
        category,
        subset="all",
        return_X_y=False,
        as_frame=False,
        unaligned=False,
        random_state=0,
    ) -> Bunch | tuple:
        """Load a category as the public loaders do."""
        if not isinstance(random_state, Integral) or random_state < 0:
            raise ValueError(
                f"random_state={random_state!r} must be an int, 0 or more, so that an image is "
                "moved alike whenever it is read."
            )
        splits = check_subset(subset, self.splits, self.more_splits)
        folder = find_category_folder(self, root, category)
        return make_bunch(
            self.read(folder, splits),
            return_X_y=return_X_y,
            as_frame=as_frame,
            read_mask=self.read_mask,
            unaligned_by=int(random_state) if unaligned else None,
            category=category,
            root=str(root),
            subset=subset,
            DESCR=self.description,
        )


def find_category_folder(dataset: DataSet, root, category) -> Path:
    """Folder of a category; if there is none, the error says what was found below the root."""
    if not isinstance(category, str) or not category:
        raise TypeError(
            f"category={category!r} must be the name of a category of {dataset.title}, "
            f"for instance {dataset.categories[0]!r}."
        )
    folder = Path(root) / category
    if dataset.matches(folder):
        return folder
    if os.path.isfile(folder):
        raise NotADirectoryError(f"{folder} is a file; a category of {dataset.title} is a folder.")
    if os.path.isdir(folder):
        raise FileNotFoundError(
            f"{folder} is not laid out as a category of {dataset.title}: looked for "
            f"{dataset.describe_folders()}. Its folders are {_quoted(subfolders(folder))}."
        )
    found = find_categories(dataset, root)
    near = difflib.get_close_matches(category.lower(), found, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise FileNotFoundError(
        f"{root} has no category {category!r}.{hint} Its categories are {_quoted(found)}."
    )


def find_categories(dataset: DataSet, root) -> list[str]:
    """Names of the categories below a root: known ones in their usual order, then the others."""
    names = subfolders(root)
    found = [name for name in names if dataset.matches(Path(root) / name)]
    if not found:
        raise _nothing_found(dataset, Path(root), names)
    return sorted(found, key=category_order(dataset))


def category_order(dataset: DataSet) -> Callable:
    """Key that sorts names of categories: known ones in the usual order, then the others."""
    rank = {name: index for index, name in enumerate(dataset.categories)}
    return lambda name: (rank.get(name, len(rank)), name)


def subfolders(folder) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones."""
    return sorted(
        entry.name for entry in scan(folder) if not entry.name.startswith(".") and entry.is_dir()
    )


def scan(folder) -> list[os.DirEntry]:
    """Entries of a folder; if it cannot be listed, the error says what to do."""
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


def _nothing_found(dataset, root, names):
    """The error for a root without categories, which tells a root one level off."""
    if dataset.matches(root):
        resolved = root.resolve()
        return FileNotFoundError(
            f"{root} is a category of {dataset.title} itself: give the folder above it, "
            f"root={str(resolved.parent)!r}, and category={resolved.name!r}."
        )
    if any(dataset.matches(above) for above in root.resolve().parents):
        return FileNotFoundError(
            f"{root} lies inside of a category of {dataset.title}: give the folder that holds the "
            "categories."
        )
    for name in names:
        below = _readable_subfolders(root / name)
        inner = [each for each in below if dataset.matches(root / name / each)]
        if inner:
            return FileNotFoundError(
                f"{root} has no categories of {dataset.title}, but its folder {name!r} has "
                f"({_quoted(inner)}): give root={str(root / name)!r}."
            )
    return FileNotFoundError(
        f"{root} has no categories of {dataset.title}: looked for {dataset.describe_folders()}. "
        f"Its folders are {_quoted(names)}."
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


def images_in(folder) -> list[str]:
    """Paths of the images right in a folder, sorted by name; other files are passed over."""
    names = (
        entry.name for entry in scan(folder) if is_image_name(entry.name) and not entry.is_dir()
    )
    return [os.path.join(folder, name) for name in sorted(names)]


def some_images(folder) -> list[str]:
    """As :func:`images_in`, but none is an error."""
    images = images_in(folder)
    if not images:
        raise ValueError(
            f"{folder} has no images: looked for files ending in {', '.join(IMAGE_SUFFIXES)}."
        )
    return images


def is_image_name(name: str) -> bool:
    """Whether a file is taken as an image."""
    return not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)


def read_splits(
    folder: Path,
    splits: Sequence[str],
    *,
    good=GOOD,
    test="test",
    ground_truth="ground_truth",
    match: Callable | None = None,
    unlabelled=(),
) -> list[Sample]:
    """Read folders named as splits; `match` finds masks of images in the folder of their kind."""
    samples = []
    for split in splits:
        if split == "test":
            samples += _read_test(folder / test, folder / ground_truth, good, match or match_masks)
        elif split in unlabelled:
            samples += [Sample(path, split, UNKNOWN) for path in some_images(folder / split)]
        else:
            samples += [Sample(path, split, GOOD) for path in some_images(folder / split / good)]
    return samples


def _read_test(test, ground_truth, good, match):
    """The images of a test folder: the good ones, then each kind of defect with masks."""
    samples = []
    kinds = [kind for kind in subfolders(test) if test / kind != ground_truth]
    for kind in sorted(kinds, key=lambda kind: kind != good):
        images = some_images(test / kind)
        if kind == good:
            samples += [Sample(image, "test", GOOD) for image in images]
            continue
        masks = match(images, ground_truth / kind)
        samples += [
            Sample(image, "test", kind, mask) for image, mask in zip(images, masks, strict=True)
        ]
    if not samples:
        raise ValueError(f"{test} has no folders of images: it needs one for each kind of defect.")
    return samples


def match_masks(images: Sequence[str], folder) -> list[str]:
    """One mask for each image from a folder, by their names; suffixes may differ."""
    _check_mask_folder(images, folder)
    found = assign_masks(images, images_in(folder))
    missing = [image for image, masks in zip(images, found, strict=True) if not masks]
    if missing:
        stem = stem_of(missing[0])
        raise FileNotFoundError(
            f"{missing[0]} has no mask: looked in {folder} for {stem}_mask and {stem}, ending in "
            f"{', '.join(IMAGE_SUFFIXES)}. {len(missing)} of the {len(images)} images beside it "
            "have none."
        )
    owners: dict[str, str] = {}
    for image, masks in zip(images, found, strict=True):
        if len(masks) > 1:
            raise ValueError(
                f"{image} has {len(masks)} masks: {' and '.join(sorted(masks))}. Keep one."
            )
        if masks[0] in owners:
            raise ValueError(
                f"{masks[0]} is the mask of both {owners[masks[0]]} and {image} by its name: each "
                "image must have one mask of its own. Rename one of the images, and its mask."
            )
        owners[masks[0]] = image
    return list(owners)


def assign_masks(images: Sequence[str], masks: Iterable[str]) -> list[list[str]]:
    """Masks of each image by their names: the image's with "_mask" behind, or the image's own.

    Where the two masks of one name lie in different folders, only that in a folder named as the
    image's counts. A mask belongs to one image: ``face_mask`` to ``face``, if there are images of
    both names; but not if ``face`` has a mask of its own name, and ``face_mask`` no other. What
    is left for an image may be none, one, or several that names alone do not tell apart.
    """
    by_stem: dict[str, list[str]] = {}
    for mask in masks:
        by_stem.setdefault(stem_of(mask), []).append(mask)
    stems = [stem_of(image) for image in images]
    found = [
        [mask for name in (f"{stem}_mask", stem) for mask in _beside(by_stem.get(name, []), image)]
        for stem, image in zip(stems, images, strict=True)
    ]
    while True:  # what is the only mask of an image is not another's, which has others
        taken = {masks[0] for masks in found if len(masks) == 1}
        left = [
            masks if len(masks) < 2 else [mask for mask in masks if mask not in taken]
            for masks in found
        ]
        if left == found:
            break
        found = left
    by_suffix = [
        [m for m in masks if stem_of(m) != s] for s, masks in zip(stems, found, strict=True)
    ]
    taken = set().union(*by_suffix)
    for index, (stem, suffixed) in enumerate(zip(stems, by_suffix, strict=True)):
        if not suffixed:
            found[index] = [mask for mask in found[index] if mask not in taken]
        elif stem.endswith("_mask"):
            found[index] = suffixed  # the other is of an image that is not among these
    return found


def _beside(masks, image):
    """Masks of one name; if they are several, those in a folder named as the image's."""
    folder = Path(image).parent.name
    return masks if len(masks) < 2 else [m for m in masks if Path(m).parent.name == folder]


def match_mask_folders(images: Sequence[str], folder) -> list[str]:
    """Folders of masks of images, each named as its image is; MVTec LOCO AD has them."""
    _check_mask_folder(images, folder)
    found = [os.path.join(folder, stem_of(image)) for image in images]
    for image, masks in zip(images, found, strict=True):
        if not os.path.isdir(masks):
            raise FileNotFoundError(f"{image} has no masks: there is no folder {masks}.")
        some_images(masks)
    return found


def _check_mask_folder(images, folder):
    """Check that there is a folder for the masks of some images."""
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"{folder} does not exist: it should hold the masks of the {len(images)} images in "
            f"{os.path.dirname(images[0])}."
        )


def stem_of(path: str) -> str:
    """Name of a file without its last suffix."""
    return os.path.splitext(os.path.basename(path))[0]


def check_subset(subset, splits: Sequence[str], only_by_name: Sequence[str] = ()) -> list[str]:
    """Splits that a subset stands for: one by its name, or with "all" the first kind of them."""
    if subset == "all":
        return list(splits)
    accepted = (*splits, *only_by_name)
    if subset not in accepted:
        raise ValueError(f"subset={subset!r} must be {', '.join(map(repr, accepted))} or 'all'.")
    return [subset]


def make_bunch(
    samples: Sequence[Sample],
    *,
    return_X_y: bool,
    as_frame: bool,
    read_mask: Callable[[str], object] = str,
    unaligned_by: int | None = None,
    **about,
) -> Bunch | tuple:
    """A Bunch with further entries, or images and target; `unaligned_by` a seed, they are moved."""
    # Of objects in each version of pandas: paths stay plain strings, and None stays None.
    frame = pd.DataFrame(list(samples), columns=list(Sample._fields), dtype=object)
    target = np.select([frame["kind"] == GOOD, frame["kind"] == UNKNOWN], [1, 0], -1)
    frame.insert(3, "target", target)
    masks = [None if path is None else read_mask(path) for path in frame["mask"]]
    data = frame["path"]
    if unaligned_by is not None:
        images = unaligned_images(data, about["root"], unaligned_by)
        masks, data = unaligned_masks(masks, images), _objects(images, "image")
    data = data.to_frame() if as_frame else data
    target = frame["target"] if as_frame else target
    if return_X_y:
        return data, target
    kinds = frame["kind"] if as_frame else np.array(frame["kind"], dtype=str)
    masks = _objects(masks, "mask")
    return Bunch(data=data, target=target, masks=masks, kinds=kinds, frame=frame, **about)


def _objects(items, name):
    """A Series of objects: filled one by one, as of a list NumPy would make an array of pixels."""
    values = np.empty(len(items), dtype=object)
    for index, item in enumerate(items):
        values[index] = item
    return pd.Series(values, name=name, dtype=object)
