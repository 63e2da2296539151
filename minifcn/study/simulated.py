"""The CUDA kernels on the simulated device, checked and measured: what `minifcn simulate` shows.

A demonstration runs an operation forward and backward on random numbers. Every kernel that it
launches leaves a report: what each line of its source moves, and whether anything was at fault.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from minifcn import functional as F
from minifcn import launch, simulator
from minifcn.kernels import optimizer
from minifcn.simulator import Line, Report
from minifcn.tensor import Tensor

Shape = tuple[int, int, int, int]
Generator = np.random.Generator
DEVICE = "cuda-sim"


@dataclass(frozen=True)
class Demonstration:
    """One family of kernels at work."""

    name: str
    file: str
    what: str
    run: Callable[[Shape, Generator], None]
    #: additions, multiplications, comparisons and functions, forward and backward together
    operations: Callable[[Shape], int]


def _random(shape: Sequence[int], generator: Generator, grad: bool = True) -> Tensor:
    """Random numbers on the device; of a picture's shape, channels last in memory."""
    if len(shape) == 4:
        n, c, h, w = shape
        host = generator.standard_normal((n, h, w, c), np.float32).transpose(0, 3, 1, 2)
    else:
        host = generator.standard_normal(tuple(shape), np.float32)
    tensor = Tensor(host).to(DEVICE)
    tensor.requires_grad = grad
    return tensor


def _forward_and_back(result: Tensor, generator: Generator) -> None:
    result.backward(_random(result.shape, generator, grad=False))


def _relu(shape: Shape, g: Generator) -> None:
    _forward_and_back(F.relu(_random(shape, g)), g)


def _add(shape: Shape, g: Generator) -> None:
    with_grad = _random(shape, g), _random(shape, g)
    _forward_and_back(with_grad[0] + with_grad[1], g)


def _max_pool2d(shape: Shape, g: Generator) -> None:
    _forward_and_back(F.max_pool2d(_random(shape, g), 2, ceil_mode=True), g)


def _batch_norm(shape: Shape, g: Generator) -> None:
    c = shape[1]
    scale, shift = _random((c,), g), _random((c,), g)
    _forward_and_back(F.batch_norm(_random(shape, g), None, None, scale, shift, True), g)


def _cross_entropy(shape: Shape, g: Generator) -> None:
    n, classes, h, w = shape
    target = Tensor(g.integers(0, classes, (n, h, w))).to(DEVICE)
    F.cross_entropy(_random(shape, g), target).backward()


def _interpolate(shape: Shape, g: Generator) -> None:
    n, c, h, w = shape
    _forward_and_back(F.interpolate(_random(shape, g), size=(2 * h, 2 * w)), g)


def _depthwise(shape: Shape, g: Generator) -> None:
    c = shape[1]
    weight = _random((c, 1, 4, 4), g)
    x = _random(shape, g)
    _forward_and_back(F.conv_transpose2d(x, weight, None, stride=2, padding=1, groups=c), g)


def _conv2d(shape: Shape, g: Generator) -> None:
    c = shape[1]
    weight, bias = _random((c, c, 3, 3), g), _random((c,), g)
    _forward_and_back(F.conv2d(_random(shape, g), weight, bias, padding=1), g)


def _sgd(shape: Shape, g: Generator) -> None:
    p, grad, b = (_random((prod(shape),), g).data for _ in range(3))
    optimizer.sgd(p, grad, b, 0.1, 0.9, 0.0, 1e-4, False)


def _adam(shape: Shape, g: Generator) -> None:
    p, grad, m, v = (_random((prod(shape),), g).data for _ in range(4))
    optimizer.adam(p, grad, m, abs(v), 1e-3, 0.9, 0.999, 1.0, 1e-8, 0.0, 0.0)


def _convolution_operations(shape: Shape) -> int:
    """Multiply and add, for every tap of every channel, in three products of the same size."""
    return 3 * 2 * prod(shape) * shape[1] * 9


ALL = (
    Demonstration("relu", "relu.cu", "max(x, 0) and its gradient", _relu,
                  lambda s: 2 * prod(s)),
    Demonstration("add", "elementwise.cu", "a + b", _add, prod),
    Demonstration("max_pool2d", "max_pool2d.cu", "2×2 windows, two pixels on", _max_pool2d,
                  lambda s: prod(s)),
    Demonstration("batch_norm", "batch_norm.cu", "by the batch's own moments", _batch_norm,
                  lambda s: 14 * prod(s)),
    Demonstration("cross_entropy", "cross_entropy.cu", "log-softmax, loss and gradient",
                  _cross_entropy, lambda s: 6 * prod(s)),
    Demonstration("interpolate", "resample.cu", "bilinear, to twice the size", _interpolate,
                  lambda s: 36 * prod(s)),
    Demonstration("depthwise", "depthwise.cu", "4×4 transposed, a channel each, to twice the size",
                  _depthwise, lambda s: 3 * 2 * 16 * prod(s)),
    Demonstration("conv2d", "conv2d.cu", "3×3, as many channels out as in", _conv2d,
                  _convolution_operations),
    Demonstration("sgd", "optimizer.cu", "a step with momentum and weight decay", _sgd,
                  lambda s: 6 * prod(s)),
    Demonstration("adam", "optimizer.cu", "a step of AdamW", _adam, lambda s: 13 * prod(s)),
)  # fmt: skip


def demonstrations() -> tuple[Demonstration, ...]:
    """Those whose kernels are here."""
    return tuple(one for one in ALL if (launch.FOLDER / one.file).exists())


def simulate(demonstration: Demonstration, shape: Shape, seed: int = 0) -> list[Report]:
    """Run a demonstration in the checked build; a report for each kernel, its launches together.

    A fault ends the demonstration; the last report holds it.
    """
    with simulator.checked() as reports:
        try:
            demonstration.run(shape, np.random.default_rng(seed))
        except simulator.KernelFault:
            pass
    return together(reports)


def together(reports: Sequence[Report]) -> list[Report]:
    """The launches of one kernel as one report."""
    launches: dict[str, list[Report]] = defaultdict(list)
    for report in reports:
        launches[report.kernel].append(report)
    return [_sum(group) for group in launches.values()]


def _sum(reports: list[Report]) -> Report:
    lines: dict[tuple[str, int, str, str], Line] = {}
    for line in (line for report in reports for line in report.lines):
        key = (line.file, line.line, line.space, line.kind)
        known = lines.get(key)
        lines[key] = line if known is None else replace(
            line,
            **{name: getattr(known, name) + getattr(line, name)
               for name in ("requests", "bytes", "sectors", "used", "conflicts")},
        )  # fmt: skip
    return replace(
        reports[0],
        lines=tuple(lines[key] for key in sorted(lines)),
        buffers=tuple(buffer for report in reports for buffer in report.buffers),
        faults=tuple(fault for report in reports for fault in report.faults),
    )
