"""Compiled kernels and their launch, with all checks that CuPy and the driver leave out.

CuPy passes an int as 8 bytes, a float as 8 bytes, ignores strides and does not count; an empty grid
runs one block. Here each of these is an error that names the argument.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from minifcn.simulator import build, settings
from minifcn.simulator.array import ndarray
from minifcn.simulator.machine import Machine

MOST_BLOCKS = (2**31 - 1, 65535, 65535)
MOST_THREADS = (1024, 1024, 64)
MOST_THREADS_A_BLOCK = 1024
DYNAMIC = 48 << 10  # bytes of dynamic shared memory without asking
MOST_DYNAMIC = 227 << 10  # with it, on the newest cards

_one_at_a_time = threading.Lock()


class RawModule:
    """A ``.cu`` file's text, compiled when a kernel of it is first run."""

    def __init__(self, code: str, *, options: Sequence[str] = ()) -> None:
        if not isinstance(code, str):
            raise TypeError(f"code is {type(code).__name__}; wanted the text of a .cu file")
        self.code = code
        self.options = tuple(options)

    def get_function(self, name: str) -> RawKernel:
        """The kernel of that name."""
        names = build.kernel_names(self.code)
        if name not in names:
            raise ValueError(f"no kernel {name!r}; the text has {', '.join(names) or 'none'}")
        return RawKernel(self, name)

    @functools.cache  # noqa: B019 - modules live as long as the program
    def machine(self, checked: bool) -> Machine:
        """The compiled kernels and the machine that runs them."""
        return Machine(build.shared_object(self.code, self.options, checked))


class RawKernel:
    """One kernel; call it to launch it."""

    def __init__(self, module: RawModule, name: str) -> None:
        self.module = module
        self.name = name
        self.max_dynamic_shared_size_bytes = DYNAMIC

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: tuple[Any, ...],
        *,
        shared_mem: int = 0,
        blocks: tuple[int, int] | None = None,
    ) -> None:
        """Run it once, to the end.

        Args:
            grid: blocks along x, y and z.
            block: threads of a block along x, y and z.
            args: device arrays, None for a null pointer, NumPy scalars.
            shared_mem: bytes of dynamic shared memory a block.
            blocks: run only the blocks from the first number to before the second (the
                simulator's own, for grids that are too large to run whole).

        Raises:
            TypeError: if an argument is not what the kernel reads.
            ValueError: if the grid, block or shared memory is more than a device has.
            KernelFault: if the kernel did what a kernel must not do.
        """
        whole_grid = _three(self.name, "grid", grid, MOST_BLOCKS)
        whole_block = _three(self.name, "block", block, MOST_THREADS)
        if prod(whole_block) > MOST_THREADS_A_BLOCK:
            raise ValueError(
                f"{self.name}: block {whole_block} has {prod(whole_block)} threads, the most are "
                f"{MOST_THREADS_A_BLOCK}"
            )
        if not 0 <= shared_mem <= min(self.max_dynamic_shared_size_bytes, MOST_DYNAMIC):
            raise ValueError(
                f"{self.name}: {shared_mem} bytes of dynamic shared memory, the most are "
                f"{min(self.max_dynamic_shared_size_bytes, MOST_DYNAMIC)}; set "
                f"max_dynamic_shared_size_bytes, up to {MOST_DYNAMIC}"
            )
        checked = settings.current.checked
        with _one_at_a_time:
            machine = self.module.machine(checked)
            parameters = machine.parameters(self.name)
            if len(parameters) != len(args):
                raise TypeError(f"{self.name} takes {len(parameters)} arguments, got {len(args)}")
            packed = [_pack(self.name, i, *pair) for i, pair in enumerate(zip(parameters, args))]
            first, last = blocks or (0, prod(whole_grid))
            report = machine.launch(
                self.name, whole_grid, whole_block, args, packed, shared_mem,
                range(first, last), settings.current.order, _shared_element(self.module.code),
                build.parameter_names(self.module.code, self.name, len(args)),
            )  # fmt: skip
        settings.launched(self.name)
        settings.reported(report) if checked else None
        if report.faults:
            raise KernelFault(self.name, report.faults)
        for i, array in enumerate(args):
            if isinstance(array, ndarray) and not array._memory.is_intact():
                raise KernelFault(
                    self.name,
                    (f"{self.name} wrote outside the memory of argument {i}; "
                     "run it under simulator.checked() to see where",),
                )  # fmt: skip


class KernelFault(RuntimeError):
    """A kernel did what it must not do; `faults` has a sentence for each different one."""

    def __init__(self, kernel: str, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.kernel = kernel
        self.faults = tuple(faults)


def _three(kernel: str, what: str, given: Any, most: tuple[int, ...]) -> tuple[int, int, int]:
    if not isinstance(given, tuple) or not 1 <= len(given) <= 3:
        raise TypeError(f"{kernel}: {what} is {given!r}; wanted a tuple of one to three numbers")
    x, y, z = (int(n) for n in (*given, 1, 1)[:3])
    if min(x, y, z) < 1 or any(n > limit for n, limit in zip((x, y, z), most)):
        raise ValueError(f"{kernel}: {what} is {(x, y, z)}; wanted 1 to {most}")
    return x, y, z


def _shared_element(code: str) -> int:
    """Shared memory is watched by words, or by bytes where kernels may keep smaller elements."""
    small = "__shared__" in code and re.search(r"\b(char|bool|short)\b", code)
    return 1 if small else 4


def _pack(kernel: str, position: int, parameter: str, value: Any) -> np.ndarray:
    """The bytes of one argument, as the driver would copy them."""
    wanted = f"{_KINDS[parameter[-2]]}{8 * (ord(parameter[-1]) - ord('0'))}"

    def refuse(found: str) -> TypeError:
        what = f"pointer to {wanted}" if parameter[0] in "pP" else wanted
        return TypeError(f"{kernel}: argument {position} is {found}; the kernel reads {what}")

    if parameter[0] in "pP":
        if value is None:
            return np.zeros(1, np.uint64)
        if not isinstance(value, ndarray):
            raise refuse(f"{type(value).__name__}, not an array on the device")
        if not value.flags.c_contiguous:
            raise refuse("not C-contiguous, and a pointer knows no strides")
        if parameter[-2] != "V" and not _same(value.dtype, parameter[-2:]):
            raise refuse(f"an array of {value.dtype}")
        return np.array([value._host.ctypes.data], np.uint64)
    if isinstance(value, ndarray | np.ndarray) or value is None:
        raise refuse("an array" if value is not None else "None")
    scalar = np.asarray(value)
    if not isinstance(value, np.generic) and isinstance(value, int | float):
        raise refuse(f"a Python {type(value).__name__}, which CuPy passes as {scalar.dtype}")
    if not _same(scalar.dtype, parameter):
        raise refuse(f"{scalar.dtype}")
    return scalar.reshape(1)


_KINDS = {"f": "float", "i": "int", "u": "uint", "b": "bool", "V": "vector of bits "}


def _same(dtype: np.dtype, parameter: str) -> bool:
    """Whether a dtype is what the kernel reads; bytes of either sign, for masks and indices."""
    size = ord(parameter[-1]) - ord("0")
    return dtype.kind == parameter[0] and dtype.itemsize == size
