"""Labels of any container, and which images they let a fit learn from."""

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

from skpadim.calibration._labels import are_labels, check_labels, find_good

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
