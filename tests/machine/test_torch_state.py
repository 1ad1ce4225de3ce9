"""What the caller has set in torch changes no result, and is as it was afterwards."""

import pickle
import threading
from contextlib import ExitStack, contextmanager, nullcontext

import joblib
import numpy as np
import pytest
import torch
from torch import nn

from skpadim import PadimDetector, PatchEmbedder, PatchGaussian
from skpadim.backbones import load_backbone
from skpadim.embedding import _network
from skpadim.machine._torch_state import each_in_own_torch_state, own_torch_state
from skpadim.metrics import evaluate


@contextmanager
def setting(get, set_, value):
    before = get()
    set_(value)
    try:
        yield
    finally:
        set_(before)


@contextmanager
def flushed_denormals():
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU cannot")
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def rounded_by_onednn():
    if not hasattr(torch.backends.mkldnn, "conv"):
        pytest.skip("this torch has no such setting")
    operations = torch.backends.mkldnn.conv, torch.backends.mkldnn.matmul
    for operation in operations:
        operation.fp32_precision = "bf16"
    try:
        yield
    finally:
        for operation in operations:
            operation.fp32_precision = "none"


def default_dtype(dtype):
    return setting(torch.get_default_dtype, torch.set_default_dtype, dtype)


STATES = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast without a block": lambda: setting(
        lambda: torch.is_autocast_enabled("cpu"),
        lambda is_on: torch.set_autocast_enabled("cpu", is_on),
        True,
    ),
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
    "meta device": lambda: torch.device("meta"),
    "default device": lambda: setting(lambda: None, torch.set_default_device, "meta"),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "deterministic": lambda: setting(
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, True
    ),
    "medium precision": lambda: setting(
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "medium"
    ),
    "oneDNN in bfloat16": rounded_by_onednn,
    "flushed denormals": flushed_denormals,
}


def _precisions():
    if not hasattr(torch.backends.mkldnn, "conv"):
        return torch.get_float32_matmul_precision()
    operations = (
        torch.backends.mkldnn.conv,
        torch.backends.mkldnn.matmul,
        torch.backends.cuda.matmul,
    )
    return [operation.fp32_precision for operation in operations]


def settings_of_torch():
    return (
        torch.is_autocast_enabled("cpu"),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        _precisions(),
        float(np.float64(5e-324) * np.float64(1)) == 0,
        torch.get_num_threads(),
    )


@pytest.fixture(params=STATES)
def state(request):
    """One of the states, to be entered; on leaving it, torch must be as it was inside."""

    @contextmanager
    def enter():
        with STATES[request.param]():
            before = settings_of_torch()
            yield
            assert settings_of_torch() == before

    return enter


def make_detector(backbone):
    return PadimDetector(
        backbone,
        weights=None,
        image_size=32,
        crop_size=None,
        contamination=0.2,
        random_state=0,
        batch_size=4,
    )


def make_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 7, stride=2, padding=3),
        nn.ReLU(),
        nn.Conv2d(16, 24, 3, padding=1),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.Conv2d(24, 32, 3, stride=4),
    )


DETECTORS = {
    "filter_bank": {"n_features": 20},
    "network": {
        "backbone": make_network(),
        "layers": ("1", "5"),
        "projection": "semi_orthogonal",
        "n_features": 20,
    },
}


def fit(name, good):
    detector = make_detector("filter_bank").set_params(**DETECTORS[name])
    return detector.fit(good[:12])


def results(detector, images, masks):
    """What every entrance of a fitted detector gives."""
    table = evaluate(detector, images, np.where(masks.any((1, 2)), -1, 1), masks)
    return {
        "scores": detector.score_samples(images),
        "decisions": detector.decision_function(images),
        "labels": detector.predict(images),
        "p-values": detector.p_values(images),
        "maps": detector.anomaly_map(images),
        "masks": detector.anomaly_mask(images),
        "streamed": np.concatenate(list(detector.iter_anomaly_maps(images))),
        "embeddings": detector.embedder_.transform(images),
        "training scores": detector.training_scores_,
        "evaluation": np.asarray([*table.values()] if isinstance(table, dict) else table),
    }


