"""Showing rare kinds of pictures more often than they occur."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from minifcn.data.kinds import kind_of
from minifcn.data.sample import Dataset, Sample


class Repeated:
    """A dataset in which picture i stands `times[i]` times; its augmentation is drawn for each."""

    def __init__(self, dataset: Dataset, times: Sequence[int]):
        self.dataset = dataset
        self.classes, self.palette, self.void = dataset.classes, dataset.palette, dataset.void
        self._indices = [i for i, count in enumerate(times) for _ in range(count)]

    def __len__(self) -> int:
        """How many samples there are, repeated ones counted again."""
        return len(self._indices)

    def __getitem__(self, index: int, /) -> Sample:
        """Sample number `index`."""
        return self.dataset[self._indices[index]]


def with_even_kinds(dataset: Dataset, evenness: float) -> Dataset:
    """The dataset with its rarer kinds of pictures repeated: 0 not at all, 1 until all are even."""
    if evenness == 0:
        return dataset
    kinds = [kind_of(dataset[i].image) for i in range(len(dataset))]
    return Repeated(dataset, repeats(kinds, evenness))


def repeats(kinds: Sequence[str], evenness: float) -> list[int]:
    """How often each picture is to stand: (most / n)^evenness, rounded, for n of its kind.

    `most` is the number of pictures of the commonest kind, which stand once.
    """
    count = Counter(kinds)
    most = max(count.values(), default=0)
    return [round((most / count[kind]) ** evenness) for kind in kinds]
