"""Files of weights by name: safetensors both ways, PyTorch's .pth through an installed PyTorch.

Reading a safetensors file runs no code. A .pth file is a pickle, which may run any; PyTorch's
``weights_only=True`` is a reader meant to take arrays alone from it, so without PyTorch such a file
stays shut. Up to PyTorch 2.5 a crafted
file got its code run all the same (CVE-2025-32434): those are refused.

Weights mean nothing without the numbers that they were shown. What minifcn writes says so in its
header, as JSON under one name: channels "rgb", mean and std.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minifcn.data.normalisation import Normalisation
from minifcn.errors import InputError, one_line
from minifcn.training import safetensors_file
from minifcn.training.checkpoint import KEY as CHECKPOINT

KEY = "minifcn weights"
FORMAT = "weights 1"
ENDINGS = (".safetensors", ".pth", ".pt")
OLDEST_TORCH = (2, 6)


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file, by name; at least one.

    Raises InputError when the file cannot be read or holds none.
    """
    if path.is_dir():
        raise InputError(_convert_first(path))
    if not path.is_file():
        raise InputError(
            f"{path} is not a file; give weights that end in {', '.join(ENDINGS[:-1])} or "
            f"{ENDINGS[-1]}"
        )
    if path.suffix not in ENDINGS:
        raise InputError(
            f"{path} ends in {path.suffix or 'nothing'}; give weights that end in "
            f"{', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}"
        )
    arrays = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if not arrays:
        raise InputError(f"{path} holds no arrays; give the state_dict of a network")
    return arrays


def read_normalisation(path: Path) -> Normalisation | None:
    """Of the pictures that the weights were trained on, red first; None if the file says nothing.

    Raises InputError when it says something that cannot be understood.
    """
    if path.suffix != ".safetensors":
        return None
    about = _about(safetensors_file.read_header(path, "weights"))
    if not about:
        return None
    try:
        if (about["format"], about["channels"]) != (FORMAT, "rgb"):
            raise ValueError(f"{about['format']}, {about['channels']}")
        mean, std = about["mean"], about["std"]
        if mean is None and std is None:
            return Normalisation(None, None)
        return Normalisation(tuple(map(float, mean)), tuple(map(float, std)))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"the header of {path} says what this minifcn does not know ({one_line(error)}); "
            "use the minifcn that wrote it"
        ) from error


def write_weights(
    arrays: Mapping[str, np.ndarray], path: Path, normalisation: Normalisation | None = None
) -> None:
    """Write a safetensors file beside ``path`` and rename it; arrays may lie in any order.

    ``normalisation``: of the pictures that they were trained on, red first; None: not known.

    Raises InputError for another ending, for what the format cannot hold (complex numbers, an
    array named as its header), and when the disk refuses.
    """
    if path.suffix != ".safetensors":
        raise InputError(f"{path} ends in {path.suffix or 'nothing'}; write to a .safetensors file")
    header = None
    if normalisation is not None:
        known = {"mean": normalisation.mean, "std": normalisation.std}
        header = {KEY: json.dumps({"format": FORMAT, "channels": "rgb", **known})}
    safetensors_file.write(path, arrays, header)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    arrays, header = safetensors_file.read(path, "whole .safetensors weights in float32")
    if CHECKPOINT in header:
        raise InputError(_convert_first(path))
    return arrays


def _about(header: Mapping[str, str] | None) -> dict[str, Any]:
    """What `write_weights` put into the header; empty in a file of others."""
    try:
        about = json.loads((header or {}).get(KEY, "{}"))
    except (RecursionError, json.JSONDecodeError):
        return {}
    return about if isinstance(about, dict) else {}


def _convert_first(path: Path) -> str:
    return (
        f"{path} is a run of minifcn, whose names are its own; take the trunk's weights out of it "
        f"by `minifcn convert {path} FILE.safetensors`, and give that file"
    )


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError:
        raise InputError(
            f"{path} is a file of PyTorch, which is not installed; `pip install torch`, or give "
            "the weights as .safetensors"
        ) from None
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < OLDEST_TORCH:
        raise InputError(
            f"{path} may run code in PyTorch {torch.__version__} (CVE-2025-32434); give the "
            "weights as .safetensors, or update to PyTorch 2.6 or newer"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # PyTorch raises many kinds; what they mean is the same
        raise InputError(
            f"{path} cannot be read ({_first_sentence(error)}): it is cut short, or holds more "
            "than arrays, which PyTorch is told to refuse; give a state_dict alone, or .safetensors"
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(t, torch.Tensor) for name, t in state.items()
    ):
        raise InputError(
            f"{path} holds a {type(state).__name__} that is not a dict of tensors by name alone; "
            "save the network's state_dict(), and give that"
        )
    arrays = {}
    for name, tensor in state.items():
        # NumPy has no bfloat16.
        known = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        try:
            arrays[name] = known.detach().numpy()
        except (RuntimeError, TypeError, ValueError) as error:  # sparse, quantised, …
            raise InputError(
                f"{path}: {name} is no array to NumPy ({one_line(error)}); save dense tensors "
                "of floating numbers"
            ) from error
    return arrays


def _first_sentence(error: Exception) -> str:
    """For PyTorch goes on to say how to run the code after all."""
    return one_line(error).split(". ")[0]
