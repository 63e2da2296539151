"""The cases in minifcn, as its user writes them. Setting: the name of a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import minifcn as mf
from minifcn import device, models, optim
from minifcn import functional as F
from minifcn.bench.cases import Case, Convolution, FullStep, Operation, Prediction, TrainingStep

Run = Callable[[], Any]


def make(case: Case, setting: str) -> Run:
    """A function that computes the case once and gives its results."""
    device.use(setting)
    if isinstance(case, Convolution):
        return convolution(case)
    if isinstance(case, Operation):
        return sgd(case) if case.what == "sgd" else operation(case)
    if isinstance(case, TrainingStep | FullStep):
        return training_step(case, network(case))
    return prediction(case, network(case))


def threads() -> int:
    """How many threads the kernels run on."""
    import numba

    return numba.get_num_threads()


def channels_last(array: np.ndarray, requires_grad: bool = False) -> mf.Tensor:
    """The Tensor (N, C, H, W) over memory in the order (N, H, W, C), as the kernels take it."""
    if array.ndim != 4:
        return mf.Tensor(array, requires_grad)
    memory = np.ascontiguousarray(array.transpose(0, 2, 3, 1))
    return mf.Tensor(memory.transpose(0, 3, 1, 2), requires_grad)


def convolution(case: Convolution) -> Run:
    """Output, and the gradients of input, weight and bias."""
    arrays = case.arrays()
    x = channels_last(arrays["x"], case.input_gradient)
    # in memory (R, S, C, K), as the layers keep their weights
    by_tap = np.ascontiguousarray(arrays["weight"].transpose(2, 3, 1, 0))
    weight = mf.Tensor(by_tap.transpose(3, 2, 0, 1), requires_grad=True)
    bias = mf.Tensor(arrays["bias"], requires_grad=True) if case.bias else None
    gradient = channels_last(arrays["gradient"])
    wanted = [t for t in (x, weight, bias) if t is not None and t.requires_grad]
    stride, padding, dilation, groups = case.stride, case.padding, case.dilation, case.groups

    def run() -> list[Any]:
        if case.transposed:
            y = F.conv_transpose2d(x, weight, bias, stride, padding, 0, groups, dilation)
        else:
            y = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
        return [y, *mf.grad(y, wanted, gradient)]

    return run


def operation(case: Operation) -> Run:
    """Output, and the gradients of the input and, for batch normalisation, of scale and shift."""
    arrays = case.arrays()
    x = channels_last(arrays["x"], requires_grad=True)
    gradient = channels_last(arrays["gradient"])
    weight, bias = (mf.Tensor(arrays[name], requires_grad=True) for name in ("weight", "bias"))
    mean, variance = np.zeros_like(weight.data), np.ones_like(weight.data)
    wanted = [x, weight, bias] if case.what == "batch_norm" else [x]
    forward: dict[str, Callable[[], mf.Tensor]] = {
        "relu": lambda: F.relu(x),
        "max_pool": lambda: F.max_pool2d(x, 2),
        "cross_entropy": lambda: F.cross_entropy(x, arrays["target"]),
        "batch_norm": lambda: F.batch_norm(x, mean, variance, weight, bias, training=True),
        "interpolate": lambda: F.interpolate(x, scale_factor=8, mode="bilinear"),
    }
    compute, scalar = forward[case.what], case.what == "cross_entropy"

    def run() -> list[Any]:
        y = compute()
        return [y, *mf.grad(y, wanted, None if scalar else gradient)]

    return run


def sgd(case: Operation) -> Run:
    """The parameter after the step."""
    arrays = case.arrays()
    parameter = mf.nn.Parameter(arrays["x"])
    parameter.grad = mf.Tensor(arrays["gradient"])
    optimizer = optim.SGD([parameter], lr=1e-3, momentum=0.9, weight_decay=5e-4)

    def run() -> list[Any]:
        optimizer.step()
        return [parameter]

    return run


def network(case: TrainingStep | Prediction) -> models.FCN:
    """The FCN-8s of the case."""
    return models.FCN(**case.settings, head="fcn8s", generator=np.random.default_rng(0))


def training_step(case: TrainingStep | FullStep, net: models.FCN) -> Run:
    """The loss before the step."""
    arrays = case.arrays()
    x, target = channels_last(arrays["x"]), arrays["target"]
    net.trunk.gradient_checkpointing = isinstance(case, FullStep) and case.gradient_checkpointing
    optimizer = optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)

    def run() -> list[Any]:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), target)
        loss.backward()
        optimizer.step()
        return [loss.item()]

    return run


def prediction(case: Prediction, net: models.FCN) -> Run:
    """The scores."""
    x = channels_last(case.arrays()["x"])
    net.eval()

    def run() -> list[Any]:
        with mf.no_grad():
            return [net(x)]

    return run
