"""Labels and groups of any container, and samples that are told by their values."""

import datetime
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skpadim.calibration import _training_samples
from skpadim.calibration._training_samples import (
    are_labels,
    check_groups,
    check_labels,
    find_good,
    rows_by_group_size,
    sample_digests,
    warn_of_learned_samples,
)

LABELS = [1, -1, 1, 1, -1]


@pytest.mark.parametrize(
    "convert",
    [
        list,
        np.array,
        lambda y: np.array(y, dtype=">i4"),
        lambda y: np.array(y, dtype=np.longdouble),
        lambda y: np.array(y, dtype=object),
        lambda y: np.array(y)[::-1].copy()[::-1],
        lambda y: np.repeat(y, 2)[::2],
        lambda y: np.ma.array(y),
        lambda y: np.array(y)[:, None],
        lambda y: pd.Series(y, index=range(9, 4, -1), dtype="Int64"),
        lambda y: pd.DataFrame({"y": y}),
        lambda y: torch.tensor(y, dtype=torch.bfloat16, requires_grad=True),
        lambda y: [torch.tensor(label) for label in y],
    ],
)
def test_labels_of_any_container_are_read_alike(convert):
    np.testing.assert_array_equal(check_labels(convert(LABELS), 5), LABELS)
    np.testing.assert_array_equal(find_good(convert(LABELS), 5), [0, 2, 3])
    assert are_labels(convert(LABELS))


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (np.ma.array(LABELS, mask=[0, 0, 1, 0, 0]), ValueError, "1 of its 5 values are masked"),
        (scipy.sparse.csr_array(np.array([LABELS])), TypeError, r"y is sparse .*y.toarray\(\)"),
        (torch.tensor(LABELS).to_sparse(), TypeError, r"y is a sparse tensor .*to_dense\(\)"),
        (torch.tensor(LABELS).to("meta"), TypeError, "meta device"),
        ([[1], [1, -1], 1, 1, 1], ValueError, "y cannot be made an array"),
        (pd.Series([1, -1, 1, 1, None], dtype="Int64"), ValueError, "has the labels .*use"),
        ([1, -1, 1, 1, None], ValueError, "has the labels -1, 1, None; use"),
        ([[1, -1]] * 5, ValueError, r"y has shape \(5, 2\); it must be \(n,\)"),
        (LABELS[:4], ValueError, "4 labels for 5 images"),
        (range(5), ValueError, r"labels 0, 1, 2, 3, 4; use \+1"),
        (range(2, 8), ValueError, "6 labels"),
        (["1", "-1"] * 2 + ["1"], ValueError, "labels '-1', '1'; use"),
    ],
)
def test_what_could_be_misread_is_refused(y, error, message):
    with pytest.raises(error, match=message):
        check_labels(y, 5)


def test_zeros_and_ones_are_read_as_masks_are_with_a_warning_of_a_fit():
    flags = np.array([0, 1, 0, 0, 1])
    for y in (flags, flags.astype(bool), flags.astype(float), flags.tolist()):
        np.testing.assert_array_equal(check_labels(y, 5), LABELS)
        with pytest.warns(UserWarning, match=r"1 \(True\) for defective images: 2 of 5 are left"):
            np.testing.assert_array_equal(find_good(y, 5), [0, 2, 3])
    assert (check_labels(np.ones(5), 5) == 1).all()
    assert (check_labels(np.ones(5, bool), 5) == -1).all()


@pytest.mark.filterwarnings("ignore::UserWarning:torch")
def test_tensors_without_plain_values_are_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls them prototypes
        nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
        masked = torch.masked.masked_tensor(torch.ones(3), torch.tensor([True, False, True]))
    for tensor, message in ((nested, "nested tensor"), (masked, "masked tensor")):
        with pytest.raises(TypeError, match=f"y is a {message}"):
            check_labels(tensor)


def test_too_few_good_images_are_told_of_folds_that_have_them():
    with pytest.raises(ValueError, match=r"no image labelled \+1 .*NormalFold"):
        find_good([-1, -1], 2)
    with pytest.raises(ValueError, match="labels 1 image as good; at least 2 .*NormalFold"):
        find_good([-1, 1], 2, at_least=2)


@pytest.mark.parametrize(
    "groups",
    [
        ["b", "a", "b", "c"],
        pd.Series(["b", "a", "b", "c"], index=[7, 3, 5, 1]),
        pd.Categorical(["b", "a", "b", "c"], categories=["c", "b", "a"]),
        (20, 10, 20, 30),
        np.array([2.5, 1.5, 2.5, 3.5]),
        [datetime.date(2024, 1, day) for day in (2, 1, 2, 3)],
        np.array([20, 10, 20, 30], dtype=">i4"),
        torch.tensor([2.0, 1.0, 2.0, 3.0], requires_grad=True),
        np.ma.array([2, 1, 2, 3]),
    ],
)
def test_groups_of_any_kind_are_told_apart(groups):
    codes, labels = check_groups(groups, 4)
    np.testing.assert_array_equal(codes, [1, 0, 1, 2])
    if isinstance(groups, torch.Tensor):
        groups = groups.detach()
    assert labels[codes].tolist() == np.asarray(groups).tolist()


def test_groups_without_values_are_refused():
    for groups, message in (
        (torch.tensor([1, 1, 2]).to("meta"), "meta device"),
        (scipy.sparse.csr_array(np.ones((1, 3))), "groups is sparse"),
    ):
        with pytest.raises(TypeError, match=message):
            check_groups(groups, 3)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (["a", "b"], "groups has 2 labels for 3 samples"),
        (["a", None, "b"], "no label for 1 of 3 samples.*first at index 1"),
        ([1.0, 2.0, np.nan], "no label for 1 of 3 samples.*first at index 2"),
        (pd.Series(["a", pd.NA, pd.NA], dtype="string"), "no label for 2 of 3"),
        (["a", float("nan"), "b"], "no label for 1 of 3"),
        (["a", ("b", 1), 2], "cannot be sorted, of the types int, str, tuple"),
        (pd.Series(["a", 2, 3]), "cannot be sorted, of the types int, str; use one type"),
        ([[1, 2], [1, 2], [3, 4]], r"groups has shape \(3, 2\); give one label for each sample"),
        ("part", r"groups has shape \(\)"),
        (np.ma.array([1, 1, 2], mask=[0, 1, 0]), "1 of its 3 values are masked"),
    ],
)
def test_groups_that_say_nothing_are_refused(groups, message):
    with pytest.raises(ValueError, match=message):
        check_groups(groups, 3)


def test_rows_of_a_size_hold_one_group_after_the_other():
    rows = rows_by_group_size(np.array([5, 3, 5, 0, 8, 3, 1, 8, 8]))
    assert {size: each.tolist() for size, each in rows.items()} == {
        1: [3, 6],
        2: [1, 5, 0, 2],
        3: [4, 7, 8],
    }


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
    monkeypatch.setattr(_training_samples, "_VALUES_AT_ONCE", 70_000)
    np.testing.assert_array_equal(sample_digests(samples), expected)


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