@pytest.fixture(scope="module")
def expected(parts, good):
    """By detector: the fitted one, and its results, without any state."""
    images, masks = parts.data[21:27], parts.masks[21:27]
    found = {}
    for name in DETECTORS:
        detector = fit(name, good)
        found[name] = detector, results(detector, images, masks)
    return found


def assert_same(got, expected):
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


@pytest.mark.parametrize("name", DETECTORS)
def test_detectors_know_nothing_of_the_callers_settings(state, name, expected, parts, good):
    images, masks = parts.data[21:27], parts.masks[21:27]
    detector, wanted = expected[name]
    _network._ready.clear()  # what is built on first use, is built inside
    detector.gaussian_._factors.clear()
    with state():
        assert_same(results(detector, images, masks), wanted)
        fitted_inside = fit(name, good)
        pickled = pickle.dumps(fitted_inside)
        np.testing.assert_array_equal(pickle.loads(pickled).score_samples(images), wanted["scores"])
    loaded = pickle.loads(pickled)
    np.testing.assert_array_equal(loaded.training_scores_, wanted["training scores"])
    for fitted in (loaded, fitted_inside):
        np.testing.assert_array_equal(fitted.score_samples(images), wanted["scores"])


def test_a_model_fitted_and_pickled_in_many_states_at_once_scores_as_ever(parts, good):
    wanted = make_detector("resnet18").fit(good[:6]).score_samples(parts.data[-3:])
    names = ("autocast", "float64", "meta device", "medium precision", "inference mode")
    with ExitStack() as states:
        for name in names:
            states.enter_context(STATES[name]())
        pickled = pickle.dumps(make_detector("resnet18").fit(good[:6]))
        detector = pickle.loads(pickled)
    np.testing.assert_array_equal(detector.score_samples(parts.data[-3:]), wanted)
    detector = pickle.loads(pickled)
    np.testing.assert_array_equal(detector.score_samples(parts.data[-3:]), wanted)


