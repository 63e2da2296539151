"""The dot-product test: ⟨A x, y⟩ = ⟨x, Aᵀ y⟩ for a linear operation A, at its real size.

One forward, one backward and two sums, so it works where finite differences would take hours; a
mistake in Aᵀ shows in the first digits. (J. Claerbout, Earth Soundings Analysis, 1992, chapter 5.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minifcn.errors import InputError
from minifcn.graph import grad
from minifcn.recording import enable_grad, no_grad
from minifcn.tensor import Tensor


@dataclass(frozen=True)
class AdjointReport:
    """The two dot products and their relative difference. It is true if they agree.

    `error` is |⟨Ax, y⟩ − ⟨x, Aᵀy⟩| ÷ the root of Σ(Ax·y)², which is what such a sum of random
    signs comes to.
    """

    title: str
    forward: float
    backward: float
    error: float
    rtol: float

    @property
    def ok(self) -> bool:
        """Whether the error is at most rtol."""
        return self.error <= self.rtol

    def __bool__(self) -> bool:
        """Give `ok`."""
        return self.ok

    def __str__(self) -> str:
        """Give one line."""
        verdict = "right" if self.ok else "wrong"
        return (
            f"{self.title}: {verdict}, ⟨Ax, y⟩ = {self.forward:.15g}, "
            f"⟨x, Aᵀy⟩ = {self.backward:.15g}, relative error {self.error:.1e}"
        )


def adjoint(
    fn: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    rtol: float | None = None,
    seed: int = 0,
    title: str | None = None,
) -> AdjointReport:
    """Test the backward of a linear function of one Tensor against its forward.

    Args:
        fn: linear in its argument, with no constant term (a convolution without bias, in its
            input or in its weight; a crop; an interpolation).
        x: the point, any shape, float64 or float32.
        rtol: the largest relative error called right; 1e-11 in float64, 1e-4 in float32 if None.
        seed: of the random y.
        title: how the report names the function; its own name if None.

    Raises:
        InputError: fn(x + z) is not fn(x) + fn(z) for a random z, so fn is not linear.
    """
    x = Tensor(x.data, requires_grad=True)
    name = title or str(getattr(fn, "__name__", type(fn).__name__))
    # Not default_rng(seed) alone: the caller may well have drawn x from that, and y = x would
    # let a symmetric mistake pass.
    rng = np.random.default_rng([seed, 4])
    z = rng.standard_normal(x.shape).astype(x.dtype)
    with no_grad():
        added = fn(Tensor(x.data + z)).numpy()
        alone = fn(Tensor(z)).numpy()
    with enable_grad():
        ax = fn(x)
        value = ax.numpy()
        size = float(np.abs(added).max(initial=0.0))
        if not np.allclose(added, value + alone, rtol=0.0, atol=1e-3 * size):
            raise InputError(
                f"adjoint: {name} is not linear in its argument, fn(x + z) must be fn(x) + fn(z); "
                "leave the bias out, or use gradcheck"
            )
        y = rng.standard_normal(value.shape).astype(value.dtype)
        (aty,) = grad([ax], [x], [Tensor(y)])
        assert aty is not None  # grad refuses an input that is not used
    products = value.astype(np.float64) * y
    forward = float(products.sum())
    backward = float((x.numpy().astype(np.float64) * aty.numpy()).sum())
    size = max(float(np.sqrt((products * products).sum())), float(np.finfo(np.float64).tiny))
    if rtol is None:
        rtol = 1e-11 if value.dtype == np.float64 else 1e-4
    return AdjointReport(name, forward, backward, abs(forward - backward) / size, rtol)
