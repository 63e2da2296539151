"""Layers without weights: ReLU, Softmax, Dropout, Flatten, Upsample."""

from __future__ import annotations

import numpy as np

from minifcn import functional as F
from minifcn.errors import InputError
from minifcn.nn import init
from minifcn.nn.module import Module
from minifcn.nn.windowed import Pair
from minifcn.tensor import Tensor


class ReLU(Module):
    """max(x, 0), element by element."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape → same."""
        return F.relu(x)


class Softmax(Module):
    """exp(x) over its sum along ``dim``: scores become shares that add up to one."""

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """Any shape → same."""
        return F.softmax(x, self.dim)

    def extra_repr(self) -> str:
        """The dimension."""
        return f"dim={self.dim}"


class Dropout(Module):
    """While training, each element is zero with chance p, else divided by 1-p; else unchanged.

    ``generator`` is used at every call and is not part of the state; `reseed_dropout` sets it anew.
    Source: Srivastava et al., "Dropout" (2014).
    """

    def __init__(self, p: float = 0.5, *, generator: np.random.Generator) -> None:
        if not 0 <= p <= 1:
            raise InputError(f"Dropout: p is {p!r}; give a chance from 0 to 1")
        init.check_generator(generator, "Dropout")
        self.p = p
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        """Any shape → same."""
        return F.dropout(x, self.p, self.training, self.generator)

    def extra_repr(self) -> str:
        """The chance."""
        return f"p={self.p}"


def reseed_dropout(module: Module, *seed: int) -> None:
    """Give the i-th Dropout below ``module`` the generator ``default_rng([*seed, i])``.

    Called with (run's seed, step) before each step, the masks depend on these numbers alone, so
    that training which was interrupted goes on with the same bits.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, Dropout)]
    for i, layer in enumerate(layers):
        layer.generator = np.random.default_rng([*seed, i])


class Flatten(Module):
    """All dimensions from ``start_dim`` on become one: (N, C, H, W) → (N, C·H·W)."""

    def __init__(self, start_dim: int = 1) -> None:
        self.start_dim = start_dim

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C·H·W)."""
        return x.flatten(self.start_dim)

    def extra_repr(self) -> str:
        """The first dimension that is merged."""
        return f"start_dim={self.start_dim}"


class Upsample(Module):
    """Bilinear interpolation to ``size`` or by ``scale_factor``: (N, C, H, W) → (N, C, P, Q)."""

    def __init__(
        self,
        size: Pair | None = None,
        scale_factor: float | tuple[float, float] | None = None,
        mode: str = "bilinear",
        align_corners: bool = False,
    ) -> None:
        if (size is None) == (scale_factor is None):
            raise InputError(
                f"Upsample: size is {size!r} and scale_factor {scale_factor!r}; give one of the two"
            )
        if mode != "bilinear":
            raise InputError(f"Upsample: mode is {mode!r}; only 'bilinear' is built")
        self.size = size
        self.scale_factor = scale_factor
        self.mode = mode
        self.align_corners = align_corners

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, P, Q)."""
        return F.interpolate(
            x,
            size=self.size,
            scale_factor=self.scale_factor,
            mode=self.mode,
            align_corners=self.align_corners,
        )

    def extra_repr(self) -> str:
        """The settings."""
        what = f"size={self.size}" if self.size else f"scale_factor={self.scale_factor}"
        return f"{what}, mode={self.mode!r}, align_corners={self.align_corners}"
