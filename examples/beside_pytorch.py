"""One training step of an FCN-8s, in minifcn and in PyTorch: time and peak memory, side by side.

    python examples/beside_pytorch.py             what is installed of the two
    python examples/beside_pytorch.py --width 64 --size 128 --batch 4

Each contender runs in a process of its own, in turns; figures are medians over the turns. Peak
memory is the process's largest resident set (interpreter, libraries and all), as the kernel counts
it. Kernels are compiled (and cached on disk) in a first, unmeasured process.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time

CLASSES = 21


def minifcn_step(batch, size, width):
    import numpy as np

    import minifcn as mf

    generator = np.random.default_rng(0)
    widths = (width, 2 * width, 4 * width, 8 * width, 8 * width)
    net = mf.models.fcn8s(CLASSES, widths=widths, fc_channels=512, generator=generator)
    optimizer = mf.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    pixels = generator.standard_normal((batch, size, size, 3), np.float32)
    x = mf.Tensor(pixels.transpose(0, 3, 1, 2))  # channels last in memory
    target = generator.integers(0, CLASSES, (batch, size, size))

    def step():
        optimizer.zero_grad()
        mf.functional.cross_entropy(net(x), target).backward()
        optimizer.step()

    return step, sum(p.numel() for p in net.parameters())


def torch_step(batch, size, width, channels_last):
    import torch
    from torch import nn

    torch.manual_seed(0)

    def block(c, k, r):
        return [
            nn.Conv2d(c, k, r, padding=r // 2, bias=False),
            nn.BatchNorm2d(k),
            nn.ReLU(inplace=True),
        ]

    class FCN8s(nn.Module):
        """The same net: VGG trunk, fc6 3×3, fc7 1×1, skips from pool4 and pool3."""

        def __init__(self):
            super().__init__()
            widths = [3, width, 2 * width, 4 * width, 8 * width, 8 * width]
            self.stages = nn.ModuleList(
                nn.Sequential(*block(c, k, 3), *block(k, k, 3), nn.MaxPool2d(2, 2, ceil_mode=True))
                for c, k in zip(widths, widths[1:], strict=False)
            )
            fc6, fc7 = block(widths[5], 512, 3), block(512, 512, 1)
            self.fc = nn.Sequential(*fc6, nn.Dropout(0.5), *fc7, nn.Dropout(0.5))
            self.score = nn.ModuleList(nn.Conv2d(c, CLASSES, 1) for c in (512, *widths[4:2:-1]))
            self.up = nn.ModuleList(
                nn.ConvTranspose2d(CLASSES, CLASSES, 2 * f, f, f // 2, groups=CLASSES, bias=False)
                for f in (2, 2, 8)
            )

        def forward(self, x):
            pools = []
            for stage in self.stages:
                x = stage(x)
                pools.append(x)
            x = self.up[0](self.score[0](self.fc(x))) + self.score[1](pools[3])
            return self.up[2](self.up[1](x) + self.score[2](pools[2]))

    net = FCN8s()
    x = torch.randn(batch, 3, size, size)
    if channels_last:
        net, x = (thing.to(memory_format=torch.channels_last) for thing in (net, x))
    target = torch.randint(0, CLASSES, (batch, size, size))
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)

    def step():
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), target).backward()
        optimizer.step()

    return step, sum(p.numel() for p in net.parameters())


CONTENDERS = {
    "minifcn": minifcn_step,
    "torch": lambda *setting: torch_step(*setting, channels_last=False),
    "torch, channels last": lambda *setting: torch_step(*setting, channels_last=True),
}


def measure(name, setting, steps):
    """In a process of its own: seconds a step, and the process's peak memory in MiB."""
    step, parameters = CONTENDERS[name](*setting)
    times = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": statistics.median(times[1:]), "peak": peak, "parameters": parameters}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=128, help="height and width in pixels")
    parser.add_argument("--width", type=int, default=32, help="channels of the first stage")
    parser.add_argument("--steps", type=int, default=8, help="steps measured in each process")
    parser.add_argument("--turns", type=int, default=3, help="processes a contender")
    parser.add_argument("--only", choices=CONTENDERS, help="measure this one, here, and print JSON")
    args = parser.parse_args()
    setting = args.batch, args.size, args.width
    if args.only:
        print(json.dumps(measure(args.only, setting, args.steps)))
        return
    names = list(CONTENDERS)
    try:
        import torch  # noqa: F401  (only asked whether it is here)
    except ImportError:
        print("PyTorch is not installed, so minifcn is measured alone: pip install torch")
        names = ["minifcn"]

    def run(name):
        call = [sys.executable, __file__, "--only", name, "--steps", str(args.steps)]
        call += [f"--{k}={v}" for k, v in zip(("batch", "size", "width"), setting, strict=True)]
        return json.loads(
            subprocess.run(call, stdout=subprocess.PIPE, text=True, check=True).stdout
        )

    run("minifcn")  # compiles
    results = {name: [] for name in names}
    for _ in range(args.turns):
        for name in names:
            results[name].append(run(name))
    counts = {turn["parameters"] for turns in results.values() for turn in turns}
    assert len(counts) == 1, f"the nets differ: {counts} parameters"
    first = counts.pop()
    print(f"FCN-8s, {first:,} parameters, batch {args.batch}, {args.size}×{args.size}")
    print(f"{platform.machine()}, Python {platform.python_version()}, median of {args.turns} turns")
    print(f"{'':22}{'ms a step':>10}{'peak MiB':>10}")
    for name in names:
        seconds = statistics.median(turn["seconds"] for turn in results[name])
        peak = statistics.median(turn["peak"] for turn in results[name])
        print(f"{name:22}{1000 * seconds:10.0f}{peak:10.0f}")


if __name__ == "__main__":
    main()
