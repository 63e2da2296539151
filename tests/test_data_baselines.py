"""Otsu's threshold, the baselines that look at no pixel, and the ceiling of a stride."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minifcn.data import baselines, oracle, otsu
from minifcn.data.sample import Sample


class Held:
    """A dataset in memory."""

    void = 255

    def __init__(self, labels, n=3):
        self.labels = [np.asarray(label, np.uint8) for label in labels]
        self.classes = tuple(f"class {k}" for k in range(n))
        self.palette = np.zeros((n, 3), np.uint8)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        label = self.labels[i]
        return Sample(str(i), np.zeros((*label.shape, 3), np.uint8), label)


def between(values, t):
    """Variance between the pixels up to t and above it, from the pixels themselves."""
    values = values.ravel().astype(float)
    low, high = values[values <= t], values[values > t]
    if not low.size or not high.size:
        return 0.0
    return low.size * high.size / values.size**2 * (low.mean() - high.mean()) ** 2


pictures = hnp.arrays(
    np.uint8,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8),
    elements=st.one_of(st.integers(0, 255), st.sampled_from([0, 3, 254, 255])),
)


@given(pictures)
def test_otsu_is_the_brute_force_maximum(values):
    t = otsu.threshold(values)
    best = max(between(values, s) for s in range(256))
    assert between(values, t) == pytest.approx(best, rel=1e-9, abs=1e-12)
    if len(np.unique(values)) > 1:
        assert values.min() <= t < values.max()


def test_otsu_planted_faults():
    """The measure tells a threshold that is off by one, or the mean, from the best."""
    rng = np.random.default_rng(5)
    values = np.concatenate([rng.normal(40, 9, 900), rng.normal(200, 9, 60), np.arange(90, 130)])
    values = values.clip(0, 255).astype(np.uint8)
    t = otsu.threshold(values)
    for wrong in (t + 1, t - 1, int(values.mean())):
        assert between(values, wrong) < between(values, t) * (1 - 1e-6)


def test_otsu_on_a_flat_picture():
    flat = np.full((3, 4, 3), 77, np.uint8)
    assert otsu.threshold(flat[..., 0]) == 77
    assert (otsu.segment(flat) == 0).all()
    assert otsu.threshold(np.zeros((0, 4), np.uint8)) == 0


@pytest.mark.parametrize("inverted", [False, True])
def test_otsu_finds_the_object_bright_or_dark(inverted):
    truth = np.zeros((20, 30), np.uint8)
    truth[5:15, 3:28] = 1  # most of the inside, little of the ring
    image = np.repeat(np.where(truth, 180, 60).astype(np.uint8)[..., None], 3, 2)
    labels = otsu.segment(255 - image if inverted else image)
    assert labels.dtype == np.uint8 and (labels == truth).all()


@given(hnp.arrays(np.uint8, (3, 4, 3)))
def test_grey_is_the_weighted_sum(image):
    exact = image @ np.array([0.299, 0.587, 0.114])
    assert np.abs(otsu.grey(image) - exact).max() <= 0.5 + 1e-9


def test_majority_and_prior_by_hand():
    train = Held([[[0, 1, 255], [2, 2, 1]], [[0, 1, 255], [1, 2, 0]], [[1, 2, 255], [1, 2, 0]]])
    sample = train[0]
    assert baselines.Majority(train).label == 1  # six against four and five; void has no vote
    assert (baselines.Majority(train)(sample) == 1).all()
    prior = baselines.LocationPrior(train)
    assert prior.labels.tolist() == [[0, 1, 1], [1, 2, 0]]  # void in all: the commonest
    assert (prior(sample) == prior.labels).all()
    big = Sample("big", np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), np.uint8))
    assert (prior(big) == np.kron(prior.labels, np.ones((2, 2), int))).all()
    matrix = baselines.score(train, prior)
    # Right: picture 1 misses two of five, picture 2 none, picture 3 two; void counts nowhere.
    assert matrix.counts.sum() == 15 and np.trace(matrix.counts) == 3 + 5 + 3


def test_prior_of_mixed_sizes():
    train = Held([[[0, 1], [2, 0]], np.kron([[1, 1], [2, 2]], np.ones((3, 5))), [[1, 1], [0, 2]]])
    assert baselines.LocationPrior(train).labels.tolist() == [[1, 1], [2, 2]]


def slow_there_and_back(label, s, n):
    """The same road with a loop a cell, and the bilinear weights written out a pixel."""
    h, w = label.shape
    rows, columns = -(-h // s), -(-w // s)
    share = np.zeros((n, rows, columns))
    for i in range(rows):
        for j in range(columns):
            cell = label[i * s : (i + 1) * s, j * s : (j + 1) * s]
            valid = cell[cell != 255]
            for k in range(n):
                share[k, i, j] = (valid == k).mean() if valid.size else 0
    big = np.zeros((n, h, w))
    for y in range(h):
        for x in range(w):
            v, u = (y + 0.5) / s - 0.5, (x + 0.5) / s - 0.5
            i, j = int(np.floor(v)), int(np.floor(u))
            for a, wa in ((i, 1 - (v - i)), (i + 1, v - i)):
                for b, wb in ((j, 1 - (u - j)), (j + 1, u - j)):
                    a_in, b_in = min(max(a, 0), rows - 1), min(max(b, 0), columns - 1)
                    big[:, y, x] += wa * wb * share[:, a_in, b_in]
    return big


@given(
    hnp.arrays(
        np.uint8,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=11),
        elements=st.sampled_from([0, 1, 2, 255]),
    ),
    st.sampled_from([1, 2, 3, 4, 8]),
)
def test_there_and_back_is_the_slow_road(label, s):
    fast = oracle.there_and_back(label, s, 3)
    share = slow_there_and_back(label, s, 3)
    chosen = np.take_along_axis(share, fast[None].astype(int), 0)[0]
    assert fast.max(initial=0) < 3 and fast.shape == label.shape
    assert (chosen >= share.max(0) - 1e-5).all()  # the largest share, ties either way
    if s == 1:
        assert (fast == label)[label != 255].all()


def test_there_and_back_planted_faults():
    """The nearest pixel, or enlarging by repetition, is told from the right road."""
    y, x = np.mgrid[:24, :24]
    label = ((y - 11) ** 2 + (x - 9) ** 2 < 60).astype(np.uint8)
    share = slow_there_and_back(label, 4, 2)

    def passes(road):
        return (np.take_along_axis(share, road[None].astype(int), 0) >= share.max(0) - 1e-5).all()

    assert passes(oracle.there_and_back(label, 4, 2))
    mean = label.reshape(6, 4, 6, 4).mean((1, 3))
    assert not passes(np.kron(mean > 0.5, np.ones((4, 4), int)))
    assert not passes(np.kron(label[2::4, 2::4], np.ones((4, 4), int)))


def test_ceilings_of_shapes_that_survive_and_do_not():
    label = np.zeros((64, 64), np.uint8)
    label[:, 32:] = 1
    label[5, 7] = 2  # one pixel: gone at any factor above 1
    matrices = oracle.ceilings(Held([label, label]), (1, 2, 8))
    assert matrices[1].mean_iou == 1
    assert matrices[2].iou()[1] == 1 and matrices[2].iou()[2] == 0
    assert matrices[8].counts.sum() == 2 * 64 * 64
    empty = oracle.there_and_back(np.full((5, 6), 255, np.uint8), 4, 3)
    assert (empty == 0).all()
