"""Counting the classes in labels, and choosing pictures that show them all."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minifcn.data.counts import PixelCounts, count, showing_all

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
