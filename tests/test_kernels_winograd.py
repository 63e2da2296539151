"""Each way in which Winograd's convolution goes about its work, against sums in float64."""

import numpy as np
import pytest

from minifcn.kernels import winograd, workspace
from tests.convolutions import by_elements, by_minifcn, errors, layer

#: (shape of x, output channels) and what such a layer is to try
SHAPES = {
    "few tiles, two depths of weights": ((2, 264, 6, 5), 72),
    "many tiles, one block after the other": ((1, 20, 41, 37), 72),
    "patches too many for a cache, blocks together": ((1, 260, 43, 38), 290),
    "sums in parts, a last piece that is short": ((1, 33, 51, 47), 70),
    "sums in shares of both kinds of channels": ((1, 130, 18, 22), 100),
    "sums of all threads, in two rounds": ((2, 144, 50, 49), 130),
}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


@every_shape
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_against_sums(shape, dtype, monkeypatch):
    monkeypatch.setattr(workspace, "poisoned", True)
    arrays = layer(*shape, dtype=dtype)
    found = by_minifcn("winograd4", *arrays, padding=1)
    bound = 5e-5 if dtype == np.float32 else 1e-13
    assert max(errors(found, by_elements(*arrays, padding=(1, 1)))) < bound
    x, weight, *rest = arrays
    wrong = by_elements(x, np.roll(weight, 1, axis=1), *rest, padding=(1, 1))
    assert errors(found, wrong)[0] > 100 * bound  # the filters of two channels exchanged are seen


@every_shape
def test_who_transforms_the_weights_changes_no_bit(shape, monkeypatch):
    arrays = layer(*shape)
    results = []
    for few in (0, 1 << 30):
        monkeypatch.setattr(winograd, "FEW_TILES", few)
        results.append(by_minifcn("winograd4", *arrays, padding=1))
    for one, other in zip(*results, strict=True):
        assert np.array_equal(one, other)
