"""Transforms: image and label move together, nothing is changed in place, draws are repeatable."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minifcn.data.sample import Sample
from minifcn.data.transforms import (
    ColourJitter,
    Compose,
    RandomCrop,
    RandomFlip,
    RandomInvert,
    RandomRotate90,
    RandomScale,
    Resize,
)
from minifcn.errors import InputError

sides = st.integers(1, 13)
seeds = st.integers(0, 2**32)


def traced(height, width):
    """A sample in which the label of a pixel can be read from its image, and no two are alike."""
    at = np.arange(height * width).reshape(height, width)
    image = np.stack([at % 251, at // 251, (at * 7 + 3) % 256], -1).astype(np.uint8)
    sample = Sample("s", image, ((at * 7 + 3) % 256 % 5).astype(np.uint8))
    sample.image.flags.writeable = sample.label.flags.writeable = False  # none may write into it
    return sample


def in_step(sample):
    """Every pixel that is not void still has the label that its image gives."""
    valid = sample.label != 255
    return (sample.image[..., 2] % 5 == sample.label)[valid].all()


GEOMETRIC = [RandomFlip(0.5, 0.5), RandomRotate90(), RandomCrop(6), RandomCrop((9, 4))]
ALL = [*GEOMETRIC, RandomScale(0.5, 2), Resize(7, 3), ColourJitter(0.4, 0.4, 0.4), RandomInvert()]


@given(sides, sides, seeds, st.sampled_from(GEOMETRIC))
def test_image_and_label_move_together(h, w, seed, transform):
    sample = traced(h, w)
    out = transform(sample, np.random.default_rng(seed))
    assert out.label.shape == out.image.shape[:2] and out.name == "s"
    assert in_step(out)


def test_a_label_left_behind_is_seen():
    sample = traced(7, 9)
    for label in (sample.label[:, ::-1], sample.label[::-1], np.roll(sample.label, 1, 1)):
        assert not in_step(Sample("s", sample.image, label))


@given(sides, sides, seeds, st.sampled_from(ALL))
def test_the_same_seed_gives_the_same_bits(h, w, seed, transform):
    one, two = (transform(traced(h, w), np.random.default_rng(seed)) for _ in range(2))
    assert (one.image == two.image).all() and (one.label == two.label).all()
    assert one.image.dtype == np.uint8 and one.label.dtype == np.uint8
    assert one.image.shape == (*one.label.shape, 3)


@given(sides, sides, sides, sides, seeds)
def test_crop_is_a_window_and_void_outside(h, w, p, q, seed):
    sample = traced(h, w)
    out = RandomCrop((p, q))(sample, np.random.default_rng(seed))
    assert out.label.shape == (p, q)
    inside = out.label != 255
    assert inside.sum() == min(h, p) * min(w, q)
    at = sample.image.reshape(-1, 3).tolist()
    found = [at.index(pixel) for pixel in out.image[inside].tolist()]
    rows = np.array(found).reshape(min(h, p), min(w, q)) // w
    columns = np.array(found) % w
    assert (np.diff(rows, axis=0) == 1).all()
    assert (np.diff(columns.reshape(min(h, p), min(w, q)), axis=1) == 1).all()
    if not inside.all():  # the mean colour: no edge for the network to learn
        assert np.abs(out.image[~inside] - sample.image.mean((0, 1))).max() <= 0.5


def test_crop_reaches_every_place():
    rng = np.random.default_rng(0)
    smaller = {RandomCrop(3)(traced(5, 5), rng).image[0, 0, 0].item() for _ in range(300)}
    assert smaller == {5 * i + j for i in range(3) for j in range(3)}
    larger = {
        tuple(np.argwhere(RandomCrop(5)(traced(3, 3), rng).label != 255)[0]) for _ in range(300)
    }
    assert larger == {(i, j) for i in range(3) for j in range(3)}


def test_flip_and_rotation_are_the_group():
    sample = traced(2, 3)
    rng = np.random.default_rng(1)
    seen = set()
    transform = Compose(RandomFlip(0.5, 0.5), RandomRotate90())
    for _ in range(200):
        out = transform(sample, rng)
        seen.add((out.label.shape, out.image.tobytes()))
    assert len(seen) == 8
    flipped = RandomFlip(1, 0)(sample, rng)
    assert (flipped.image == sample.image[:, ::-1]).all()
    flipped = RandomFlip(0, 1)(sample, rng)
    assert (flipped.label == sample.label[::-1]).all()
    assert RandomFlip(0, 0)(sample, rng).image.tobytes() == sample.image.tobytes()


def test_resize_is_bilinear_for_images_and_nearest_for_labels():
    image = np.array([[0, 100]], np.uint8)[..., None].repeat(3, 2)
    out = Resize(4, 1)(Sample("s", image, np.array([[0, 200]], np.uint8)))
    assert out.label.tolist() == [[0, 0, 200, 200]]  # no class between the two
    assert out.image[0, :, 0].tolist() == [0, 25, 75, 100]
    sample = traced(9, 6)
    out = Resize(width=4, height=11)(sample)
    assert out.label.shape == (11, 4) and set(np.unique(out.label)) <= set(np.unique(sample.label))
    assert Resize(6, 9)(sample) is sample


@given(sides, sides, seeds)
def test_scale_stays_in_its_range(h, w, seed):
    out = RandomScale(0.5, 2)(traced(h, w), np.random.default_rng(seed))
    for now, before in zip(out.label.shape, (h, w), strict=True):
        assert max(1, round(before * 0.5)) <= now <= round(before * 2)
    assert RandomScale(1, 1)(traced(h, w), np.random.default_rng(seed)).label.shape == (h, w)


def test_scale_is_even_in_the_logarithm():
    rng = np.random.default_rng(2)
    sizes = [RandomScale(0.5, 2)(traced(1, 100), rng).label.shape[1] for _ in range(400)]
    assert 0.4 < np.mean(np.array(sizes) < 100) < 0.6  # uniform would give a third


def slow_jitter(image, bright, contrast, colour):
    """Brightness, then saturation, then contrast, one after the other in float64."""
    x = image.astype(float) * bright

    def grey(v):
        return (v @ [0.299, 0.587, 0.114])[..., None]

    x = grey(x) + (x - grey(x)) * colour
    middle = grey(x).mean()
    x = middle + (x - middle) * contrast
    return np.clip(x, 0, 255)


@given(sides, sides, seeds)
def test_jitter_is_the_three_steps(h, w, seed):
    sample = traced(h, w)
    rng = np.random.default_rng(seed)
    bright, contrast, colour = rng.uniform(0.6, 1.4), rng.uniform(0.5, 1.5), rng.uniform(0.7, 1.3)
    out = ColourJitter(0.4, 0.5, 0.3)(sample, np.random.default_rng(seed))
    wanted = slow_jitter(sample.image, bright, contrast, colour)
    assert np.abs(out.image - wanted).max() < 0.51
    assert out.label is sample.label
    none = ColourJitter()(sample, np.random.default_rng(seed))
    assert (none.image == sample.image).all()


def test_invert():
    sample = traced(4, 5)
    rng = np.random.default_rng(0)
    assert (RandomInvert(1)(sample, rng).image == 255 - sample.image.astype(int)).all()
    assert RandomInvert(0)(sample, rng) is sample
    share = np.mean([RandomInvert(0.3)(sample, rng) is not sample for _ in range(500)])
    assert 0.22 < share < 0.38


def test_compose():
    sample = traced(4, 5)
    rng = np.random.default_rng(0)
    assert Compose()(sample, rng) is sample
    out = Compose(Resize(3, 8), RandomCrop(10))(sample, rng)
    assert out.label.shape == (10, 10) and (out.label != 255).sum() == 24


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: RandomCrop(0), ("RandomCrop height", "0")),
        (lambda: RandomCrop((4, -1)), ("RandomCrop width", "-1")),
        (lambda: Resize(0, 5), ("Resize width", "0")),
        (lambda: Resize(5, 0), ("Resize height", "0")),
        (lambda: RandomScale(0, 1), ("RandomScale", "0 < low")),
        (lambda: RandomScale(2, 1), ("from 2 to 1",)),
        (lambda: RandomScale(1, float("nan")), ("nan",)),
        (lambda: RandomFlip(1.5), ("horizontal", "1.5")),
        (lambda: RandomFlip(0.5, -1), ("vertical", "-1")),
        (lambda: ColourJitter(saturation=2), ("saturation", "2")),
        (lambda: RandomInvert(float("nan")), ("RandomInvert", "nan")),
    ],
)
def test_refused_settings(make, parts):
    with pytest.raises(InputError) as error:
        make()
    message = str(error.value)
    assert all(part in message for part in parts), message
    assert len(message.split("; ")) == 2 and not re.search(r"[.!?]\s|\n", message), message
