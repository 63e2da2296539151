"""Batches of a dataset, made in the background, whose contents depend on (seed, number) alone."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from threading import Lock

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minifcn.data.sample import Dataset, Sample
from minifcn.data.transforms import Transform
from minifcn.errors import InputError


@dataclass(frozen=True)
class Batch:
    """Some samples as a network takes them.

    Attributes:
        images: float32 (N, C, H, W), normalised; a transposed view of a contiguous (N, H, W, C).
        labels: int64 (N, H, W), void where a picture does not reach.
        names: what the pictures are called, N of them.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    names: tuple[str, ...]


class Loader:
    """Turns a dataset into batches.

    Epoch e shows each picture once, in the order default_rng([seed, e]); a picture's augmentation
    is drawn from default_rng([seed, e, its index]). Batches run on across the ends of epochs, so
    all have the same number of pictures. Nothing depends on what was asked before: training that
    resumes at batch i sees the same bits.

    Args:
        dataset: what to load.
        batch_size: pictures a batch.
        seed: 0 or more.
        transform: changes a sample before it is normalised; None for none. `once` leaves it out.
        mean: per channel, of pixels scaled to 0..1, (3,). None, for both: see `normalise`.
        std: per channel standard deviation, likewise.
        cache_bytes: decoded pictures are kept in memory up to so many bytes.
        prefetch: batches made ahead in a background thread; 0 makes them in the caller's.

    Raises:
        InputError: an empty dataset, or a setting out of range.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        seed: int,
        transform: Transform | None = None,
        mean: ArrayLike | None = None,
        std: ArrayLike | None = None,
        *,
        cache_bytes: int = 1 << 29,
        prefetch: int = 2,
    ) -> None:
        for name, value, least in (
            ("the dataset's length", len(dataset), 1),
            ("batch_size", batch_size, 1),
            ("seed", seed, 0),
            ("cache_bytes", cache_bytes, 0),
            ("prefetch", prefetch, 0),
        ):
            if value < least:
                raise InputError(f"{name} is {value} where at least {least} is wanted; give more")
        _scale(mean, std)
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.transform, self.mean, self.std = transform, mean, std
        self.cache_bytes, self.prefetch = cache_bytes, prefetch
        self._cache: dict[int, Sample] = {}
        self._room = cache_bytes
        self._lock = Lock()

    def __len__(self) -> int:
        """Batches in one pass of `once`."""
        return -(-len(self.dataset) // self.batch_size)

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Batches number start, start + 1, ... without end, shuffled and augmented.

        Pictures of different sizes are padded as in `once`.

        Raises:
            InputError: start is negative; or, when its turn comes, a picture cannot be read.
        """
        if start < 0:
            raise InputError(f"start is {start} where at least 0 is wanted; give a batch's number")
        return _ahead(self._training_batch, count(start), self.prefetch)

    def once(self) -> Iterator[Batch]:
        """The whole dataset in its own order, not augmented; the last batch may be smaller.

        Pictures of different sizes are padded at the right and bottom to the batch's largest
        height and width: labels with void, images with 0, which is the mean.
        """
        return _ahead(self._plain_batch, range(len(self)), self.prefetch)

    def _training_batch(self, number: int) -> Batch:
        n = len(self.dataset)
        samples = []
        order: NDArray[np.int64] | None = None
        for position in range(number * self.batch_size, (number + 1) * self.batch_size):
            epoch, place = divmod(position, n)
            if order is None or place == 0:
                order = np.random.default_rng([self.seed, epoch]).permutation(n)
            index = int(order[place])
            sample = self._sample(index)
            if self.transform is not None:
                generator = np.random.default_rng([self.seed, epoch, index])
                sample = self.transform(sample, generator)
            samples.append(sample)
        return self._collate(samples)

    def _plain_batch(self, number: int) -> Batch:
        first = number * self.batch_size
        last = min(first + self.batch_size, len(self.dataset))
        return self._collate([self._sample(i) for i in range(first, last)])

    def _sample(self, index: int) -> Sample:
        """The decoded sample, from memory when it is there. Read-only while it is shared."""
        sample = self._cache.get(index)
        if sample is None:
            sample = self.dataset[index]
            size = sample.image.nbytes + sample.label.nbytes
            with self._lock:
                if index not in self._cache and size <= self._room:
                    sample.image.flags.writeable = sample.label.flags.writeable = False
                    self._cache[index] = sample
                    self._room -= size
        return sample

    def _collate(self, samples: Sequence[Sample]) -> Batch:
        height = max(s.label.shape[0] for s in samples)
        width = max(s.label.shape[1] for s in samples)
        images = np.zeros((len(samples), height, width, 3), np.float32)
        labels = np.full((len(samples), height, width), self.dataset.void, np.int64)
        for image, label, sample in zip(images, labels, samples, strict=True):
            h, w = sample.label.shape
            image[:h, :w] = normalise(sample.image, self.mean, self.std)
            label[:h, :w] = sample.label
        return Batch(images.transpose(0, 3, 1, 2), labels, tuple(s.name for s in samples))


