"""A checkpoint: one safetensors file of arrays, with everything else as JSON in its header.

Loading reads numbers and text and runs no code, so a checkpoint from a stranger is only data.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minifcn.errors import InputError
from minifcn.training import safetensors_file

KEY = "minifcn"
FORMAT = "checkpoint 1"


@dataclass
class Checkpoint:
    """A model, and, when training is to go on from here, the state of the training.

    `model`: weights and batch-norm buffers by their state-dict names. `about`: model config,
    classes, palette, normalisation, data description, settings and step number: JSON values.
    `training`: arrays of the optimiser and the running confusion matrix; empty in a checkpoint
    that holds only a model to predict with.
    """

    model: dict[str, np.ndarray]
    about: dict[str, Any]
    training: dict[str, np.ndarray] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write beside and rename. Raises InputError when the disk refuses."""
        arrays = {f"model/{name}": a for name, a in self.model.items()}
        arrays |= {f"training/{name}": a for name, a in self.training.items()}
        # One entry, because safetensors writes several in random order and equal states are to
        # be equal files.
        header = {KEY: json.dumps({"format": FORMAT, **self.about}, sort_keys=True)}
        safetensors_file.write(path, arrays, header)

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Raises InputError when the file is missing, cut short, or not a checkpoint."""
        if not path.is_file():
            raise InputError(f"{path} is not a file; give a checkpoint that `minifcn train` wrote")
        wanted = "a .safetensors file that `minifcn train` wrote"
        arrays, header = safetensors_file.read(path, wanted)
        try:
            about = json.loads(header[KEY])
            form = about.pop("format")
        except (KeyError, AttributeError, TypeError, RecursionError, json.JSONDecodeError):
            raise InputError(
                f"{path} holds arrays but is no checkpoint of minifcn: its header has no "
                "description of a model; give a file that `minifcn train` wrote"
            ) from None
        if form != FORMAT:
            raise InputError(
                f"{path} has the format {form!r}, and this minifcn reads {FORMAT!r}; "
                "use the minifcn that wrote it"
            )
        return cls(under("model/", arrays), about, under("training/", arrays))


def under(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those arrays whose name begins with the prefix, named without it, in name order."""
    return {n[len(prefix) :]: arrays[n] for n in sorted(arrays) if n.startswith(prefix)}
