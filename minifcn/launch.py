"""The one place that starts CUDA kernels, on a GPU through CuPy or on the CPU by the simulator.

A kernel stands in ``kernels/NAME.cu`` and reads raw pointers and scalars; nothing between it and
Python checks what they are. CuPy passes an int as 8 bytes and a float as 8 bytes whatever the
kernel reads, takes too many arguments or too few, and ignores strides. So this function holds the
arguments against the kernel's own declaration: their number, each array's dtype and contiguity, and
it casts each scalar to the type that the kernel reads.

A ``.cu`` file writes ``real`` where its arrays may be float32 or float64; each is compiled apart,
once in a process, and so is each setting of a file's macros.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from minifcn import device


def _folder() -> Path:
    """Where the ``.cu`` files lie, in a checkout and in an installation; found without Numba."""
    kernels = find_spec("minifcn.kernels")
    assert kernels is not None and kernels.submodule_search_locations is not None
    return Path(next(iter(kernels.submodule_search_locations)))


FOLDER = _folder()
DYNAMIC = 48 << 10  # bytes of dynamic shared memory that a kernel may have without asking
MOST = (1 << 31) - 1, 65535, 65535  # blocks of a grid along x, y and z
SCALARS = {
    "int": np.int32,
    "unsigned": np.uint32,
    "long long": np.int64,
    "float": np.float32,
    "double": np.float64,
    "bool": np.bool_,
    "signed char": np.int8,
    "unsigned char": np.uint8,
    "short": np.int16,
}
WORDS = {"float32": "float", "float64": "double"}
INCLUDE = re.compile(r'#include "(\w+\.cuh)"')
DECLARATION = re.compile(
    r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(([^)]*)\)'
)


@dataclass(frozen=True)
class Launch:
    """One start of a kernel, and the bytes of the arrays that it was given."""

    file: str
    name: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    bytes: int


_counts: list[list[Launch]] = []


@contextmanager
def counted() -> Iterator[list[Launch]]:
    """Write down every launch of a block.

    >>> with counted() as launches:
    ...     pass
    >>> len(launches)
    0
    """
    launches: list[Launch] = []
    _counts.append(launches)
    try:
        yield launches
    finally:
        _counts[:] = [other for other in _counts if other is not launches]


def launch(
    file: str,
    name: str,
    grid: Sequence[int],
    block: Sequence[int],
    arguments: Sequence[Any],
    real: Any = np.float32,
    shared: int = 0,
    macros: Mapping[str, int] | None = None,
) -> None:
    """Run kernel ``name`` of ``kernels/file`` once.

    Args:
        file: the ``.cu`` file's name.
        name: the kernel's.
        grid: blocks along x, y and z; none of them 0.
        block: threads of a block along x, y and z.
        arguments: arrays of one device, numbers, None for a null pointer; in the kernel's order.
        real: the floating dtype that ``real`` stands for.
        shared: bytes of dynamic shared memory a block.
        macros: numbers that the file is compiled with, such as the size of its tiles.

    Raises:
        TypeError: if an argument is not what the kernel reads.
        OverflowError: if a number does not fit the type that the kernel reads.
    """
    if np.dtype(real).name not in WORDS:
        raise TypeError(
            f"{name}: the arrays are {np.dtype(real)}; CUDA kernels take float32 and float64, "
            "so convert them with .to(...)"
        )
    kernels = parameters(file, np.dtype(real).name)
    if name not in kernels:
        raise TypeError(f"kernels/{file} has no kernel {name!r}; it has {', '.join(kernels)}")
    declared = kernels[name]
    if len(declared) != len(arguments):
        raise TypeError(f"{name} takes {len(declared)} arguments, got {len(arguments)}")
    if min(*grid, *block) < 1:
        raise TypeError(f"{name}: grid {tuple(grid)} of blocks {tuple(block)} is empty")
    if any(length > most for length, most in zip(grid, MOST)):
        raise TypeError(f"{name}: grid {tuple(grid)} is larger than a GPU takes, {MOST}")
    arrays = [a for a in arguments if device.is_gpu(a)]
    if not arrays:
        raise TypeError(f"{name}: no argument is an array on a device, so where shall it run?")
    device.together(name, *arrays)
    passed = [
        _argument(name, *pair, value) for pair, value in zip(declared, arguments, strict=True)
    ]
    if device.name_of(arrays[0]) == "cuda":
        # CuPy hands None on as the *address* of the argument, from which the driver would read
        passed = [np.uint64(0) if value is None else value for value in passed]
    settings = tuple(sorted((macros or {}).items()))
    kernel = _kernel(device.array_module(arrays[0]), file, name, np.dtype(real).name, settings)
    if shared > DYNAMIC:
        kernel.max_dynamic_shared_size_bytes = shared
    kernel(tuple(grid), tuple(block), tuple(passed), shared_mem=shared)
    for launches in _counts:
        launches.append(
            Launch(file, name, tuple(grid), tuple(block), sum(a.nbytes for a in arrays))
        )


@functools.cache
def parameters(file: str, real: str = "float32") -> dict[str, list[tuple[str, np.dtype, bool]]]:
    """Of each kernel in a file: its parameters' (name, dtype, whether it is a pointer)."""
    found = {}
    text_alone = re.sub(r"//[^\n]*|/\*.*?\*/", " ", source(file), flags=re.DOTALL)
    for name, text in DECLARATION.findall(text_alone):
        found[name] = [_parameter(part, np.dtype(real)) for part in text.split(",")]
    return found


