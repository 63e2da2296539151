"""What is measured: each case as data, with the bar that minifcn is to stay under.

A bar is the time (or memory) of minifcn over that of PyTorch at its best. A case travels to the
workers as JSON, and its numbers are drawn there from one seed, so that all contenders compute the
same thing (`tests/oracle/test_bench_torch.py` holds their results against each other).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from minifcn.geometry import Window

CLASSES = 21
"""Those of PASCAL VOC."""


@dataclass(frozen=True)
class Convolution:
    """A convolution or transposed convolution with its gradients, through autograd.

    Input (batch, channels, size, size), as many filters of kernel × kernel as ``filters``. The
    gradients are those of the input (unless it is a picture, ``input_gradient`` False), the weight
    and, if there is one, the bias.
    """

    name: str
    channels: int
    filters: int
    size: int
    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    transposed: bool = False
    bias: bool = True
    input_gradient: bool = True
    batch: int = 4
    bar: float | None = None
    quick: bool = False

    @property
    def out(self) -> int:
        """Height and width of the output."""
        window = Window(
            self.kernel, self.stride, self.padding, self.dilation, transposed=self.transposed
        )
        return window.output_size(self.size)

    @property
    def flops(self) -> int:
        """Additions and multiplications of a direct convolution, forward and each gradient.

        Every tap counts, those in the padding too; a fast algorithm, which needs fewer, can exceed
        the peak by this count.
        """
        places = (self.size if self.transposed else self.out) ** 2
        taps = self.kernel**2 * self.channels * self.filters // self.groups
        return 2 * self.batch * places * taps * (3 if self.input_gradient else 2)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """(K, C/groups, R, S), or (C, K/groups, R, S) where transposed, as everywhere here."""
        first, second = self.filters, self.channels
        if self.transposed:
            first, second = second, first
        return first, second // self.groups, self.kernel, self.kernel

    def arrays(self) -> dict[str, np.ndarray]:
        """Input, weight, bias and the output's gradient, in NumPy's order (N, C, H, W)."""
        shapes = {
            "x": (self.batch, self.channels, self.size, self.size),
            "weight": self.weight_shape,
            "bias": (self.filters,),
            "gradient": (self.batch, self.filters, self.out, self.out),
        }
        arrays = _normal(shapes)
        arrays["weight"] /= (self.kernel**2 * self.channels / self.groups) ** 0.5
        return arrays


@dataclass(frozen=True)
class Operation:
    """Another operation with its gradient: ``what`` on an input of this shape.

    ``what`` is "relu", "max_pool" (2×2), "cross_entropy", "batch_norm" (training), "interpolate"
    (bilinear, ×8), or "sgd": one optimiser step on a parameter of this shape.
    """

    name: str
    what: str
    shape: tuple[int, ...]
    bar: float | None = None
    quick: bool = False

    def arrays(self) -> dict[str, np.ndarray]:
        """Input, the output's gradient, scale and shift of each channel, and a target."""
        out = self.shape
        if self.what == "max_pool":
            out = (*out[:2], out[2] // 2, out[3] // 2)
        if self.what == "interpolate":
            out = (*out[:2], out[2] * 8, out[3] * 8)
        channel = self.shape[1:2]
        arrays = _normal({"x": self.shape, "gradient": out, "weight": channel, "bias": channel})
        if self.what == "cross_entropy":
            generator = np.random.default_rng(1)
            arrays["target"] = generator.integers(
                0, self.shape[1], (self.shape[0], *self.shape[2:])
            )
        return arrays


@dataclass(frozen=True)
class TrainingStep:
    """One step of an FCN-8s: forward, loss, backward, SGD with momentum and weight decay.

    ``compiled``: whether `torch.compile` has a try at it, which takes it half a minute.
    """

    name: str
    width: int
    size: int
    batch_norm: bool = False
    batch: int = 4
    bar: float | None = None
    memory_bar: float | None = None
    compiled: bool = False
    quick: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """The network's, as `minifcn.models.FCN` takes them.

        Without batch normalisation the paper's kind of net, fc6 of 7×7; with it the small one that
        `minifcn train` starts from.
        """
        b = self.width
        return {
            "num_classes": CLASSES,
            "widths": (b, 2 * b, 4 * b, 8 * b, 8 * b),
            "convs": (2, 2, 2, 2, 2),
            "fc_channels": 512 if self.batch_norm else 16 * b,
            "fc_kernel": 3 if self.batch_norm else 7,
            "batch_norm": self.batch_norm,
            "dropout": 0.5 if self.batch_norm else 0.0,
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """Pictures and labels."""
        arrays = _normal({"x": (self.batch, 3, self.size, self.size)})
        generator = np.random.default_rng(1)
        shape = (self.batch, self.size, self.size)
        return arrays | {"target": generator.integers(0, CLASSES, shape)}


@dataclass(frozen=True)
class Prediction:
    """The scores of one picture by the VGG16 FCN-8s, without a graph."""

    name: str
    size: int
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    fc_channels: int = 4096
    bar: float | None = None
    memory_bar: float | None = None
    quick: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """The network's, as `minifcn.models.FCN` takes them."""
        return {
            "num_classes": CLASSES,
            "widths": self.widths,
            "convs": (2, 2, 3, 3, 3),
            "fc_channels": self.fc_channels,
            "fc_kernel": 7,
            "batch_norm": False,
            "dropout": 0.5,
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """The picture."""
        return _normal({"x": (1, 3, self.size, self.size)})


@dataclass(frozen=True)
class FullStep(Prediction):
    """A training step of that net on that picture: forward, loss, backward, SGD with momentum.

    ``gradient_checkpointing``: the way back computes each stage of the trunk again.
    """

    gradient_checkpointing: bool = False

    def arrays(self) -> dict[str, np.ndarray]:
        """Picture and labels."""
        shape = (1, self.size, self.size)
        target = np.random.default_rng(1).integers(0, CLASSES, shape)
        return super().arrays() | {"target": target}


Case = Convolution | Operation | TrainingStep | Prediction


def to_json(case: Case) -> dict[str, Any]:
    """The case as JSON values."""
    return {"kind": type(case).__name__, **asdict(case)}


def from_json(values: Mapping[str, Any]) -> Case:
    """The case that `to_json` made these values of."""
    kinds: dict[str, type[Case]] = {
        kind.__name__: kind for kind in (Convolution, Operation, TrainingStep, Prediction, FullStep)
    }
    fields: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k != "kind"
    }
    return kinds[values["kind"]](**fields)


def _normal(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {name: generator.standard_normal(s, np.float32) for name, s in shapes.items()}


def _same(channels: int, size: int, bar: float, quick: bool = False) -> Convolution:
    """The bread of VGG: 3×3, as many filters as channels, the size kept."""
    name = f"3×3 {channels} at {size}²"
    return Convolution(name, channels, channels, size, 3, padding=1, bar=bar, quick=quick)


def _of_128(name: str, **settings: Any) -> Convolution:
    return Convolution(name, 128, 128, 56, 3, bar=0.9, **settings)


def _upsample(k: int, size: int, groups: int, bar: float | None, quick: bool = False) -> Case:
    """A transposed convolution of the class scores, by half its kernel."""
    s = k // 2
    name = f"transposed k{k} s{s} at {size}²"
    if groups > 1:
        name = f"depthwise transposed k{k} at {size}²"
    return Convolution(name, CLASSES, CLASSES, size, k, s, s // 2, groups=groups, transposed=True,
                       bias=False, bar=bar, quick=quick)  # fmt: skip


CONVOLUTIONS: tuple[Convolution, ...] = (
    _same(64, 224, bar=0.40),
    _same(128, 112, bar=0.35, quick=True),
    _same(256, 56, bar=0.35, quick=True),
    _same(512, 28, bar=0.50, quick=True),
    Convolution("3×3 RGB to 64 at 224²", 3, 64, 224, 3, padding=1, input_gradient=False, bar=0.9,
                quick=True),
    Convolution("1×1 512 to 21 at 14²", 512, 21, 14, 1, bar=0.9, quick=True),
    Convolution("7×7 256 to 512 at 8²", 256, 512, 8, 7, padding=3, bar=0.9, quick=True),
    Convolution("7×7 256 to 512 at 16²", 256, 512, 16, 7, padding=3, bar=0.9),
    _of_128("3×3 128 at 56², stride 2", padding=1, stride=2),
    _of_128("3×3 128 at 56², dilation 2", padding=2, dilation=2),
    _of_128("3×3 128 at 56², 4 groups", padding=1, groups=4),
)  # fmt: skip

LAYERS: tuple[Case, ...] = (
    *CONVOLUTIONS,
    _upsample(4, 14, groups=1, bar=0.9),
    _upsample(16, 28, groups=1, bar=0.8, quick=True),
    _upsample(64, 7, groups=1, bar=0.7),
    _upsample(4, 14, groups=CLASSES, bar=None),
    _upsample(16, 28, groups=CLASSES, bar=None),
    _upsample(64, 7, groups=CLASSES, bar=None),
    Operation("ReLU 64 at 224²", "relu", (4, 64, 224, 224), bar=0.9, quick=True),
    Operation("2×2 max pool 64 at 224²", "max_pool", (4, 64, 224, 224), bar=0.9, quick=True),
    Operation("cross-entropy 21 at 224²", "cross_entropy", (4, CLASSES, 224, 224), bar=0.9,
              quick=True),
    Operation("batch norm 64 at 112²", "batch_norm", (4, 64, 112, 112)),
    Operation("bilinear ×8 21 at 28²", "interpolate", (4, CLASSES, 28, 28)),
    Operation("SGD step of 2 M parameters", "sgd", (2_000_000,), bar=0.9, quick=True),
)  # fmt: skip

STEPS: tuple[TrainingStep, ...] = (
    TrainingStep("FCN-8s width 32 at 128²", 32, 128, bar=0.5, memory_bar=0.8, compiled=True,
                 quick=True),
    TrainingStep("FCN-8s width 32 at 256²", 32, 256, bar=0.5, memory_bar=0.8),
    TrainingStep("FCN-8s width 64 at 128²", 64, 128, bar=0.5, memory_bar=0.8),
    TrainingStep("batch norm, width 32 at 128²", 32, 128, batch_norm=True),
    TrainingStep("batch norm, width 32 at 256²", 32, 256, batch_norm=True),
    TrainingStep("batch norm, width 64 at 128²", 64, 128, batch_norm=True),
)  # fmt: skip

PREDICTION = Prediction("VGG16 FCN-8s, a picture of 500²", 500, bar=0.5, memory_bar=0.7)

FULL_STEPS = (
    FullStep("VGG16 FCN-8s, a step at 500²", 500, bar=0.5, memory_bar=0.85),
    FullStep("the same, gradient checkpointing", 500, gradient_checkpointing=True, bar=0.5),
)
