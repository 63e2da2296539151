"""What the tests of the CUDA kernels share: the simulated GPU's settings, what kernels moved."""

from __future__ import annotations

import shutil
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import settings

from minifcn import device, launch, simulator

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="the simulated GPU needs the compiler g++"
)


def at_most(count):
    """Fewer examples than other tests take, but all that the thorough profile asks for."""
    wanted = settings().max_examples
    return settings(max_examples=wanted if wanted > 100 else min(count, wanted))


ORDERS = (0, 1, 7)  # threads in rising order, in falling order, shuffled by this seed
SECTOR = 32


@contextmanager
def running(order=0, check=False):
    """Threads in this order; with ``check`` every access to memory is checked and counted."""
    with simulator.thread_order(order), simulator.checked(check) as reports:
        yield reports


class Traffic:
    """Device memory that kernels moved: the sectors of all requests, as if there were no cache."""

    def __init__(self, reports):
        self.reports = reports

    @property
    def moved(self):
        """Bytes: whole sectors."""
        return SECTOR * sum(report.sectors for report in self.reports)

    @property
    def per_sector(self):
        """Bytes used of a sector."""
        used = sum(line.used for r in self.reports for line in r.lines if line.space == "global")
        return used / sum(report.sectors for report in self.reports)


@contextmanager
def traffic():
    """Run kernels checked, and add up what they move."""
    with running(check=True) as reports:
        yield Traffic(reports)


def on_gpu(value):
    """Arrays, alone or in a list, on the simulated GPU; anything else as it is."""
    if isinstance(value, np.ndarray):
        return simulator.asarray(value)
    return [on_gpu(part) for part in value] if isinstance(value, list) else value


def both(function, *arguments, **settings):
    """(found, wanted): the results as tuples of NumPy arrays, from the .cu and the definition."""
    found = function(*map(on_gpu, arguments), **settings)
    with device.use("reference"):
        wanted = function(*arguments, **settings)
    if not isinstance(wanted, tuple | list):
        found, wanted = (found,), (wanted,)
    return tuple(part.get() for part in found), wanted


def agree(found, wanted, rounding=8):
    """The same dtype, shape and NaN, and values that differ by some roundings of the largest."""
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        assert np.array_equal(np.isnan(ours), np.isnan(theirs))
        finite = np.isfinite(theirs)
        assert np.array_equal(ours[~finite], theirs[~finite], equal_nan=True)
        if rounding == 0 or theirs.dtype.kind != "f":
            assert np.array_equal(ours[finite], theirs[finite])
        elif finite.any():
            unit = np.finfo(theirs.dtype).eps * max(np.abs(theirs[finite]).max(), 1)
            assert np.abs(ours[finite] - theirs[finite]).max() <= rounding * unit


@contextmanager
def planted(monkeypatch, file, right, wrong):
    """The kernels of a file with one piece of their text replaced, as a mistake would."""
    text = launch.source(file)
    assert text.count(right) >= 1, f"{file} has no {right!r} to get wrong"
    with monkeypatch.context() as patch:
        plain = launch.source
        changed = text.replace(right, wrong, 1)
        patch.setattr(launch, "source", lambda name: changed if name == file else plain(name))
        forget()
        try:
            yield
        finally:
            forget()


def forget():
    """Let the launcher read and compile the kernels anew."""
    for cached in (launch.parameters, launch._kernel, launch._module):
        cached.cache_clear()
