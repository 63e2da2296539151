"""Times on a card: GB/s and FLOP/s of each operation, both ways, and of a training step.

Beside them PyTorch's times, where it is installed with a card. The card is timed by its own clock
(events), after warm-up, as the median of several runs. Bytes are the least that an operation must
move, each array once; FLOP are those of the definition, a direct convolution's.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from minifcn import device, launch, optim
from minifcn import functional as F
from minifcn.graph import grad
from minifcn.recording import no_grad
from minifcn.selfcheck.training import network, settings, step
from minifcn.study.summary import summary
from minifcn.tensor import Tensor

RUNS, WARM_UP = 20, 5
BATCH, CHANNELS, SIZE = 8, 64, 128
PARAMETERS = 1 << 24
STEP_SIZE, WIDTHS = 256, (32, 64, 128, 256, 256)
CARD = "cuda"  # where PyTorch's tensors lie


@dataclass(frozen=True)
class Speed:
    """Milliseconds of one operation; what it moved and computed in them; PyTorch's, or None."""

    name: str
    ms: float
    bytes: float
    flop: float
    torch_ms: float | None = None

    @property
    def gb_s(self) -> float:
        """The least bytes that the operation moves, a second."""
        return self.bytes / self.ms / 1e6

    @property
    def gflop_s(self) -> float:
        """Operations a second."""
        return self.flop / self.ms / 1e6


@dataclass(frozen=True)
class Operation:
    """One call that both libraries spell alike: ``call(F, *inputs)``.

    Attributes:
        inputs: names of `arrays`.
        flop: for each element of the first input, forward; as many for each gradient.
        wanted: names of the inputs whose gradients are timed, each by itself.
        reads: whether a gradient reads the inputs again.
    """

    name: str
    inputs: tuple[str, ...]
    call: Callable[..., Any]
    flop: float
    wanted: tuple[str, ...] = ("picture",)
    reads: bool = True


OPERATIONS = (
    Operation("conv2d 3×3", ("picture", "weight", "bias"),
              lambda f, x, w, b: f.conv2d(x, w, b, 1, 1), 18 * CHANNELS,
              ("picture", "weight", "bias")),
    Operation("conv2d 1×1", ("picture", "pointwise", "bias"),
              lambda f, x, w, b: f.conv2d(x, w, b), 2 * CHANNELS, ("picture", "pointwise")),
    Operation("conv_transpose2d 4×4, ×2", ("picture", "larger"),
              lambda f, x, w: f.conv_transpose2d(x, w, None, 2, 1), 32 * CHANNELS,
              ("picture", "larger")),
    Operation("the same, a filter a channel", ("picture", "filters"),
              lambda f, x, w: f.conv_transpose2d(x, w, None, 2, 1, groups=CHANNELS), 32,
              ("picture", "filters")),
    Operation("interpolate ×2", ("picture",),
              lambda f, x: f.interpolate(x, None, 2, "bilinear"), 18, reads=False),
    Operation("max_pool2d 2×2", ("picture",), lambda f, x: f.max_pool2d(x, 2), 1, reads=False),
    Operation("avg_pool2d 3×3", ("picture",), lambda f, x: f.avg_pool2d(x, 3, 1, 1), 10,
              reads=False),
    Operation("batch_norm", ("picture", "bias", "bias"),
              lambda f, x, w, b: f.batch_norm(x, None, None, w, b, True), 7),
    Operation("relu", ("picture",), lambda f, x: f.relu(x), 1),
    Operation("add", ("picture", "picture"), lambda f, x, y: x + y, 1, ()),
    Operation("cross_entropy", ("picture", "target"),
              lambda f, x, t: f.cross_entropy(x, t), 4, reads=False),
)  # fmt: skip


def arrays() -> dict[str, np.ndarray]:
    """The operations' inputs, by name: pictures (N, C, H, W), channels last in memory."""
    generator = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape).astype(np.float32)

    c = CHANNELS
    return {
        "picture": normal(BATCH, SIZE, SIZE, c).transpose(0, 3, 1, 2),
        "weight": normal(c, c, 3, 3) / 24,
        "pointwise": normal(c, c, 1, 1) / 8,
        "larger": normal(c, c, 4, 4) / 16,
        "filters": normal(c, 1, 4, 4),
        "bias": normal(c),
        "target": generator.integers(0, c, (BATCH, SIZE, SIZE)),
    }


def speeds(name: str = "cuda") -> Iterator[Speed]:
    """Every operation's time on the card, forward and each gradient, then a training step's."""
    gpu, torch, host = device.module(name), _torch(), arrays()
    ours = {key: Tensor(array).to(name) for key, array in host.items()}
    theirs = {} if torch is None else {key: _there(torch, array) for key, array in host.items()}
    for operation in OPERATIONS:
        read = sum(host[key].nbytes for key in operation.inputs)
        flop = operation.flop * host[operation.inputs[0]].size
        for wanted in (None, *operation.wanted):
            run, result = of_minifcn(operation, ours, wanted)
            moved = result.numel() * result.dtype.itemsize + read
            if wanted is not None:
                again = read if operation.reads else 0
                moved = moved - read + again + host[wanted].nbytes
            ms, beside = _ms(gpu, run), None
            if torch is not None:
                beside = _torch_ms(torch, of_torch(torch, operation, theirs, wanted)[0])
            shown = operation.name if wanted is None else f"   its gradient for the {wanted}"
            yield Speed(shown, ms, moved, flop, beside)
            del run, result  # a graph holds what it saved
    yield from _optimizers(name, gpu, torch)
    yield _training_step(name, gpu, torch)


