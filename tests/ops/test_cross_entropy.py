"""Cross-entropy: five reductions, weights, void pixels, both derivatives, faults, messages."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minifcn as mf
from minifcn import kernels
from minifcn.check import parity
from minifcn.errors import InputError, ShapeError
from minifcn.functional import cross_entropy
from minifcn.ops import cross_entropy as ops
from tests import naive
from tests.ops.checks import (
    LAYOUTS,
    assert_caught,
    assert_right,
    close,
    dropped,
    laid_out,
    leaf,
    random,
    scaled,
)

REDUCTIONS = ["mean", "sum", "batch", "image", "none"]


@st.composite
def cases(draw, empty=True):
    """(logits' shape, share of void pixels, settings, layout)."""
    pixels = draw(st.sampled_from([(), (1,), (5,), (1, 1), (3, 5), (2, 3, 2)]))
    n, k = draw(st.integers(0 if empty else 1, 3)), draw(st.sampled_from([1, 2, 5]))
    settings = {
        "reduction": draw(st.sampled_from(REDUCTIONS)),
        "ignore_index": draw(st.sampled_from([-100, 255, 0])),
    }
    weighted = draw(st.booleans())
    return (
        (n, k, *pixels),
        draw(st.sampled_from([0, 0.4])),
        weighted,
        settings,
        draw(st.sampled_from(LAYOUTS)),
    )


def drawn(shape, void, weighted, settings, layout, dtype=np.float64):
    rng = np.random.default_rng(0)
    x = laid_out(3 * random(rng, *shape, dtype=dtype), layout)
    target = rng.integers(0, shape[1], (shape[0], *shape[2:]))
    target[rng.random(target.shape) < void] = settings["ignore_index"]
    weight = rng.uniform(0.5, 2, shape[1]).astype(dtype) if weighted else None
    return x, target, weight


@pytest.mark.filterwarnings("ignore:cross_entropy. every target pixel is ignored")
@given(case=cases())
def test_values(case):
    shape, void, weighted, settings, layout = case
    # A small loss is the difference of logits as large as 10: their rounding, not its own, counts.
    for dtype, rtol in ((np.float64, 1e-13), (np.float32, 1e-5)):
        x, target, weight = drawn(*case, dtype=dtype)
        found = cross_entropy(
            mf.Tensor(x), target, None if weight is None else mf.Tensor(weight), **settings
        )
        assert found.dtype == dtype
        close(found, naive.cross_entropy(x, target, weight, **settings), rtol)


@pytest.mark.filterwarnings("ignore:cross_entropy. every target pixel is ignored")
@given(case=cases())
def test_derivatives(case):
    _, _, _, settings, _ = case
    x, target, weight = drawn(*case)
    assert_right(lambda x: cross_entropy(x, target, weight, **settings), leaf(x), entries=15)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_void_pixels_count_for_nothing(reduction):
    """Their logits may be anything, and their number is not in the divisor."""
    rng = np.random.default_rng(1)
    x, target = random(rng, 2, 3, 4, 4), rng.integers(0, 3, (2, 4, 4))
    target[:, 2:] = 255
    t = leaf(x)
    loss = cross_entropy(t, target, ignore_index=255, reduction=reduction)
    loss.sum().backward()
    assert not t.grad.numpy()[:, :, 2:].any() and t.grad.numpy()[:, :, :2].any()
    cut = cross_entropy(mf.Tensor(x[:, :, :2].copy()), target[:, :2], reduction=reduction)
    close(loss.sum(), cut.sum().numpy(), 1e-14)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_only_void_gives_zero_and_a_warning(reduction):
    x = leaf(random(np.random.default_rng(2), 2, 3, 4, 4))
    target = np.full((2, 4, 4), 255)
    with pytest.warns(UserWarning, match="every target pixel is ignored"):
        loss = cross_entropy(x, target, ignore_index=255, reduction=reduction)
    loss.sum().backward()
    assert not loss.numpy().any() and not x.grad.numpy().any()


def test_one_picture_of_only_void_is_no_trouble_for_the_others():
    rng = np.random.default_rng(3)
    x, target = random(rng, 2, 3, 4, 4), rng.integers(0, 3, (2, 4, 4))
    target[1] = 255
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = cross_entropy(mf.Tensor(x), target, ignore_index=255, reduction="image")
    alone = naive.cross_entropy(x[:1], target[:1], reduction="mean")
    close(found, alone / 2, 1e-14)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_confident_logits_do_not_overflow(dtype):
    """log-softmax in one pass: a loss of 2000 is not infinite, a loss of 0 is not NaN."""
    x = leaf(np.array([[1000.0, -1000.0], [-1000.0, 1000.0]], dtype))
    with np.errstate(over="raise", invalid="raise"):
        loss = cross_entropy(x, np.array([0, 0]), reduction="none")
        loss.sum().backward()
    assert loss.numpy().tolist() == [0, 2000]
    close(x.grad, [[0, 0], [-1, 1]])


def test_small_losses_keep_their_digits():
    x = np.array([[40.0, 0.0]])
    found = cross_entropy(mf.Tensor(x), np.array([0])).item()
    assert 0 <= found < 1e-15  # ln(1 + e⁻⁴⁰) = 4.2e-18


def test_target_may_be_a_tensor_of_any_integers():
    x = mf.Tensor(random(np.random.default_rng(4), 2, 3))
    wanted = cross_entropy(x, np.array([0, 2])).item()
    for dtype in (np.uint8, np.int32, np.int64):
        assert cross_entropy(x, mf.Tensor(np.array([0, 2], dtype))).item() == wanted


@pytest.mark.parametrize("kind", ["int64", "int32", "uint8", "strided", "read-only"])
@pytest.mark.parametrize("shape", [(0, 5, 5), (300, 1), (1, 45, 91), (3, 77, 93)], ids=str)
def test_labels_are_copied_and_counted(kind, shape):
    """Few pixels a picture, and so many that they are counted in parts."""
    labels = np.random.default_rng(0).integers(0, 7, shape).astype(np.int64)
    if kind in ("int32", "uint8"):
        labels = labels.astype(kind)
    if kind == "strided":
        labels = np.repeat(labels, 2, axis=-1)[..., ::2]
    labels.flags.writeable = kind != "read-only"
    before = labels.copy()
    own, counts = kernels.copied_labels(labels, 5, 2)  # 2 is void; 5 and 6 are no classes
    assert not np.may_share_memory(own, labels) and own.dtype == np.int64
    np.testing.assert_array_equal(own, before)
    np.testing.assert_array_equal(labels, before)
    found = [np.bincount(row.ravel().astype(int), minlength=7) for row in before]
    wanted = np.array(found, int).reshape(-1, 7)
    wanted[:, 5] += wanted[:, 6]
    wanted[:, 2] = 0
    np.testing.assert_array_equal(counts, wanted[:, :6])
    np.testing.assert_array_equal(kernels.count_labels(own, 5, 2), counts)


def test_the_target_is_left_alone():
    target = np.array([0, 255, 2])
    cross_entropy(mf.Tensor(np.zeros((3, 3))), target, ignore_index=255)
    assert target.tolist() == [0, 255, 2]


def test_retained_graph_gives_the_same_gradient_twice():
    x = leaf(random(np.random.default_rng(5), 1, 3, 2, 2))
    loss = cross_entropy(x, np.zeros((1, 2, 2), int))
    loss.backward(retain_graph=True)
    once = x.grad.numpy().copy()
    loss.backward()
    close(x.grad, 2 * once, 1e-15)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_devices_agree(dtype):
    rng = np.random.default_rng(6)
    x, target = leaf(random(rng, 2, 21, 31, 33, dtype=dtype)), rng.integers(0, 21, (2, 31, 33))
    target[:, :9] = 255
    report = parity(lambda x: cross_entropy(x, target, ignore_index=255), [x])
    assert report, str(report)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("classes", [1, 2, 21])
@pytest.mark.parametrize("reduction", ["mean", "image"])
def test_many_pixels(reduction, classes, dtype):
    """More pixels than the kernel takes at a time, in pictures that end anywhere."""
    rng = np.random.default_rng(9)
    x = leaf(random(rng, 3, classes, 23, 29, dtype=dtype))
    target = rng.integers(0, classes, (3, 23, 29))
    target[0, :5] = 255
    weight = rng.uniform(0.5, 2, classes)
    settings = {"weight": weight, "ignore_index": 255, "reduction": reduction}
    loss = cross_entropy(x, target, **settings)
    wanted = naive.cross_entropy(x.numpy().astype(np.float64), target, **settings)
    close(loss, wanted, 1e-12 if dtype == np.float64 else 1e-6)
    report = parity(lambda x: cross_entropy(x, target, **settings), [x])
    assert report, str(report)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 70, 20])
