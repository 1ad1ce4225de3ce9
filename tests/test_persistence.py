"""Model files: self-contained, bit for bit, and outspoken about versions."""

import pickle
import warnings

import joblib
import numpy as np
import pytest
import torch
from torch import nn

import skpadim
from skpadim import PatchEmbedder
from skpadim._persistence import InconsistentVersionWarning


def test_a_fresh_process_scores_bit_for_bit(good, make_detector, tmp_path, start_process):
    np.save(tmp_path / "images.npy", good)
    for name, parameters in {
        "filter_bank": {},
        "resnet18": {"layers": ("layer1", "layer2"), "projection": "semi_orthogonal"},
    }.items():
        weights = {} if name == "filter_bank" else {"weights": None}
        detector = make_detector(backbone=name, **weights, **parameters).fit(good)
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "scores.npy", detector.score_samples(good))
        np.save(tmp_path / name / "labels.npy", detector.predict(good))
        joblib.dump(detector, tmp_path / name / "model.joblib")
    # Sockets are taken away from the process: a model file must not need the network.
    program = """
import socket, warnings
socket.socket.connect = None
warnings.simplefilter("error")
import joblib, numpy as np, pathlib
root = pathlib.Path(sys.argv[1])
images = np.load(root / "images.npy")
folders = [path for path in root.iterdir() if path.is_dir()]
assert len(folders) == 2
for folder in folders:
    detector = joblib.load(folder / "model.joblib")
    assert (detector.score_samples(images) == np.load(folder / "scores.npy")).all(), folder
    assert (detector.predict(images) == np.load(folder / "labels.npy")).all(), folder
"""
    process = start_process(program, tmp_path)
    process.join()
    assert process.exitcode == 0


def test_the_network_is_cut_in_the_file(good, make_detector):
    sizes = {}
    for layers in (("layer1",), ("layer1", "layer2", "layer3")):
        embedder = PatchEmbedder(
            "resnet18", weights=None, layers=layers, image_size=64, crop_size=None
        ).fit()
        sizes[layers[-1]] = len(pickle.dumps(embedder))
    # resnet18 has 158 thousand weights up to layer1, 2.8 million up to layer3, 11.7 in all.
    assert sizes["layer1"] < 4 * 170_000
    assert sizes["layer3"] < 4 * 2_900_000


# torch 2.4 and 2.5 warn of their own way of pickling tensors.
@pytest.mark.filterwarnings("ignore:You are using `torch.load`:FutureWarning")
def test_a_module_of_ones_own_is_in_the_file(good, make_detector):
    network = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 9, 2))
    detector = make_detector(network, layers=("2",)).fit(good)
    again = pickle.loads(pickle.dumps(detector))
    np.testing.assert_array_equal(again.score_samples(good), detector.score_samples(good))


def test_learning_goes_on_after_loading(good, make_detector):
    detector = make_detector(calibration=None).fit(good[:10])
    again = pickle.loads(pickle.dumps(detector)).partial_fit(good[10:])
    expected = make_detector(calibration=None).fit(good).score_samples(good)
    np.testing.assert_allclose(again.score_samples(good), expected, rtol=1e-5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_model_fitted_on_a_gpu_scores_on_the_cpu_with_a_warning(good, make_detector):
    detector = make_detector().fit(good)
    expected = detector.score_samples(good)
    detector.device = detector.embedder_.device = "cuda"  # as if it had been fitted there
    again = pickle.loads(pickle.dumps(detector))
    with pytest.warns(UserWarning, match="no CUDA GPU on this machine. The CPU is used instead"):
        np.testing.assert_array_equal(again.score_samples(good), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it was said
        again.predict(good)
        again.partial_fit(good[:1])
    with pytest.warns(UserWarning, match="device='cuda:1'"):
        again.set_params(device="cuda:1").score_samples(good)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_workers_do_not_repeat_that_there_is_no_gpu(good, make_detector):
    detector = make_detector(batch_size=4).fit(good).set_params(device="cuda", n_jobs=2)
    with (
        joblib.parallel_config("threading"),  # whose workers have copies, and warn here
        pytest.warns(UserWarning, match="CPU is used") as caught,
    ):
        detector.score_samples(good)
    assert len(caught) == 1


def test_a_memory_mapped_model_scores_without_a_warning(good, make_detector, tmp_path):
    detector = make_detector().fit(good)
    joblib.dump(detector, tmp_path / "model.joblib")
    mapped = joblib.load(tmp_path / "model.joblib", mmap_mode="r")
    np.testing.assert_array_equal(mapped.score_samples(good), detector.score_samples(good))


def test_another_version_is_warned_about(good, make_detector, monkeypatch):
    monkeypatch.setattr("skpadim._persistence.__version__", "0.0.1")
    dumped = pickle.dumps(make_detector(calibration=None).fit(good))
    monkeypatch.undo()
    with pytest.warns(
        InconsistentVersionWarning,
        match=f"was saved by skpadim 0.0.1 and is read by skpadim {skpadim.__version__}",
    ):
        pickle.loads(dumped)
