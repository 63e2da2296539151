"""A safetensors file: arrays by name, and text by name in its header.

Reading it runs no code: it is a header of names, shapes and places, and then numbers.

The format wants contiguous arrays and knows no strides. Its NumPy library believes that it was
given such and writes the memory as it lies, so that a transposed array comes back as another one.
Convolution weights here are (K, C, R, S) to the eye and (R, S, C, K) in memory: every array is
brought into order before it is written.

That library holds three copies of all arrays while it writes. The format is simple, so `write` does
it array by array, to the same bytes::

    length of the header, 8 bytes | {"name": {"dtype", "shape", "data_offsets"}, …} | the numbers
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from minifcn.errors import InputError, one_line
from minifcn.training.files import write_atomically

HEADER = "__metadata__"
"""What the format calls the text in its header; no array can have that name."""
KINDS = {"bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "uint16": "U16",
         "float16": "F16", "int32": "I32", "uint32": "U32", "float32": "F32", "float64": "F64",
         "int64": "I64", "uint64": "U64"}  # fmt: skip
"""The format's names of NumPy's dtypes, in its order."""


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
    kinds = list(KINDS)
    for name, array in arrays.items():
        if array.dtype.name not in KINDS:
            raise InputError(
                f"{path} cannot hold {name}, which is {array.dtype}; give floating numbers"
            )
    # wide numbers first, so that each lies at a multiple of its own size
    names = sorted(arrays, key=lambda name: (-kinds.index(arrays[name].dtype.name), name))
    entries: dict[str, Any] = {} if header is None else {HEADER: header}
    end = 0
    for name in names:
        array, start = arrays[name], end
        end += array.nbytes
        entries[name] = {
            "dtype": KINDS[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)

    def put(file: IO[bytes]) -> None:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            kind = arrays[name].dtype.newbyteorder("<")
            file.write(np.asarray(arrays[name], kind, order="C").reshape(-1).view(np.uint8).data)

    write_atomically(path, put)


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
