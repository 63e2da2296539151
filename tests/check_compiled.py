"""Run by test_kernels_cache in a process of its own: a step of training, and what it compiled.

    python -m tests.check_compiled [plant]

Prints the kernels that were not read from the disk cache, one a line. With ``plant``, one kernel
has no cache.
"""

import importlib
import pkgutil
import sys

import numpy as np
from numba.core.caching import NullCache
from numba.core.dispatcher import Dispatcher

import minifcn as mf
from minifcn import kernels
from minifcn.kernels import gathered, strip


def dispatchers():
    """Every compiled function of the kernels, by name."""
    for module in pkgutil.iter_modules(kernels.__path__):
        for name, value in vars(importlib.import_module(f"minifcn.kernels.{module.name}")).items():
            if isinstance(value, Dispatcher):
                yield f"{module.name}.{name}", value


def step():
    """A small FCN, forward, backward and a step; then a prediction."""
    rng = np.random.default_rng(0)
    net = mf.models.fcn8s(3, widths=(8, 16, 16, 24, 24), generator=rng)
    optimizer = mf.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    x, labels = mf.randn(2, 3, 48, 48, generator=rng), rng.integers(0, 3, (2, 48, 48))
    mf.functional.cross_entropy(net(x), labels).backward()
    optimizer.step()
    net.eval()
    with mf.no_grad():
        net(x)


def main(plant):
    found = dict(dispatchers())
    if plant:
        found["im2col._multiply_loop"]._cache = NullCache()
    step()
    for name, dispatcher in found.items():
        if sum(dispatcher.stats.cache_misses.values()):
            print(name)
    float32 = np.dtype(np.float32)
    if not strip.compiled_strip(float32).cache_hits:
        print("strip._strip")
    if not gathered.compiled_summing_strip(float32).cache_hits:
        print("gathered._summing_strip")


if __name__ == "__main__":
    main("plant" in sys.argv)
