"""PatchEmbedder: shapes, selection, projection, output, precision."""

import pickle
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from torch.nn import functional as F

from skpadim import PatchEmbedder, PatchGaussian
from skpadim.backbones import load_backbone
from skpadim.embedding._features import upsample_nearest
from skpadim.embedding._network import iter_maps
from skpadim.images._batches import Images
from skpadim.machine._devices import full_float32


def make_embedder(backbone="resnet18", **parameters):
    defaults = {"weights": None, "image_size": 64, "crop_size": None, "random_state": 0}
    if backbone == "filter_bank":
        defaults.pop("weights")
    return PatchEmbedder(backbone, **{**defaults, **parameters})


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, size=(5, 64, 64, 3), dtype=np.uint8)


def test_embeddings_are_the_selected_channels_of_the_network(images):
    embedder = make_embedder(n_features=50).fit()
    embeddings = embedder.transform(images)
    assert embeddings.shape == (5, 16, 16, 50)
    assert embeddings.dtype == np.float32
    # The same by hand, with torchvision's own network and torch's own interpolation.
    network = embedder._network.module
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = ((torch.from_numpy(images) / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
        maps = [network.layer1(x)]
        maps.append(network.layer2(maps[0]))
        maps.append(network.layer3(maps[1]))
    channels = torch.cat([F.interpolate(m, size=(16, 16), mode="nearest") for m in maps], dim=1)
    expected = channels[:, embedder.feature_indices_].permute(0, 2, 3, 1)
    np.testing.assert_allclose(embeddings, expected, rtol=1e-4, atol=1e-5)


def test_random_selection_draws_without_repetition_from_all_layers():
    indices = make_embedder(n_features=100).fit().feature_indices_
    assert len(set(indices)) == 100
    assert indices.min() < 64
    assert indices.max() >= 192
    assert not np.array_equal(
        indices, make_embedder(n_features=100, random_state=1).fit().feature_indices_
    )


def test_semi_orthogonal_projection_is_a_product_with_an_orthonormal_matrix(images):
    projected = make_embedder(projection="semi_orthogonal", n_features=40).fit()
    every = make_embedder(n_features=None).fit()
    matrix = projected.projection_
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(40), atol=1e-5)
    expected = every.transform(images) @ matrix
    np.testing.assert_allclose(projected.transform(images), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("backbone", "n_features"), [("resnet18", 100), ("wide_resnet50_2", 550), ("mobilenet_v2", 100)]
)
def test_auto_n_features_is_the_papers(backbone, n_features):
    assert make_embedder(backbone).fit().n_features_out_ == n_features
    # Never more than the chosen layers have.
    only = make_embedder(backbone, layers=["layer1"]).fit()
    assert only.n_features_out_ == min(
        n_features, load_backbone(backbone, None).layers["layer1"][0]
    )


@pytest.mark.parametrize("grid", [(4, 4), (7, 9), (8, 5)])
def test_upsampling_is_torchs_nearest(grid):
    maps = torch.rand(2, 4, 3, 5)
    expected = F.interpolate(maps.permute(0, 3, 1, 2), size=grid, mode="nearest")
    assert torch.equal(upsample_nearest(maps, grid).permute(0, 3, 1, 2), expected)


@pytest.mark.parametrize("backbone", ["filter_bank", "resnet18"])
def test_batch_size_does_not_change_embeddings(images, backbone):
    whole = make_embedder(backbone).fit_transform(images)
    for batch_size in (1, 2):
        part = make_embedder(backbone, batch_size=batch_size).fit_transform(images)
        np.testing.assert_allclose(part, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", ["filter_bank", "resnet18"])
@pytest.mark.parametrize("size", [(32, 32), (50, 75), (33, 97)])
def test_any_image_size_works(backbone, size):
    image = np.random.default_rng(0).random((1, 40, 40, 3))
    embedder = make_embedder(backbone, image_size=size).fit()
    assert embedder.transform(image).shape[1:3] == embedder.grid_


@pytest.mark.parametrize("has_loops", [True, False])
def test_bfloat16_is_close_to_float32(images, monkeypatch, has_loops):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    if not has_loops:
        monkeypatch.setattr("skpadim.backbones._graph.has_winograd", lambda dtype: False)
    exact = make_embedder().fit_transform(images)
    fast = make_embedder(precision="bfloat16").fit_transform(images)
    assert fast.dtype == np.float32
    difference = np.abs(fast - exact).max() / np.abs(exact).max()
    assert 1e-4 < difference < 0.05


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_cpu_without_a_precision_computes_in_float32(images, monkeypatch, precision):
    name = {"bfloat16": "_is_mkldnn_bf16_supported", "float16": "_is_mkldnn_fp16_supported"}
    monkeypatch.setattr(torch.ops.mkldnn, name[precision], lambda: False)
    half = make_embedder(precision=precision, device="cpu").fit_transform(images)
    exact = make_embedder(device="cpu").fit_transform(images)
    np.testing.assert_array_equal(half, exact)


@pytest.mark.parametrize("n_rows", [2, 3, 4, 5, 9])
def test_batches_are_written_where_they_are_wanted(images, n_rows):
    embedder = make_embedder(batch_size=2, device="cpu").fit()
    expected = embedder.transform(images)
    out = embedder.new_embeddings(n_rows)
    found = []
    for batch in embedder.iter_embeddings(Images(images), out=out):
        assert np.shares_memory(batch.numpy(), out.numpy())
        found.append(batch.numpy().copy())
    np.testing.assert_array_equal(np.concatenate(found), expected)


def test_set_output_torch_gives_tensors_that_the_gaussian_takes(images):
    embedder = make_embedder("filter_bank")
    expected = embedder.fit_transform(images)
    embedder.set_output(transform="torch")
    tensors = clone(embedder).fit_transform(images)  # the choice outlives a clone
    assert isinstance(tensors, torch.Tensor)
    np.testing.assert_array_equal(tensors.numpy(force=True), expected)
    pipeline = make_pipeline(make_embedder("filter_bank"), PatchGaussian())
    numpy_scores = pipeline.fit(images).score_samples(images)
    pipeline[0].set_output(transform="torch")
    torch_scores = pipeline.fit(images).score_samples(images)
    np.testing.assert_array_equal(torch_scores.numpy(force=True), numpy_scores)


def test_set_output_pandas_is_refused():
    with pytest.raises(ValueError, match="'default' .* or 'torch'"):
        make_embedder().set_output(transform="pandas")


def test_series_of_paths_and_arrays_give_the_same_embeddings(parts, folder):
    paths = pd.Series(sorted(str(path) for path in folder.iterdir()))
    embedder = make_embedder("filter_bank").fit()
    np.testing.assert_array_equal(embedder.transform(paths), embedder.transform(parts.data))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"backbone": "resnet19"}, "'resnet19' is unknown; did you mean 'resnet18'"),
        ({"backbone": "vit_b_16"}, "vit_b_16.* images of one size only"),
        ({"layers": ("layer1", "layer9")}, "unknown layer 'layer9'; resnet18 has"),
        ({"layers": ("layer2", "layer1")}, "fine to coarse.*'layer1', 'layer2'"),
        ({"layers": ("layer1", "layer1")}, "each layer once"),
        ({"layers": ()}, "layers is empty"),
        ({"n_features": 449}, "n_features=449 is more than the 448 features"),
        ({"n_features": 0}, "'n_features' parameter of PatchEmbedder must be"),
        ({"weights": "/nowhere/w.pth"}, "'/nowhere/w.pth' is not a file"),
        ({"device": "tpu9"}, "device='tpu9' is not a device that torch knows"),
        ({"device": "meta"}, "device='meta': tensors have no values there.*device='cpu'"),
        ({"image_size": 8}, "smaller than the stride of layer3 of resnet18, 16"),
        ({"image_size": (64, 64, 64)}, r"image_size=.* a pair \(height, width\)"),
        ({"crop_size": 65}, "crop_size=65 is larger than image_size=64"),
        ({"projection": "pca"}, "'projection' parameter of PatchEmbedder must be"),
        ({"precision": "float8"}, "'precision' parameter of PatchEmbedder must be"),
    ],
)
def test_bad_parameters_are_refused(parameters, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        make_embedder(**parameters).fit()


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_channels_that_nobody_asks_for_are_not_computed(images, backbone):
    embedder = make_embedder(backbone, n_features=30).fit()
    cpu = torch.device("cpu")
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    (window,) = embedder._windows
    networks = (
        embedder._network_on(cpu, embedder.layers_, window, is_narrow)
        for is_narrow in (True, False)
    )
    narrow, whole = (next(iter_maps(network, pixels, cpu))[1] for network in networks)
    kept = embedder._features["layer3"].channels
    assert narrow[-1].shape[-1] == len(kept) < whole[-1].shape[-1]
    torch.testing.assert_close(narrow[-1], whole[-1][..., kept], rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.filterwarnings("default")  # of the compiler's own making
def test_compiled_networks_give_the_same_embeddings(images):
    parameters = {"layers": ("layer1", "layer2"), "n_features": 20}
    expected = make_embedder(**parameters).fit_transform(images[:2])
    compiled = make_embedder(**parameters, compile=True).fit()
    np.testing.assert_allclose(compiled.transform(images[:2]), expected, rtol=1e-3, atol=1e-4)
    pickle.loads(pickle.dumps(compiled))


@pytest.mark.parametrize("backbone", ["filter_bank", "resnet18"])
def test_a_fit_that_fails_leaves_the_embedder_as_it_was(images, backbone):
    embedder = make_embedder(backbone).fit()
    expected = embedder.transform(images)
    with pytest.raises(ValueError, match="smaller than the stride"):
        embedder.set_params(image_size=8).fit()
    np.testing.assert_array_equal(embedder.set_params(image_size=64).transform(images), expected)


def test_a_gpus_convolutions_in_float32_keep_their_digits_unless_told():
    gpu, before = torch.device("cuda"), torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    try:
        with full_float32(gpu):
            assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.allow_tf32
        torch.set_float32_matmul_precision("high")
        with full_float32(gpu):
            assert torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_where_there_is_none_is_refused():
    with pytest.raises(ValueError, match="device='cuda': torch sees no CUDA GPU.*device='cpu'"):
        make_embedder(device="cuda").fit()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("backbone", ["filter_bank", "resnet18"])
def test_gpu_gives_the_cpus_embeddings(images, backbone):
    expected = make_embedder(backbone, device="cpu").fit_transform(images)
    on_gpu = make_embedder(backbone, device="cuda").set_output(transform="torch")
    embeddings = on_gpu.fit_transform(images)
    assert embeddings.device.type == "cuda"
    np.testing.assert_allclose(embeddings.cpu().numpy(), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_an_embedder_of_a_gpu_says_once_that_there_is_none(images):
    embedder = make_embedder("filter_bank", device="cpu").fit()
    expected = embedder.transform(images)
    embedder.device = "cuda"  # as if it had been fitted there
    with pytest.warns(UserWarning, match="no CUDA GPU.*device='auto'") as caught:
        embeddings = [embedder.transform(images) for _ in range(2)]
    np.testing.assert_array_equal(embeddings, [expected, expected])
    assert len(caught) == 1


@pytest.mark.parametrize("projection", ["random", "semi_orthogonal"])
def test_features_have_names(projection):
    embedder = make_embedder("filter_bank", n_features=9, projection=projection).fit()
    names = embedder.get_feature_names_out()
    assert len(set(names)) == len(names) == embedder.n_features_out_
    if projection == "semi_orthogonal":
        assert names[0] == "patchembedder0"
        return
    every = [
        f"{layer}_{channel}"
        for layer in embedder.layers_
        for channel in range(embedder._network.layers[layer].channels)
    ]
    assert names.tolist() == [every[index] for index in embedder.feature_indices_]