def test_fits_in_parts_and_calibrations_know_nothing_of_them(state, good):
    def scores(within):
        detector = make_detector("filter_bank")
        with within():
            detector.partial_fit(good[:8])
        detector.partial_fit(good[8:12])
        with within():
            detector.calibrate(good[12:])
        return detector.calibration_scores_, detector.offset_

    for got, wanted in zip(scores(state), scores(nullcontext), strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("kind", ["array", "tensor"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("solver", ["full", "low_rank"])
def test_gaussians_know_nothing_of_them(state, kind, dtype, solver, rng):
    first, second, new = (rng.normal(size=(n, 4, 5, 12)).astype(dtype) for n in (9, 6, 5))
    if kind == "tensor":
        first, second, new = (torch.from_numpy(array) for array in (first, second, new))
    parameters = {"solver": solver, "calibration": "leave_one_out", "contamination": 0.2}

    def values(within_fit, within_score):
        with within_fit():
            gaussian = PatchGaussian(**parameters).fit(first)
            leave_one_out = gaussian.training_scores_
            gaussian.partial_fit(second).merge(PatchGaussian(**parameters).fit(second))
            gaussian.calibrate(new)
        with within_score():
            return [
                np.asarray(value)
                for value in (
                    leave_one_out,
                    gaussian.mahalanobis(new),
                    gaussian.score_samples(new),
                    gaussian.p_values(new),
                    gaussian.predict(new),
                    gaussian.get_covariance(),
                )
            ]

    wanted = values(nullcontext, nullcontext)
    for states in ((state, nullcontext), (nullcontext, state)):
        for got, value in zip(values(*states), wanted, strict=True):
            assert got.dtype == value.dtype
            np.testing.assert_array_equal(got, value)


def test_the_caller_has_their_own_settings_between_maps(state, expected, parts):
    detector, wanted = expected["filter_bank"]
    with state():
        before = settings_of_torch()
        maps = []
        for batch in detector.iter_anomaly_maps(parts.data[21:27]):
            assert settings_of_torch() == before
            maps.append(batch)
        np.testing.assert_array_equal(np.concatenate(maps), wanted["maps"])
        for _ in detector.iter_anomaly_maps(parts.data[21:27]):
            break  # and where not all are taken


def test_workers_that_go_on_between_maps_have_ours(expected, parts):
    detector, wanted = expected["filter_bank"]
    with default_dtype(torch.float64), joblib.parallel_config("threading", n_jobs=2):
        maps = np.concatenate(list(detector.iter_anomaly_maps(parts.data[21:27])))
    np.testing.assert_allclose(maps, wanted["maps"], rtol=1e-5)


def test_tensors_made_in_inference_mode_are_taken_and_leave_no_trace(good, rng):
    with torch.inference_mode():
        images = torch.from_numpy(good[:12].transpose(0, 3, 1, 2).copy()).clone()
        rows = torch.from_numpy(rng.normal(size=(30, 3, 3, 8))).clone()
        assert images.is_inference()
        assert rows.is_inference()
        detector = make_detector("filter_bank").fit(images)
        gaussians = [PatchGaussian(solver=solver).fit(rows) for solver in ("full", "low_rank")]
    plain = make_detector("filter_bank").fit(images.clone())
    np.testing.assert_array_equal(detector.score_samples(images), plain.score_samples(images))
    for gaussian in gaussians:
        gaussian.partial_fit(rows[:5]).mahalanobis(rows)
    detector.partial_fit(images[:2]).calibrate(images[:9] // 2)
    embedder = PatchEmbedder("filter_bank", image_size=32, crop_size=None)
    with torch.inference_mode():
        embeddings = embedder.set_output(transform="torch").fit_transform(images)
    factor = torch.ones(1, requires_grad=True)
    (embeddings * factor).sum().backward()  # which torch refuses for what inference mode has made
    assert factor.grad is not None


@pytest.mark.parametrize("backbone", ["filter_bank", "resnet18"])
def test_networks_are_loaded_alike(state, backbone):
    wanted = load_backbone(backbone, weights=None).state_dict()
    with state():
        network = load_backbone(backbone, weights=None)
        again = pickle.loads(pickle.dumps(network.cut(("layer1", "layer2", "layer3"))))
    for got in (network, again):
        for name, tensor in got.state_dict().items():
            if tensor.numel() > 0:  # it is of what the layers need
                assert torch.equal(tensor, wanted[name])
            assert tensor.dtype == wanted[name].dtype
            assert not tensor.is_inference()
    for got, buffer in zip(network.buffers(), again.buffers(), strict=False):
        assert got.dtype == buffer.dtype


def test_the_default_dtype_comes_back_when_the_last_thread_has_left():
    inside, leave = threading.Event(), threading.Event()

    def other():
        with own_torch_state():
            inside.set()
            leave.wait(10)

    with default_dtype(torch.float64):
        thread = threading.Thread(target=other)
        with own_torch_state():
            thread.start()
            assert inside.wait(10)
        assert torch.get_default_dtype() == torch.float32
        leave.set()
        thread.join()
        assert torch.get_default_dtype() == torch.float64


def test_settings_come_back_after_an_error(state):
    with state(), pytest.raises(ZeroDivisionError), own_torch_state():
        raise ZeroDivisionError


def test_a_generator_that_is_given_up_ends_within():
    ends = []

    @each_in_own_torch_state
    def count():
        try:
            yield from range(3)
        finally:
            ends.append(torch.is_grad_enabled())

    numbers = count()
    assert next(numbers) == 0
    numbers.close()
    assert ends == [False]
