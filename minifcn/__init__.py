"""minifcn: fully convolutional networks from scratch, to understand, prove and train.

>>> import minifcn as mf
>>> x = mf.Tensor([[1.0, 2.0]], requires_grad=True)
>>> (x * x).sum().backward()
>>> x.grad.numpy()
array([[2., 4.]])

Everything below is loaded when it is first used, so that ``import minifcn`` takes no time.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# In a checkout the kernels lie beside this folder (`kernels/`), in an installation within it.
# Python started at the checkout's root finds this folder before the installed one: find both.
if not (Path(__file__).parent / "kernels").is_dir():
    __path__.append(str(Path(__file__).parent.parent))

_FROM = {
    "minifcn.tensor": ("Tensor",),
    "minifcn.function": ("Function",),
    "minifcn.recording": ("no_grad", "enable_grad", "is_grad_enabled"),
    "minifcn.recomputation": ("checkpoint",),
    "minifcn.graph": ("grad",),
    "minifcn.creation": ("zeros", "ones", "randn"),
    "minifcn.ops.shape": ("cat", "stack"),
    "minifcn.ops.matmul": ("matmul",),
    "minifcn.kernels.algorithm": ("conv_algorithm",),
    "minifcn.errors": ("DeviceError", "GraphError", "InputError", "ShapeError"),
}
_MODULE_OF = {name: module for module, names in _FROM.items() for name in names}
_SUBMODULES = (
    "check",
    "data",
    "device",
    "functional",
    "geometry",
    "kernels",
    "metrics",
    "models",
    "nn",
    "optim",
    "study",
    "training",
)

__all__ = ["__version__", *_MODULE_OF, *_SUBMODULES]

if TYPE_CHECKING:
    from minifcn.creation import ones as ones
    from minifcn.creation import randn as randn
    from minifcn.creation import zeros as zeros
    from minifcn.errors import DeviceError as DeviceError
    from minifcn.errors import GraphError as GraphError
    from minifcn.errors import InputError as InputError
    from minifcn.errors import ShapeError as ShapeError
    from minifcn.function import Function as Function
    from minifcn.graph import grad as grad
    from minifcn.kernels.algorithm import conv_algorithm as conv_algorithm
    from minifcn.ops.matmul import matmul as matmul
    from minifcn.ops.shape import cat as cat
    from minifcn.ops.shape import stack as stack
    from minifcn.recomputation import checkpoint as checkpoint
    from minifcn.recording import enable_grad as enable_grad
    from minifcn.recording import is_grad_enabled as is_grad_enabled
    from minifcn.recording import no_grad as no_grad
    from minifcn.tensor import Tensor as Tensor


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562)."""
    if name in _SUBMODULES:
        return import_module(f"minifcn.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'minifcn' has no attribute {name!r}")
    import_module("minifcn.ops")  # gives Tensor its operators
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
