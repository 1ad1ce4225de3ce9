import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import config_context
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, cross_validate

from skpadim.datasets import load_mvtec_ad
from skpadim.model_selection import NormalFold, NormalGroupFold

SPLITTERS = [NormalFold, NormalGroupFold]


def _labels(n_good, n_defective):
    return np.repeat([1, -1], [n_good, n_defective])


@given(st.integers(2, 6), st.integers(0, 20), st.integers(0, 20), st.booleans(), st.integers(0, 9))
def test_each_image_is_tested_once_and_no_defect_is_trained_on(
    n_splits, more_good, more_defective, shuffle, seed
):
    y = np.random.default_rng(seed).permutation(
        _labels(n_splits + more_good, n_splits + more_defective)
    )
    folds = NormalFold(n_splits, shuffle=shuffle, random_state=seed if shuffle else None)
    tested = []
    for train, test in folds.split(y, y):
        tested.extend(test)
        assert (y[train] == 1).all()
        assert not set(train) & set(test)
        assert set(train) | set(test) >= set(np.flatnonzero(y == 1))
        for label in (1, -1):  # its share, give or take one
            assert abs((y[test] == label).sum() - (y == label).sum() / n_splits) < 1
    assert sorted(tested) == list(range(len(y)))


def test_kinds_of_defect_in_order_spread_over_the_folds():
    y = _labels(6, 9)
    kinds = np.repeat(["good", "scratch", "dent", "spot"], [6, 3, 3, 3])
    for _, test in NormalFold(3).split(y, y):
        assert set(kinds[test]) == set(kinds)


def test_without_labels_or_defects_it_is_a_k_fold():
    for y in (None, np.ones(6)):
        folds = list(NormalFold(3).split(np.zeros((6, 2)), y))
        assert [test.tolist() for _, test in folds] == [[0, 1], [2, 3], [4, 5]]
        assert folds[0][0].tolist() == [2, 3, 4, 5]


def test_groups_stay_together():
    y = np.tile([1, 1, 1, -1], 15)
    groups = np.repeat(np.arange(20), 3)
    tested = []
    for train, test in NormalGroupFold(4, shuffle=True, random_state=0).split(y, y, groups):
        tested.extend(test)
        assert (y[train] == 1).all()
        assert not set(groups[train]) & set(groups[test])
        assert {1, -1} == set(y[test])
    assert sorted(tested) == list(range(60))


def test_tiles_split_by_their_number(tiles):
    data = load_mvtec_ad(tiles.parent, tiles.name)
    numbers = data.data.str.extract(r"num_(\d+)")[0]
    for train, test in NormalGroupFold(3).split(data.data, data.target, numbers):
        assert (data.target[train] == 1).all()
        assert not set(numbers.iloc[train]) & set(numbers.iloc[test])


def test_cross_validate_and_grid_search(parts, make_detector):
    y = parts.target
    detector = make_detector(contamination=0.2)
    scores = cross_validate(
        detector, parts.data, y, cv=NormalFold(3), scoring="roc_auc", return_indices=True
    )
    assert scores["test_score"].min() > 0.5
    assert all((y[train] == 1).all() for train in scores["indices"]["train"])
    search = GridSearchCV(
        detector, {"layers": ["layer1", "layer2"]}, cv=NormalFold(3), scoring="roc_auc"
    ).fit(parts.data, y)
    # The refit, too, learns from good images only.
    expected = make_detector(contamination=0.2, **search.best_params_).fit(parts.data[y == 1])
    assert search.best_estimator_.n_samples_seen_ == (y == 1).sum()
    assert search.best_estimator_.offset_ == expected.offset_


def test_halving_search(parts, make_detector):
    search = HalvingGridSearchCV(
        make_detector(contamination=0.2),
        {"regularization": [0.01, 0.1]},
        cv=NormalFold(2),
        scoring="roc_auc",
        min_resources=len(parts.data),
        max_resources=len(parts.data),
        factor=2,
        return_train_score=False,  # there is one class only in training
    ).fit(parts.data, parts.target)
    assert np.isfinite(search.best_score_)


def test_groups_reach_the_folds_of_a_search(parts, make_detector):
    groups = np.arange(len(parts.data)) // 2
    search = GridSearchCV(
        make_detector(contamination=0.2),
        {"sigma": [2.0, 4.0]},
        cv=NormalGroupFold(2),
        scoring="roc_auc",
    )
    plain = search.fit(parts.data, parts.target, groups=groups).best_score_
    with config_context(enable_metadata_routing=True):
        assert search.fit(parts.data, parts.target, groups=groups).best_score_ == plain


@pytest.mark.parametrize("splitter", SPLITTERS)
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_splits": 1}, "n_splits=1 must be a whole number, at least 2"),
        ({"n_splits": 2.5}, "n_splits=2.5 must be"),
        ({"random_state": 0}, "no effect without shuffling"),
    ],
)
def test_bad_parameters(splitter, parameters, message):
    with pytest.raises(ValueError, match=message):
        splitter(**parameters)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (_labels(2, 6), "n_splits=3, but y has 2 good images"),
        (_labels(6, 2), "n_splits=3, but y has 2 defective images"),
        ([0, 1, 1, 0], r"y has the labels 0, 1; use \+1"),
        (["good", "good", "bad"], "y has the labels 'bad', 'good'"),
        (_labels(0, 5), "no image labelled"),
    ],
)
def test_bad_labels(y, message):
    with pytest.raises(ValueError, match=message):
        next(NormalFold(3).split(np.zeros(len(y)), y))


@pytest.mark.parametrize(
    ("y", "groups", "message"),
    [
        (_labels(6, 6), None, "needs groups.*to fit of a search.*enable_metadata_routing=True"),
        (_labels(2, 2), ["a", None, "b", "c"], "no label for 1 of 4"),
        (_labels(6, 6), np.repeat([0, 1], 6), "groups has 2 different values"),
        (_labels(9, 3), np.r_[np.arange(9), 9, 9, 9], "no defective image to test on"),
    ],
)
def test_bad_groups(y, groups, message):
    with pytest.raises(ValueError, match=message):
        next(NormalGroupFold(3).split(y, y, groups))


def test_groups_of_a_search_are_not_ignored_in_silence(parts, make_detector):
    search = GridSearchCV(
        make_detector(contamination=0.2), {"sigma": [2.0]}, cv=NormalFold(2), scoring="roc_auc"
    )
    for routing in (False, True):
        with (
            config_context(enable_metadata_routing=routing),
            pytest.warns(UserWarning, match="NormalGroupFold keeps them together"),
        ):
            search.fit(parts.data, parts.target, groups=np.arange(len(parts.data)))


def test_groups_are_not_ignored_in_silence():
    with pytest.warns(UserWarning, match="NormalGroupFold keeps them together"):
        next(NormalFold(2).split(np.zeros(4), groups=[1, 1, 2, 2]))
