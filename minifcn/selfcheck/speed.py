"""Times on a card: each kernel's GB/s and FLOP/s, and a training step, beside PyTorch's.

The card is timed by its own clock (events), after warm-up, as the median of several runs. Bytes are
the least that the operation must move, each array once; FLOP are a direct convolution's.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from minifcn import device
from minifcn import functional as F
from minifcn.recording import no_grad
from minifcn.selfcheck.training import settings, step
from minifcn.tensor import Tensor

RUNS, WARM_UP = 20, 5
BATCH, CHANNELS, SIZE = 8, 64, 128
STEP_SIZE, WIDTHS = 256, (32, 64, 128, 256, 256)


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


def speeds(name: str = "cuda") -> Iterator[Speed]:
    """Every operation's time on the card, then that of a training step."""
    gpu = device.module(name)
    torch = _torch()
    generator = np.random.default_rng(0)
    shape = (BATCH, SIZE, SIZE, CHANNELS)
    host = generator.standard_normal(shape).astype(np.float32).transpose(0, 3, 1, 2)
    w = generator.standard_normal((CHANNELS, CHANNELS, 3, 3)).astype(np.float32) / 24
    labels = generator.integers(0, CHANNELS, (BATCH, SIZE, SIZE))
    x, weight, target = (Tensor(array).to(name) for array in (host, w, labels))
    there = None if torch is None else _there(torch, host, w, labels)
    picture, flop = host.nbytes, 2.0 * host.size * CHANNELS * 9
    rows: list[tuple[str, str, float, float]] = [
        ("conv2d 3×3", "conv2d", 2 * picture, flop),
        ("relu", "relu", 2 * picture, host.size),
        ("max_pool2d 2×2", "max_pool2d", 1.25 * picture, host.size),
        ("batch_norm", "batch_norm", 3 * picture, 5 * host.size),
        ("cross_entropy", "cross_entropy", picture, 4 * host.size),
    ]
    calls = _calls(F, x, weight, target)
    with no_grad():
        for shown, function, moved, work in rows:
            beside = None
            if torch is not None and there is not None:
                beside = _torch_ms(torch, _calls(torch.nn.functional, *there)[function])
            yield Speed(shown, _ms(gpu, calls[function]), moved, work, beside)
    run = step(name, STEP_SIZE, BATCH, WIDTHS)
    beside = None if torch is None else _torch_ms(torch, _torch_step(torch))
    yield Speed("training step, FCN-8s", _ms(gpu, run), 0.0, 0.0, beside)


def _calls(functions: Any, x: Any, weight: Any, target: Any) -> dict[str, Callable[[], Any]]:
    return {
        "conv2d": lambda: functions.conv2d(x, weight, None, 1, 1),
        "relu": lambda: functions.relu(x),
        "max_pool2d": lambda: functions.max_pool2d(x, 2),
        "batch_norm": lambda: functions.batch_norm(x, None, None, None, None, True),
        "cross_entropy": lambda: functions.cross_entropy(x, target),
    }


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


def _there(torch: Any, *arrays: np.ndarray) -> list[Any]:
    """The arrays as PyTorch's, channels-last as ours."""
    tensors = [torch.from_numpy(np.ascontiguousarray(array)).cuda() for array in arrays]
    last = torch.channels_last
    return [t.contiguous(memory_format=last) if t.ndim == 4 else t for t in tensors]


def _torch_step(torch: Any) -> Callable[[], float]:
    """The training step of `step`, in PyTorch."""
    twin = importlib.import_module("minifcn.bench.contender_torch")
    last = torch.channels_last
    net = twin.FCN8s(settings(WIDTHS)).cuda().to(memory_format=last)
    x = torch.randn(BATCH, 3, STEP_SIZE, STEP_SIZE).cuda().contiguous(memory_format=last)
    target = torch.randint(0, 3, (BATCH, STEP_SIZE, STEP_SIZE)).cuda()
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
