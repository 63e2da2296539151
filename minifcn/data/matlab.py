"""Arrays in MATLAB's files of level 5: as much of the format as the labels of SBD use.

    file        128 bytes of header, then elements; the header's last two bytes are "IM" where the
                lowest byte of a number comes first, else "MI"
    element     type (4 bytes), length (4), data, filled up to a multiple of 8 bytes; or, for up to
                4 bytes of data: length (2) and type (2) in one number, data (4)
    compressed  an element whose data are deflated (RFC 1951) and then hold a matrix
    matrix      an element of elements: flags, whose lowest byte is the class; the sizes; the name;
                then the numbers, column after column, in the smallest type that holds them
    struct      a matrix of class 2: after its name the space that a field's name takes, the names,
                and a matrix for each field

MathWorks, "MAT-File Format", level 5. Nothing in a file is run, and a damaged one is refused.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minifcn.errors import InputError

_STORED = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
_CLASSES = ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")
"""The types of the classes from 6, double, to 15, uint64."""
_STRUCT, _DOUBLE = 2, 6
_MATRIX, _COMPRESSED = 14, 15
_COMPLEX = 0x800
_MOST = 1 << 28
"""Bytes that a compressed element may grow to: a small file must not fill the memory."""


def read_struct(path: Path, name: str) -> dict[str, NDArray]:
    """The real arrays among the fields of the 1×1 struct `name`, at their sizes and types.

    Raises:
        InputError: no such file, another format or level, damaged, or without that struct.
    """
    try:
        data = path.read_bytes()
        end = {b"IM": "<", b"MI": ">"}.get(data[126:128])
        if end is None or struct.unpack_from(f"{end}H", data, 124) != (0x100,):
            raise ValueError("no MATLAB file of level 5")
        for kind, content in _elements(data[128:], end):
            if kind == _COMPRESSED:
                kind, content = next(_elements(_inflated(content), end), (0, b""))
            parts = list(_elements(content, end)) if kind == _MATRIX else []
            if len(parts) > 4 and parts[2][1] == name.encode() and _class(parts, end) == _STRUCT:
                return dict(_fields(parts, end))
        raise ValueError(f"there is no struct {name}")
    except (OSError, ValueError, struct.error, zlib.error) as error:
        raise InputError(
            f"{path} cannot be read ({' '.join(str(error).split())}) where a MATLAB file of level "
            f"5 with a struct {name} is wanted; replace it by an undamaged one"
        ) from None


def _elements(data: bytes, end: str) -> Iterator[tuple[int, bytes]]:
    """(type, data) of each element."""
    at = 0
    while at < len(data):
        kind, length = struct.unpack_from(f"{end}II", data, at)
        if kind >> 16:  # a short one
            kind, length, start, most = kind & 0xFFFF, kind >> 16, at + 4, 4
        else:
            start, most = at + 8, len(data) - at - 8
        if length > most:
            raise ValueError("it ends too early")
        yield kind, data[start : start + length]
        at = start + length
        at += 0 if kind == _COMPRESSED else -at % 8


def _inflated(data: bytes) -> bytes:
    stream = zlib.decompressobj()
    result = stream.decompress(data, _MOST)
    if not stream.eof:
        raise ValueError("a compressed element is cut short or too large")
    return result


def _fields(parts: list[tuple[int, bytes]], end: str) -> Iterator[tuple[str, NDArray]]:
    """(name, array) of each field of a struct that is one real array."""
    _, sizes, _, (_, space), (_, names), *matrices = parts
    if _sizes(sizes, end) != (1, 1) or len(space) != 4:
        raise ValueError("it is no struct of one element")
    (width,) = struct.unpack(f"{end}i", space)
    if width < 1 or len(names) != width * len(matrices):
        raise ValueError("its fields do not fit their names")
    for i, (kind, content) in enumerate(matrices):
        inside = list(_elements(content, end)) if kind == _MATRIX else []
        if len(inside) == 4 and _class(inside, end) >= _DOUBLE:
            field = names[i * width : (i + 1) * width].split(b"\0")[0]
            yield field.decode("ascii", "replace"), _array(inside, end)


def _array(parts: list[tuple[int, bytes]], end: str) -> NDArray:
    """The array of a matrix of numbers."""
    _, sizes, _, (kind, content) = parts
    shape, own = _sizes(sizes, end), _class(parts, end) - _DOUBLE
    if kind not in _STORED or own >= len(_CLASSES):
        raise ValueError(f"it holds numbers of an unknown type {kind}")
    numbers = np.frombuffer(content, end + _STORED[kind])
    if min(shape, default=0) < 0 or numbers.size != math.prod(shape):
        raise ValueError(f"it holds {numbers.size} numbers for the sizes {shape}")
    return numbers.astype(_CLASSES[own]).reshape(shape, order="F")


def _class(parts: list[tuple[int, bytes]], end: str) -> int:
    """The class of a matrix; 0 for complex numbers, which have a second part."""
    (flags,) = struct.unpack_from(f"{end}I", parts[0][1])
    return 0 if flags & _COMPLEX else flags & 0xFF


def _sizes(element: tuple[int, bytes], end: str) -> tuple[int, ...]:
    return tuple(int(n) for n in np.frombuffer(element[1], f"{end}i4"))
