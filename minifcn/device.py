"""Which of the kernels' readings runs: the NumPy definition or its fast twin.

========== ========= =====================================================================
name       arrays    kernels
========== ========= =====================================================================
cpu        NumPy     Numba, compiled for this processor, on all its cores (the default)
reference  NumPy     the NumPy definitions: slow, short, and what the others must agree with
========== ========= =====================================================================

An operation never asks which device it is on. It calls ``kernels.NAME``, and the kernel asks here.
"""

from __future__ import annotations

from minifcn.errors import InputError

DEVICES = ("cpu", "reference")

_current = "cpu"


def current() -> str:
    """The name of the device whose kernels run now."""
    return _current


def is_reference() -> bool:
    """Whether the NumPy definitions run now."""
    return _current == "reference"


class use:
    """Make ``name`` the current device: for good as a call, for a block under ``with``.

    Raises:
        InputError: if there is no such device.
    """

    def __init__(self, name: str) -> None:
        global _current
        if name not in DEVICES:
            raise InputError(f"device is {name!r}; choose one of {', '.join(DEVICES)}")
        self._before = _current
        _current = name

    def __enter__(self) -> use:
        return self

    def __exit__(self, *failure: object) -> None:
        global _current
        _current = self._before
