"""torchvision's networks: stages, cutting, weights from every source."""

import copy
import dataclasses
import hashlib
import pickle
import time

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision

from skpadim.backbones import _weights, list_backbones, load_backbone
from skpadim.backbones._torchvision import find_stages

# Channels of layer1 to layer4, from the papers' tables.
NETWORKS = {
    "resnet18": (64, 128, 256, 512),
    "resnet50": (256, 512, 1024, 2048),
    "mobilenet_v3_large": (24, 40, 112, 960),
    "efficientnet_b0": (24, 40, 112, 1280),
    "convnext_tiny": (96, 192, 384, 768),
    "densenet121": (256, 512, 1024, 1024),
    "swin_t": (96, 192, 384, 768),
    "vgg16_bn": (256, 512, 512, 512),
    "mnasnet0_5": (16, 24, 48, 1280),
}
LAYERS = ("layer1", "layer2", "layer3")


def by_hand(name, module, images):
    """Outputs of the first three stages, computed with the network's own submodules."""
    if "resnet" in name:
        x = module.maxpool(module.relu(module.bn1(module.conv1(images))))
        maps = [module.layer1(x)]
        maps.append(module.layer2(maps[-1]))
        return [*maps, module.layer3(maps[-1])]
    ends = {
        "mobilenet_v3_large": (4, 7, 13),
        "efficientnet_b0": (3, 4, 6),
        "convnext_tiny": (2, 4, 6),
        "densenet121": (5, 7, 9),
        "swin_t": (2, 4, 6),
        "vgg16_bn": (23, 33, 43),
        "mnasnet0_5": (9, 10, 12),
    }[name]
    body = module.layers if "mnasnet" in name else module.features
    maps = [body[:end](images) for end in ends]
    return [m.permute(0, 3, 1, 2) for m in maps] if name == "swin_t" else maps


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_are_the_networks_stages(name):
    backbone = load_backbone(name, weights=None)
    assert tuple(layer.channels for layer in backbone.layers.values()) == NETWORKS[name]
    assert [layer.stride for layer in backbone.layers.values()] == [4, 8, 16, 32]
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = by_hand(name, backbone.module, images)
        cut = backbone.cut(LAYERS)
        for variant in (backbone, cut, pickle.loads(pickle.dumps(cut))):
            maps = variant(images, LAYERS)
            for layer, got, want in zip(LAYERS, maps, expected, strict=True):
                assert got.shape[1] == backbone.layers[layer].channels
                scale = want.abs().max()
                torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5 * scale.item())


def test_every_family_of_networks_has_stages():
    larger = (  # of families that are tried
        *("gf", "800mf", "34", "101", "152", "201", "161", "169", "_l", "_b", "_h_", "_m", "1_3"),
        *("0_75", "1_5", "2_0", "vgg13", "vgg16", "vgg19", "next_small", "swin_s", "swin_v2_s"),
    )
    for name in list_backbones()[1:]:
        if not any(part in name for part in (*larger, "vit")):
            assert list(find_stages(name))[:3] == list(LAYERS), name


@pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")  # torchvision 0.19's own
@pytest.mark.parametrize("name", ["vit_b_16", "maxvit_t"])
def test_networks_without_stages_say_so(name):
    with pytest.raises(ValueError, match=f"{name}.*(cannot be a backbone|no feature maps)"):
        load_backbone(name, weights=None)


def test_nothing_deeper_than_asked_for_is_computed():
    backbone = load_backbone("resnet18", weights=None)
    cut = backbone.cut(("layer1",))
    assert sum(p.numel() for p in cut.module.layer2.parameters()) == 0
    ran = []
    for name, submodule in backbone.module.named_children():
        submodule.register_forward_pre_hook(lambda *_, name=name: ran.append(name))
    backbone(torch.randn(1, 3, 64, 64), ("layer1", "layer2"))
    assert ran == ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2"]


def test_a_pickle_holds_no_more_than_the_layers_need():
    backbone = load_backbone("resnet18", weights=None)
    cut = [backbone, backbone.cut(LAYERS), backbone.cut(("layer1",))]
    sizes = [len(pickle.dumps(network)) for network in cut]
    assert sizes[1] < sizes[0] / 3
    assert sizes[2] < sizes[1] / 10
    assert len(pickle.dumps(pickle.loads(pickle.dumps(cut[1])))) == sizes[1]


def test_a_copy_has_weights_of_its_own():
    backbone = load_backbone("resnet18", weights=None)
    copied = copy.deepcopy(backbone)
    copied.module.conv1.weight.zero_()
    assert backbone.module.conv1.weight.any()
    assert type(copied) is type(backbone)


def test_random_weights_are_seeded_and_leave_torchs_generator_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = load_backbone("resnet18", weights=None, random_state=1).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    again = load_backbone("resnet18", weights=None, random_state=1).state_dict()
    other = load_backbone("resnet18", weights=None, random_state=2).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["module.conv1.weight"], other["module.conv1.weight"])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", "nested.pth"])
def test_weights_come_from_a_file(tmp_path, suffix):
    network = torchvision.models.resnet18(weights=None)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(network.state_dict(), path)
    else:
        state = network.state_dict()
        torch.save({"state_dict": state, "epoch": 3} if suffix == "nested.pth" else state, path)
    for given in (path, str(path)):
        backbone = load_backbone("resnet18", weights=given)
        assert torch.equal(backbone.module.layer3[1].conv2.weight, network.layer3[1].conv2.weight)


