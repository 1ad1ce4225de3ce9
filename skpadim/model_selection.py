"""Cross-validation for detectors, which must never be trained on a defect."""

from __future__ import annotations

import warnings
from numbers import Integral

import numpy as np
from sklearn.model_selection import BaseCrossValidator, StratifiedGroupKFold
from sklearn.utils import check_random_state

from skpadim.calibration._training_samples import are_labels, check_groups, check_labels, find_good

__all__ = ["NormalFold", "NormalGroupFold"]


class _GoodTrainingFold(BaseCrossValidator):
    """What both cross-validators share: folds of all images, defects taken out of training."""

    # With metadata routing, groups that are given get to the folds: kept together, or warned of.
    __metadata_request__split = {"groups": True}

    def __init__(self, n_splits=5, *, shuffle=False, random_state=None):
        if not isinstance(n_splits, Integral) or isinstance(n_splits, bool) or n_splits < 2:
            raise ValueError(f"n_splits={n_splits!r} must be a whole number, at least 2.")
        if not isinstance(shuffle, (bool, np.bool_)):
            raise TypeError(f"shuffle={shuffle!r} must be True or False.")
        if random_state is not None and not shuffle:
            raise ValueError(
                f"random_state={random_state!r} has no effect without shuffling: leave it out, or "
                "set shuffle=True."
            )
        self.n_splits = int(n_splits)
        self.shuffle = shuffle
        self.random_state = random_state

    def get_n_splits(self, X=None, y=None, groups=None):
        """Return the number of folds.

        Parameters
        ----------
        X, y, groups : ignored

        Returns
        -------
        n_splits : int
        """
        return self.n_splits

    def split(self, X, y=None, groups=None):
        """Yield the indices of each fold's training and test images.

        Parameters
        ----------
        X : images, array-like of length n_samples
            Only their number is looked at.
        y : array-like of shape (n_samples,), default=None
            +1 good, -1 defective; None means that all are good.
        groups : array-like of shape (n_samples,), default=None
            The part that each image shows: :class:`NormalGroupFold` keeps the images of a part
            together, :class:`NormalFold` ignores it, with a warning.

        Yields
        ------
        train : ndarray of int
            Good images only, in order.
        test : ndarray of int
            Good and defective images, in order.

        Raises
        ------
        ValueError
            If labels are other than +1 and -1 (of 0 and 1 a search's scorers would take 1 for
            good), or if there are fewer good images than folds, fewer defective ones (but some),
            or too few groups for every fold to hold its share.
        """
        n_samples = X.shape[0] if hasattr(X, "shape") else len(X)
        labels = np.ones(n_samples, int) if y is None else check_labels(y, n_samples)
        if y is not None and not are_labels(y):
            raise ValueError(
                "y has the labels 0, 1; use +1 for good and -1 for defective images: a search's "
                "scorers take the greater label for good. numpy.where(y == 1, -1, 1) makes them."
            )
        find_good(labels, n_samples)
        fold_of = self._assign_folds(labels, groups)
        for fold in range(self.n_splits):
            train = np.flatnonzero((fold_of != fold) & (labels == 1))
            yield train, np.flatnonzero(fold_of == fold)

    def _assign_folds(self, labels, groups):
        """Number of the test fold that each image belongs to."""
        raise NotImplementedError


