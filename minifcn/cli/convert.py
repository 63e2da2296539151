"""`minifcn convert`: weights of a trained model or a PyTorch file, under torchvision's names."""

from __future__ import annotations

import argparse
from pathlib import Path

from minifcn.cli.console import standard_output
from minifcn.data.normalisation import Normalisation
from minifcn.errors import InputError
from minifcn.models import weights
from minifcn.models.torchvision_names import network_of
from minifcn.training import Segmenter
from minifcn.training.weight_files import read_weights, write_weights


def convert(arguments: argparse.Namespace) -> int:
    """Write the file and say what is in it."""
    source, out = Path(arguments.source), Path(arguments.out)
    if out.exists():  # it may be part of a run, even of the one that is read
        raise InputError(f"{out} exists, and convert writes over nothing; give another name")
    if source.suffix in (".pth", ".pt"):
        arrays, normalisation = read_weights(source), None
    else:
        trained = Segmenter.load(source)
        arrays = weights.save(trained.model)
        normalisation = Normalisation(trained.mean, trained.std)
    write_weights(arrays, out, normalisation)
    network = network_of(arrays)
    standard_output().print(
        f"{out}: {len(arrays)} arrays, {sum(a.size for a in arrays.values()):,} numbers"
        + (f", named as in {network}" if network else "")
        + (f"; they expect {_pictures(normalisation)}" if normalisation else ""),
        markup=False,
        soft_wrap=True,
    )
    return 0


def _pictures(normalisation: Normalisation) -> str:
    """Such as "red first, less 0.5, 0.4, 0.3, divided by 0.2, 0.2, 0.2"."""
    if normalisation.mean is None or normalisation.std is None:
        return "red first, each picture normalised by its own mean and deviation"
    mean, std = (
        ", ".join(f"{v:.4g}" for v in values) for values in (normalisation.mean, normalisation.std)
    )
    return f"red first, in 0..1, less {mean}, divided by {std}"
