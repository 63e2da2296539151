"""`minifcn convert`: weights of a trained model or a PyTorch file, under torchvision's names."""

from __future__ import annotations

import argparse
from pathlib import Path

from minifcn.cli.console import standard_output
from minifcn.errors import InputError
from minifcn.models import weights
from minifcn.training import Segmenter
from minifcn.training.weight_files import read_weights, write_weights


def convert(arguments: argparse.Namespace) -> int:
    """Write the file and say what is in it."""
    source, out = Path(arguments.source), Path(arguments.out)
    if out.exists() and source.exists() and out.samefile(source):
        raise InputError(f"{out} would be written over itself; give another name")
    if source.suffix in (".pth", ".pt"):
        arrays = read_weights(source)
    else:
        arrays = weights.save(Segmenter.load(source).model)
    write_weights(arrays, out)
    what = weights.looks_like(arrays) or "another network than those known here"
    standard_output().print(
        f"{out}: {len(arrays)} arrays, {sum(a.size for a in arrays.values()):,} numbers, named as "
        f"in {what}",
        markup=False,
        soft_wrap=True,
    )
    return 0
