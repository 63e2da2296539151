"""Picture files to arrays: images to uint8 RGB, labels to class indices.

A label file is read as it was written: the indices of a palette picture or the values of a
greyscale one. Colours are never turned back into classes, because two tools seldom agree on them.
"""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from minifcn.errors import InputError

T = TypeVar("T")

_SIXTEEN = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_BROKEN = (
    Image.DecompressionBombError,
    OSError,
    SyntaxError,  # Pillow's for a damaged PNG chunk
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
)


def read_image(path: Path | str) -> NDArray[np.uint8]:
    """Read a picture of any kind as uint8 (H, W, 3) RGB, upright.

    Greyscale is repeated in the three channels; a palette is looked up; transparency is laid on
    white; a JPEG's orientation mark is obeyed. Sixteen-bit greyscale is scaled so that the top of
    the smallest of 8, 10, 12, 14 or 16 bits that holds its largest value becomes 255: microscopes
    often store 12 bits in 16.

    Raises:
        InputError: the file is missing, no picture, damaged, or of a kind without a white.
    """
    picture = ImageOps.exif_transpose(_open(Path(path)))
    if picture.mode in _SIXTEEN:
        grey = _eight_bits(np.asarray(picture), Path(path))
        return np.repeat(grey[:, :, None], 3, axis=2)
    if picture.mode == "F":
        raise InputError(
            f"{path} holds floating-point values, which have no agreed white, where 8 or 16 bits "
            "are wanted; save it as an 8- or 16-bit PNG"
        )
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.array(picture.convert("RGB"), np.uint8)


def picture_size(path: Path | str) -> tuple[int, int]:
    """(height, width) of a picture, upright, from its header; its pixels are not read.

    Raises:
        InputError: the file is missing, or no picture.
    """
    return _opened(Path(path), _upright_size)


def read_label(
    path: Path | str, classes: tuple[str, ...], void: int | None = 255
) -> NDArray[np.uint8]:
    """Read a label picture as uint8 (H, W): palette indices, or the values of a greyscale file.

    Args:
        path: a palette, greyscale or black-and-white file, compressed without loss.
        classes: the classes' names; every index must be below their number, or be `void`.
        void: the index of pixels without a class; None when every pixel must have one.

    Raises:
        InputError: the file is unreadable, holds colours, is a JPEG, or holds another index.
    """
    path = Path(path)
    picture = _open(path)
    if picture.format == "JPEG":
        raise InputError(
            f"{path} is a JPEG, whose compression alters the class indices, where a palette or "
            "greyscale PNG is wanted; export the labels again as PNG"
        )
    if picture.mode not in ("P", "L", "1", *_SIXTEEN):
        raise InputError(
            f"{path} holds {picture.mode} colours where class indices are wanted; save it as a "
            "palette or greyscale PNG whose pixel values are the classes' numbers"
        )
    label = np.asarray(picture)
    if picture.mode == "1":
        label = label.astype(np.uint8)
    _check_indices(label, path, classes, void)
    return label.astype(np.uint8)


def read_palette(path: Path | str) -> NDArray[np.uint8] | None:
    """The colours of a palette file, uint8 (n, 3), or None when it has no palette."""
    picture = _open(Path(path))
    colours = picture.getpalette("RGB") if picture.mode == "P" else None
    return None if colours is None else np.array(colours, np.uint8).reshape(-1, 3)


def read_names(path: Path | str) -> tuple[str, ...]:
    """Read the classes' names, one a line, in the order of their indices; UTF-8.

    Empty lines at the end are dropped.

    Raises:
        InputError: the file is missing, no text, empty, has a gap or a name twice, or has more
            than the 255 names that fit beside void.
    """
    path = Path(path)
    lines = [line.strip() for line in read_text(path).splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise InputError(f"{path} is empty where class names are wanted; write one name a line")
    first: dict[str, int] = {}
    for number, name in enumerate(lines, 1):
        if not name:
            raise InputError(
                f"{path} has an empty line {number} where a class name is wanted; remove it or "
                f"name class {number - 1}"
            )
        if name in first:
            raise InputError(
                f"{path} has the name {name!r} on lines {first[name]} and {number} where each "
                "class has its own; rename one of them"
            )
        first[name] = number
    if len(lines) > 255:
        raise InputError(
            f"{path} has {len(lines)} names where at most 255 fit beside void; merge some classes"
        )
    return tuple(lines)


def read_text(path: Path) -> str:
    """Text of a UTF-8 file, without a byte-order mark; InputError when that cannot be had."""
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}); give a text file that exists"
        ) from None


def _open(path: Path) -> Image.Image:
    """The picture, decoded whole."""
    return _opened(path, _decoded)


def _decoded(picture: Image.Image) -> Image.Image:
    picture.load()
    return picture


def _upright_size(picture: Image.Image) -> tuple[int, int]:
    width, height = picture.size
    on_its_side = picture.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    return (width, height) if on_its_side else (height, width)


def _opened(path: Path, use: Callable[[Image.Image], T]) -> T:
    """What `use` makes of the file; every way in which it can be broken is one InputError."""
    try:
        with Image.open(path) as picture:
            return use(picture)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; give a picture that does") from None
    except UnidentifiedImageError:
        raise InputError(
            f"{path} is not a picture that can be read; give an undamaged PNG, JPEG, TIFF or BMP"
        ) from None
    except _BROKEN as error:
        reason = " ".join(str(error).split()).replace(f"{str(path)!r}", "file").rstrip(".")
        raise InputError(
            f"{path} cannot be read as a picture ({reason or type(error).__name__}); replace the "
            "file by an undamaged one"
        ) from None


def _eight_bits(values: NDArray, path: Path) -> NDArray[np.uint8]:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise InputError(
            f"{path} holds values from {low} to {high} where 0 to 65535 is wanted; save it as an "
            "8- or 16-bit PNG"
        )
    white = next(2**bits - 1 for bits in (8, 10, 12, 14, 16) if high < 2**bits)
    return np.rint(values * (255.0 / white)).astype(np.uint8)


def _check_indices(label: NDArray, path: Path, classes: tuple[str, ...], void: int | None) -> None:
    n = len(classes)
    if label.size and label.min() >= 0 and label.max() < n:
        return
    wrong = (label < 0) | (label >= n)
    if void is not None:
        wrong &= label != void
    if wrong.any():
        y, x = (int(i) for i in np.argwhere(wrong)[0])
        wanted = f"0 to {n - 1}" + ("" if void is None else f" or void {void}")
        raise InputError(
            f"{path} holds index {int(label[y, x])} at row {y}, column {x} (first of "
            f"{int(wrong.sum())} pixels) where {wanted} is wanted ({n} classes: "
            f"{', '.join(classes[:3])}{', …' if n > 3 else ''}); name that class or correct the "
            "label"
        )