class NormalFold(_GoodTrainingFold):
    """K-fold cross-validation that trains on good images only.

    The good images are divided into `n_splits` parts. Each fold trains on the good images of the
    other parts, and tests on its own part and on its share of the defective images. No defect is
    ever trained on, and each image is tested once.

    The defective images are dealt out in turn, so that kinds of defect that follow one another,
    as in a data set's folders, spread over the folds.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.
    shuffle : bool, default=False
        Whether images are shuffled first; else neighbours stay together.
    random_state : int, RandomState or None, default=None
        Seed of the shuffling.

    See Also
    --------
    NormalGroupFold : Keeps images of the same part together.

    Notes
    -----
    There is one class only in training, so scores of it such as the AUROC are not defined: give
    ``return_train_score=False`` to ``HalvingGridSearchCV``, which asks for them by default.

    Examples
    --------
    >>> import numpy as np
    >>> from skpadim.model_selection import NormalFold
    >>> y = np.array([1, 1, 1, 1, -1, -1])
    >>> for train, test in NormalFold(2).split(y, y):
    ...     print(train, test)
    [2 3] [0 1 4]
    [0 1] [2 3 5]
    """

    def _assign_folds(self, labels, groups):
        if groups is not None:
            warnings.warn(
                "NormalFold ignores groups; NormalGroupFold keeps them together.",
                UserWarning,
                stacklevel=3,
            )
        random_state = check_random_state(self.random_state)
        fold_of = np.empty(len(labels), dtype=int)
        good, defective = np.flatnonzero(labels == 1), np.flatnonzero(labels == -1)
        for name, members in (("good", good), ("defective", defective)):
            if len(members) < self.n_splits and (name == "good" or len(members)):
                raise ValueError(
                    f"n_splits={self.n_splits}, but y has {len(members)} {name} images: every "
                    "fold needs at least one. Use fewer folds, or add images."
                )
        if self.shuffle:
            random_state.shuffle(good)
            random_state.shuffle(defective)
        for fold, part in enumerate(np.array_split(good, self.n_splits)):
            fold_of[part] = fold
        fold_of[defective] = np.arange(len(defective)) % self.n_splits
        return fold_of


class NormalGroupFold(_GoodTrainingFold):
    """K-fold cross-validation on good images only that keeps images of the same part together.

    As :class:`NormalFold`, but no part that a fold tests on is among those it trained on: several
    photographs of one part are near-copies, and a detector that has seen one of them would look
    better on the others than it is. Groups are dealt out by
    :class:`~sklearn.model_selection.StratifiedGroupKFold`, so that folds have about their share
    of the good and of the defective images.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.
    shuffle : bool, default=False
        Whether groups are shuffled first.
    random_state : int, RandomState or None, default=None
        Seed of the shuffling.

    See Also
    --------
    NormalFold : For images of different parts.

    Notes
    -----
    `groups` are passed to ``fit`` of a search, ``search.fit(X, y, groups=groups)``, and to
    ``cross_validate`` as ``groups``, or as ``params={"groups": groups}`` with metadata routing.

    Examples
    --------
    >>> import numpy as np
    >>> from skpadim.model_selection import NormalGroupFold
    >>> y = np.array([1, 1, 1, -1, 1, 1, 1, -1])
    >>> part = np.array([1, 1, 2, 2, 3, 3, 4, 4])
    >>> for train, test in NormalGroupFold(2).split(y, y, part):
    ...     print(np.unique(part[train]), np.unique(part[test]))
    [3 4] [1 2]
    [1 2] [3 4]
    """

    def _assign_folds(self, labels, groups):
        if groups is None:
            raise ValueError(
                "NormalGroupFold needs groups, the part that each image shows. Pass groups= to fit "
                "of a search or to cross_validate, or use NormalFold. (params={'groups': groups} "
                "reaches the folds only after sklearn.set_config(enable_metadata_routing=True).)"
            )
        groups, names = check_groups(groups, len(labels))
        n_groups = len(names)
        if n_groups < self.n_splits:
            raise ValueError(
                f"n_splits={self.n_splits}, but groups has {n_groups} different values: use fewer "
                "folds."
            )
        folds = StratifiedGroupKFold(
            self.n_splits, shuffle=self.shuffle, random_state=self.random_state
        )
        fold_of = np.empty(len(labels), dtype=int)
        with warnings.catch_warnings():
            # It warns of classes with fewer images than folds; below, that is an error.
            warnings.filterwarnings("ignore", "The least populated class", UserWarning)
            try:
                tests = [test for _, test in folds.split(labels, labels, groups)]
            except ValueError as error:
                raise ValueError(
                    f"n_splits={self.n_splits} cannot be made of these groups ({error})"
                ) from error
        for fold, test in enumerate(tests):
            fold_of[test] = fold
        for fold in range(self.n_splits):
            for name, label in (("good", 1), ("defective", -1)):
                if (labels == label).any() and not (labels[fold_of == fold] == label).any():
                    raise ValueError(
                        f"Fold {fold} of {self.n_splits} would have no {name} image to test on, "
                        f"since those lie in {len(np.unique(groups[labels == label]))} groups: "
                        "use fewer folds, or another random_state."
                    )
        return fold_of
