"""Samples are told by their values."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skpadim import _digests
from skpadim._digests import image_digests, sample_digests, warn_of_learned_samples


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
