"""What is promised of a GPU, where there is one: the CPU's results, on the device throughout."""

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone

from skpadim import PadimDetector, PatchEmbedder, PatchGaussian

if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)


@pytest.fixture(scope="module")
def make_detector():
    def make(**parameters):
        settings = {"weights": None, "image_size": 64, "crop_size": None, "random_state": 0}
        return PadimDetector("resnet18", **{**settings, "device": "cuda", **parameters})

    return make


@pytest.fixture(scope="module")
def expected(make_detector, good, parts):
    return make_detector(device="cpu").fit(good).score_samples(parts.data)


def stack_of(images, device="cpu"):
    return torch.from_numpy(np.stack(list(images))).permute(0, 3, 1, 2).to(device)


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_scores_are_the_cpus(make_detector, good, parts, expected, batch_size):
    detector = make_detector(batch_size=batch_size).fit(good)
    np.testing.assert_allclose(detector.score_samples(parts.data), expected, rtol=1e-3)


@pytest.mark.parametrize(
    "change",
    [
        lambda images: stack_of(images),
        lambda images: stack_of(images).pin_memory(),
        lambda images: stack_of(images, "cuda"),
        lambda images: stack_of(images, "cuda") / 255,
        lambda images: list(stack_of(images, "cuda")),
        lambda images: [*stack_of(images[:2], "cuda"), *stack_of(images[2:])],
    ],
    ids=["tensor", "pinned", "on the GPU", "floats on the GPU", "list on the GPU", "both"],
)
def test_images_may_be_anywhere(make_detector, good, parts, expected, change):
    detector = make_detector(batch_size=5).fit(change(good))
    scores = detector.score_samples(change(parts.data))
    np.testing.assert_allclose(scores, expected, rtol=1e-3)


def test_images_on_the_gpu_are_scored_on_the_cpu(make_detector, good, parts, expected):
    detector = make_detector(device="cpu").fit(stack_of(good, "cuda"))
    scores = detector.score_samples(stack_of(parts.data, "cuda"))
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_another_stream_is_heeded(make_detector, good, parts, expected):
    detector = make_detector(batch_size=3)
    with torch.cuda.stream(torch.cuda.Stream()):
        scores = detector.fit(stack_of(good, "cuda")).score_samples(parts.data)
    np.testing.assert_allclose(scores, expected, rtol=1e-3)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precisions_are_close(make_detector, good, parts, expected, precision):
    scores = make_detector(precision=precision).fit(good).score_samples(parts.data)
    np.testing.assert_allclose(scores, expected, rtol=0.1)


@pytest.mark.parametrize("backbone", ["resnet18", "filter_bank"])
def test_kept_features_are_the_same(make_detector, good, parts, backbone, tmp_path):
    weights = None if backbone == "resnet18" else "imagenet"
    detector = make_detector(backbone=backbone, weights=weights)
    expected = detector.fit(good).score_samples(parts.data)
    for _ in range(2):  # computed, and found again
        kept = clone(detector).set_params(memory=tmp_path).fit(good)
        np.testing.assert_allclose(kept.score_samples(parts.data), expected, rtol=1e-4)


def test_a_streamed_fit_is_the_same(make_detector, good, parts, expected, monkeypatch):
    monkeypatch.setattr("skpadim.streaming._learning._max_embeddings_bytes", lambda embedder: 1)
    detector = make_detector(batch_size=4, n_features=10).fit(good)
    reference = make_detector(device="cpu", n_features=10).fit(good)
    scores = detector.score_samples(parts.data)
    np.testing.assert_allclose(scores, reference.score_samples(parts.data), rtol=1e-3)
    np.testing.assert_allclose(detector.offset_, reference.offset_, rtol=1e-3)


def test_a_model_file_has_nothing_of_the_gpu(make_detector, good, parts, tmp_path):
    detector = make_detector().fit(good)
    expected = detector.score_samples(parts.data)
    joblib.dump(detector, tmp_path / "model.joblib")
    loaded = joblib.load(tmp_path / "model.joblib")
    tensors = loaded.embedder_._network.state_dict().values()
    assert {tensor.device.type for tensor in tensors} == {"cpu"}
    loaded.set_params(device="cpu")
    np.testing.assert_allclose(loaded.score_samples(parts.data), expected, rtol=1e-3)


def test_a_backbone_on_the_gpu_is_left_there(good):
    from skpadim.backbones import load_backbone

    backbone = load_backbone("filter_bank").cuda()
    embedder = PatchEmbedder(backbone, image_size=64, crop_size=None, device="cuda").fit(good[:1])
    reference = PatchEmbedder("filter_bank", image_size=64, crop_size=None, device="cpu")
    np.testing.assert_allclose(
        embedder.transform(good[:3]), reference.fit_transform(good[:3]), rtol=1e-2, atol=1e-3
    )


@pytest.mark.parametrize("n_samples", [12, 60])
@pytest.mark.parametrize("calibration", ["leave_one_out", "training"])
def test_gaussians_take_tensors_on_the_gpu(n_samples, calibration):
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(n_samples, 3, 4, 20, generator=generator)
    gaussian = PatchGaussian(calibration=calibration).fit(embeddings)
    on_gpu = PatchGaussian(calibration=calibration).fit(embeddings.cuda())
    np.testing.assert_allclose(on_gpu.offset_, gaussian.offset_, rtol=1e-4)
    distances = on_gpu.mahalanobis(embeddings.cuda())
    assert distances.device.type == "cuda"
    np.testing.assert_allclose(distances.cpu(), gaussian.mahalanobis(embeddings), rtol=1e-4)


def test_products_in_tf32_are_left_to_those_who_ask(make_detector, good, parts, expected):
    before = torch.backends.cudnn.allow_tf32
    detector = make_detector().fit(good)
    assert torch.backends.cudnn.allow_tf32 == before
    np.testing.assert_allclose(detector.score_samples(parts.data), expected, rtol=1e-3)
