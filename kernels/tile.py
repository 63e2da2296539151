"""The register tile: the innermost loop of every convolution, at the machine's multiply-add rate.

    C[i, j] = S[i, j] + Σₖ A[i, k] · B[k, j]        i < ROWS,  j < vectors × lanes

The tile of C lives in registers for the whole sum. In step k one row of B is loaded (a vector or
two), each A[i, k] is broadcast, and one fused multiply-add goes to each accumulator::

                 B[k, 0:16]  B[k, 16:32]
    A[0, k]  →     acc00        acc01
    A[1, k]  →     acc10        acc11          14 × 2 accumulators + 2 of B + 1 broadcast
      ⋮              ⋮            ⋮             fill the 32 registers of AVX-512;
    A[13, k] →    acc13,0      acc13,1          6 × 2 fill the 16 of AVX2 or SSE

A loop that LLVM vectorises by itself does not keep such a tile in registers, so the tile is written
as LLVM code here, through `numba.extending.intrinsic`; everything around it is plain Numba.

Offsets and strides are counted in elements. A stride of 0 for S repeats its row, which is how a
bias is added; S = C accumulates.

Numba's cache on disk knows the file of a compiled function, not the files that it draws from: after
a change here delete ``kernels/__pycache__/*.nb?``, or the callers run the old code.

Source: Goto, van de Geijn, "Anatomy of High-Performance Matrix Multiplication", ACM TOMS 2008.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_host = llvm.get_host_cpu_features()
_has = {name for name, present in _host.items() if present}

#: bytes of one vector register of this processor
VECTOR_BYTES = 64 if "avx512f" in _has else 32 if "avx" in _has else 16
#: rows of a tile: 14 × 2 accumulators where there are 32 registers, 6 × 2 where there are 16
ROWS = 14 if _has & {"avx512f", "neon"} else 6

_INT64 = ir.IntType(64)
_LLVM_FLOAT = {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}


def lanes(dtype: Any) -> int:
    """How many elements of ``dtype`` one vector register holds."""
    return VECTOR_BYTES // np.dtype(dtype).itemsize


def columns(dtype: Any, wanted: int) -> int:
    """The columns of a tile for a matrix of ``wanted`` columns: two vectors, or one if enough."""
    return lanes(dtype) if wanted <= lanes(dtype) else 2 * lanes(dtype)


def _tile_of(vectors: int) -> Any:
    """A tile of ROWS × ``vectors`` vectors, for float32 and float64."""

    @intrinsic
    def tile(  # type: ignore[no-untyped-def]
        typing, A, a, a_row, a_k, B, b, b_k, S, s, s_row, C, c, c_row, K
    ):
        arrays = [A, B, S, C]
        if any(array.dtype != A.dtype for array in arrays) or A.dtype not in _LLVM_FLOAT:
            return None
        number = _LLVM_FLOAT[A.dtype]
        size = A.dtype.bitwidth // 8
        width = VECTOR_BYTES // size
        vector = ir.VectorType(number, width)
        n = types.int64
        signature = types.void(A, n, n, n, B, n, n, S, n, n, C, n, n, n)

        def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
            def pointer(which):  # type: ignore[no-untyped-def]
                return _pointer(context, builder, signature, args, which)

            def load(address):  # type: ignore[no-untyped-def]
                value = builder.load(builder.bitcast(address, vector.as_pointer()))
                value.align = size  # rows of pictures start anywhere
                return value

            def store(value, address):  # type: ignore[no-untyped-def]
                builder.store(value, builder.bitcast(address, vector.as_pointer())).align = size

            def times(stride, i):  # type: ignore[no-untyped-def]
                return builder.mul(stride, ir.Constant(_INT64, i))

            _, _, a_row, a_k, _, _, b_k, _, _, s_row, _, _, c_row, depth = args
            fma = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(vector, [vector] * 3),
                f"llvm.fma.v{width}f{8 * size}",
            )
            tile = [(i, j) for i in range(ROWS) for j in range(vectors)]
            with builder.goto_entry_block():
                acc = {ij: builder.alloca(vector) for ij in tile}  # become registers

            start, end = pointer(7), pointer(10)
            for i, j in tile:
                where = builder.add(times(s_row, i), ir.Constant(_INT64, j * width))
                builder.store(load(builder.gep(start, [where])), acc[i, j])

            left, right = pointer(0), pointer(4)
            row_offset = [times(a_row, i) for i in range(ROWS)]
            with cgutils.for_range(builder, depth) as loop:
                row = builder.gep(right, [builder.mul(loop.index, b_k)])
                b_row = [
                    load(builder.gep(row, [ir.Constant(_INT64, j * width)])) for j in range(vectors)
                ]
                column = builder.gep(left, [builder.mul(loop.index, a_k)])
                undefined = ir.Constant(vector, ir.Undefined)
                zeros = ir.Constant(ir.VectorType(ir.IntType(32), width), None)
                for i in range(ROWS):
                    one = builder.load(builder.gep(column, [row_offset[i]]))
                    first = builder.insert_element(undefined, one, ir.Constant(ir.IntType(32), 0))
                    repeated = builder.shuffle_vector(first, undefined, zeros)
                    for j in range(vectors):
                        total = builder.call(fma, [repeated, b_row[j], builder.load(acc[i, j])])
                        builder.store(total, acc[i, j])

            for i, j in tile:
                where = builder.add(times(c_row, i), ir.Constant(_INT64, j * width))
                store(builder.load(acc[i, j]), builder.gep(end, [where]))
            return context.get_dummy_value()

        return signature, code

    return tile


# Module globals, not closures: otherwise Numba could not keep the callers' machine code on disk.
tile_1 = _tile_of(1)
tile_2 = _tile_of(2)


def _pointer(context, builder, signature, args, which):  # type: ignore[no-untyped-def]
    """The address of array number ``which``, moved by the offset that follows it in ``args``."""
    array = context.make_array(signature.args[which])(context, builder, args[which])
    return builder.gep(array.data, [args[which + 1]])


@intrinsic
def copy(typing, target, to, source, start, count):  # type: ignore[no-untyped-def]
    """target[to : to + count] = source[start : start + count] by memcpy; they may not overlap."""
    if target.dtype != source.dtype:
        return None
    size = target.dtype.bitwidth // 8
    signature = types.void(target, types.int64, source, types.int64, types.int64)

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        to = _pointer(context, builder, signature, args, 0)
        cgutils.raw_memcpy(
            builder, to, _pointer(context, builder, signature, args, 2), args[4], size
        )
        return context.get_dummy_value()

    return signature, code


@intrinsic
def clear(typing, target, start, count):  # type: ignore[no-untyped-def]
    """target[start : start + count] = 0 by memset."""
    size = target.dtype.bitwidth // 8
    signature = types.void(target, types.int64, types.int64)

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        start = _pointer(context, builder, signature, args, 0)
        cgutils.memset(builder, start, builder.mul(args[2], ir.Constant(_INT64, size)), 0)
        return context.get_dummy_value()

    return signature, code
