"""The images of each category to be run, checked before any work starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

import numpy as np

from skpadim.datasets._layout import DataSet, category_order, find_categories
from skpadim.datasets._public import DATASETS
from skpadim.images._files import ImageFileError, open_image
from skpadim.images._masks import (
    MaskFiles,
    check_agreement,
    check_mask_size,
    image_size,
    is_missing,
    read_mask,
    unaligned_masks,
)
from skpadim.images._unaligned import unaligned_images


@dataclass(frozen=True)
class Category:
    """Paths of a category's images."""

    root: str
    name: str
    train: list[str]  # good ones
    test: list[str]
    target: np.ndarray  # +1 good, -1 defective, and
    masks: list  # as evaluate takes them: one for each in `test`

    def __len__(self):
        return len(self.train) + len(self.test)

    def check(self) -> Category:
        """Check that there is something to fit on and both kinds of images to test on."""
        counts = (len(self.train), *((self.target == label).sum() for label in (1, -1)))
        needed = (("training images", 2), ("good test images", 1), ("defective test images", 1))
        for count, (kind, least) in zip(counts, needed, strict=True):
            if count < least:
                raise ValueError(
                    f"category {self.name!r} has {count} {kind}; at least {least} "
                    f"{'is' if least == 1 else 'are'} needed."
                )
        return self

    def unaligned(self, random_state, size, crop) -> Category:
        """The same images, turned and cropped at random."""
        train, test = (
            unaligned_images(paths, self.root, random_state, size=size, crop=crop)
            for paths in (self.train, self.test)
        )
        return replace(self, train=train, test=test, masks=unaligned_masks(self.masks, test))

    def without_unreadable(self) -> tuple[Category, list[str]]:
        """The same without images that can't be used, and what is wrong with each of these."""
        train, test = _problems_of_images(self.train), _problems_of_images(self.test)
        test = [problem or self._problem_of_mask(index) for index, problem in enumerate(test)]
        kept = [index for index, problem in enumerate(test) if problem is None]
        readable = replace(
            self,
            train=[path for path, problem in zip(self.train, train, strict=True) if not problem],
            test=[self.test[index] for index in kept],
            target=self.target[kept],
            masks=[self.masks[index] for index in kept],
        )
        return readable, [problem for problem in train + test if problem]

    def _problem_of_mask(self, index):
        image, mask = self.test[index], self.masks[index]
        if is_missing(mask):
            return None
        try:
            array = read_mask(mask, index)
            check_mask_size(array.shape, mask, image, index)
            check_agreement(array, mask, index, self.target[index] == -1)
        except (OSError, ValueError) as error:
            return f"{image} has a mask that cannot be used: {error}"
        return None


def find_dataset(name: str) -> DataSet:
    """Data set by its key in the catalogue."""
    if name in DATASETS:
        return DATASETS[name]
    near = get_close_matches(str(name).lower(), DATASETS, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise ValueError(
        f"dataset={name!r} is unknown{hint} The data sets are {', '.join(map(repr, DATASETS))}."
    )


def load_categories(
    dataset: DataSet, root, names: str | Sequence[str] | None = None
) -> list[Category]:
    """Images of some or all categories, in the usual order: by names of files, headers of masks."""
    if names is not None:
        names = list(dict.fromkeys([names] if isinstance(names, str) else names))
        if not names:
            raise ValueError("categories is empty: name some, or give None for all.")
    else:
        names = find_categories(dataset, root)
    categories = [_load(dataset, root, name) for name in names]
    order = category_order(dataset)
    return sorted(categories, key=lambda category: order(category.name))


def _load(dataset, root, name):
    train = dataset.load(root, name, subset="train")
    test = dataset.load(root, name, subset="test")
    images, masks = list(test.data), list(test.masks)
    for index, (image, mask) in enumerate(zip(images, masks, strict=True)):
        _check_mask_header(image, mask, index)
    target = np.asarray(test.target)
    return Category(str(root), name, list(train.data), images, target, masks).check()


def _check_mask_header(image, mask, index):
    """Compare sizes by headers; where they differ, turned upright, which can take longer."""
    paths = mask.paths if isinstance(mask, MaskFiles) else [] if mask is None else [mask]
    if len({_stored_size(path) for path in (image, *paths)} - {None}) > 1:
        for path in paths:
            size = image_size(path)
            if size is not None:  # else that is told when it is read
                check_mask_size(size, mask, image, index)


def _stored_size(path):
    try:
        with open_image(path) as image:
            return image.size
    except ImageFileError:
        return None


def _problems_of_images(paths):
    from skpadim.images._batches import find_problems  # here: it imports torch

    return [
        problem and f"{path} {problem}"
        for path, problem in zip(paths, find_problems(paths), strict=True)
    ]
