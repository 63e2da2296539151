"""Run by test_kernels_bounds in a process of its own: memory that ends at a closed page.

    python -m tests.check_bounds [plant]

Every array of the kernels, and those that they are given, ends at (or begins behind) a page that
nobody may touch: one element read too far and the system ends the process. With ``plant``, one is.
"""

import ctypes
import mmap
import sys
import weakref

import numpy as np

from minifcn import device, kernels
from minifcn.kernels import lines, workspace
from minifcn.kernels.jobs import threads
from minifcn.kernels.rooms import Rooms
from minifcn.kernels.taps import convolution

PAGE = mmap.PAGESIZE
system = ctypes.CDLL(None)
system.mmap.restype = ctypes.c_void_p
system.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
system.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
system.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def guarded(shape, dtype, at_end, rows=None):
    """An array of NaN between two closed pages, at the end or the beginning of what lies there.

    Of several ``rows``, all of this shape, each lies so.
    """
    size, count = int(np.prod(shape)) * np.dtype(dtype).itemsize, rows or 1
    if size == 0:
        return np.empty(shape if rows is None else (rows, *shape), dtype)
    pages = -(-size // PAGE) * PAGE
    step = pages + PAGE
    start = system.mmap(
        None,
        PAGE + count * step,
        mmap.PROT_READ | mmap.PROT_WRITE,
        mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
        -1,
        0,
    )
    for row in range(count + 1):
        assert system.mprotect(start + row * step, PAGE, 0) == 0
    first = start + PAGE + (pages - size if at_end else 0)
    memory = (ctypes.c_char * ((count - 1) * step + size)).from_address(first)
    weakref.finalize(memory, system.munmap, start, PAGE + count * step)
    inner = np.empty(shape, dtype).strides
    array = np.ndarray((count, *shape), dtype, memory, strides=(step, *inner))
    if array.dtype.kind == "f":
        array.fill(np.nan)
    return array[0] if rows is None else array


def guarded_room(dtype, shape, apart=None, *, at_end):
    """What `Rooms.arrays` gives for such a room."""
    if apart is None:
        return guarded(shape, dtype, at_end)
    count = max(2, threads())
    if apart:
        return guarded(shape, dtype, at_end, count)
    one = guarded(shape, dtype, at_end)
    return np.lib.stride_tricks.as_strided(one, (count, *shape), (0, *one.strides))


def layers(rng):
    """Channels, filters, kernel, stride, padding, rows and columns: few channels and many."""
    for _ in range(60):
        c, k = rng.choice([1, 3, 4, 5, 16, 21, 33, 49]), rng.choice([1, 7, 16, 21, 37])
        kernel, stride = rng.integers(1, 6, 2), rng.integers(1, 4, 2)
        yield c, k, kernel, stride, rng.integers(0, 4, 2), kernel + rng.integers(0, 30, 2)
    one, nothing = np.array([1, 1]), np.array([0, 0])
    for c, k in ((32, 1), (32, 7), (64, 21), (96, 37)):  # filters as the rows of the tile
        yield c, k, one, one, nothing, rng.integers(1, 30, 2)


def main(plant):
    rng = np.random.default_rng(0)
    for at_end in (True, False):
        workspace.empty = lambda shape, dtype, at_end=at_end: guarded(shape, dtype, at_end)
        Rooms.arrays = lambda rooms, at_end=at_end: [
            guarded_room(*room, at_end=at_end) for room in rooms.wanted
        ]
        for c, k, *rest in layers(rng):
            kernel, stride, padding, size = (tuple(a.tolist()) for a in rest)
            axes = zip(size, kernel, stride, padding, strict=True)
            out = tuple((a + 2 * p - r) // s + 1 for a, r, s, p in axes)
            shapes = (2, *size, c), (*kernel, c, k), (k,), (2, *out, k)
            x, w, b, dy = (guarded(shape, np.float32, at_end) for shape in shapes)
            for array in (x, w, b, dy):
                array[...] = rng.standard_normal(array.shape)
            weight, one = w.transpose(3, 2, 0, 1), (1, 1)
            windows = stride, padding, one, 1
            found = [
                kernels.conv2d(x, weight, b, *windows, out),
                kernels.conv_transpose2d(dy, weight, None, *windows, size),
                *kernels.conv2d_weight(x, dy, kernel, *windows, bias=True),
            ]
            with device.use("reference"):
                wanted = [
                    kernels.conv2d(x, weight, b, *windows, out),
                    kernels.conv_transpose2d(dy, weight, None, *windows, size),
                    *kernels.conv2d_weight(x, dy, kernel, *windows, bias=True),
                ]
            for ours, theirs in zip(found, wanted, strict=True):
                assert np.abs(ours - theirs).max() <= 1e-4 * max(1, np.abs(theirs).max())
        if plant:  # a row of the picture more than there is
            taps = convolution((3, 3), (1, 1), (0, 0), (1, 1), (6, 6))
            x = guarded((1, 8, 8, 3), np.float32, at_end)
            short = np.lib.stride_tricks.as_strided(x, (1, 9, 8, 3), x.strides)
            lines.along_taps(short, np.ones((9, 3, 4), np.float32), None, taps, (7, 6))
    print("nothing beyond")


if __name__ == "__main__":
    main("plant" in sys.argv)
