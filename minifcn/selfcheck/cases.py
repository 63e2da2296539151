"""What is run on the device: every kernel there is, on awkward shapes.

Primes, single pixels, strides longer than the kernel, padding wider than the picture, an empty
batch, channel counts that fill no vector, ties and NaN. Some kernels run in second derivatives
alone, others only where a tile would not fit: they have cases of their own
(`tests/test_selfcheck.py` counts).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minifcn import functional as F
from minifcn import optim
from minifcn.graph import grad
from minifcn.kernels.algorithm import conv_algorithm
from minifcn.ops.shape import cat
from minifcn.recording import enable_grad
from minifcn.tensor import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """A function of Tensors, and the shapes of those that are drawn for it.

    The gradient is taken of the first ``wanted`` of them. ``prepare`` turns the draws of one
    argument into what it stands for, such as the classes of a target. ``smooth``: small, without
    ties or corners nearby, so that its gradient can be checked by differences.
    """

    name: str
    function: Callable[..., Tensor]
    shapes: tuple[Shape, ...]
    wanted: int = 1
    prepare: Callable[[list[np.ndarray]], list[np.ndarray]] | None = None
    smooth: bool = False

    def inputs(self, dtype: Any) -> list[Tensor]:
        """The Tensors, on the host: the same numbers at every call."""
        generator = np.random.default_rng(7)
        arrays: list[np.ndarray] = [
            generator.standard_normal(shape).astype(dtype) for shape in self.shapes
        ]
        if self.prepare is not None:
            arrays = self.prepare(arrays)
        return [Tensor(array, requires_grad=i < self.wanted) for i, array in enumerate(arrays)]


def _classes(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """The last array as class numbers 0 … K − 1, some void; K from the logits."""
    logits, target = arrays
    classes = (np.abs(target) * 1000).astype(np.int64) % logits.shape[1]
    return [logits, np.where(target > 1, 255, classes)]


def _with_nan(arrays: list[np.ndarray]) -> list[np.ndarray]:
    arrays[0].reshape(-1)[::7] = np.nan
    return arrays


def _with_ties(arrays: list[np.ndarray]) -> list[np.ndarray]:
    return [np.round(arrays[0]), *arrays[1:]]


def _conv(name: str, x: Shape, w: Shape, smooth: bool = False, **settings: object) -> Case:
    def function(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.conv2d(x, weight, bias, **settings)  # type: ignore[arg-type]

    return Case(f"conv2d {name}", function, (x, w, (w[0],)), 3, smooth=smooth)


def _transposed(name: str, x: Shape, w: Shape, smooth: bool = False, **settings: object) -> Case:
    def function(x: Tensor, weight: Tensor) -> Tensor:
        return F.conv_transpose2d(x, weight, None, **settings)  # type: ignore[arg-type]

    return Case(f"conv_transpose2d {name}", function, (x, w), 2, smooth=smooth)


def _pool(name: str, x: Shape, prepare: object = None, **settings: object) -> Case:
    def function(x: Tensor) -> Tensor:
        return F.max_pool2d(x, **settings)  # type: ignore[arg-type]

    return Case(f"max_pool2d {name}", function, (x,), prepare=prepare)  # type: ignore[arg-type]


def _norm(name: str, x: Shape, smooth: bool = False) -> Case:
    def function(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, weight, bias, training=True)

    return Case(f"batch_norm {name}", function, (x, (x[1],), (x[1],)), 3, smooth=smooth)


def _loss(name: str, x: Shape, smooth: bool = False, reduction: str = "mean") -> Case:
    def function(x: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(x, target, ignore_index=255, reduction=reduction)

    shapes = (x, (x[0], *x[2:]))
    return Case(f"cross_entropy {name}", function, shapes, 1, _classes, smooth)


def _point_by_point(x: Tensor) -> Tensor:
    """Functions without a kernel of their own: CuPy's expressions."""
    y = x.tanh() * x.sigmoid() + (x.abs() + 1).log().exp().sqrt()
    return F.log_softmax(y.clamp(-2, 2) / (x * x + 1) - x, 1) ** 2


