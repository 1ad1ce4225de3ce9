import sys
from fractions import Fraction

import numpy as np
import pytest
import torch

from skpadim.metrics import (
    PixelMetrics,
    aupro_score,
    auspro_score,
    image_f1_max,
    pixel_average_precision_score,
    pixel_f1_max,
    pixel_metrics,
    pixel_roc_auc_score,
    pro_curve,
    pro_score,
)

FUNCTIONS = [
    aupro_score,
    pro_curve,
    lambda masks, maps: pro_score(masks, maps, 0.5),
    lambda masks, maps: auspro_score(masks, maps, 0.5),
    pixel_roc_auc_score,
    pixel_average_precision_score,
    pixel_f1_max,
    pixel_metrics,
    lambda masks, maps: PixelMetrics().update(masks, maps).compute(),
    lambda masks, maps: PixelMetrics(exact=False).update(masks, maps).compute(),
]


def ones(shape=(2, 4, 4)):
    masks = np.zeros(shape)
    masks[..., 0] = 1
    return masks


def with_value(value, index=1):
    maps = np.zeros((2, 4, 4))
    maps[index, 2, 2] = value
    return maps


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("masks", "maps", "error", "message"),
    [
        (ones(), np.zeros((2, 4, 5)), ValueError, r"y_true has shape \(2, 4, 4\).*\(2, 4, 5\)"),
        (list(ones()), [*np.zeros((1, 4, 4)), np.zeros((4, 5))], ValueError, r"y_true\[1\] has"),
        (list(ones()), list(np.zeros((3, 4, 4))), ValueError, "2 masks and y_score has 3 maps"),
        (ones()[0], np.zeros((4, 4)), ValueError, r"must be \(n, height, width\).*in a list"),
        (ones() * 0, np.zeros((2, 4, 4)), ValueError, "y_true has no anomalous pixel.*Add"),
        (ones() * 0 + 1, np.zeros((2, 4, 4)), ValueError, "y_true has no normal pixel.*inverted"),
        (ones(), with_value(np.nan), ValueError, "map of image 1 has NaN or infinite scores"),
        (ones(), with_value(-np.inf, 0), ValueError, "map of image 0 has NaN or infinite scores"),
        (list(ones()), list(with_value(np.inf)), ValueError, "map of image 1 has NaN"),
        (ones() + ones() * with_value(1), np.zeros((2, 4, 4)), None, ""),
        (ones() + with_value(2), np.zeros((2, 4, 4)), ValueError, "image 1 has the values 0, 1, 2"),
        (ones() * 128, np.zeros((2, 4, 4)), ValueError, "values 0, 128; .*mask > 127"),
        (0 - ones(), np.zeros((2, 4, 4)), ValueError, "values -1, 0;"),
        (np.zeros((0, 4, 4)), np.zeros((0, 4, 4)), ValueError, "empty: at least one image"),
        ([], [], ValueError, "empty: at least one image"),
        (np.zeros((2, 0, 4)), np.zeros((2, 0, 4)), ValueError, "no pixels"),
        (ones(), ones().astype(int), TypeError, "y_score has dtype int64.*float32"),
        (ones(), ones().astype(bool), TypeError, "y_score has dtype bool.*swapped"),
        (ones().astype(str), ones(), TypeError, "y_true has dtype <U32.*read_masks"),
        (list(ones()), ones(), TypeError, "y_true is a list and y_score is of type ndarray"),
        (ones(), list(ones()), TypeError, "y_true is of type ndarray and y_score is a list"),
    ],
)
def test_bad_input_is_refused(function, masks, maps, error, message):
    if error is None:
        function(masks, maps)
        return
    with pytest.raises(error, match=message):
        function(masks, maps)


@pytest.mark.parametrize("max_fpr", [0, -0.1, 1.1, np.nan, "0.3", None, True])
def test_a_limit_outside_of_zero_to_one_is_refused(max_fpr):
    with pytest.raises(ValueError, match=r"max_fpr=.* must be a number in \(0, 1\]"):
        aupro_score(ones(), with_value(1), max_fpr=max_fpr)
    with pytest.raises(ValueError, match="max_fpr"):
        PixelMetrics(max_fpr=[0.3, max_fpr])


@pytest.mark.parametrize(
    "max_fpr", [5e-324, 2e-308, np.longdouble("1e-4000"), Fraction(1, 10**400)]
)
def test_a_limit_too_small_for_all_digits_is_refused(max_fpr):
    with pytest.raises(ValueError, match=r"not below 2\.2250738585072014e-308: .* integrate up to"):
        aupro_score(ones(), with_value(1), max_fpr=max_fpr)
    with pytest.raises(ValueError, match="not below"):
        PixelMetrics(max_fpr=max_fpr)
    aupro_score(ones(), with_value(1), max_fpr=sys.float_info.min)


