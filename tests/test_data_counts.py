"""Counting the classes in labels, and reading labels ahead."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minifcn.data.counts import PixelCounts, count, labels, showing_all
from minifcn.errors import InputError

some_labels = st.lists(
    hnp.arrays(
        np.uint8,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=5),
        elements=st.sampled_from([0, 1, 2, 3, 255]),
    ),
    max_size=4,
)


def by_hand(several, n):
    """Pixel by pixel, in Python's integers."""
    pixels, pictures, around, void = [0] * n, [0] * n, [0] * n, 0
    for label in several:
        flat = [v for row in label.tolist() for v in row]
        void += sum(v == 255 for v in flat)
        for k in range(n):
            pixels[k] += sum(v == k for v in flat)
            if k in flat:
                pictures[k] += 1
                around[k] += sum(v != 255 for v in flat)
    return pixels, pictures, around, void


def agrees(counts, several, n):
    own = (counts.pixels.tolist(), counts.pictures.tolist(), counts.around.tolist(), counts.void)
    return own == by_hand(several, n)


@given(some_labels)
def test_counts_are_those_of_a_loop(several):
    assert agrees(count(several, 5), several, 5)


def test_a_planted_fault_is_caught():
    """Void counted as a class, or a picture for each pixel, does not agree."""
    several = [np.array([[0, 1], [255, 1], [255, 0]], np.uint8), np.array([[2]], np.uint8)]
    right = count(several, 3)
    assert agrees(right, several, 3)
    assert not agrees(PixelCounts(right.each + 1, right.void_in), several, 3)
    assert not agrees(PixelCounts(right.each, right.void_in + 1), several, 3)
    assert not agrees(count(several, 3, void=2), several, 3)


class Slow:
    """Labels of which the first ones take longest; the third may be broken."""

    def __init__(self, length, broken=None):
        self.length, self.broken, self.read = length, broken, []
        self.first_may_end = threading.Event()

    def __len__(self):
        return self.length

    def label(self, i):
        if i == 0:
            self.first_may_end.wait(5)
        self.read.append(i)
        if i == 1 or self.length == 1:
            self.first_may_end.set()
        if i == self.broken:
            raise InputError(f"label {i}")
        return np.full((1, 1), i, np.uint8)


@pytest.mark.parametrize("length", [2, 3, 5, 40])
@pytest.mark.parametrize("ahead", [2, 16])
def test_labels_come_in_order_each_once(length, ahead):
    dataset = Slow(length)
    assert [int(label[0, 0]) for label in labels(dataset, ahead)] == list(range(length))
    assert sorted(dataset.read) == list(range(length)) and dataset.read[0] == 1


def test_no_label_and_a_broken_one():
    assert list(labels(Slow(0))) == []
    dataset, seen = Slow(50, broken=2), []
    with pytest.raises(InputError, match="label 2"):
        for label in labels(dataset, 4):
            seen.append(int(label[0, 0]))
    assert seen == [0, 1] and len(dataset.read) <= 2 + 4 + 1


def counted(*pictures):
    return PixelCounts(
        np.array(pictures, np.int64).reshape(-1, len(pictures[0])),
        np.zeros(len(pictures), np.int64),
    )


def test_the_chosen_show_every_class_that_can_be_shown():
    # Class 3 is in label 4 alone, class 2 in label 1 alone.
    counts = counted([5, 1, 0, 0], [5, 0, 2, 0], [5, 1, 0, 0], [5, 1, 0, 0], [0, 0, 0, 7])
    chosen = showing_all(counts, 3)
    assert len(set(chosen)) == 3 and list(chosen) == sorted(chosen)
    assert {1, 4} <= set(chosen) and (counts.each[chosen].sum(0) > 0).all()
    assert list(showing_all(counts, 9)) == [0, 1, 2, 3, 4]
    assert list(showing_all(count([], 4), 3)) == []


def test_the_chosen_are_spread():
    alike = counted(*([[3, 4]] * 101))
    chosen = np.array(showing_all(alike, 5))
    assert np.diff(chosen).min() >= 20
