"""Compiling on two cores: while this process compiles what a step needs first, another the rest.

Numba compiles one function at a time and keeps it on disk (`cache=True`), where every process finds
it. The first training step on a machine compiles about twenty kernels in the order in which it
meets them; so a second process starts at the kernels that are met late, and goes towards those that
are met last. Neither waits for the other: a kernel that is not on disk yet when it is needed is
compiled by who needs it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numba as nb
import numpy as np

from minifcn.kernels import depthwise, direct, im2col_weight, pack, winograd
from minifcn.kernels.channel_sums import relu_backward_sum
from minifcn.kernels.cross_entropy import cross_entropy
from minifcn.kernels.max_pool2d import max_unpool2d
from minifcn.kernels.taps import convolution, transposed

#: in the environment of the second process, which starts no third; set it to have none at all
MARK = "MINIFCN_COMPILES_AHEAD"

_begun = False


def begin() -> subprocess.Popen[bytes] | None:
    """Start the second process, once, if nothing is on disk yet and a second core is there.

    It says nothing, and ends by itself; nobody need wait for it. If it fails, this process compiles
    everything.
    """
    global _begun
    if _begun:
        return None
    _begun = True
    folder = winograd._weight_loop.stats.cache_path
    alone = nb.config.DISABLE_JIT or nb.get_num_threads() < 2 or MARK in os.environ
    if alone or folder is None or any(Path(folder).glob("winograd._weight_loop*.nbi")):
        return None
    path = os.pathsep.join(part or os.getcwd() for part in sys.path)  # to find this package
    _processes.append(
        subprocess.Popen(
            # -P: this package, not one that happens to lie in the working directory
            [sys.executable, "-P", "-m", "minifcn.kernels.ahead"],
            env={**os.environ, "PYTHONPATH": path, MARK: "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    )
    return _processes[0]


_processes: list[subprocess.Popen[bytes]] = []  # Python warns of one that is let go while it runs


def compile_late_kernels() -> None:
    """Call the kernels that a training step meets late, on small arrays, in that order."""
    x = np.ones((1, 8, 8, 16), np.float32)
    one, two = (1, 1), (2, 2)
    filters = np.ones((9, 16, 16), np.float32)
    bias = np.zeros(16, np.float32)
    taps = convolution((3, 3), one, one, one, (8, 8))
    apart = convolution((2, 2), two, (0, 0), one, (4, 4))
    each = np.ones((4, 16), np.float32)
    direct.along_taps(x, filters, bias, taps, 1, (8, 8))  # fc6
    up = transposed((2, 2), two, (0, 0), one, (16, 16))
    depthwise.along_taps(x, each, bias, up, (16, 16))  # up-sampling
    cross_entropy(x.reshape(-1, 16), np.zeros(64, np.int64), np.ones((1, 16), np.float32), -100)
    winograd.weight(x, x, one, one, 1, 4)  # and the way back, the 3×3 layers first
    relu_backward_sum(x.reshape(-1, 16), x.reshape(-1, 16))
    winners = np.zeros((1, 4, 4, 16), np.uint8)
    max_unpool2d(np.ones((1, 4, 4, 16), np.float32), winners, (8, 8), two, two, (0, 0), one)
    pack.contiguous(filters.transpose(0, 2, 1))
    im2col_weight.weight_along_taps(x, x, taps, 1)
    depthwise.along_taps(x, each, bias, apart, (4, 4))
    depthwise.weight_along_taps(x, np.ones((1, 4, 4, 16), np.float32), apart)


if __name__ == "__main__":
    compile_late_kernels()
