"""The loader: what a batch holds, that it depends on (seed, number) alone, and its thread."""

import re
import threading
import time
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minifcn.data import nuclei
from minifcn.data.loader import Loader, channel_statistics, normalise
from minifcn.data.sample import Sample
from minifcn.data.transforms import ColourJitter, Compose, RandomCrop, RandomFlip, RandomScale
from minifcn.errors import InputError

AUGMENT = Compose(
    RandomScale(0.7, 1.4), RandomCrop((6, 5)), RandomFlip(0.5, 0.5), ColourJitter(0.3, 0.3, 0.3)
)
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}


class Made:
    """Small random pictures; counts how often each is decoded."""

    classes = ("a", "b")
    palette = np.zeros((2, 3), np.uint8)
    void = 255

    def __init__(self, n, mixed=False, broken=()):
        rng = np.random.default_rng(n)
        shapes = [(7 + (i % 3 if mixed else 0), 8 - (i % 2 if mixed else 0)) for i in range(n)]
        self.images = [rng.integers(0, 256, (*s, 3)).astype(np.uint8) for s in shapes]
        self.labels = [rng.integers(0, 2, s).astype(np.uint8) for s in shapes]
        self.broken, self.decoded = broken, Counter()

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        self.decoded[i] += 1
        if i in self.broken:
            raise InputError(f"picture {i} is broken; mend it")
        return Sample(str(i), self.images[i].copy(), self.labels[i].copy())


def same(a, b):
    return (
        a.names == b.names
        and a.images.tobytes() == b.images.tobytes()
        and a.labels.tobytes() == b.labels.tobytes()
    )


def loader_threads():
    return [t for t in threading.enumerate() if t.name.startswith("minifcn-loader")]


def test_a_batch_is_what_a_network_takes():
    data = Made(5)
    batch = next(Loader(data, 2, 0, **HALF).once())
    assert batch.images.shape == (2, 3, 7, 8) and batch.images.dtype == np.float32
    assert batch.images.transpose(0, 2, 3, 1).flags.c_contiguous  # channels-last in memory
    assert batch.labels.shape == (2, 7, 8) and batch.labels.dtype == np.int64
    assert batch.names == ("0", "1")
    for i in range(2):
        for c in range(3):
            wanted = (data.images[i][..., c] / 255 - 0.5) / 0.25
            assert np.abs(batch.images[i, c] - wanted).max() < 1e-5
        assert (batch.labels[i] == data.labels[i]).all()


@given(st.integers(1, 7), st.integers(1, 9), st.integers(0, 2**40), st.integers(0, 30))
def test_batch_i_depends_on_seed_and_i_alone(n, size, seed, start):
    def loader(**settings):
        return Loader(Made(n), size, seed, AUGMENT, **settings)

    straight = list(islice(loader().batches(), start + 3))[start:]
    resumed = islice(loader(prefetch=0, cache_bytes=0).batches(start), 3)
    assert all(same(a, b) for a, b in zip(straight, resumed, strict=True))
    used = loader()
    list(used.once()), list(islice(used.batches(5), 2))  # what went before leaves no trace
    assert same(next(used.batches(start)), straight[0])


def test_the_seed_and_the_number_matter():
    def first(seed, start=0):
        return next(Loader(Made(4), 4, seed, AUGMENT).batches(start))

    assert same(first(1), first(1))
    assert not same(first(1), first(2))
    assert not same(first(1), first(1, 1))


@given(st.integers(1, 9), st.integers(1, 5), st.integers(0, 99))
def test_an_epoch_shows_each_picture_once(n, size, seed):
    loader = Loader(Made(n), size, seed)
    names = [name for batch in islice(loader.batches(), n) for name in batch.names]
    assert len(names) == n * size  # every batch is full
    for epoch in range(size):
        assert sorted(names[epoch * n : (epoch + 1) * n]) == sorted(map(str, range(n)))


def test_epochs_differ_in_order_and_augmentation():
    loader = Loader(Made(12), 12, 3, AUGMENT)
    one, two = islice(loader.batches(), 2)
    assert one.names != two.names
    a, b = one.names.index("5"), two.names.index("5")
    assert (one.images[a] != two.images[b]).any()


def test_once_is_plain_and_in_order():
    data = Made(7)
    loader = Loader(data, 3, 0, AUGMENT, **HALF)
    batches = list(loader.once())
    assert len(batches) == len(loader) == 3
    assert [b.names for b in batches] == [("0", "1", "2"), ("3", "4", "5"), ("6",)]
    assert (np.concatenate([b.labels for b in batches]) == np.stack(data.labels)).all()


def test_mixed_sizes_are_padded_with_void_at_right_and_bottom():
    data = Made(6, mixed=True)
    for batch in (next(Loader(data, 6, 0).once()), next(Loader(data, 6, 0).batches())):
        assert batch.images.shape == (6, 3, 9, 8)
        for image, label, name in zip(batch.images, batch.labels, batch.names, strict=True):
            wanted = data.labels[int(name)]
            h, w = wanted.shape
            assert (label[:h, :w] == wanted).all()
            assert (label[h:] == 255).all() and (label[:, w:] == 255).all()
            assert (image[:, h:] == 0).all() and (image[:, :, w:] == 0).all()
            assert np.ptp(image[:, :h, :w]) > 1


