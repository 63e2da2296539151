"""The patch-wise method beside the same net run fully convolutionally: counted and timed.

Three ways to the classes of all pixels of one picture, with the same weights:

    patches    a window cut out about each pixel and classified by itself
    dense      the net made fully convolutional and given stride 1, on the whole picture at once
    at stride  the net as it is, fully convolutional: a cell for every s-th pixel, 1/s² of the cells

No layer pads, so the first two give the same scores, and the third every s-th of them. What dense
multiplies is each product once; what the patches multiply beyond that is repeated.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minifcn import nn
from minifcn.geometry import coordinate_map
from minifcn.models import (
    Classifier,
    classify_densely,
    classify_patches,
    to_dense,
    to_fully_convolutional,
)
from minifcn.study.counting import Count, counting


@dataclass(frozen=True)
class Way:
    """One way through a picture, and what it took.

    Attributes:
        name: "patches", "dense" or "at stride s".
        scores: (classes, P, Q): P×Q = H×W but at stride.
        seconds: of one run, the median where there were several.
        count: multiplications; bytes the net was fed, all windows or the picture with its border;
            bytes its layers stored. Counted layer by layer while it ran.
        difference: of the scores from the patches', relative to the largest.
    """

    name: str
    scores: np.ndarray
    seconds: float
    count: Count
    difference: float


@dataclass(frozen=True)
class Comparison:
    """The three ways for one picture; `print` shows a table.

    Attributes:
        size: H and W of the picture.
        window: side of the window about each pixel, which is the net's receptive field.
        stride: the net's.
    """

    size: tuple[int, int]
    window: int
    stride: int
    patches: Way
    dense: Way
    at_stride: Way

    @property
    def repeated(self) -> float:
        """Share of the patches' multiplications that was done before for another patch."""
        return 1 - 1 / self.factors["multiplications"]

    @property
    def factors(self) -> dict[str, float]:
        """How many times what the dense net needs do the patches need?"""
        a, b = self.patches, self.dense
        return {
            "seconds": a.seconds / b.seconds,
            "multiplications": a.count.multiplications / b.count.multiplications,
            "fed": a.count.fed / b.count.fed,
            "stored": a.count.stored / b.count.stored,
        }

    def __str__(self) -> str:
        rows, columns = self.size
        lines = [
            f"picture {rows}×{columns}, window {self.window}×{self.window} (the receptive field), "
            f"stride {self.stride}",
            f"{'':12} {'time':>11} {'multiplications':>17} {'fed to the net':>15} "
            f"{'layers store':>14} {'cells':>8} {'difference':>11}",
        ]
        for way in (self.patches, self.dense, self.at_stride):
            count = way.count
            lines.append(
                f"{way.name:12} {way.seconds * 1e3:8.1f} ms {count.multiplications / 1e6:15,.0f} M "
                f"{count.fed / 2**20:11.2f} MiB {count.stored / 2**20:10.1f} MiB "
                f"{way.scores[0].size:8,} {way.difference:11.1e}"
            )
        time, products, fed, stored = (f"{factor:.1f} ×" for factor in self.factors.values())
        lines.append(f"{'factor':12} {time:>11} {products:>17} {fed:>15} {stored:>14}")
        lines.append(f"{self.repeated:.1%} of the patches' multiplications were done before")
        return "\n".join(lines)


def patches_against_fcn(
    classifier: Classifier, picture: np.ndarray, *, batch_size: int = 1024, runs: int = 3
) -> Comparison:
    """Go all three ways through a picture, counted first and then timed without the counting.

    Args:
        classifier: for odd squares, without padding; it is switched to evaluation.
        picture: (H, W, C), of the classifier's dtype.
        batch_size: windows at a time.
        runs: how often the two fast ways are timed; the patches once.
    """
    classifier.eval()
    window = classifier.input_size[0]
    net, _ = to_fully_convolutional(classifier, window)
    dense = to_dense(net)
    stride = int(coordinate_map(nn.windows(net)).scale)
    ways: list[Way] = []

    def go(name: str, net: nn.Module, run: Callable[[], np.ndarray], step: int, times: int) -> None:
        with counting(net) as count:
            scores = run()  # the kernels are compiled on the way
        wanted = ways[0].scores[:, ::step, ::step] if ways else scores
        difference = float(np.abs(scores - wanted).max() / np.abs(wanted).max())
        seconds = statistics.median(_seconds(run) for _ in range(times))
        ways.append(Way(name, scores, seconds, count, difference))

    go("patches", classifier, lambda: classify_patches(classifier, picture, batch_size), 1, 1)
    go("dense", dense, lambda: classify_densely(dense, picture, window), 1, runs)
    go(f"at stride {stride}", net, lambda: classify_densely(net, picture, window), stride, runs)
    return Comparison(picture.shape[:2], window, stride, *ways)


def _seconds(run: Callable[[], np.ndarray]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