def of_minifcn(
    operation: Operation, inputs: dict[str, Tensor], wanted: str | None
) -> tuple[Callable[[], Any], Tensor]:
    """(what is timed, the operation's result): the operation, or one gradient of it."""
    leaf = None if wanted is None else Tensor(inputs[wanted].data, requires_grad=True)
    given = [
        leaf if key == wanted and leaf is not None else inputs[key] for key in operation.inputs
    ]

    def forward() -> Tensor:
        with no_grad():
            return operation.call(F, *given)

    if leaf is None:
        return forward, forward()
    result = operation.call(F, *given)
    slope = Tensor(result.data * result.data)
    return lambda: grad(result, leaf, slope, retain_graph=True)[0], result


def of_torch(
    torch: Any, operation: Operation, inputs: dict[str, Any], wanted: str | None
) -> tuple[Callable[[], Any], Any]:
    """The same in PyTorch."""
    leaf = None if wanted is None else inputs[wanted].detach().clone().requires_grad_()
    given = [leaf if key == wanted else inputs[key] for key in operation.inputs]
    functional = torch.nn.functional
    if leaf is None:
        return lambda: operation.call(functional, *given), operation.call(functional, *given)
    result = operation.call(functional, *given)
    slope = result.detach().square()
    return lambda: torch.autograd.grad(result, leaf, slope, retain_graph=True)[0], result


def _optimizers(name: str, gpu: Any, torch: Any) -> Iterator[Speed]:
    """A step of one large parameter: arrays read and written, operations a number."""
    for shown, make, passes, flop in (
        ("SGD with momentum", lambda o, p: o.SGD([p], 0.1, 0.9, weight_decay=1e-4), 5, 6),
        ("AdamW", lambda o, p: o.AdamW([p], 1e-3), 7, 13),
    ):
        ones = np.ones(PARAMETERS, np.float32)
        ours = Tensor(device.move(ones, name), requires_grad=True)
        ours.grad = Tensor(device.move(ones, name))
        ms, beside = _ms(gpu, make(optim, ours).step), None
        if torch is not None:
            theirs = torch.ones(PARAMETERS, device=CARD, requires_grad=True)
            theirs.grad = torch.ones_like(theirs)
            beside = _torch_ms(torch, make(torch.optim, theirs).step)
        yield Speed(shown, ms, passes * ones.nbytes, flop * PARAMETERS, beside)


def _training_step(name: str, gpu: Any, torch: Any) -> Speed:
    """The bytes are those of the arrays that the kernels are given, cuBLAS's not among them."""
    run = step(name, STEP_SIZE, BATCH, WIDTHS)
    with launch.counted() as launches:
        run()
    products = summary(network(WIDTHS), (3, STEP_SIZE, STEP_SIZE)).multiplications
    # each multiplication with an addition: forward, for the input and for the weight
    flop = 3 * 2 * BATCH * products
    beside = None if torch is None else _torch_ms(torch, _torch_step(torch))
    moved = sum(one.bytes for one in launches)
    return Speed("training step, FCN-8s", _ms(gpu, run), moved, flop, beside)


def _ms(gpu: Any, run: Callable[[], Any]) -> float:
    """The median time of a run by the card's clock."""
    for _ in range(WARM_UP):
        run()
    times = []
    for _ in range(RUNS):
        begin, end = gpu.cuda.Event(), gpu.cuda.Event()
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(gpu.cuda.get_elapsed_time(begin, end))
    return median(times)


def _torch() -> Any:
    """PyTorch with a card, or None."""
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        return None
    return torch if torch.cuda.is_available() else None


def _there(torch: Any, array: np.ndarray) -> Any:
    """The array as PyTorch's, channels-last as ours."""
    tensor = torch.from_numpy(np.ascontiguousarray(array)).to(CARD)
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def _torch_step(torch: Any) -> Callable[[], float]:
    """The training step of `step`, in PyTorch."""
    twin = importlib.import_module("minifcn.bench.contender_torch")
    last = torch.channels_last
    net = twin.FCN8s(settings(WIDTHS)).to(CARD).to(memory_format=last)
    x = torch.randn(BATCH, 3, STEP_SIZE, STEP_SIZE).to(CARD).contiguous(memory_format=last)
    target = torch.randint(0, 3, (BATCH, STEP_SIZE, STEP_SIZE)).to(CARD)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)

    def run() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(x), target)
        loss.backward()
        optimizer.step()
        return loss.item()

    return run


def _torch_ms(torch: Any, run: Callable[[], Any]) -> float:
    for _ in range(WARM_UP):
        run()
    times = []
    for _ in range(RUNS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return median(times)