def test_decoded_pictures_are_kept_up_to_the_budget():
    each = 7 * 8 * 4
    for room, kept in ((10 * each, 5), (3 * each, 3), (each - 1, 0)):
        data = Made(5)
        loader = Loader(data, 5, 0, AUGMENT, cache_bytes=room, prefetch=0)
        for _ in range(4):
            list(loader.once())
        list(islice(loader.batches(), 2))
        assert sorted(data.decoded.values()) == [1] * kept + [6] * (5 - kept)


def test_a_transform_cannot_spoil_the_kept_pictures():
    def spoil(sample, generator):
        sample.image[...] = 0
        return sample

    with pytest.raises(ValueError, match="read-only"):
        next(Loader(Made(2), 1, 0, spoil).batches())


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_errors_reach_the_caller_at_their_turn(prefetch):
    loader = Loader(Made(6, broken=(4,)), 2, 0, prefetch=prefetch)
    batches = loader.once()
    assert next(batches).names == ("0", "1") and next(batches).names == ("2", "3")
    with pytest.raises(InputError, match="picture 4 is broken; mend it"):
        next(batches)
    assert not loader_threads()

    def fault(sample, generator):
        raise RuntimeError("the transform failed")

    with pytest.raises(RuntimeError, match="the transform failed"):
        next(Loader(Made(3), 2, 0, fault, prefetch=prefetch).batches())


def test_decoding_overlaps_and_the_thread_ends():
    before = len(loader_threads())
    seen = threading.Event()

    class Watched(Made):
        def __getitem__(self, i):
            assert threading.current_thread() is not threading.main_thread()
            if i == 3:
                seen.set()
            return super().__getitem__(i)

    batches = Loader(Watched(8), 1, 0, prefetch=3).once()
    assert next(batches).names == ("0",)
    assert seen.wait(5)  # the fourth is made though only the first was asked for
    batches.close()
    assert len(loader_threads()) == before
    endless = Loader(Made(3), 2, 0).batches()
    next(endless)
    del endless
    deadline = time.monotonic() + 5
    while len(loader_threads()) > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(loader_threads()) == before


def test_normalise_by_given_statistics():
    data = Made(4)
    mean, std = channel_statistics(data)
    pixels = np.concatenate([image.reshape(-1, 3) for image in data.images]) / 255
    assert mean == pytest.approx(pixels.mean(0)) and std == pytest.approx(pixels.std(0))
    all_of_it = next(Loader(data, 4, 0, mean=mean, std=std).once()).images
    assert all_of_it.mean((0, 2, 3)) == pytest.approx(0, abs=1e-4)
    assert all_of_it.std((0, 2, 3)) == pytest.approx(1, abs=1e-4)


def test_normalise_by_the_pictures_own():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 120, (9, 7, 3)).astype(np.uint8)
    out = normalise(image)
    assert out.dtype == np.float32 and out.mean() == pytest.approx(0, abs=1e-5)
    assert out.std() == pytest.approx(1, abs=1e-5)
    assert np.abs(normalise(image * np.uint8(2) + np.uint8(9)) - out).max() < 1e-5
    assert (normalise(np.full((3, 4, 3), 200, np.uint8)) == 0).all()
    batch = next(Loader(Made(2), 2, 0).once())
    assert batch.images.std((1, 2, 3)) == pytest.approx(1, abs=1e-4)


def test_the_nuclei_go_through():
    loader = Loader(nuclei.load("val"), 5, 0, RandomCrop(192))
    batch = next(loader.batches())
    assert batch.images.shape == (5, 3, 192, 192)
    assert set(np.unique(batch.labels)) <= {0, 1}
    assert [b.images.shape for b in loader.once()] == [(5, 3, 256, 256)] * 2 + [(2, 3, 256, 256)]


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: Loader(Made(0), 1, 0), ("dataset", "0", "at least 1")),
        (lambda: Loader(Made(1), 0, 0), ("batch_size is 0",)),
        (lambda: Loader(Made(1), 1, -1), ("seed is -1",)),
        (lambda: Loader(Made(1), 1, 0, cache_bytes=-1), ("cache_bytes is -1",)),
        (lambda: Loader(Made(1), 1, 0, prefetch=-1), ("prefetch is -1",)),
        (lambda: Loader(Made(1), 1, 0).batches(-1), ("start is -1",)),
        (lambda: Loader(Made(1), 1, 0, mean=(0, 0, 0)), ("std is missing",)),
        (lambda: Loader(Made(1), 1, 0, mean=(0, 0, 0), std=(1, 0, 1)), ("std [1.0, 0.0, 1.0]",)),
        (lambda: normalise(np.zeros((1, 1, 3), np.uint8), 0.5, 0.2), ("3 numbers",)),
    ],
)
def test_refused_settings(make, parts):
    with pytest.raises(InputError) as error:
        make()
    message = str(error.value)
    assert all(part in message for part in parts), message
    assert len(message.split("; ")) == 2 and not re.search(r"[.!?]\s|\n", message), message
