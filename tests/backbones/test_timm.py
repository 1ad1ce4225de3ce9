"""timm's networks: layers, sizes, cutting, weights from every source."""

import pickle
import sys
import time

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.model_selection import GridSearchCV

from skpadim import PadimDetector, PatchEmbedder
from skpadim.backbones import _weights, load_backbone
from skpadim.backbones._graph import make_ready
from skpadim.backbones._hooks import run_to_layers
from skpadim.embedding._fingerprint import digest_backbone
from skpadim.model_selection import NormalFold

timm = pytest.importorskip("timm")
_timm = pytest.importorskip("skpadim.backbones._timm")

LAYERS = ("layer1", "layer2", "layer3")
# One of each kind: channels of layer1 to layer3, which have the strides 4, 8 and 16.
STAGED = {
    "test_resnet": (32, 48, 192),
    "test_efficientnet": (24, 32, 48),
    "test_convnext2": (32, 64, 96),
    "tf_efficientnet_lite0": (24, 40, 112),  # cannot be recorded: it pads by the image's size
    "efficientvit_b0": (16, 32, 64),
    "coatnet_pico_rw_224": (64, 128, 256),  # takes images of one size only
    "swin_tiny_patch4_window7_224": (96, 192, 384),  # with channels last
}
# Channels and stride.
PLAIN = {
    "test_vit": (64, 16),
    "deit_tiny_distilled_patch16_224": (192, 16),  # with two tokens before those of patches
    "eva02_tiny_patch14_224": (192, 14),
}


def small_input(backbone):
    size = backbone.sizes_near((64, 96), LAYERS)[0]
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))


def assert_close(got, expected):
    for maps, wanted in zip(got, expected, strict=True):
        scale = wanted.abs().max().item()
        torch.testing.assert_close(maps, wanted, rtol=1e-4, atol=1e-5 * scale)


def perturb_norms(backbone):
    """Give batch norms statistics that folding must take into account."""
    for module in backbone.modules():
        if isinstance(getattr(module, "running_mean", None), torch.Tensor):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)


