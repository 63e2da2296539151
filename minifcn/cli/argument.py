"""What stands behind an option, from text to value; argparse says the sentence if it cannot."""

from __future__ import annotations

import argparse


def size(text: str) -> tuple[int, int]:
    """`128x96`, width × height, or `128` for a square → (height, width)."""
    try:
        numbers = [int(part) for part in text.lower().replace("×", "x").split("x")]
        width, height = numbers if len(numbers) > 1 else numbers * 2
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no size; write WIDTHxHEIGHT, such as 128x96"
        ) from None
    if min(width, height) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} holds a length below 1; write 1 or more")
    return height, width


def size_or_none(text: str) -> tuple[int, int] | None:
    """A size, or `none`."""
    return None if text == "none" else size(text)


def padding(text: str) -> str | int:
    """`same`, or `100`."""
    if text not in ("same", "100"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither same nor 100; write one of them")
    return 100 if text == "100" else text


def channels_and_size(text: str) -> tuple[int, int, int]:
    """`3x360x480`: channels, height, width."""
    try:
        channels, height, width = (int(n) for n in text.lower().replace("×", "x").split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no input; write CHANNELSxHEIGHTxWIDTH, such as 3x360x480"
        ) from None
    if min(channels, height, width) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} holds a length below 1; write 1 or more")
    return channels, height, width


def count(text: str) -> int:
    """A whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number; write 1 or more")
    return int(text)


def shape(text: str) -> tuple[int, ...]:
    """`1x64x56x56`: pictures, channels, height, width."""
    try:
        lengths = tuple(int(n) for n in text.lower().replace("×", "x").split("x"))
    except ValueError:
        lengths = ()
    if len(lengths) != 4 or min(lengths) < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no size; write PICTURESxCHANNELSxHEIGHTxWIDTH, such as 1x64x56x56"
        )
    return lengths


def widths(text: str) -> tuple[int, ...]:
    """`16,32,64,128,128`: channels of each stage."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no list of channels; write a whole number for each stage, such as "
            "16,32,64,128,128 (of a ResNet four)"
        ) from None


def suite(text: str) -> str:
    """The name of a suite of `minifcn bench`."""
    suites = ("layers", "step", "predict", "memory", "startup", "threads", "full")
    if text not in suites:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(suites)}")
    return text


def on_off(text: str) -> bool:
    """`on` or `off`."""
    if text not in ("on", "off"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither on nor off; write one of them")
    return text == "on"