def _cat(name: str, *channels: int) -> Case:
    def function(*parts: Tensor) -> Tensor:
        return cat(parts, 1)

    shapes = tuple((2, c, 5, 7) for c in channels)
    return Case(f"cat {name}", function, shapes, len(shapes), smooth=True)


def _slope(case: Case, textbook: bool = False) -> Case:
    """The derivative of the squares of what a case gives, whose own is a second derivative.

    With ``textbook`` convolutions make the column matrix whole (im2col).
    """

    def function(x: Tensor, *others: Tensor) -> Tensor:
        with enable_grad(), conv_algorithm("im2col" if textbook else None):
            x = x if x.requires_grad else Tensor(x.data, requires_grad=True)
            y = case.function(x, *others)
            (slope,) = grad((y * y).sum(), x, create_graph=True)
        assert slope is not None
        return slope

    name = f"{case.name}, derivative{' by im2col' if textbook else ''}"
    return Case(name, function, case.shapes, case.wanted, case.prepare, case.smooth)


def _steps(name: str, make: Callable[[list[Tensor]], optim.Optimizer]) -> Case:
    """Two parameters, of which one has a length that no vector divides, after three steps."""

    def function(weight: Tensor, bias: Tensor) -> Tensor:
        parameters = [Tensor(p.data.copy(), requires_grad=True) for p in (weight, bias)]
        optimizer = make(parameters)
        for _ in range(3):
            optimizer.zero_grad()
            w, b = parameters
            ((w * w).sum() + (b * b * b).sum()).backward()
            optimizer.step()
        return cat([Tensor(p.data.reshape(-1)) for p in parameters])

    return Case(name, function, ((5, 3, 3, 7), (5,)), 0)


