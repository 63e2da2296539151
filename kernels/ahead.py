"""Compiling on two cores: while this process compiles what a step needs first, another the rest.

Numba compiles one function at a time and keeps it on disk (`cache=True`), where every process finds
it. The first training step on a machine compiles about twenty kernels in the order in which it
meets them; so a second process takes the largest of those that are met late. Neither waits for the
other: a kernel that is not on disk yet when it is needed is compiled by who needs it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numba as nb
import numpy as np

from minifcn.kernels import (
    depthwise,
    direct,
    im2col_weight,
    lines_weight,
    optimizer,
    winograd_weight,
)
from minifcn.kernels.cross_entropy import cross_entropy
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
    folder = winograd_weight._weight_loop.stats.cache_path
    alone = nb.config.DISABLE_JIT or nb.get_num_threads() < 2 or MARK in os.environ
    if alone or folder is None or any(Path(folder).glob("winograd_weight._weight_loop*.nbi")):
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
    """Call the largest kernels that a training step meets late, on small arrays.

    They are half of the work. What is met first comes first, but for Winograd's weight gradient,
    which a step meets last of all.
    """
    x = np.ones((1, 8, 8, 16), np.float32)
    one, two = (1, 1), (2, 2)
    filters = np.ones((9, 16, 16), np.float32)
    taps = convolution((3, 3), one, one, one, (8, 8))
    direct.along_taps(x, filters, np.zeros(16, np.float32), taps, 1, (8, 8))  # fc6
    up = transposed((2, 2), two, (0, 0), one, (16, 16))
    depthwise.along_taps(x, np.ones((4, 16), np.float32), np.zeros(16, np.float32), up, (16, 16))
    cross_entropy(x.reshape(-1, 16), np.zeros(64, np.int64), np.ones((1, 16), np.float32), -100)
    depthwise.weight_along_taps(x, x, taps)
    im2col_weight.weight_along_taps(x, x, taps, 1)
    lines_weight.weight_along_taps(x, x, taps, bias=True)
    winograd_weight.weight(x, x, one, one, 1, 4)
    row = np.ones(optimizer.BLOCK + 1, np.float32)
    optimizer.sgd(row, row.copy(), row.copy(), 1, 0, 0, 0, False)  # most nets' first


if __name__ == "__main__":
    compile_late_kernels()
