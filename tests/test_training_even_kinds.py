"""The kind of a picture, and how often rare kinds are shown."""

from collections import Counter

import numpy as np

from minifcn.data import nuclei
from minifcn.data.kinds import kind_of
from minifcn.training.even_kinds import Repeated, repeats, with_even_kinds


def test_the_kind_of_every_shipped_picture_is_seen():
    """The set says itself of which kind each of its 110 pictures is."""
    for split in nuclei.SPLITS:
        data = nuclei.load(split)
        for sample in (data[i] for i in range(len(data))):
            assert kind_of(sample.image) == nuclei.kinds()[sample.name], sample.name


def test_repeats_by_hand():
    kinds = ["a"] * 16 + ["b"] * 4 + ["c"]
    assert repeats(kinds, 0) == [1] * 21
    assert repeats(kinds, 0.5) == [1] * 16 + [2] * 4 + [4]
    assert repeats(kinds, 1) == [1] * 16 + [4] * 4 + [16]
    assert repeats([], 1) == []


def test_an_even_set_shows_each_kind_alike():
    data = nuclei.load("train")
    assert with_even_kinds(data, 0) is data
    even = with_even_kinds(data, 1)
    assert even.classes == data.classes and even.void == data.void
    kinds = nuclei.kinds()
    count = Counter(kinds[even[i].name] for i in range(len(even)))
    assert set(count) == set(kinds.values())
    assert max(count.values()) < 1.3 * min(count.values())  # whole repeats of 6, 10 and 14
    assert {even[i].name for i in range(len(even))} == set(data.names)


def test_repeated_gives_the_sample_itself():
    data = nuclei.load("val")
    twice = Repeated(data, [0, 2] + [0] * (len(data) - 2))
    assert len(twice) == 2 and twice[0].name == twice[1].name == data.names[1]
    np.testing.assert_array_equal(twice[1].label, data[1].label)