def normalise(
    image: NDArray[np.uint8], mean: ArrayLike | None = None, std: ArrayLike | None = None
) -> NDArray[np.float32]:
    """A picture (H, W, 3) with its mean taken away and divided by its deviation, float32.

    With mean and std, (3,) each and of pixels scaled to 0..1: (image / 255 - mean) / std. With
    neither, by the picture's own mean and standard deviation over all pixels and channels together,
    so that a dim picture looks like a bright one and colours keep their proportions; a picture of
    one value becomes 0.

    Raises:
        InputError: only one of them is given, or they are not 3 numbers, or std is not positive.
    """
    scale = _scale(mean, std)
    if scale is None:
        shift = image.mean(dtype=np.float64) if image.size else 0.0
        spread = image.std(dtype=np.float64) if image.size else 1.0
        # At least one grey level, so that the noise of a flat picture is not blown up.
        return (image - np.float32(shift)) / np.float32(max(spread, 1.0))
    return image * scale[0] + scale[1]


def channel_statistics(dataset: Dataset) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each channel over a dataset, (3,) each, pixels in 0..1."""
    counts = np.zeros((3, 256), np.int64)
    for i in range(len(dataset)):
        image = dataset[i].image
        for c in range(3):
            counts[c] += np.bincount(image[..., c].ravel(), minlength=256)
    share = counts / max(1, counts[0].sum())
    values = np.arange(256) / 255
    mean = share @ values
    std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(1))
    return mean, std


def _scale(
    mean: ArrayLike | None, std: ArrayLike | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """(a, b) for which image * a + b is normalised; None for the picture's own."""
    if mean is None and std is None:
        return None
    if mean is None or std is None:
        missing = "mean" if mean is None else "std"
        raise InputError(f"{missing} is missing where mean and std go together; give both or none")
    m, s = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    if m.shape != (3,) or s.shape != (3,) or not (s > 0).all():
        raise InputError(
            f"mean is {m.tolist()} and std {s.tolist()} where 3 numbers each, std positive, are "
            "wanted; give one a channel in units of 0 to 1"
        )
    return (1 / (255 * s)).astype(np.float32), (-m / s).astype(np.float32)


def _ahead(make: Callable[[int], Batch], numbers: Iterable[int], depth: int) -> Iterator[Batch]:
    """`make` of each number, in order, up to `depth` of them made early by one thread.

    What `make` raises is raised here, at the number's turn. Closing the iterator ends the thread.
    """
    if depth == 0:
        yield from map(make, numbers)
        return
    pool = ThreadPoolExecutor(1, thread_name_prefix="minifcn-loader")
    pending: deque[Future[Batch]] = deque()
    try:
        for number in numbers:
            pending.append(pool.submit(make, number))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
