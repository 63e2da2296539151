"""Files of weights by name: safetensors both ways, PyTorch's .pth through an installed PyTorch.

A safetensors file is a header of names, shapes and places, and then numbers: reading it runs no
code. A .pth file is a pickle, which may run any; PyTorch's ``weights_only=True`` is a reader that
takes arrays alone from it, so without PyTorch such a file stays shut.

The format wants contiguous arrays and knows no strides. Its NumPy library believes that it was
given such and writes the memory as it lies, so that a transposed array comes back as another one.
Convolution weights here are (K, C, R, S) to the eye and (R, S, C, K) in memory: every array is
brought into order before it is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from minifcn.errors import InputError
from minifcn.training.files import write_atomically

ENDINGS = (".safetensors", ".pth", ".pt")


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file, by name. Raises InputError when it cannot be read."""
    if not path.is_file():
        raise InputError(
            f"{path} is not a file; give weights that end in {', '.join(ENDINGS[:-1])} or "
            f"{ENDINGS[-1]}"
        )
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in ENDINGS:
        return _read_torch(path)
    raise InputError(
        f"{path} ends in {path.suffix or 'nothing'}; give weights that end in "
        f"{', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}"
    )


def write_weights(arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Write a safetensors file beside ``path`` and rename it; arrays may lie in any order.

    Raises InputError for another ending, and when the disk refuses.
    """
    if path.suffix != ".safetensors":
        raise InputError(f"{path} ends in {path.suffix or 'nothing'}; write to a .safetensors file")
    content = save({name: np.asarray(array, order="C") for name, array in arrays.items()})
    write_atomically(path, lambda file: file.write(content))


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be read ({_first_line(error)}): it is cut short, another kind of file, "
            "or of a precision that NumPy lacks; give whole .safetensors weights in float32"
        ) from error


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError:
        raise InputError(
            f"{path} is a file of PyTorch, which is not installed; `pip install torch`, or give "
            "the weights as .safetensors"
        ) from None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # PyTorch raises many kinds; what they mean is the same
        raise InputError(
            f"{path} cannot be read ({_first_line(error)}): it is cut short, or holds more than "
            "arrays, which is never run; give a state_dict alone, or .safetensors weights"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise InputError(
            f"{path} holds a {type(state).__name__} that is not a dict of tensors alone; save "
            "the network's state_dict(), and give that"
        )
    # NumPy has no bfloat16.
    tensors = {n: t.float() if t.dtype == torch.bfloat16 else t for n, t in state.items()}
    return {str(name): tensor.detach().numpy() for name, tensor in tensors.items()}


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
