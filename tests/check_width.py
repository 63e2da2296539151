"""Run by test_kernels_widths in a process of its own: every algorithm, at a forced vector width,
ReLU, whose sixteen elements fill one vector or several, and enlarged pictures, whose pixels fill
less than one vector or are no whole number of them.

python -m tests.check_width 8
"""

import sys

import numpy as np

import minifcn as mf
from minifcn import kernels
from minifcn.kernels import stream, vector
from tests.convolutions import ALGORITHMS, by_elements, by_minifcn, errors, layer, like_a_layers

#: ragged against every width; 49 channels leave one over in the pieces of Winograd's sums
SHAPES = [
    ((1, 17, 9, 7), 21, 3, 1, 1),
    ((2, 49, 20, 19), 37, 3, 2, 1),
    ((1, 1, 1, 1), 3, 3, 2, 1),
    ((2, 21, 14, 19), 37, 3, 1, 2),
    ((2, 37, 9, 14), 21, 5, 2, 1),
    ((1, 21, 9, 10), 100, 3, 1, 1),  # seven vectors of 16: blocks of three, two and two
]


def main(lanes):
    assert vector.lanes(np.float32) == lanes, (vector.lanes(np.float32), lanes)
    for x_shape, filters, kernel, padding, stride in SHAPES:
        x, w, b, dy = layer(x_shape, filters, padding, kernel, stride=stride)
        wanted = by_elements(x, w, b, dy, (padding, padding), stride=(stride, stride))
        for name in ALGORITHMS:
            found = by_minifcn(name, x, like_a_layers(w), b, dy, padding=padding, stride=stride)
            worst = max(errors(found, wanted))
            assert worst <= 2e-5, (name, x_shape, worst)
    for dtype in (np.float32, np.float64):
        x = np.random.default_rng(0).standard_normal(16 * 40 + 5).astype(dtype)
        for stream.LARGE in (0, 1 << 60):  # past the caches and not
            y, gate = kernels.relu(x)
            assert np.array_equal(y, np.maximum(x, 0)), dtype
            assert np.array_equal(gate, np.packbits(x > 0, bitorder="little")), dtype
            assert np.array_equal(gate, kernels.positive(x)), dtype
            dx = kernels.relu_backward(x + 1, gate)
            assert np.array_equal(dx, np.where(x > 0, x + 1, dtype(0))), dtype
            rows, gate = x[:640].reshape(20, 32), x[5:645].reshape(20, 32)
            wanted = np.where(gate > 0, rows, dtype(0))
            g, sums = kernels.relu_backward_sum(rows, gate)
            assert np.array_equal(g, wanted), dtype
            assert np.allclose(sums, wanted.sum(0, np.float64), rtol=1e-5, atol=1e-5), dtype
        for channels in (3, 21, 40):
            x = np.random.default_rng(1).standard_normal((2, 5, 7, channels)).astype(dtype)
            made = mf.functional.interpolate(mf.Tensor(x.transpose(0, 3, 1, 2)), (11, 19)).data
            wanted = enlarged(enlarged(x, 1, 11), 2, 19).transpose(0, 3, 1, 2)
            assert np.abs(made - wanted).max() <= 50 * np.finfo(dtype).eps, (dtype, channels)
    print("right at", lanes, "lanes")


def enlarged(x, axis, size):
    """Linearly along an axis, by NumPy's interpolation: samples in the middle of their shares."""
    there = np.arange(x.shape[axis])
    at = (np.arange(size) + 0.5) * len(there) / size - 0.5
    return np.apply_along_axis(lambda line: np.interp(at, there, line), axis, x)


if __name__ == "__main__":
    main(int(sys.argv[1]))
