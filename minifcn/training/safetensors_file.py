"""A safetensors file: arrays by name, and text by name in its header.

Reading it runs no code: it is a header of names, shapes and places, and then numbers.

The format wants contiguous arrays and knows no strides. Its NumPy library believes that it was
given such and writes the memory as it lies, so that a transposed array comes back as another one.
Convolution weights here are (K, C, R, S) to the eye and (R, S, C, K) in memory: every array is
brought into order before it is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from minifcn.errors import InputError, one_line
from minifcn.training.files import write_atomically

HEADER = "__metadata__"
"""What the format calls the text in its header; no array can have that name."""


def read(path: Path, wanted: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All arrays of a file and the text in its header.

    ``wanted``: what should have been given, for the message.
    Raises InputError when the file cannot be read.
    """
    with _opened(path, wanted) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}


def read_header(path: Path, wanted: str) -> dict[str, str]:
    """The text alone, without the arrays; as `read`."""
    with _opened(path, wanted) as file:
        return file.metadata() or {}


def write(path: Path, arrays: Mapping[str, np.ndarray], header: dict[str, str] | None) -> None:
    """Write beside ``path`` and rename; arrays may lie in any order.

    Raises InputError for what the format cannot hold (complex numbers, an array named as its
    header), and when the disk refuses.
    """
    if HEADER in arrays:
        raise InputError(f"an array is named {HEADER}, as the file's header is; give it another")
    try:
        ordered = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        content = save(ordered, header)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} cannot hold these arrays ({one_line(error)}); give floating numbers"
        ) from error
    write_atomically(path, lambda file: file.write(content))


@contextmanager
def _opened(path: Path, wanted: str) -> Iterator[Any]:
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (SafetensorError, OSError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be read ({one_line(error)}): it is cut short, another kind of file, or "
            f"of a precision that NumPy lacks; give {wanted}"
        ) from error
