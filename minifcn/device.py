"""Where arrays live, and which of the kernels' three readings runs on them.

========== ========================== =================================================
name       arrays                     kernels
========== ========================== =================================================
cpu        NumPy                      Numba, compiled for this processor (the default)
reference  NumPy                      the NumPy definitions, which the others must meet
cuda       CuPy                       ``kernels/*.cu``, on an NVIDIA GPU
cuda-sim   `minifcn.simulator`'s      the same ``.cu``, unchanged, run on the CPU
========== ========================== =================================================

An operation never asks which device it is on. It calls ``kernels.NAME``, and the kernel chooses by
the array that it is given (`is_gpu`); for NumPy arrays the current device says which of the two
readings runs. Nothing moves between the devices unless it is told to (`move`).

This is the one file that imports CuPy.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import shutil
import sys
from typing import Any

import numpy as np

from minifcn.errors import DeviceError, InputError, one_line

HOST = ("cpu", "reference")
GPU = ("cuda", "cuda-sim")
DEVICES = (*HOST, *GPU)

_current = "cpu"


def current() -> str:
    """The name of the device that is in use now."""
    return _current


def is_reference() -> bool:
    """Whether the NumPy definitions run now, of what is given NumPy arrays."""
    return _current == "reference"


class use:
    """Make ``name`` the current device: for good as a call, for a block under ``with``.

    "cpu" and "reference" choose the reading for NumPy arrays. Under "cuda" and "cuda-sim" new
    Tensors (`minifcn.zeros`, `Tensor([1.0])`) are made there; an array stays where it is.

    Raises:
        InputError: if there is no such device, or it cannot be used here.
    """

    def __init__(self, name: str) -> None:
        global _current
        module(name)
        self._before = _current
        _current = name

    def __enter__(self) -> use:
        return self

    def __exit__(self, *failure: object) -> None:
        global _current
        _current = self._before


# -- what is here ----------------------------------------------------------------------------------


def choose(name: str) -> str:
    """The device that ``name`` means: "auto" is cuda where it works, else cpu."""
    return name if name != "auto" else "cpu" if why_not("cuda") else "cuda"


def module(name: str) -> Any:
    """The module that makes a device's arrays: numpy, cupy or the simulator.

    Raises:
        InputError: if there is no such device, or it cannot be used here; it says why.
    """
    if name not in DEVICES:
        raise InputError(f"device is {name!r}; choose one of {', '.join(DEVICES)}")
    if name in HOST:
        return np
    reason = why_not(name)
    if reason:
        raise InputError(f"device {name!r} cannot be used: {reason}; or use device 'cpu'")
    return _cupy() if name == "cuda" else importlib.import_module("minifcn.simulator")


@functools.cache
def why_not(name: str) -> str | None:
    """In one line why a device cannot be used here, with the mend; None if it can.

    For cuda a real call is made: CuPy can be imported on a machine without any GPU.
    """
    if name == "cuda-sim" and shutil.which("g++") is None:
        return "it needs the compiler g++; install it, on Debian with `apt install g++`"
    return _why_no_gpu() if name == "cuda" else None


def _why_no_gpu() -> str | None:
    driver = driver_version()
    if driver is None:
        return "no GPU: this machine has no NVIDIA driver"
    speaks = f"the NVIDIA driver speaks CUDA {version_text(driver)}"
    if driver < 12000:
        return f"{speaks}, too old; install a driver that speaks 12.0 or newer"
    extra = "cuda13" if driver >= 13000 else "cuda12"
    try:
        cupy = _cupy()
    except ModuleNotFoundError:
        return f"CuPy is missing; install it with `pip install 'minifcn[{extra}]'`"
    except Exception as error:
        return (
            f"CuPy cannot be imported ({one_line(error)}); install it again with minifcn[{extra}]"
        )
    try:
        if cupy.cuda.runtime.runtimeGetVersion() // 1000 > driver // 1000:
            return f"{speaks}, older than CuPy's own; install minifcn[{extra}] or a newer driver"
        if cupy.cuda.runtime.getDeviceCount() == 0:
            return "no GPU: the NVIDIA driver is here, and finds no card"
        int((cupy.arange(3) + 1).sum())  # compiles a kernel, runs it, and reads the result
    except Exception as error:
        return f"no GPU that works: {one_line(error)}"
    return None


def driver_version() -> int | None:
    """The newest CUDA that the NVIDIA driver speaks, as 1000·major + 10·minor; None without one."""
    number = ctypes.c_int()
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        return number.value if driver.cuDriverGetVersion(ctypes.byref(number)) == 0 else None
    except (OSError, AttributeError):
        return None


def version_text(number: int) -> str:
    """12040 → "12.4"."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _cupy() -> Any:
    return importlib.import_module("cupy")


# -- whose an array is -----------------------------------------------------------------------------


def is_gpu(x: object) -> bool:
    """Whether x is an array of a GPU, or of the simulator of one."""
    return not isinstance(x, np.ndarray) and _owner(x) in ("cupy", "minifcn.simulator")


def array_module(x: object) -> Any:
    """numpy, cupy or the simulator: whose array x is."""
    return importlib.import_module(_owner(x)) if is_gpu(x) else np


def name_of(x: object) -> str:
    """The device that an array lives on; "cpu" for both readings of NumPy arrays."""
    return "cpu" if not is_gpu(x) else "cuda" if _owner(x) == "cupy" else "cuda-sim"


def _owner(x: object) -> str:
    parts = type(x).__module__.split(".")
    return "cupy" if parts[0] == "cupy" else ".".join(parts[:2])


def together(op: str, *arrays: Any) -> None:
    """Refuse arrays of different devices: nothing is copied behind the user's back.

    Raises:
        DeviceError: naming the operation, the argument, both devices and the mend.
    """
    for x in arrays:
        if x is not None and not isinstance(x, np.ndarray):
            break
    else:
        return
    first = next((i for i, x in enumerate(arrays) if x is not None), None)
    for i, x in enumerate(arrays):
        if x is not None and name_of(x) != name_of(arrays[first]):  # type: ignore[index]
            here, there = name_of(x), name_of(arrays[first])  # type: ignore[index]
            raise DeviceError(
                f"{op}: argument {i}, of shape {x.shape}, is on {here!r} and argument {first} on "
                f"{there!r}; move one of them, for example with .to({there!r})"
            )


# -- moves -----------------------------------------------------------------------------------------


def move(x: Any, name: str) -> Any:
    """The array on device ``name``, its axes in the same order in memory; itself if it is there.

    Raises:
        InputError: if the device cannot be used here.
    """
    xp = module(name)
    if array_module(x) is xp:
        return x
    if is_gpu(x) and xp is not np:
        x = move(x, "cpu")
    # CuPy copies contiguous memory only; a picture's is, once its axes stand as they lie in memory
    axes = sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis]))
    rows = x.transpose(axes) if axes else x
    moved = rows.get() if xp is np else xp.asarray(np.asarray(rows, order="C"))
    return moved.transpose([axes.index(axis) for axis in range(x.ndim)]) if axes else moved


def like(x: Any, other: Any) -> Any:
    """A small host array x (a number, a filter, one value a class) beside ``other``."""
    return move(np.asarray(x), name_of(other))


def contiguous(x: Any) -> Any:
    """x in C order without gaps; a copy, on x's device, only if it is not so already."""
    return array_module(x).ascontiguousarray(x)


def share_memory(a: Any, b: Any) -> bool:
    """Whether two arrays may be views of one memory."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return np.may_share_memory(a, b)
    owner = array_module(a)
    return owner is array_module(b) and bool(owner.may_share_memory(a, b))
