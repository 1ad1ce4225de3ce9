"""Samples are told by their values."""

import os
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from skpadim.calibration import _digests
from skpadim.calibration._digests import image_digests, sample_digests, warn_of_learned_samples


@settings(deadline=None)
@given(
    index=st.integers(0, 3 * 70 * 100 - 1), change=st.sampled_from([1e-6, -1.0, 100.0]),
    sample=st.integers(0, 2),
)  # fmt: skip
def test_a_change_of_any_value_changes_the_digest(index, change, sample):
    samples = torch.rand(3, 3, 70, 100, generator=torch.Generator().manual_seed(0)) + 1
    changed = samples.clone()
    changed[sample].view(-1)[index] += change
    differs = sample_digests(changed) != sample_digests(samples)
    np.testing.assert_array_equal(differs, np.arange(3) == sample)


def test_company_dtype_and_layout_play_no_part(monkeypatch):
    samples = torch.randint(0, 255, (7, 201, 151), dtype=torch.uint8)
    expected = sample_digests(samples)
    assert expected.dtype == np.uint64
    assert len(set(expected.tolist())) == 7
    for same in (
        samples.double(),
        samples.half(),
        samples.flip(2).flip(2),
        samples.mT.contiguous().mT,
    ):
        np.testing.assert_array_equal(sample_digests(same), expected)
    one_by_one = np.concatenate([sample_digests(each[None]) for each in samples])
    np.testing.assert_array_equal(one_by_one, expected)
    monkeypatch.setattr(_digests, "_CHUNK_VALUES", 70_000)
    np.testing.assert_array_equal(sample_digests(samples), expected)


def test_images_of_a_tensor_have_the_digests_that_they_have_alone():
    images = torch.randint(0, 255, (30, 3, 201, 151), dtype=torch.uint8)
    np.testing.assert_array_equal(image_digests(images), image_digests(list(images)))


def test_any_place_in_memory_will_do():
    memory = torch.rand(101)
    samples = memory[1:].view(5, 20)
    np.testing.assert_array_equal(sample_digests(samples), sample_digests(samples.clone()))
    strided = memory[:100].view(5, 20)[:, 1:19:2].reshape(5, 3, 3)
    np.testing.assert_array_equal(sample_digests(strided), sample_digests(strided.clone()))


def test_a_permutation_of_values_changes_the_digest():
    sample = torch.arange(70 * 100 * 3.0).reshape(1, 3, 70, 100)
    values = sample.flatten()[torch.randperm(sample.numel(), generator=torch.manual_seed(0))]
    for permuted in (values.view_as(sample), sample.flip(1), sample.flip(3)):
        assert sample_digests(permuted) != sample_digests(sample)


def test_files_are_told_by_all_of_their_content(tmp_path):
    paths = []
    for index in range(40):  # with white borders of more than 16 KB
        pixels = np.full((200, 300, 3), 255, dtype=np.uint8)
        pixels[100, index] = 0
        paths.append(tmp_path / f"{index}.bmp")
        Image.fromarray(pixels).save(paths[-1])
    digests = image_digests(paths)
    assert len(set(digests.tolist())) == 40
    (tmp_path / "other.bmp").write_bytes(paths[3].read_bytes())
    assert image_digests([str(tmp_path / "other.bmp")]) == digests[3]


def test_images_of_any_make_have_digests():
    pixels = np.random.default_rng(0).integers(0, 65536, (6, 7), dtype=np.uint16)
    makes = [
        pixels, pixels.astype(">u2"), pixels.astype(np.longdouble), torch.from_numpy(pixels),
        Image.fromarray(pixels), pixels[::-1].copy()[::-1],
    ]  # fmt: skip
    assert len(set(image_digests(makes).tolist())) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="of files that Windows does not have")
def test_a_pipe_is_refused_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ValueError, match="pipe.png is a pipe, socket or device"):
        image_digests([tmp_path / "pipe.png"])


def test_the_shape_plays_a_part():
    samples = torch.zeros(2, 4, 6)
    assert not np.isin(sample_digests(samples), sample_digests(samples.mT)).any()


def test_samples_that_were_learned_are_warned_about():
    digests = np.array([3, 2**64 - 1, 7], dtype=np.uint64)
    with pytest.warns(UserWarning, match="This Model has learned from 2 of the 3 .*at index 1"):
        warn_of_learned_samples(digests, digests[[2, 1]], "Model", 0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_learned_samples(digests, np.array([2**64 - 3], dtype=np.uint64), "Model", 0.05)