def test_what_is_not_a_number_reaches_loss_and_gradient(place, value):
    """Any class of any pixel; the other pixels are not touched."""
    x = random(np.random.default_rng(10), 1, 21, 1, 150, dtype=np.float32)
    x[0, place % 21, 0, place] = value
    t = leaf(x)
    with np.errstate(invalid="ignore"):
        loss = cross_entropy(t, np.zeros((1, 1, 150), int), reduction="none")
        loss.sum().backward()
    others = np.arange(150) != place
    assert not np.isfinite(loss.numpy()[0, 0, place])
    assert not np.isfinite(t.grad.numpy()[0, :, 0, place]).any()
    assert np.isfinite(loss.numpy()[0, 0, others]).all()
    assert np.isfinite(t.grad.numpy()[0, :, 0, others]).all()


def test_a_logit_of_minus_infinity_has_probability_zero():
    x = leaf(np.array([[0.0, -np.inf, 0.0]], np.float32))
    cross_entropy(x, np.array([0])).backward()
    np.testing.assert_allclose(x.grad.numpy(), [[-0.5, 0, 0.5]], rtol=1e-6)


@pytest.mark.parametrize("spoil", [scaled, dropped])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_wrong_derivative_is_caught(reduction, spoil):
    rng = np.random.default_rng(7)
    x, target = leaf(random(rng, 2, 3, 2, 2)), rng.integers(0, 3, (2, 2, 2))
    assert_caught(
        ops.CrossEntropy, spoil(0), lambda x: cross_entropy(x, target, reduction=reduction), x
    )


