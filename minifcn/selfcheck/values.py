"""Values and gradients of every case on a device against the reference, and by differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minifcn import device
from minifcn.check import gradcheck, parity
from minifcn.selfcheck.cases import CASES, Case
from minifcn.tensor import Tensor

REPETITIONS = 10
RTOL = {np.float32: 2e-5, np.float64: 1e-12}
"""Of the largest entry: sums of a few hundred products, in another order."""


@dataclass(frozen=True)
class Finding:
    """One check: by how much it differs, and whether that is little enough."""

    check: str
    case: str
    error: float
    ok: bool
    note: str = ""


def findings(name: str, cases: tuple[Case, ...] = CASES) -> Iterator[Finding]:
    """Every check of every case on device ``name``, one after the other.

    What a case raises is a finding, too: the others are still checked.
    """
    for case in cases:
        for dtype in (np.float32, np.float64):
            what = f"values, {np.dtype(dtype).name}"
            yield _checked(what, case, lambda c=case, d=dtype: _values(name, c, d))  # type: ignore
        if case.smooth:
            yield _checked("gradient", case, lambda c=case: _gradient(name, c))  # type: ignore
        yield _checked("equal bits", case, lambda c=case: _repeated(name, c))  # type: ignore


def _checked(check: str, case: Case, run: Callable[[], tuple[float, bool]]) -> Finding:
    try:
        return Finding(check, case.name, *run())
    except Exception as error:  # of the device: whatever it says is what there is to report
        note = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        return Finding(check, case.name, float("inf"), False, note)


def _values(name: str, case: Case, dtype: Any) -> tuple[float, bool]:
    report = parity(
        case.function, case.inputs(dtype), devices=("reference", name), rtol=RTOL[dtype]
    )
    return report.error, report.ok


def _gradient(name: str, case: Case) -> tuple[float, bool]:
    """The whole derivative taken on the device; the inputs are moved there, the result back."""

    def there_and_back(*inputs: Tensor) -> Tensor:
        return case.function(*(x.to(name) for x in inputs)).cpu()

    report = gradcheck(there_and_back, case.inputs(np.float64), entries=3, title=case.name)
    return report.error, report.ok


def _repeated(name: str, case: Case) -> tuple[float, bool]:
    """Ten times the same: outputs and gradients must have equal bits."""
    first: list[np.ndarray] = []
    for _ in range(REPETITIONS):
        inputs = [
            Tensor(device.move(x.data, name), x.requires_grad) for x in case.inputs(np.float32)
        ]
        output = case.function(*inputs)
        if output.requires_grad:
            output.sum().backward()
        arrays = [output.numpy(), *(x.grad.numpy() for x in inputs if x.grad is not None)]
        first = first or arrays
        if any(a.tobytes() != b.tobytes() for a, b in zip(first, arrays, strict=True)):
            return float("inf"), False
    return 0.0, True