@functools.cache
def source(file: str) -> str:
    """The text of ``kernels/file`` with what it includes in place.

    The compilers then need no search path, and CuPy's cache, which goes by the text, sees a change
    in an included file. Line numbers stay those of the files.
    """
    lines = [f'#line 1 "{file}"\n']
    for number, line in enumerate((FOLDER / file).read_text().splitlines(), 1):
        if found := INCLUDE.match(line):
            line = f'{source(found[1])}#line {number + 1} "{file}"'
        lines.append(line + "\n")
    return "".join(lines)


def _parameter(text: str, real: np.dtype) -> tuple[str, np.dtype, bool]:
    words = re.sub(r"\bconst\b|__restrict__|\*", " ", text).split()
    kind, name = " ".join(words[:-1]), words[-1]
    return name, real if kind == "real" else np.dtype(SCALARS[kind]), "*" in text


def _argument(kernel: str, name: str, dtype: np.dtype, pointer: bool, value: Any) -> Any:
    if not pointer:
        if device.is_gpu(value) or isinstance(value, np.ndarray) or value is None:
            raise TypeError(f"{kernel}: {name} is {_what(value)}, the kernel reads one {dtype}")
        return _number(kernel, name, dtype, value)
    if value is None:
        return value
    if not device.is_gpu(value):
        raise TypeError(f"{kernel}: {name} is {_what(value)}, wanted an array on the device")
    if value.dtype != dtype or not value.flags.c_contiguous:
        raise TypeError(
            f"{kernel}: {name} is {value.dtype}, contiguous {value.flags.c_contiguous}; "
            f"wanted contiguous {dtype}"
        )
    return value


def _what(value: Any) -> str:
    return "None" if value is None else f"an array or number of type {type(value).__name__}"


def _number(kernel: str, name: str, dtype: np.dtype, value: Any) -> np.generic:
    """The number as the kernel reads it: CuPy would pass 8 bytes of whatever Python has."""
    if dtype.kind in "iu" and value != int(value):
        raise TypeError(f"{kernel}: {name} is {value}, the kernel reads a whole number")
    if dtype.kind in "iu" and not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
        raise OverflowError(f"{kernel}: {name} is {value}, which does not fit {dtype}")
    return dtype.type(value)


@functools.cache
def _kernel(gpu: Any, file: str, name: str, real: str, macros: tuple[Any, ...]) -> Any:
    return _module(gpu, file, real, macros).get_function(name)


@functools.cache
def _module(gpu: Any, file: str, real: str, macros: tuple[Any, ...]) -> Any:
    options = (
        "-std=c++17",
        f"-Dreal={WORDS[real]}",
        *(f"-D{name}={value}" for name, value in macros),
    )
    return gpu.RawModule(code=source(file), options=options)
