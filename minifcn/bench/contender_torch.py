"""The cases in PyTorch, as its user writes them: the only file here that imports it.

Settings: "contiguous" (its default memory order), "channels_last", and "compile" (channels_last,
the network through `torch.compile`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from minifcn.bench.cases import Case, Convolution, FullStep, Operation, Prediction, TrainingStep

Run = Callable[[], Any]


def make(case: Case, setting: str) -> Run:
    """A function that computes the case once and gives its results."""
    torch.manual_seed(0)
    order = torch.contiguous_format if setting == "contiguous" else torch.channels_last
    if isinstance(case, Convolution):
        return convolution(case, order)
    if isinstance(case, Operation):
        return sgd(case) if case.what == "sgd" else operation(case, order)
    net = FCN8s(case.settings).to(memory_format=order)
    run_net = torch.compile(net) if setting == "compile" else net
    if isinstance(case, TrainingStep | FullStep):
        return training_step(case, net, run_net, order)
    return prediction(case, net, run_net, order)


def threads() -> int:
    """How many threads PyTorch runs on: its own choice."""
    return torch.get_num_threads()


def tensor(array: np.ndarray, order: Any, requires_grad: bool = False) -> Any:
    """The tensor in this memory order, where it has the four dimensions for it."""
    result = torch.from_numpy(array)
    if array.ndim == 4:
        result = result.contiguous(memory_format=order)
    return result.requires_grad_(requires_grad)


def convolution(case: Convolution, order: Any) -> Run:
    """Output, and the gradients of input, weight and bias."""
    arrays = case.arrays()
    x = tensor(arrays["x"], order, case.input_gradient)
    weight = tensor(arrays["weight"], order, requires_grad=True)
    bias = tensor(arrays["bias"], order, requires_grad=True) if case.bias else None
    gradient = tensor(arrays["gradient"], order)
    wanted = [t for t in (x, weight, bias) if t is not None and t.requires_grad]
    stride, padding, dilation, groups = case.stride, case.padding, case.dilation, case.groups

    def run() -> list[Any]:
        if case.transposed:
            y = F.conv_transpose2d(x, weight, bias, stride, padding, 0, groups, dilation)
        else:
            y = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
        return [y, *torch.autograd.grad(y, wanted, gradient)]

    return run


def operation(case: Operation, order: Any) -> Run:
    """Output, and the gradients of the input and, for batch normalisation, of scale and shift."""
    arrays = case.arrays()
    x = tensor(arrays["x"], order, requires_grad=True)
    gradient = tensor(arrays["gradient"], order)
    weight, bias = (tensor(arrays[name], order, requires_grad=True) for name in ("weight", "bias"))
    mean, variance = torch.zeros_like(weight), torch.ones_like(weight)
    target = torch.from_numpy(arrays["target"]) if "target" in arrays else None
    wanted = [x, weight, bias] if case.what == "batch_norm" else [x]
    forward: dict[str, Callable[[], Any]] = {
        "relu": lambda: F.relu(x),
        "max_pool": lambda: F.max_pool2d(x, 2),
        "cross_entropy": lambda: F.cross_entropy(x, target),
        "batch_norm": lambda: F.batch_norm(x, mean, variance, weight, bias, training=True),
        "interpolate": lambda: F.interpolate(x, scale_factor=8, mode="bilinear"),
    }
    compute, scalar = forward[case.what], case.what == "cross_entropy"

    def run() -> list[Any]:
        y = compute()
        return [y, *torch.autograd.grad(y, wanted, None if scalar else gradient)]

    return run


def sgd(case: Operation) -> Run:
    """The parameter after the step."""
    arrays = case.arrays()
    parameter = nn.Parameter(torch.from_numpy(arrays["x"]))
    parameter.grad = torch.from_numpy(arrays["gradient"])
    optimizer = torch.optim.SGD([parameter], lr=1e-3, momentum=0.9, weight_decay=5e-4)

    def run() -> list[Any]:
        optimizer.step()
        return [parameter]

    return run


class FCN8s(nn.Module):
    """The twin of `minifcn.models.FCN` with head "fcn8s": the same layers in the same order."""

    gradient_checkpointing = False

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        classes, norm = settings["num_classes"], settings["batch_norm"]
        widths, fc = settings["widths"], settings["fc_channels"]
        before = 3
        self.stages = nn.ModuleList()
        for width, count in zip(widths, settings["convs"], strict=True):
            layers: list[nn.Module] = []
            for _ in range(count):
                layers += _block(before, width, 3, norm)
                before = width
            self.stages.append(nn.Sequential(*layers, nn.MaxPool2d(2, ceil_mode=True)))
        drop = [nn.Dropout(settings["dropout"])] if settings["dropout"] else []
        fc6 = _block(before, fc, settings["fc_kernel"], norm)
        self.fc = nn.Sequential(*fc6, *drop, *_block(fc, fc, 1, norm), *drop)
        self.score = nn.ModuleList(nn.Conv2d(c, classes, 1) for c in (fc, widths[3], widths[2]))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(classes, classes, 2 * f, f, f // 2, groups=classes, bias=False)
            for f in (2, 2, 8)
        )

    def forward(self, x: Any) -> Any:
        """(N, 3, H, W) → scores (N, classes, H, W)."""
        size = x.shape[2:]
        pools = []
        for stage in self.stages:
            again = self.gradient_checkpointing
            x = checkpoint(stage, x, use_reentrant=False) if again else stage(x)
            pools.append(x)
        x = self.score[0](self.fc(x))
        for i, pool in ((1, pools[3]), (2, pools[2])):
            x = _cut(self.up[i - 1](x), pool.shape[2:]) + self.score[i](pool)
        return _cut(self.up[2](x), size)


def _block(before: int, width: int, kernel: int, norm: bool) -> list[nn.Module]:
    convolution = nn.Conv2d(before, width, kernel, padding=kernel // 2, bias=not norm)
    return [convolution, *([nn.BatchNorm2d(width)] if norm else []), nn.ReLU(inplace=True)]


def _cut(x: Any, size: Any) -> Any:
    return x[:, :, : size[0], : size[1]]


def training_step(case: TrainingStep | FullStep, net: FCN8s, run_net: Any, order: Any) -> Run:
    """The loss before the step."""
    arrays = case.arrays()
    x, target = tensor(arrays["x"], order), torch.from_numpy(arrays["target"])
    net.gradient_checkpointing = isinstance(case, FullStep) and case.gradient_checkpointing
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)

    def run() -> list[Any]:
        optimizer.zero_grad()
        loss = F.cross_entropy(run_net(x), target)
        loss.backward()
        optimizer.step()
        return [loss.item()]

    return run


def prediction(case: Prediction, net: FCN8s, run_net: Any, order: Any) -> Run:
    """The scores."""
    x = tensor(case.arrays()["x"], order)
    net.eval()

    def run() -> list[Any]:
        with torch.no_grad():
            return [run_net(x)]

    return run
