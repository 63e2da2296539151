"""The option --device: where a command runs, and why not on a GPU."""

from __future__ import annotations

from rich.console import Console

from minifcn import device


def place(name: str, console: Console) -> str:
    """The device that the option means; what "auto" comes to without a GPU is said in one line.

    Raises:
        InputError: if the device cannot be used here; it says why.
    """
    chosen = device.choose(name)
    device.module(chosen)
    if name == "auto" and chosen == "cpu":
        console.print(f"runs on the CPU: {device.why_not('cuda')}", markup=False, soft_wrap=True)
    return chosen
