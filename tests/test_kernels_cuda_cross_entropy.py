"""The CUDA kernels of softmax cross-entropy, on the simulated GPU, against their definitions."""

import importlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minifcn import kernels, simulator
from minifcn.errors import ShapeError
from tests.simulated import ORDERS, agree, both, needs_compiler, on_gpu, planted, running, traffic

pytestmark = needs_compiler
#: from one class to so many that a pixel has two, four, … 32 threads
CLASSES = st.sampled_from([1, 2, 3, 4, 8, 21, 32, 60, 97, 200, 400, 900, 1700])
DTYPES = st.sampled_from([np.float32, np.float64])
VOID = -100


@st.composite
def labellings(draw):
    """(pictures, pixels of each, classes, how many pixels in ten are void)."""
    classes = draw(CLASSES)
    pixels = draw(st.sampled_from([1, 2, 5, 31, 128, 130] if classes < 100 else [1, 3, 9]))
    return draw(st.integers(1, 3)), pixels, classes, draw(st.sampled_from([0, 3, 10]))


def loss(labelling, dtype, special=True):
    """Each kernel once: (found, wanted)."""
    n, pixels, classes, voids = labelling
    rng = np.random.default_rng(pixels)
    m = n * pixels
    logits = (3 * rng.standard_normal((m, classes))).astype(dtype)
    if special and m > 2:
        logits[0, 0], logits[1, -1] = np.nan, np.inf  # they must reach the loss
        logits[2] = 1e4  # no exponential may overflow
    target = rng.integers(0, classes, m)
    target[rng.integers(0, 10, m) < voids] = VOID
    share = rng.random((n, classes)).astype(dtype)
    share[0, 0] = 0
    with np.errstate(invalid="ignore"):
        yield both(kernels.cross_entropy, logits, target, share, VOID)
    yield both(kernels.amounts, target, share, VOID)
    target[::3] += 1  # now some are no class
    yield both(kernels.count_labels, target.reshape(n, pixels), classes, VOID)


@pytest.mark.parametrize("order", ORDERS)
@given(labellings(), DTYPES)
def test_values(order, labelling, dtype):
    with running(order):
        for found, wanted in loss(labelling, dtype):
            agree(found, wanted, rounding=16)


@given(labellings())
def test_no_fault(labelling):
    with running(check=True):
        for _ in loss(labelling, np.float32):
            pass


def test_void_pixels_give_exactly_nothing():
    logits = np.full((5, 3), np.nan, np.float32)
    target, share = np.full(5, VOID), np.ones((1, 3), np.float32)
    found, wanted = both(kernels.cross_entropy, logits, target, share, VOID)
    assert all((part == 0).all() for part in found)
    agree(found, wanted, 0)


def test_no_pixels():
    logits, target = np.zeros((0, 3), np.float32), np.zeros(0, np.int64)
    agree(*both(kernels.cross_entropy, logits, target, np.ones((1, 3), np.float32), VOID))
    agree(*both(kernels.count_labels, target.reshape(2, 0), 3, VOID))


def test_more_classes_than_a_block_can_hold():
    logits, target = on_gpu(np.zeros((1, 12289), np.float32)), on_gpu(np.zeros(1, np.int64))
    share = on_gpu(np.zeros((1, 12289), np.float32))
    with pytest.raises(ShapeError, match="12289 classes.*at most 12287"):
        kernels.cross_entropy(logits, target, share, VOID)


@pytest.mark.parametrize("classes", [2, 3, 12, 21])
def test_traffic(classes):
    """Two pictures of 24 × 24: logits, labels, loss and gradient once each, in whole sectors."""
    m = 2 * 24 * 24
    rng = np.random.default_rng(0)
    logits = on_gpu(rng.standard_normal((m, classes)).astype(np.float32))
    target = on_gpu(rng.integers(0, classes, m))
    share = on_gpu(np.ones((2, classes), np.float32))
    with traffic() as moved:
        loss, grad = kernels.cross_entropy(logits, target, share, VOID)
    least = sum(a.nbytes for a in (logits, target, share, loss, grad))
    assert moved.moved <= 1.1 * least and moved.per_sector >= 28


def run(classes, pixels=40):
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((pixels, classes)).astype(np.float32)
    target, share = rng.integers(0, classes, pixels), np.ones((1, classes), np.float32)
    return both(kernels.cross_entropy, logits, target, share, VOID)


def test_a_missing_barrier_is_caught(monkeypatch):
    right = "at(e) = source[e];\n        __syncthreads();"
    with planted(monkeypatch, "cross_entropy.cu", right, "at(e) = source[e];"):
        with running(check=True):
            with pytest.raises(
                simulator.KernelFault, match=r"cross_entropy.cu:\d+: (race|uninitialised)"
            ):
                run(21)


def test_a_missing_barrier_between_tiles_is_caught(monkeypatch):
    """One block for many tiles: the next logits arrive while the last gradients leave."""
    right = "__syncthreads();  // the next tile's"
    module = importlib.import_module("minifcn.kernels.cross_entropy")
    monkeypatch.setattr(module, "BLOCKS", 1)
    with planted(monkeypatch, "cross_entropy.cu", right, "// "), running(check=True):
        with pytest.raises(simulator.KernelFault, match=r"cross_entropy.cu:\d+: (race)"):
            run(21, 299)


def test_a_lane_that_leaves_before_the_shuffle_is_caught(monkeypatch):
    right = "const bool is_pixel = pixel < m;"
    with planted(monkeypatch, "cross_entropy.cu", right, right + " if (!is_pixel) return;"):
        with running(check=True), pytest.raises(simulator.KernelFault):
            run(400, 3)


def test_a_loss_of_the_wrong_class_is_caught(monkeypatch):
    with planted(monkeypatch, "cross_entropy.cu", "? z[t] : 0", "? z[0] : 0"):
        with pytest.raises(AssertionError):
            agree(*run(21))


def test_more_pictures_than_a_grid_has_rows(monkeypatch):
    """A grid's y ends at 65,535; beyond, pictures take turns."""
    monkeypatch.setattr(importlib.import_module("minifcn.kernels.cross_entropy"), "PICTURES", 2)
    with running(check=True):
        for found, wanted in loss((5, 31, 4, 3), np.float32):
            agree(found, wanted, rounding=16)