@pytest.mark.parametrize("name", [*STAGED, *PLAIN])
@torch.no_grad()
def test_layers_are_the_networks_own_however_it_is_prepared(name):
    torch.manual_seed(0)
    backbone = load_backbone(f"timm/{name}", weights=None)
    perturb_norms(backbone)
    images = small_input(backbone)
    # The submodules that timm's documentation of a network names.
    info = backbone.module.feature_info
    modules = [info[backbone._indices[layer]]["module"] for layer in LAYERS]
    outputs = run_to_layers(backbone.module, images.clone(), modules)
    expected = [outputs[module] for module in modules]
    if name in PLAIN:
        channels, stride = PLAIN[name]
        height, width = (side // stride for side in images.shape[2:])
        assert [backbone.layers[layer] for layer in LAYERS] == [(channels, stride)] * 3
        expected = [
            tokens[:, -height * width :].transpose(1, 2).unflatten(2, (height, width))
            for tokens in expected
        ]
    else:
        found = [backbone.layers[layer] for layer in LAYERS]
        assert found == list(zip(STAGED[name], (4, 8, 16), strict=True))
        if "swin" in name:
            expected = [maps.permute(0, 3, 1, 2) for maps in expected]
    cut = backbone.cut(LAYERS)
    for variant in (backbone, pickle.loads(pickle.dumps(cut))):
        assert_close(variant(images, LAYERS), expected)
    channels = np.array([0, 3, 5])
    *ready, last = make_ready(cut, LAYERS, torch.device("cpu"), channels=channels)(images.clone())
    wanted = expected[-1] if last.shape == expected[-1].shape else expected[-1][:, channels]
    assert_close([*ready, last], [*expected[:-1], wanted])


def test_blocks_of_a_transformer_are_layers():
    backbone = load_backbone("timm/vit_tiny_patch16_224", weights=None)
    assert set(backbone.layers) == {*LAYERS, *(f"blocks.{index}" for index in range(12))}
    images = torch.randn(1, 3, 32, 48)
    names = ("blocks.2", "layer1", "blocks.5", "blocks.11")
    first, same, _, last = backbone(images, backbone.check_layers(names))
    assert torch.equal(first, same)
    expected = backbone.module.forward_features(images)  # with the normalisation at its end
    last = backbone.module.norm(last.flatten(2).transpose(1, 2))
    torch.testing.assert_close(last, expected[:, 1:])


def test_nothing_after_the_last_layer_is_computed_or_kept():
    backbone = load_backbone("timm/vit_tiny_patch16_224", weights=None)
    ran = []
    for index, block in enumerate(backbone.module.blocks):
        block.register_forward_pre_hook(lambda *_, index=index: ran.append(index))
    backbone(torch.randn(1, 3, 32, 32), ("blocks.1",))
    assert ran == [0, 1]
    backbone = load_backbone("timm/vit_tiny_patch16_224", weights=None)
    whole, cut = (len(pickle.dumps(b)) for b in (backbone, backbone.cut(("blocks.1",))))
    assert cut < whole / 4
    again = pickle.loads(pickle.dumps(backbone.cut(LAYERS))).cut(("layer1",))
    assert len(again.module.blocks) == 3


def test_random_weights_are_seeded_and_leave_torchs_generator_alone():
    state = torch.get_rng_state()
    digests = [
        digest_backbone(load_backbone("timm/test_vit", weights=None, random_state=seed))
        for seed in (1, 1, 2)
    ]
    assert digests[0] == digests[1] != digests[2]
    assert torch.equal(torch.get_rng_state(), state)


def test_normalisation_is_that_of_the_weights():
    clip = load_backbone("timm/vit_tiny_patch16_224", weights=None)
    assert clip.mean == clip.std == (0.5, 0.5, 0.5)
    assert clip.license is None  # of random weights
    assert load_backbone("timm/resnet10t", weights=None).mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_weights_come_from_a_file_with_or_without_classifier(tmp_path, name):
    network = timm.create_model(name, num_classes=7)
    whole = network.state_dict()
    classifier = network.pretrained_cfg["classifier"]
    without = {key: value for key, value in whole.items() if not key.startswith(classifier)}
    torch.save({"state_dict": whole}, tmp_path / "whole.pth")
    safetensors.torch.save_file(without, tmp_path / "without.safetensors")
    for file in ("whole.pth", "without.safetensors"):
        backbone = load_backbone(f"timm/{name}", weights=tmp_path / file)
        loaded = backbone.module.state_dict()
        assert all(torch.equal(loaded[key], without[key]) for key in without)
    torch.save({**whole, "neck.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=f"another network than timm/{name}: 1 tensors unknown"):
        load_backbone(f"timm/{name}", weights=tmp_path / "other.pth")


def test_cached_weights_are_read_with_no_look_at_the_network(tmp_path, monkeypatch, offline):
    import huggingface_hub

    network = timm.create_model("test_vit")
    safetensors.torch.save_file(network.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda _, file: str(tmp_path / file)
    )
    backbone = load_backbone("timm/test_vit")
    expected = network.blocks[2].mlp.fc1.weight
    assert torch.equal(backbone.module.blocks[2].mlp.fc1.weight, expected)
    assert backbone.license == timm.get_pretrained_cfg("test_vit").license


@pytest.fixture
def nothing_cached(monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(_weights, "_failures", {})


def test_without_network_the_answer_comes_soon_and_has_the_ways_out(offline, nothing_cached):
    start = time.monotonic()
    for _ in range(3):
        with pytest.raises(ValueError, match=r"timm/test_vit cannot be had: .*reached") as caught:
            load_backbone("timm/test_vit")
    assert time.monotonic() - start < 10
    for way_out in ("weights=...", "filter_bank", "weights=None", "/timm/test_vit."):
        assert way_out in str(caught.value)


def test_offline_mode_of_the_hub_is_kept(nothing_cached, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="not in the cache, and HF_HUB_OFFLINE is set. Ways out"):
        load_backbone("timm/test_vit")


def test_a_refusal_of_the_hub_is_told(nothing_cached, monkeypatch):
    def refuse(*_, pretrained=False, **__):
        assert pretrained
        raise PermissionError("403 Client Error.\n\nAccess to model is restricted.")

    load_backbone("timm/test_vit", weights=None)
    monkeypatch.setattr(_timm, "check_answered", lambda _: None)
    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(ValueError, match=r"PermissionError: 403 Client Error\. Ways out"):
        load_backbone("timm/test_vit")


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("vit_tny_patch16_224", None, "did you mean 'timm/vit_tiny_patch16_224'"),
        ("resnet18.a9_in1k", None, "did you mean 'timm/resnet18[.]a"),
        ("levit_128s", None, "strides .*Use a network with stages or a vision transformer"),
        ("mnasnet_050", "imagenet", "timm has no weights for"),
        ("test_vit", "no.pth", "is not a file here. Give 'imagenet', the path of a .pth"),
    ],
)
def test_what_cannot_be_had_is_told(name, weights, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_backbone(f"timm/{name}", weights=weights)
    with pytest.raises(TypeError, match="weights=7 must be 'imagenet' .timm's pretrained weights"):
        load_backbone("timm/test_vit", weights=7)


def test_without_timm_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r'timm/resnet18.*pip install "skpadim\[timm\]"'):
        load_backbone("timm/resnet18", weights=None)


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("test_vit", {"image_size": 100}, "image_size=100: .*Use image_size=96 or 112,"),
        (
            "test_vit",
            {"image_size": (96, 120)},
            r"image_size=\(96, 120\): .*image_size=\(96, 112\) or \(96, 128\)",
        ),
        (
            "test_vit",
            {"image_size": 72, "crop_size": 70},
            "crop_size=70: timm/test_vit cannot take images of 70 x 70 pixels. Use crop_size=64,",
        ),
        ("coatnet_pico_rw_224", {"image_size": 256}, "Use image_size=224, the nearest"),
    ],
)
def test_sizes_that_a_network_cannot_take_are_refused_before_images_are_read(name, sizes, message):
    embedder = PatchEmbedder(f"timm/{name}", weights=None, **{"crop_size": None, **sizes})
    with pytest.raises(ValueError, match=message):
        embedder.fit(["no_such_file.png"])


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_detector_from_fit_to_pickle(name, good, make_detector):
    detector = make_detector(f"timm/{name}", weights=None, n_features=20).fit(good)
    assert detector.backbone_ == f"timm/{name}"
    assert detector.layers_ == LAYERS
    scores = detector.score_samples(good)
    content = pickle.dumps(detector)
    np.testing.assert_array_equal(pickle.loads(content).score_samples(good), scores)


