"""NumPy's functions that CuPy has, too: computed by NumPy on the memory of device arrays.

``simulator.NAME(array)`` and ``numpy.NAME(array)`` are the same, as with CuPy. A function that CuPy
lacks is not here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minifcn.simulator.array import on_device

#: element by element
UFUNCS = tuple(
    """absolute add ceil cos divide divmod equal exp expm1 fabs floor floor_divide fmax fmin greater
    greater_equal invert isfinite isinf isnan less less_equal log log1p log2 logical_and logical_not
    logical_or logical_xor matmul maximum minimum mod multiply negative not_equal positive power
    reciprocal remainder rint sign signbit sin sqrt square subtract tan tanh true_divide trunc
    bitwise_and bitwise_or bitwise_xor left_shift right_shift copysign hypot""".split()
)
#: all else
FUNCTIONS = tuple(
    """all any amax amin argmax argmin argsort argwhere around average bincount broadcast_arrays
    broadcast_to clip concatenate copyto count_nonzero cumprod cumsum diag diagonal diff dot einsum
    expand_dims flatnonzero flip max may_share_memory mean median min moveaxis nan_to_num nansum
    nonzero outer packbits pad prod ptp ravel repeat reshape roll rollaxis rot90 round shape size
    sort split squeeze stack std sum swapaxes take take_along_axis tensordot tile trace transpose
    tril triu unique var vstack hstack where""".split()
)


def _function(name: str) -> Callable[..., Any]:
    original = getattr(np, name)

    def function(*inputs: Any, **settings: Any) -> Any:
        return on_device(original, inputs, settings)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"As `numpy.{name}`, on device arrays."
    return function


abs = _function("absolute")  # noqa: A001 - NumPy's and CuPy's name
globals().update({name: _function(name) for name in (*UFUNCS, *FUNCTIONS)})
#: types and constants, the same objects as NumPy's
CONSTANTS = tuple(
    "bool_ dtype float32 float64 inf int32 int64 nan newaxis pi uint8 issubdtype".split()
)
globals().update({name: getattr(np, name) for name in CONSTANTS})

__all__ = [  # noqa: PLE0604
    "abs",
    *UFUNCS,
    *FUNCTIONS,
    *CONSTANTS,
]