CASES = (
    _conv("3×3", (2, 5, 11, 13), (7, 5, 3, 3), padding=1),
    _conv("many channels", (1, 67, 9, 8), (65, 67, 3, 3), padding=1),
    _conv("1×1", (2, 13, 5, 7), (21, 13, 1, 1)),
    _conv("1×1, sums in parts", (1, 3, 18, 20), (64, 3, 1, 1)),
    _conv("one pixel", (1, 1, 1, 1), (1, 1, 1, 1), True),
    _conv("stride beyond the kernel", (1, 3, 11, 17), (4, 3, 2, 2), stride=5),
    _conv("padding beyond the picture", (1, 3, 2, 3), (4, 3, 3, 3), padding=4),
    _conv("dilated", (2, 3, 13, 9), (5, 3, 3, 3), padding=2, dilation=2),
    _conv("7×7, one row", (1, 4, 7, 19), (6, 4, 7, 7)),
    _conv("in groups", (2, 6, 7, 5), (4, 3, 3, 3), padding=1, groups=2),
    _conv("depthwise", (2, 5, 7, 9), (5, 1, 3, 3), padding=1, groups=5),
    _conv("depthwise, dilated", (2, 5, 9, 8), (5, 1, 3, 3), padding=2, dilation=2, groups=5),
    _conv("empty batch", (0, 3, 5, 5), (4, 3, 3, 3), padding=1),
    _conv("small", (1, 2, 4, 5), (3, 2, 3, 2), True, padding=1),
    _slope(_conv("small", (1, 2, 4, 5), (3, 2, 3, 2), True, padding=1)),
    _slope(_conv("3×3", (2, 5, 7, 6), (7, 5, 3, 3), padding=1), textbook=True),
    Case("conv2d_relu", lambda x, w, b: F.conv2d_relu(x, w, b, padding=1),
         ((2, 5, 11, 7), (9, 5, 3, 3), (9,)), 3),
    _transposed("×2", (2, 3, 5, 7), (3, 4, 4, 4), stride=2, padding=1),
    _transposed("stride beyond the kernel", (1, 3, 4, 5), (3, 2, 2, 2), stride=3),
    _transposed("depthwise ×8", (1, 3, 4, 3), (3, 1, 16, 16), stride=8, groups=3),
    _transposed("learned up-sampling ×2", (2, 3, 16, 17), (3, 1, 4, 4), stride=2, padding=1,
                groups=3),
    _transposed("small", (1, 2, 3, 2), (2, 3, 3, 3), True, stride=2),
    _pool("2×2", (2, 5, 9, 11), kernel_size=2, ceil_mode=True),
    _pool("3×3, overlapping", (1, 3, 13, 8), kernel_size=3, stride=2, padding=1),
    _pool("ties", (2, 3, 8, 8), _with_ties, kernel_size=2),
    _pool("NaN", (1, 5, 7, 6), _with_nan, kernel_size=3, stride=1, padding=1),
    _slope(_pool("3×3, overlapping", (1, 3, 7, 8), kernel_size=3, stride=2, padding=1)),
    _pool("256 taps", (1, 3, 17, 19), kernel_size=16, stride=3, padding=8),
    _slope(_pool("256 taps", (1, 3, 17, 19), kernel_size=16, stride=3, padding=8)),
    _pool("200 taps, 32 channels", (1, 32, 1, 205), kernel_size=(1, 200), stride=1),
    Case("avg_pool2d, side by side", lambda x: F.avg_pool2d(x, 7), ((1, 5, 14, 21),)),
    Case("avg_pool2d", lambda x: F.avg_pool2d(x, 3, 2, 1), ((2, 3, 7, 5),), smooth=True),
    _norm("C = 5", (2, 5, 7, 11)),
    _norm("C = 67", (3, 67, 3, 5)),
    _norm("C = 64, sums in parts", (1, 64, 18, 20)),
    _norm("small", (2, 2, 2, 3), True),
    Case("batch_norm_relu", lambda x, w, b: F.batch_norm_relu(x, None, None, w, b, True),
         ((2, 7, 5, 3), (7,), (7,)), 3),
    Case("relu", F.relu, ((2, 3, 5, 7),)),
    Case("relu, NaN", F.relu, ((1, 1, 3, 7),), prepare=_with_nan),
    Case("add", lambda a, b: a + b, ((2, 3, 5, 7), (2, 3, 5, 7)), 2, smooth=True),
    _loss("K = 2", (2, 2, 9, 7)),
    _loss("K = 21", (1, 21, 5, 6), reduction="image"),
    _loss("K = 67", (1, 67, 3, 2), reduction="none"),
    _loss("2,100 pixels", (1, 3, 42, 50)),
    _loss("small", (2, 3, 2, 2), True),
    _slope(_loss("small", (2, 3, 2, 2), True)),
    Case("interpolate", lambda x: F.interpolate(x, size=(13, 5)), ((2, 3, 5, 7),), smooth=True),
    _cat("of two", 3, 5),
    _cat("of two, whole sectors", 8, 16),
    _cat("of three", 3, 4, 5),
    Case("crop", lambda x: F.crop(x, 1, 2, 3, 4), ((2, 3, 5, 7),), smooth=True),
    Case("softmax", lambda x: F.softmax(x, 1), ((2, 5, 3, 4),), smooth=True),
    Case("point by point", _point_by_point, ((2, 3, 5, 4),), smooth=True),
    Case("linear", F.linear, ((5, 7), (3, 7), (3,)), 3, smooth=True),
    _steps("SGD with momentum", lambda p: optim.SGD(p, 0.1, 0.9, weight_decay=0.01)),
    _steps("SGD with Nesterov's momentum", lambda p: optim.SGD(p, 0.1, 0.9, nesterov=True)),
    _steps("Adam", lambda p: optim.Adam(p, 0.01, weight_decay=0.01)),
    _steps("AdamW", lambda p: optim.AdamW(p, 0.01)),
)  # fmt: skip
