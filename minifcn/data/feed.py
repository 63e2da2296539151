"""Batches on their way to a device: the next one is copied while the last one is trained on.

A copy from ordinary memory makes Python wait. From pinned memory, which the system may not move,
the card fetches it by itself, on a stream of its own beside the stream that computes:

    host     | make batch 2 | make batch 3 | …
    copies   |    batch 1   |    batch 2   | …
    computes |              | step 1       | step 2 …

Two waits keep the order. The computing stream waits until a batch has arrived. The copying stream
waits, before it writes, for the steps that were started before the batch was asked for: memory that
it gets anew may have been a batch's that they still read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minifcn import device
from minifcn.data.loader import Batch


@dataclass(frozen=True)
class Fed:
    """A batch, and its images and labels on the device."""

    batch: Batch
    images: Any
    labels: Any


def feed(batches: Iterable[Batch], name: str) -> Iterator[Fed]:
    """Each batch with its arrays on device ``name``; on a GPU copied one batch ahead.

    Closing it closes ``batches``.
    """
    source = iter(batches)
    try:
        if name in device.HOST:
            yield from (Fed(batch, batch.images, batch.labels) for batch in source)
        else:
            yield from _copied_ahead(source, device.module(name))
    finally:
        close = getattr(source, "close", None)
        if close is not None:
            close()


def _copied_ahead(batches: Iterator[Batch], gpu: Any) -> Iterator[Fed]:
    copies = gpu.cuda.Stream(non_blocking=True)
    before: _Copy | None = None
    for batch in batches:
        copies.wait_event(gpu.cuda.get_current_stream().record())
        copy = _Copy(batch, gpu, copies)
        if before is not None:
            yield before.arrived()
        before = copy
    if before is not None:
        yield before.arrived()


class _Copy:
    """One batch under way: its pinned memory is kept until the copy is done."""

    def __init__(self, batch: Batch, gpu: Any, stream: Any) -> None:
        self.batch, self.gpu = batch, gpu
        self.done: Any = None
        self.pinned = [
            _pinned(array, gpu) for array in (batch.images.transpose(0, 2, 3, 1), batch.labels)
        ]
        with stream:  # the memory is the copying stream's own, too
            self.arrays = [gpu.empty(array.shape, array.dtype) for array in self.pinned]
            for array, source in zip(self.arrays, self.pinned, strict=True):
                array.set(source, stream=stream)
        self.done = stream.record()

    def arrived(self) -> Fed:
        """The batch; what is computed from now on waits for the copy, the program does not."""
        self.gpu.cuda.get_current_stream().wait_event(self.done)
        images, labels = self.arrays
        return Fed(self.batch, images.transpose(0, 3, 1, 2), labels)

    def __del__(self) -> None:
        if self.done is not None:
            self.done.synchronize()  # as a rule it was done long ago


def _pinned(array: np.ndarray, gpu: Any) -> np.ndarray:
    memory = gpu.cuda.alloc_pinned_memory(max(array.nbytes, 1))
    copy = np.frombuffer(memory, array.dtype, array.size).reshape(array.shape)
    copy[...] = array
    return copy