def test_a_file_of_weights_may_change_once_it_is_loaded(tmp_path):
    network = torchvision.models.squeezenet1_1(weights=None)
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(network.state_dict(), path)
    backbone = load_backbone("squeezenet1_1", weights=path)
    with open(path, "r+b") as file:  # the same file, not another one of its name
        file.write(bytes(path.stat().st_size))
    loaded, saved = backbone.state_dict(), network.state_dict()
    assert all(torch.equal(loaded[f"module.{name}"], saved[name]) for name in saved)


def test_weights_in_half_precision_are_computed_with_in_float32(tmp_path):
    network = torchvision.models.squeezenet1_1(weights=None)
    torch.save(network.half().state_dict(), tmp_path / "weights.pth")
    backbone = load_backbone("squeezenet1_1", weights=tmp_path / "weights.pth")
    (maps,) = backbone(torch.zeros(1, 3, 64, 64), ("layer1",))
    assert maps.dtype == torch.float32
    weight = backbone.state_dict()["module.features.0.weight"]
    assert torch.equal(weight, network.features[0].weight.float())


class Malicious:
    def __reduce__(self):
        return (print, ("code from a weights file ran",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"features.0.weight": torch.zeros(1)}, "another network than resnet18"),
        ([1, 2], "does not hold a state dict .* but a list"),
        ({"weights": Malicious()}, "cannot be read as a state dict"),
        (b"not a file of torch", "cannot be read as a state dict"),
    ],
    ids=["another network", "list", "malicious", "bytes"],
)
def test_wrong_files_are_refused(tmp_path, content, message, capsys):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=message) as caught:
        load_backbone("resnet18", weights=path)
    assert str(path) in str(caught.value)
    assert "ran" not in capsys.readouterr().out


def test_wrong_kinds_of_weights_are_refused():
    with pytest.raises(TypeError, match="weights=7 must be 'imagenet'"):
        load_backbone("resnet18", weights=7)
    with pytest.raises(ValueError, match="the filter bank has no weights"):
        load_backbone("filter_bank", weights="some.pth")


@pytest.fixture
def imagenet_server(serve, monkeypatch, tmp_path):
    """A server that has ImageNet weights for squeezenet1_1, random ones in truth."""
    network = torchvision.models.squeezenet1_1(weights=None)
    torch.save(network.state_dict(), tmp_path / "made.pth")
    content = (tmp_path / "made.pth").read_bytes()
    name = f"squeezenet1_1-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    server = serve({f"/{name}": content})
    entry = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    moved = dataclasses.replace(entry.value, url=f"{server.url}/{name}")
    monkeypatch.setattr(entry, "_value_", moved)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(_weights, "_failures", {})
    server.cached = tmp_path / "home" / "hub" / "checkpoints" / name
    server.network = network
    return server


def test_imagenet_weights_are_fetched_once_into_torchs_cache(imagenet_server):
    for _ in range(2):
        backbone = load_backbone("squeezenet1_1")
        for key, value in imagenet_server.network.features.state_dict().items():
            assert torch.equal(backbone.module.features.state_dict()[key], value)
    assert imagenet_server.cached.is_file()
    assert len(imagenet_server.requests) == 1


def test_a_damaged_cache_is_fetched_again(imagenet_server):
    imagenet_server.cached.parent.mkdir(parents=True)
    imagenet_server.cached.write_bytes(b"half of it")
    load_backbone("squeezenet1_1")
    assert len(imagenet_server.requests) == 1
    assert imagenet_server.cached.stat().st_size > 1000


def test_a_cache_that_cannot_be_read_is_told(imagenet_server, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    imagenet_server.cached.parent.mkdir(parents=True)
    imagenet_server.cached.touch()
    monkeypatch.setattr(_weights, "file_sha256", refuse)
    with pytest.raises(ValueError, match=r"cannot be read \(Permission denied\). See to it"):
        load_backbone("squeezenet1_1")
    assert imagenet_server.requests == []


def test_weights_that_fail_their_hash_are_refused(imagenet_server):
    for path in imagenet_server.content:
        imagenet_server.content[path] = imagenet_server.content[path][:-1] + b"!"
    with pytest.raises(ValueError, match="squeezenet1_1 cannot be had.*has SHA-256"):
        load_backbone("squeezenet1_1")
    assert list(imagenet_server.cached.parent.iterdir()) == []


def test_without_network_the_answer_comes_soon_and_has_the_ways_out(offline):
    start = time.monotonic()
    for _ in range(3):  # the second and third do not even try
        with pytest.raises(ValueError, match="cannot be had") as caught:
            load_backbone("resnet18")
    assert time.monotonic() - start < 10
    for way_out in ("resnet18-f37072fd.pth", "filter_bank", "weights=None"):
        assert way_out in str(caught.value)


def test_weights_of_a_file_are_used_in_the_scores(tmp_path, good, make_detector):
    torch.manual_seed(0)
    path = tmp_path / "w.pth"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), path)
    scores = [
        make_detector("resnet18", weights=weights, n_features=20).fit(good).score_samples(good)
        for weights in (path, path, None)
    ]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert not np.allclose(scores[0], scores[2])
