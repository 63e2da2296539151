"""The confusion matrix against a loop over pixels and against numbers worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minifcn.errors import InputError, ShapeError
from minifcn.metrics import ConfusionMatrix


def naive(truth, prediction, n, void=255):
    """The four scores, class by class and pixel by pixel, with Python integers and sets."""
    pixels = [
        (i, t, p)
        for i, (t, p) in enumerate(
            zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True)
        )
        if t != void
    ]
    iou, accuracy, weight = [], [], []
    for k in range(n):
        true = {i for i, t, _ in pixels if t == k}
        said = {i for i, _, p in pixels if p == k}
        weight.append(len(true))
        iou.append(len(true & said) / len(true | said) if true | said else math.nan)
        accuracy.append(len(true & said) / len(true) if true else math.nan)

    def mean(v):
        v = [x for x in v if not math.isnan(x)]
        return sum(v) / len(v) if v else math.nan

    total = len(pixels)
    return {
        "iou": iou,
        "accuracy": accuracy,
        "pixel_accuracy": sum(t == p for _, t, p in pixels) / total if total else math.nan,
        "mean_accuracy": mean(accuracy),
        "mean_iou": mean(iou),
        "frequency_weighted_iou": (
            sum(w * x for w, x in zip(weight, iou, strict=True) if w) / total if total else math.nan
        ),
    }


def scores(matrix):
    return {
        "iou": matrix.iou(),
        "accuracy": matrix.accuracy(),
        **{
            name: getattr(matrix, name)
            for name in ("pixel_accuracy", "mean_accuracy", "mean_iou", "frequency_weighted_iou")
        },
    }


def agree(a, b):
    return all(np.allclose(a[k], b[k], rtol=1e-12, atol=0, equal_nan=True) for k in b)


@st.composite
def label_pairs(draw):
    n = draw(st.integers(1, 6))
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=7))
    dtype = draw(st.sampled_from([np.uint8, np.int64, np.int32]))
    values = st.sampled_from([*range(n), 255])
    truth = draw(hnp.arrays(dtype, shape, elements=values))
    prediction = draw(hnp.arrays(dtype, shape, elements=st.integers(0, n - 1)))
    return n, truth, prediction


@given(label_pairs(), st.integers(0, 7))
def test_equals_a_loop_over_pixels(case, cut):
    n, truth, prediction = case
    matrix = ConfusionMatrix(n)
    matrix.update(truth[:cut], prediction[:cut])  # in two parts: one matrix over the whole
    matrix.update(truth[cut:], prediction[cut:])
    assert matrix.counts.dtype == np.int64
    assert matrix.counts.sum() == (truth != 255).sum()
    assert agree(scores(matrix), naive(truth, prediction, n))


def test_worked_by_hand():
    matrix = ConfusionMatrix(3)
    matrix.update(np.array([[0, 0, 0, 1], [1, 1, 255, 0]]), np.array([[0, 0, 1, 1], [1, 0, 2, 2]]))
    assert matrix.counts.tolist() == [[2, 1, 1], [1, 2, 0], [0, 0, 0]]
    assert matrix.pixel_accuracy == pytest.approx(4 / 7)
    assert matrix.accuracy().tolist()[:2] == pytest.approx([2 / 4, 2 / 3])
    assert math.isnan(matrix.accuracy()[2])  # never true
    assert matrix.iou().tolist() == pytest.approx([2 / 5, 2 / 4, 0])  # but predicted: 0, not NaN
    assert matrix.mean_accuracy == pytest.approx((2 / 4 + 2 / 3) / 2)
    assert matrix.mean_iou == pytest.approx((2 / 5 + 2 / 4) / 3)
    assert matrix.frequency_weighted_iou == pytest.approx((4 * 2 / 5 + 3 * 2 / 4) / 7)


@pytest.mark.parametrize("fault", ["transposed", "void counted", "mean of batches", "absent is 0"])
def test_the_loop_tells_wrong_matrices(fault):
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 3, (2, 9, 9))  # class 3 occurs nowhere
    prediction = np.where(rng.random((2, 9, 9)) < 0.7, truth, rng.integers(0, 3, (2, 9, 9)))
    truth[0, :3], prediction[0, :3] = 255, 1
    truth[1] = np.minimum(truth[1], 1)
    right = naive(truth, prediction, 4)
    matrix = ConfusionMatrix(4)
    matrix.update(truth, prediction)
    assert agree(scores(matrix), right)
    wrong = scores(matrix)
    if fault == "transposed":
        matrix.counts = matrix.counts.T.copy()
        wrong = scores(matrix)
    elif fault == "void counted":
        matrix.update(np.zeros((3, 9), int), prediction[0, :3])
        wrong = scores(matrix)
    elif fault == "mean of batches":
        halves = [naive(t, p, 4)["mean_iou"] for t, p in zip(truth, prediction, strict=True)]
        wrong["mean_iou"] = sum(halves) / 2
    else:
        wrong["mean_iou"] = float(np.nan_to_num(matrix.iou()).mean())
    assert not agree(wrong, right)


@pytest.mark.filterwarnings("error")
def test_nothing_counted_is_nan_without_a_warning():
    matrix = ConfusionMatrix(2)
    matrix.update(np.full((2, 3), 255, np.uint8), np.full((2, 3), 9, np.uint8))
    assert matrix.counts.sum() == 0
    for name in ("pixel_accuracy", "mean_accuracy", "mean_iou", "frequency_weighted_iou"):
        assert math.isnan(getattr(matrix, name))


def test_reset_and_other_void():
    matrix = ConfusionMatrix(2)
    matrix.update(np.array([0, 1, -1]), np.array([0, 0, 1]), void=-1)
    assert matrix.counts.tolist() == [[1, 0], [1, 0]]
    matrix.reset()
    assert matrix.counts.sum() == 0


@pytest.mark.parametrize(
    ("truth", "prediction", "parts"),
    [
        ([[0, 1], [7, 2]], [[0, 1], [1, 1]], ("truth", "class 7", "(1, 0)", "num_classes=8")),
        ([[0, 1], [1, 1]], [[0, 3], [1, 1]], ("prediction", "class 3", "(0, 1)", "num_classes=4")),
        ([[0, -1], [1, 1]], [[0, 1], [1, 1]], ("truth", "class -1", "(0, 1)", "void=-1")),
    ],
)
def test_a_label_beyond_the_classes(truth, prediction, parts):
    matrix = ConfusionMatrix(3 if truth[1][0] == 7 else 2)
    with pytest.raises(InputError) as error:
        matrix.update(np.array(truth), np.array(prediction))
    assert all(part in str(error.value) for part in parts), error.value
    assert "; " in str(error.value) and "\n" not in str(error.value)
    assert matrix.counts.sum() == 0  # nothing was counted


def test_wrong_arrays():
    matrix = ConfusionMatrix(2)
    with pytest.raises(ShapeError, match=r"\(2, 2\).*\(2, 3\)"):
        matrix.update(np.zeros((2, 3), int), np.zeros((2, 2), int))
    with pytest.raises(ShapeError, match="prediction has dtype float64"):
        matrix.update(np.zeros(3, int), np.zeros(3))
    with pytest.raises(InputError, match="num_classes is 0"):
        ConfusionMatrix(0)
