"""Batches on their way to a device: the same bits, one ahead, and never read before they arrive."""

import gc

import numpy as np
import pytest

from minifcn import device
from minifcn.data import feed as feeding
from minifcn.data.feed import feed
from minifcn.data.loader import Batch
from tests.simulated import needs_compiler

SIM = "cuda-sim"


def batches(count=4, made=None):
    for number in range(count):
        if made is not None:
            made.append(number)
        generator = np.random.default_rng(number)
        images = generator.standard_normal((2, 5, 7, 3)).astype(np.float32)
        labels = generator.integers(0, 3, (2, 5, 7))
        yield Batch(images.transpose(0, 3, 1, 2), labels, (str(number),) * 2)


@needs_compiler
def test_what_arrives_is_what_was_sent_in_the_same_order_in_memory():
    for fed, sent in zip(feed(batches(), SIM), batches(), strict=True):
        assert device.name_of(fed.images) == device.name_of(fed.labels) == SIM
        assert np.array_equal(device.move(fed.images, "cpu"), sent.images)
        assert np.array_equal(device.move(fed.labels, "cpu"), sent.labels)
        assert fed.images.strides == sent.images.strides and fed.batch.names == sent.names


def test_on_the_host_nothing_is_copied():
    for fed in feed(batches(), "cpu"):
        assert fed.images is fed.batch.images and fed.labels is fed.batch.labels


@needs_compiler
def test_the_next_batch_is_under_way_while_one_is_used():
    made = []
    fed = feed(batches(made=made), SIM)
    next(fed)
    assert made == [0, 1]
    next(fed)
    assert made == [0, 1, 2]
    fed.close()


@needs_compiler
@pytest.mark.parametrize("forgotten", ["arrived", "kept"])
def test_a_forgotten_wait_shows(monkeypatch, forgotten):
    """The simulated streams copy as late as they may; so a program without the wait reads junk."""
    if forgotten == "arrived":  # the computing stream does not wait for the copy
        monkeypatch.setattr(
            feeding._Copy,
            "arrived",
            lambda self: feeding.Fed(
                self.batch, self.arrays[0].transpose(0, 3, 1, 2), self.arrays[1]
            ),
        )
    else:  # the pinned memory is used again before the copy is done
        plain = feeding._Copy.__init__

        def overwritten(self, *arguments):
            plain(self, *arguments)
            for array in self.pinned:
                array[...] = 0

        monkeypatch.setattr(feeding._Copy, "__init__", overwritten)
    wrong = [
        not np.array_equal(device.move(fed.images, "cpu"), sent.images)
        for fed, sent in zip(feed(batches(), SIM), batches(), strict=True)
    ]
    assert all(wrong)


@needs_compiler
def test_closing_closes_the_source():
    closed = []

    def source():
        try:
            yield from batches()
        finally:
            closed.append(True)

    fed = feed(source(), SIM)
    next(fed)
    fed.close()
    gc.collect()
    assert closed
