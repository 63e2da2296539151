"""The vector registers that code is compiled for, and how LLVM code is written for them.

Decided once, from the features of the processor that Numba compiles for: AVX-512 has 32 registers
of 64 bytes, NEON 32 of 16, AVX2 16 of 32, SSE 16 of 16. Numba's own settings choose another one,
and its cache on disk keeps them apart::

    NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=+avx2,+fma     8 floats a vector
    NUMBA_CPU_NAME=nehalem NUMBA_CPU_FEATURES=+sse4.2        4 floats a vector
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_name
from numba import types
from numba.core import cgutils, config
from numba.core.codegen import get_host_cpu_features


def _features() -> set[str]:
    """The features that Numba compiles with: those it was told, or those of this processor."""
    told = config.CPU_FEATURES  # "" for NUMBA_CPU_NAME=generic: nothing is known to be there
    listed = get_host_cpu_features() if told is None else told
    return {name[1:] for name in listed.split(",") if name.startswith("+")}


_has = _features()

#: bytes of one vector register
VECTOR_BYTES = 64 if "avx512f" in _has else 32 if _has & {"avx", "avx2"} else 16
#: how many of them there are
REGISTERS = 32 if _has & {"avx512f", "neon"} else 16
#: what LLVM's assembly calls any of them
ANY_REGISTER = "w" if "neon" in _has else "v" if "avx512f" in _has else "x"

#: whether this processor takes a vector in two halves, so that half of one costs half
HALVES = (VECTOR_BYTES, config.CPU_NAME or get_host_cpu_name()) in {(64, "znver4"), (32, "znver1")}

INT64 = ir.IntType(64)
LLVM_FLOAT = {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}


def lanes(dtype: Any) -> int:
    """How many elements of ``dtype`` one vector register holds."""
    return VECTOR_BYTES // np.dtype(dtype).itemsize


class Emitter:
    """Vector instructions on arrays of one floating type, appended to the code of an intrinsic.

    Addresses are pointers to elements; vectors are loaded from and stored to any of them, for rows
    of pictures start anywhere. A vector fills both ``halves`` of a register, or one.
    """

    def __init__(self, context: Any, builder: Any, number: Any, halves: int = 2) -> None:
        self.context, self.builder, self.number = context, builder, number
        self.size = number.bitwidth // 8
        self.width = VECTOR_BYTES // self.size * halves // 2
        self.scalar = LLVM_FLOAT[number]
        self.vector = ir.VectorType(self.scalar, self.width)
        self._multiply_add = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(self.vector, [self.vector] * 3),
            f"llvm.fmuladd.v{self.width}f{8 * self.size}",  # fused where the processor can
        )

    def at(self, pointer: Any, offset: Any) -> Any:
        """The address ``offset`` elements on: an int or an LLVM integer."""
        return self.builder.gep(pointer, [self.integer(offset)])

    def integer(self, value: Any) -> Any:
        """An LLVM integer, from itself or from an int."""
        return ir.Constant(INT64, value) if isinstance(value, int) else value

    def times(self, stride: Any, count: int) -> Any:
        """stride · count."""
        return self.builder.mul(stride, ir.Constant(INT64, count))

    def load(self, pointer: Any) -> Any:
        """The vector that starts at an element."""
        value = self.builder.load(self.builder.bitcast(pointer, self.vector.as_pointer()))
        value.align = self.size
        return value

    def store(self, value: Any, pointer: Any) -> None:
        """Write a vector from an element on."""
        to = self.builder.bitcast(pointer, self.vector.as_pointer())
        self.builder.store(value, to).align = self.size

    def stream(self, value: Any, pointer: Any) -> None:
        """Write a vector to memory past the caches; see the function of this name."""
        stream(self.builder, value, self.builder.bitcast(pointer, self.vector.as_pointer()))

    def prefetch(self, place: Any, level: int) -> None:
        """Let the processor bring one line into the caches of this level and beyond.

        An address beyond the array does no harm: nothing is read that the program could notice.
        """
        byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        function = cgutils.get_or_insert_function(
            self.builder.module,
            ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag]),
            "llvm.prefetch.p0i8",
        )
        to_read, near, of_data = flag(0), flag(4 - level), flag(1)
        self.builder.call(function, [self.builder.bitcast(place, byte), to_read, near, of_data])

    def repeat(self, one: Any) -> Any:
        """A vector of one number."""
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, one, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.width), None)
        return self.builder.shuffle_vector(first, undefined, zeros)

    def constant(self, value: float) -> Any:
        """A vector of one number that is known now."""
        return ir.Constant(self.vector, [float(value)] * self.width)

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """a · b + c."""
        return self.builder.call(self._multiply_add, [a, b, c])

    def held(self, values: list[Any]) -> list[Any]:
        """The same vectors, all computed before anything is loaded that comes after this place.

        The compiler would gather a turn's loads at its head, where there are no registers left for
        them, or leave multiplications for later, whose factors then wait on the stack. An empty
        piece of assembly, which seems to read and write the vectors, keeps both in place.
        """
        kinds = [value.type for value in values]
        result = kinds[0] if len(kinds) == 1 else ir.LiteralStructType(kinds)
        constraints = ["=" + ANY_REGISTER] * len(kinds) + [str(i) for i in range(len(kinds))]
        same = self.builder.asm(
            ir.FunctionType(result, kinds), "", ",".join([*constraints, "~{memory}"]), values,
            side_effect=True,
        )  # fmt: skip
        if len(kinds) == 1:
            return [same]
        return [self.builder.extract_value(same, i) for i in range(len(kinds))]

    def opaque(self, address: Any) -> Any:
        """The same address, of which the compiler no longer knows where it came from."""
        same = ir.FunctionType(address.type, [address.type])
        return self.builder.asm(same, "", "=r,0", [address], side_effect=False)

    def not_below(self, value: Any, floor: Any) -> Any:
        """max(value, floor), lane by lane, but NaN stays NaN."""
        return self.builder.select(self.builder.fcmp_ordered("<", value, floor), floor, value)


def stream(builder: Any, value: Any, place: Any) -> None:
    """Write one vector or several to memory past the caches, in order only after a `fence`.

    The address must be a multiple of a vector's bytes. `minifcn.kernels.stream` says what for.
    """
    store = builder.store(value, place)
    store.align = VECTOR_BYTES
    one = ir.Constant(ir.IntType(32), 1)
    store.set_metadata("nontemporal", builder.module.add_metadata([one]))


def pointer(context: Any, builder: Any, signature: Any, args: Any, which: int) -> Any:
    """The address of array or pointer number ``which``, moved by the offset that follows it."""
    start = args[which]
    if not isinstance(signature.args[which], types.CPointer):
        start = context.make_array(signature.args[which])(context, builder, start).data
    return builder.gep(start, [args[which + 1]])
