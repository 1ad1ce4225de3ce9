"""Labels of groups, and which samples are in groups of a size."""

import datetime

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

from skpadim.calibration._groups import check_groups, rows_by_group_size


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
def test_labels_of_any_kind_are_told_apart(groups):
    codes, labels = check_groups(groups, 4)
    np.testing.assert_array_equal(codes, [1, 0, 1, 2])
    if isinstance(groups, torch.Tensor):
        groups = groups.detach()
    assert labels[codes].tolist() == np.asarray(groups).tolist()


def test_labels_without_values_are_refused():
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
def test_labels_that_say_nothing_are_refused(groups, message):
    with pytest.raises(ValueError, match=message):
        check_groups(groups, 3)


def test_rows_of_a_size_hold_one_group_after_the_other():
    rows = rows_by_group_size(np.array([5, 3, 5, 0, 8, 3, 1, 8, 8]))
    assert {size: each.tolist() for size, each in rows.items()} == {
        1: [3, 6],
        2: [1, 5, 0, 2],
        3: [4, 7, 8],
    }