def test_other_parameters_are_checked():
    with pytest.raises(ValueError, match=r"connectivity=6 must be 8.*or 4"):
        aupro_score(ones(), with_value(1), connectivity=6)
    with pytest.raises(ValueError, match="threshold=nan must be a number"):
        pro_score(ones(), with_value(1), np.nan)
    with pytest.raises(ValueError, match=r"saturation=1.5 must lie in \(0, 1\]"):
        auspro_score(ones(), with_value(1), 1.5)
    with pytest.raises(ValueError, match=r"shape \(3,\), and there are 2 regions"):
        auspro_score(ones(), with_value(1), [1, 2, 3])
    with pytest.raises(ValueError, match="above 0 pixels"):
        auspro_score(ones(), with_value(1), [1, 0])
    channels = np.zeros((2, 4, 4), bool)
    channels[0, 1, 1] = True
    with pytest.raises(ValueError, match=r"y_true\[0\] has a region with no pixel \(number 1\)"):
        auspro_score([channels], [with_value(1)[0]], 0.5)


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize(
    ("ignore", "error", "message"),
    [
        (np.zeros((4, 4), np.uint8), TypeError, "has dtype uint8; it must be boolean"),
        (np.zeros((4, 5), bool), ValueError, r"has shape \(4, 5\), and the maps have shape"),
        (np.zeros((3, 4, 4), bool), ValueError, "ignore has"),
        (np.ones((4, 4), bool), ValueError, "no anomalous pixel"),
        (np.eye(4, dtype=bool)[::-1], ValueError, "map of image 1 has NaN.*do not count"),
    ],
)
def test_pixels_to_ignore_are_checked(as_list, ignore, error, message):
    form = list if as_list else np.asarray
    with pytest.raises(error, match=message):
        pixel_metrics(form(ones()), form(with_value(np.nan)), ignore=ignore)


FORMS = {
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "long double": lambda a: a.astype(np.longdouble),
    "object": lambda a: a.astype(object),
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    "negative strides": lambda a: np.flip(np.flip(a).copy()),
    "every other": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "Fortran's order": np.asfortranarray,
    "masked, with nothing masked": np.ma.array,
    "tensor with gradients": lambda a: torch.tensor(a, dtype=torch.float64, requires_grad=True),
}


@pytest.mark.parametrize("convert", FORMS.values(), ids=FORMS)
def test_memory_of_any_kind_gives_the_same_values(convert):
    rng = np.random.default_rng(0)
    masks = np.zeros((4, 8, 8))
    masks[2:, 3:5, 2:6] = 1
    maps = rng.normal(size=masks.shape) + masks
    expected = pixel_metrics(masks, maps)
    assert pixel_metrics(convert(masks), convert(maps)) == expected
    in_lists = [convert(mask) for mask in masks], [convert(one) for one in maps]
    assert pixel_metrics(*in_lists) == expected
    streamed = PixelMetrics(exact=False)
    assert (
        streamed.update(convert(masks), convert(maps)).compute()
        == PixelMetrics(exact=False).update(masks, maps).compute()
    )
    y, scores = np.array([1, 1, -1, -1]), maps.max(axis=(1, 2))
    assert image_f1_max(convert(y), convert(scores)) == image_f1_max(y, scores)


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize(
    ("convert", "error", "message"),
    [
        (lambda a: np.ma.masked_greater(a, 0.5), ValueError, "masked array"),
        (lambda a: torch.from_numpy(a).to_sparse(), TypeError, r"sparse tensor.*to_dense\(\)"),
        (lambda a: torch.from_numpy(a).to("meta"), TypeError, "meta device"),
        (lambda a: a.astype(complex), TypeError, "dtype complex128"),
    ],
)
def test_pixels_that_would_be_misread_are_refused(convert, error, message, as_list):
    def form(stack):
        return [convert(one) for one in stack] if as_list else convert(stack)

    masks, maps = (list(ones()), list(with_value(1))) if as_list else (ones(), with_value(1))
    for name, pair in (("y_true", (form(ones()), maps)), ("y_score", (masks, form(with_value(1))))):
        with pytest.raises(error, match=f"{name}.* {message}"):
            aupro_score(*pair)
    with pytest.raises(error, match=f"y_score.*{message}"):
        image_f1_max([1, -1], convert(np.array([0.1, 0.9])))


def test_labels_of_images_are_scikit_learns_or_as_masks():
    for labels in ([1, 1, -1, -1], [0, 0, 1, 1], [False, False, True, True]):
        assert image_f1_max(labels, [0, 3, 2, 4]) == (0.8, 2.0)


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 1, 2], [0, 1, 2], "y_true has the labels 0, 1, 2; use"),
        (["good", "bad"], [0, 1], "labels 'bad', 'good'"),
        ([1, -1], [0, 1, 2], r"shape \(2,\) and y_score has shape \(3,\)"),
        ([[0, 1]], [0, 1], "one label an image"),
        ([1, -1, -1], [0, 1, np.nan], "score of image 2 is nan"),
        ([1, 1], [0, 1], r"only one kind.* anomalous \(-1\) image is needed"),
        ([-1, -1], [0, 1], r"only one kind.* good \(\+1\) image is needed"),
        ([], [], "empty"),
    ],
)
def test_bad_labels_and_scores_are_refused(labels, scores, message):
    with pytest.raises(ValueError, match=message):
        image_f1_max(labels, scores)
