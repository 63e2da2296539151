"""Does a fully convolutional net do what the classifier did? Measured, not believed.

Two questions. At the training size both give one vector of scores: are they the same numbers? And
on a larger picture the net gives a map: is each cell what the classifier says of the window under
the cell, cut out? The second holds exactly if no layer pads. A layer that pads saw zeros at the
edge of the cut-out window, and sees the window's neighbours now.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from minifcn import nn
from minifcn.geometry import coordinate_map
from minifcn.models.classifier import first_convolution
from minifcn.recording import no_grad
from minifcn.tensor import Tensor

STEPS = 2  # the larger picture has so many strides more than the training size: 3×3 cells, of which
#            the middle one has neighbours on all sides

ROUNDINGS = 64  # differences up to so many (float32: 7.6e-6) are rounding: sums in another order


@dataclass(frozen=True)
class SurgeryVerdict:
    """How a classifier and its fully convolutional form agree; `print` shows it.

    Differences are the largest over all scores; relative ones are divided by the largest score.

    Attributes:
        input_size: H and W of the training pictures: the window of each cell.
        stride: pixels from one cell's window to the next one's, (rows, columns).
        layers: name and weight shape of every layer that is a convolution now.
        absolute, relative: difference of the two at the training size.
        larger_size: H and W of the random larger picture.
        cells: P and Q of its map.
        cell_relative: difference of the map from the classifier, window by window.
        padding: names of the layers that see beyond the edge of their input.
        eps: rounding of the dtype.
    """

    input_size: tuple[int, int]
    stride: tuple[int, int]
    layers: tuple[tuple[str, tuple[int, ...]], ...]
    absolute: float
    relative: float
    larger_size: tuple[int, int]
    cells: tuple[int, int]
    cell_relative: float
    padding: tuple[str, ...]
    eps: float

    @property
    def agrees(self) -> bool:
        """Whether the two give the same scores at the training size, but for rounding."""
        return self.relative <= ROUNDINGS * self.eps

    @property
    def cells_agree(self) -> bool:
        """Whether each cell is the classifier on its window, but for rounding."""
        return self.cell_relative <= ROUNDINGS * self.eps

    def __str__(self) -> str:
        size, step, larger = (
            f"{a}×{b}" for a, b in (self.input_size, self.stride, self.larger_size)
        )
        lines = [f"a cell sees a window of {size} pixels; windows stand {step} pixels apart"]
        width = max(len(name) for name, _ in self.layers)
        for name, (k, c, r, s) in self.layers:
            lines.append(f"  {name:{width}}  weight ({k}, {c}, {r}, {s})  output ({k}, 1, 1)")
        lines.append(
            f"at {size}: {'the same scores' if self.agrees else 'OTHER SCORES'}, largest "
            f"difference {self.absolute:.1e}, relative {self.relative:.1e}"
        )
        same = "each cell is" if self.cells_agree else "a cell is not"
        lines.append(
            f"at {larger}, {self.cells[0]}×{self.cells[1]} cells: {same} the classifier on its "
            f"window, relative difference {self.cell_relative:.1e}"
        )
        if self.padding:
            lines.append(
                f"  these layers pad: {', '.join(self.padding)}. At a window's edge the classifier "
                "saw zeros; the net sees the neighbourhood"
            )
        return "\n".join(lines)


def examine(
    classifier: nn.Module,
    net: nn.Module,
    input_size: tuple[int, int],
    layers: Sequence[tuple[str, tuple[int, ...]]],
    padding: Sequence[str],
    generator: np.random.Generator,
) -> SurgeryVerdict:
    """Run both on random pictures, in evaluation mode, and compare.

    Args:
        classifier: (N, C, H, W) → (N, K), for the training size.
        net: (N, C, H, W) → (N, K, P, Q).
        input_size: H and W of the training pictures.
        layers: what became a convolution, for the report.
        padding: layers that see beyond their input's edge, for the report.
        generator: where the pictures are drawn from.

    Raises:
        InputError: if the net has no convolution.
    """
    height, width = input_size
    maps = [coordinate_map(nn.windows(net, axis)) for axis in (0, 1)]
    down, right = int(maps[0].scale), int(maps[1].scale)
    first = first_convolution(net)
    larger = height + STEPS * down, width + STEPS * right
    drawn = generator.standard_normal((1, *larger, first.in_channels)).astype(first.weight.dtype)
    picture = drawn.transpose(0, 3, 1, 2)
    with no_grad(), _evaluating(classifier, net):
        one = _run(net, picture[:, :, :height, :width])[0, :, 0, 0]
        found = _run(net, picture)[0]
        wanted = np.empty_like(found)
        for p, q in np.ndindex(*found.shape[1:]):
            top, left = p * down, q * right
            window = picture[:, :, top : top + height, left : left + width]
            wanted[:, p, q] = _run(classifier, window).reshape(-1)
    absolute = _largest(one - wanted[:, 0, 0])
    return SurgeryVerdict(
        input_size=input_size,
        stride=(down, right),
        layers=tuple(layers),
        absolute=absolute,
        relative=absolute / max(_largest(wanted[:, 0, 0]), np.finfo(found.dtype).tiny),
        larger_size=larger,
        cells=(found.shape[1], found.shape[2]),
        cell_relative=_largest(found - wanted) / max(_largest(wanted), np.finfo(found.dtype).tiny),
        padding=tuple(padding),
        eps=float(np.finfo(found.dtype).eps),
    )


def _run(module: nn.Module, picture: np.ndarray) -> np.ndarray:
    return module(Tensor(picture)).numpy()


def _largest(x: np.ndarray) -> float:
    return float(np.abs(x).max())


@contextmanager
def _evaluating(*modules: nn.Module) -> Iterator[None]:
    """Inside the block nothing drops out and nothing counts statistics."""
    before = [(below, below.training) for module in modules for below in module.modules()]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for below, training in before:
            below.training = training
