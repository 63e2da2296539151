"""A CUDA device on the CPU: runs, checks and measures the ``.cu`` files with no GPU.

To Python it is CuPy, as far as minifcn uses CuPy, with CuPy's rules made strict::

    from minifcn import simulator as cp

    x = cp.asarray(numpy_array)
    kernel = cp.RawModule(code=text).get_function("relu")
    kernel((blocks,), (threads,), (x, y, numpy.int64(n)))
    y.get()

Arrays stay on the device: mixing them with NumPy's raises TypeError, as in CuPy. And it says more
than a GPU does::

    with cp.checked() as reports:  # a fault raises `KernelFault`, with file, line and thread;
        ...                        # each launch leaves a `Report` of its memory traffic
    with cp.thread_order(seed):    # threads go in another order
        ...
    with cp.counting() as counts:  # launches, and bytes of device memory
        ...

How it works: ``cuda_language.h`` makes a kernel's text C++; ``block.h`` runs a block's threads on
``fibers.h``, and ``waiting.h`` what they do together. In the checked build g++ calls ``hooks.h``
before each memory access: ``memory.h`` looks whether it may happen, ``shadow.h`` whether it races,
``traffic.h`` what it costs.

What it cannot show: speed, occupancy, the rounding of a GPU's approximate functions, weak memory
order, streams.
"""

from minifcn.simulator import creation, cuda, functions
from minifcn.simulator.array import ndarray
from minifcn.simulator.creation import (
    arange,
    array,
    asarray,
    ascontiguousarray,
    asnumpy,
    empty,
    empty_like,
    full,
    full_like,
    ones,
    ones_like,
    zeros,
    zeros_like,
)
from minifcn.simulator.functions import *  # noqa: F403
from minifcn.simulator.kernel import KernelFault, RawKernel, RawModule
from minifcn.simulator.report import Buffer, Line, Report
from minifcn.simulator.settings import Counts, bytes_in_use, checked, counting, thread_order

#: what means the same in CuPy
CUPY_NAMES = ("RawModule", "cuda", "ndarray", *creation.__all__, *functions.__all__)

__all__ = [
    "CUPY_NAMES",
    "Buffer",
    "Counts",
    "KernelFault",
    "Line",
    "RawKernel",
    "RawModule",
    "Report",
    "arange",
    "array",
    "asarray",
    "ascontiguousarray",
    "asnumpy",
    "bytes_in_use",
    "checked",
    "counting",
    "cuda",
    "empty",
    "empty_like",
    "full",
    "full_like",
    "ndarray",
    "ones",
    "ones_like",
    "thread_order",
    "zeros",
    "zeros_like",
]
