import joblib
import numpy as np
import pytest
import sklearn
from PIL import Image
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    cross_val_score,
    cross_validate,
)

from skpadim.metrics import aupro_score, aupro_scorer, pixel_roc_auc_score, pixel_roc_auc_scorer
from skpadim.model_selection import NormalFold


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


def test_scorers_score_maps(fitted, parts):
    maps = fitted.anomaly_map(parts.data)
    value = aupro_scorer(fitted, parts.data, masks=parts.masks)
    assert value == aupro_score(parts.masks, maps)
    value = pixel_roc_auc_scorer(fitted, parts.data, parts.target, masks=parts.masks)
    assert value == pixel_roc_auc_score(parts.masks, maps)
    assert repr(aupro_scorer) == "aupro_scorer"
    with pytest.raises(ValueError, match=r"needs masks.*set_score_request\(masks=True\)"):
        aupro_scorer(fitted, parts.data)


class Shuffled:
    """Folds with defects in the test parts alone."""

    def split(self, X, y, groups=None):
        good, bad = np.flatnonzero(np.asarray(y) == 1), np.flatnonzero(np.asarray(y) == -1)
        for fold in range(2):
            test = np.concatenate([good[fold::2], bad[fold::2]])
            yield np.setdiff1d(good, test), test

    def get_n_splits(self, X=None, y=None, groups=None):
        return 2


@pytest.mark.parametrize("as_paths", [False, True])
def test_a_grid_search_divides_masks_as_it_divides_images(
    make_detector, parts, routing, tmp_path, as_paths
):
    masks = parts.masks
    if as_paths:
        masks = [tmp_path / f"{index}.png" for index in range(len(parts.masks))]
        masks = [None if y == 1 else path for y, path in zip(parts.target, masks, strict=True)]
        for mask, path in zip(parts.masks, masks, strict=True):
            if path is not None:
                Image.fromarray(mask).save(path)
    detector = make_detector(n_features=10, calibration=None)
    search = GridSearchCV(
        detector,
        {"sigma": [0.0, 2.0]},
        cv=Shuffled(),
        scoring=aupro_scorer.set_score_request(masks=True),
        refit=False,
        error_score="raise",
    ).fit(parts.data, parts.target, masks=masks)
    for index, sigma in enumerate((0.0, 2.0)):
        for fold, (train, test) in enumerate(Shuffled().split(None, parts.target)):
            model = make_detector(n_features=10, calibration=None, sigma=sigma)
            maps = model.fit(parts.data[train]).anomaly_map(parts.data[test])
            found = search.cv_results_[f"split{fold}_test_score"][index]
            assert found == pytest.approx(aupro_score(parts.masks[test], maps), abs=1e-9)


def test_several_scorers_share_masks(make_detector, parts, routing):
    scoring = {
        "aupro": aupro_scorer.set_score_request(masks=True),
        "auc": pixel_roc_auc_scorer.set_score_request(masks="truth"),
    }
    scores = cross_validate(
        make_detector(n_features=10, calibration=None),
        parts.data,
        parts.target,
        cv=Shuffled(),
        scoring=scoring,
        params={"masks": parts.masks, "truth": parts.masks},
        error_score="raise",
    )
    assert (scores["test_auc"] > 0.5).all()
    assert (scores["test_aupro"] > 0).all()


HOW = r"set_config\(enable_metadata_routing=True\).*masks=True\).*masks=masks.*cross_validate"


@pytest.mark.parametrize("kind", ["search", "halving", "cross_validate", "cross_val_score"])
def test_masks_without_metadata_routing_are_refused_with_word_of_it(make_detector, parts, kind):
    X, y, masks, detector = parts.data, parts.target, parts.masks, make_detector()
    grid, settings = {"sigma": [2.0]}, {"cv": NormalFold(2), "scoring": aupro_scorer}
    calls = {
        "search": lambda: GridSearchCV(detector, grid, **settings).fit(X, y, masks=masks),
        "halving": lambda: HalvingGridSearchCV(detector, grid, **settings).fit(X, y, masks=masks),
        "cross_validate": lambda: cross_validate(
            detector, X, y, params={"masks": masks}, **settings
        ),
        "cross_val_score": lambda: cross_val_score(
            detector, X, y, params={"masks": masks}, **settings
        ),
    }
    with pytest.raises(ValueError, match=f"PadimDetector.fit takes no masks.*{HOW}"):
        calls[kind]()


def test_a_request_without_metadata_routing_is_refused():
    with pytest.raises(RuntimeError, match=f"no effect.*{HOW}"):
        pixel_roc_auc_scorer.set_score_request(masks=True)


def test_masks_that_are_forgotten_are_asked_for(make_detector, parts, routing):
    with pytest.warns(UserWarning, match=f"(?s)Scoring failed.*aupro_scorer needs masks.*{HOW}"):
        cross_val_score(
            make_detector(calibration=None),
            parts.data,
            parts.target,
            cv=NormalFold(2),
            scoring=aupro_scorer,
        )


def test_a_scorer_asks_for_masks_by_itself(make_detector, parts, routing):
    settings = {"cv": NormalFold(2), "params": {"masks": parts.masks}, "error_score": "raise"}
    detector = make_detector(calibration=None)
    scores = [
        cross_val_score(detector, parts.data, parts.target, scoring=scorer, **settings)
        for scorer in (aupro_scorer, aupro_scorer.set_score_request(masks=True))
    ]
    np.testing.assert_array_equal(*scores)


def test_folds_of_one_kind_are_told_of_the_folds_that_are_not(make_detector, parts, routing):
    good_first = np.argsort(-parts.target, kind="stable")
    X, y, masks = parts.data[good_first], parts.target[good_first], parts.masks[good_first]
    with pytest.raises(ValueError, match=r"no anomalous pixel.*NormalFold\(...\)"):
        GridSearchCV(
            make_detector(calibration=None),
            {"sigma": [2.0]},
            cv=3,
            scoring=aupro_scorer,
            error_score="raise",
        ).fit(X, y, masks=masks)
    with pytest.raises(ValueError, match=r"no image labelled \+1.*NormalFold\(...\)"):
        make_detector().fit(X[y == -1], y[y == -1])


def test_a_request_leaves_the_scorer_as_it_was_and_survives_pickling(routing, tmp_path):
    asking = aupro_scorer.set_score_request(masks="truth")
    assert asking is not aupro_scorer
    assert aupro_scorer.get_metadata_routing().score.requests == {"masks": True}
    joblib.dump(asking, tmp_path / "scorer.joblib")
    again = joblib.load(tmp_path / "scorer.joblib")
    assert again.get_metadata_routing().score.requests == {"masks": "truth"}
