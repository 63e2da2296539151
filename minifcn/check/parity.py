"""One function on several devices: the same values, the same gradients, up to rounding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minifcn import device
from minifcn.check.report import table
from minifcn.errors import InputError
from minifcn.graph import grad
from minifcn.recording import enable_grad
from minifcn.tensor import Tensor


@dataclass(frozen=True)
class Difference:
    """How far one array of one device lies from the first device's.

    `error` is the largest difference ÷ the largest entry of the first device's array; infinite if
    shapes differ, or if NaN or infinity stand in other places.
    """

    device: str
    what: str
    shape: tuple[int, ...]
    error: float


@dataclass(frozen=True)
class ParityReport:
    """Every output and every gradient of every device but the first. True if all agree."""

    title: str
    against: str
    differences: tuple[Difference, ...]
    rtol: float

    @property
    def error(self) -> float:
        """The largest relative difference."""
        return max((d.error for d in self.differences), default=0.0)

    @property
    def ok(self) -> bool:
        """Whether every difference is at most rtol."""
        return self.error <= self.rtol

    def __bool__(self) -> bool:
        """Give `ok`."""
        return self.ok

    def __str__(self) -> str:
        """Give a table."""
        rows = [
            [
                d.device,
                d.what,
                "×".join(map(str, d.shape)) or "scalar",
                f"{d.error:.1e}",
                "equal" if d.error == 0 else "agrees" if d.error <= self.rtol else "differs",
            ]
            for d in self.differences
        ]
        lines = table(["device", "of", "shape", "error", "verdict"], rows)
        verdict = "the devices agree" if self.ok else "the devices differ"
        return f"{self.title} against {self.against}: {verdict}\n{lines}"


def parity(
    fn: Callable[..., Any],
    inputs: Sequence[Tensor],
    *,
    devices: Sequence[str] = ("reference", "cpu"),
    rtol: float | None = None,
    seed: int = 0,
    title: str | None = None,
) -> ParityReport:
    """Run fn on each device and hold values and gradients against the first device's.

    Args:
        fn: called as fn(*inputs), returns a Tensor or a tuple of Tensors.
        inputs: Tensors of any dtype, moved to each device; gradients are taken of those that want
            one, under the same random upstream gradient on every device.
        devices: the names to compare, the first is the measure.
        rtol: the largest difference, relative to the largest entry, that counts as agreement;
            1e-12 in float64, 1e-5 in float32 if None.
        seed: of the upstream gradient.
        title: how the report names the function; its own name if None.

    Raises:
        InputError: fewer than two devices are named.
    """
    if len(devices) < 2:
        raise InputError(
            f"parity: devices is {tuple(devices)}, wanted at least two; name one to compare with"
        )
    name = title or str(getattr(fn, "__name__", type(fn).__name__))
    results = {d: _run(fn, inputs, d, seed) for d in devices}
    first = results[devices[0]]
    differences = []
    for d in devices[1:]:
        if results[d].keys() != first.keys():
            raise InputError(
                f"parity: {name} gave {list(results[d])} on {d} and {list(first)} on "
                f"{devices[0]}; return as many outputs on every device"
            )
        for what, wanted in first.items():
            found = results[d][what]
            differences.append(Difference(d, what, found.shape, _error(found, wanted)))
    if rtol is None:
        single = any(a.dtype == np.float32 for a in first.values())
        rtol = 1e-5 if single else 1e-12
    return ParityReport(name, devices[0], tuple(differences), rtol)


def _run(
    fn: Callable[..., Any], inputs: Sequence[Tensor], name: str, seed: int
) -> dict[str, np.ndarray]:
    """Give outputs and gradients on one device, by name."""
    rng = np.random.default_rng([seed, 5])
    with device.use(name), enable_grad():
        fresh = [Tensor(device.move(x.data, name), x.requires_grad) for x in inputs]
        outputs = fn(*fresh)
        outputs = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
        found = {f"output {i}": y.numpy().copy() for i, y in enumerate(outputs)}
        drawn = [rng.standard_normal(y.shape).astype(y.dtype) for y in outputs]
        upstream = [Tensor(device.move(u, name)) for u in drawn]
        pairs = [(y, u) for y, u in zip(outputs, upstream, strict=True) if y.requires_grad]
        wanted = [(i, x) for i, x in enumerate(fresh) if x.requires_grad]
        if pairs and wanted:
            gradients = grad(
                [y for y, _ in pairs],
                [x for _, x in wanted],
                [u for _, u in pairs],
                allow_unused=True,
            )
            for (i, x), g in zip(wanted, gradients, strict=True):
                found[f"gradient of input {i}"] = (
                    np.zeros(x.shape, x.dtype) if g is None else g.numpy().copy()
                )
    return found


def _error(found: np.ndarray, wanted: np.ndarray) -> float:
    """Give the largest difference relative to the largest finite entry wanted."""
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return float("inf")
    finite = np.isfinite(wanted)
    if not np.array_equal(found[~finite], wanted[~finite], equal_nan=True):
        return float("inf")
    a, b = found[finite].astype(np.float64), wanted[finite].astype(np.float64)
    if not a.size or np.array_equal(a, b):
        return 0.0
    size = max(float(np.abs(b).max()), float(np.finfo(np.float64).tiny))
    error = float(np.abs(a - b).max()) / size
    return float("inf") if np.isnan(error) else error
