"""Lesson 3. One layer, computed four ways: time, memory, multiplications, rounding.

    python examples/one_layer_four_ways.py

A 3 × 3 layer of 64 channels on two pictures of 56 × 56, as VGG has them, in float32. The result is
the same up to rounding; what it costs is not. First comes the way of the textbooks, in NumPy.
"""

import statistics
import time
import tracemalloc
import weakref

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

import minifcn as mf
from minifcn.kernels import workspace
from minifcn.kernels.rooms import Rooms

N, C, K, SIZE = 2, 64, 64, 56
rng = np.random.default_rng(0)
x = rng.standard_normal((N, C, SIZE, SIZE)).astype(np.float32)
w = (rng.standard_normal((K, C, 3, 3)) * np.sqrt(2 / (9 * C))).astype(np.float32)
y_bytes = N * K * SIZE * SIZE * x.itemsize

# minifcn keeps channels last in memory, behind the same shapes
X = mf.Tensor(np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2))
W = mf.Tensor(np.ascontiguousarray(w.transpose(2, 3, 1, 0)).transpose(3, 2, 0, 1))


def textbook(x, w):
    """The column matrix (im2col), one row a pixel, nine times as large as x; then BLAS."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = sliding_window_view(padded, (3, 3), (2, 3))  # (N, C, P, Q, 3, 3)
    columns = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, C * 9)
    return (columns @ w.reshape(K, -1).T).reshape(N, SIZE, SIZE, K).transpose(0, 3, 1, 2)


def forced(name):
    """minifcn's convolution by one of its algorithms."""

    def run():
        with mf.conv_algorithm(name):
            return mf.functional.conv2d(X, W, padding=1).numpy()

    return run


# A multiplication for each pixel, channel in, channel out and tap; or, with Winograd's F(m×m, 3×3),
# (m + 2)² for each tile of m × m pixels instead of 9 m².
plain = N * SIZE * SIZE * C * K * 9
ways = {
    "textbook, NumPy": (lambda: textbook(x, w), plain),
    "im2col": (forced("im2col"), plain),
    "direct": (forced("direct"), plain),
    "winograd2": (forced("winograd2"), plain * 16 // 36),
    "winograd4": (forced("winograd4"), plain * 36 // 144),
}


def extra_bytes(run):
    """What was held at once beyond input, weights and result, small arrays and large ones.

    tracemalloc sees NumPy's memory. The kernels take large arrays from memory that they keep, which
    it does not see: their bytes are counted as they come and go.
    """
    plain, lend, held, rooms, most = workspace.empty, Rooms.arrays, 0, 0, 0

    def count(change):
        nonlocal held, most
        held += change
        most = max(most, held + rooms)

    def counted(shape, dtype):
        array = plain(shape, dtype)
        if array.nbytes >= workspace.SMALL:
            count(array.nbytes)
            weakref.finalize(array, count, -array.nbytes)
        return array

    def lent(own):
        nonlocal rooms
        rooms = own.seen + own.threads * own.apart
        count(0)
        return lend(own)

    workspace.empty, Rooms.arrays = counted, lent
    tracemalloc.start()
    try:
        result = run()
        peak = tracemalloc.get_traced_memory()[1] + most
    finally:
        tracemalloc.stop()
        workspace.empty, Rooms.arrays = plain, lend
    del result
    return peak - y_bytes


exact = textbook(x.astype(np.float64), w.astype(np.float64))
print("(the first time, Numba compiles the kernels for this processor: some seconds)\n")
results = {name: run() for name, (run, _) in ways.items()}
errors = {name: np.abs(y - exact).max() / np.abs(exact).max() for name, y in results.items()}
memory = {name: extra_bytes(run) for name, (run, _) in ways.items()}
times: dict = {name: [] for name in ways}
for _ in range(25):  # in turns, so that whatever else the machine does meets all of them
    for name, (run, _) in ways.items():
        start = time.perf_counter()
        run()
        times[name].append(time.perf_counter() - start)

print(f"{'':16} {'time':>9} {'extra memory':>13} {'multiplications':>16} {'error':>9}")
for name, (_, count) in ways.items():
    median = statistics.median(times[name])
    print(
        f"{name:16} {median * 1e3:6.2f} ms {memory[name] / 2**20:9.2f} MiB "
        f"{count / 1e6:12.0f} M   {errors[name]:9.1e}"
    )
print("""
time             median of 25 runs, taken in turns
extra memory     beyond input, weights and result, at its highest
multiplications  of the sums over channels; Winograd's transforms add a few by constants
error            the largest difference from float64, relative to the largest result

im2col makes the column matrix a panel at a time, in the cache, and never has it whole. direct goes
through the taps, with no columns at all: for layers with more weights than pixels. Winograd's way
multiplies less and pays for it with transforms and with digits: winograd4 rounds a few times as
much as the plain sum. minifcn chooses by the shapes; `mf.conv_algorithm("direct")` forces one.""")

assert max(errors.values()) < 1e-5
assert min(memory.values()) > 0
