"""Functions that are compiled once and called by their address, from every kernel that needs them.

What a kernel calls, Numba compiles again within it. For the register tiles that would take a second
in each; so they are machine code of their own, on disk like the kernels (`numba.cfunc`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from llvmlite import ir
from numba import cfunc, types

from minifcn.kernels.vector import INT64, pointer


@lru_cache
def machine_code(function: Callable[..., Any], signature: Any) -> Any:
    """The function's machine code for a signature, in which arrays are `numba.types.CPointer`."""
    return cfunc(signature, cache=True, error_model="numpy")(function)


def call(context: Any, builder: Any, signature: Any, args: Any) -> None:
    """Write the call of the function whose address is the first of ``args``, with the others.

    An array, which the offset of an element follows, is handed over as the address of that element
    and an offset of 0.
    """
    values = list(args[1:])
    for which, kind in enumerate(signature.args):
        if isinstance(kind, types.Array):
            values[which - 1] = pointer(context, builder, signature, args, which)
            values[which] = ir.Constant(INT64, 0)
    nothing = ir.IntType(8).as_pointer()  # what Numba's functions without a result return
    function = ir.FunctionType(nothing, [value.type for value in values])
    builder.call(builder.inttoptr(args[0], function.as_pointer()), values)