@pytest.mark.parametrize(
    "shape, target, settings, message",
    [
        ((2, 3, 4, 4), np.zeros((2, 4, 5), int), {}, r"target has shape \(2, 4, 5\).*\(2, 4, 4\)"),
        ((2, 3, 4, 4), np.zeros((2, 3, 4, 4), int), {}, r"target has shape"),
        ((3,), np.zeros(3, int), {}, "target"),
        ((1, 3, 2), np.array([[0, 3]]), {}, r"target is 3 at \(0, 1\).*0 to 2.*ignore_index=-100"),
        ((1, 3, 2), np.array([[0, -1]]), {}, r"target is -1 at \(0, 1\)"),
        ((1, 3, 2), np.zeros((1, 2)), {}, "float64"),
        ((1, 3, 2), np.zeros((1, 2), int), {"weight": np.ones(2)}, r"weight.*\(2,\).*\(3,\)"),
    ],
)
def test_errors(shape, target, settings, message):
    with pytest.raises(ShapeError, match=f"cross_entropy: .*{message}"):
        cross_entropy(mf.Tensor(np.zeros(shape)), target, **settings)


def test_an_unknown_reduction_is_refused():
    with pytest.raises((InputError, ShapeError), match="reduction is 'average'.*mean"):
        cross_entropy(mf.Tensor(np.zeros((1, 2))), np.zeros(1, int), reduction="average")