def test_search_over_layers_shares_maps(parts, tmp_path):
    detector = PadimDetector(
        "timm/test_vit",
        weights=None,
        n_features=20,
        image_size=64,
        crop_size=None,
        contamination=0.2,
        memory=tmp_path,
        random_state=0,
    )
    layers = [("layer1", "layer2"), ("blocks.0", "layer3")]
    search = GridSearchCV(detector, {"layers": layers}, cv=NormalFold(2), scoring="roc_auc")
    search.fit(list(parts.data), parts.target)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    scores = search.best_estimator_.score_samples(parts.data)
    plain = PadimDetector(**{**search.best_estimator_.get_params(), "memory": None})
    plain.fit(parts.data[parts.target == 1])
    np.testing.assert_allclose(plain.score_samples(parts.data), scores, rtol=1e-4)


def test_a_model_of_another_version_of_timm_that_differs_is_refused(monkeypatch):
    content = pickle.dumps(load_backbone("timm/test_vit", weights=None).cut(LAYERS))
    create = timm.create_model

    def create_another(*args, **kwargs):
        network = create(*args, **kwargs)
        network.added = torch.nn.Linear(1, 1)
        return network

    monkeypatch.setattr(timm, "create_model", create_another)
    with pytest.raises(ValueError, match="saved with timm .* builds another timm/test_vit .*2"):
        pickle.loads(content)
