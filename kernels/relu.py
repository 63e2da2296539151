"""ReLU, and what its gradient needs: one bit an element, whether the result is positive.

    y = max(x, 0)        gate = [y > 0]        dx = grad where the gate's bit is 1, else 0

These loops take as long as their arrays take to come and go. A bit is a 32nd of a float32, so the
way back moves grad and dx and next to nothing else; and y is kept by whoever else reads it, or not
at all. Large results are written past the caches (`stream`).

The bits stand in the order in which the elements lie in memory (a picture's N, H, W, C), eight a
byte, the first the lowest: ``np.packbits(…, bitorder="little")``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from minifcn import device
from minifcn.kernels import workspace
from minifcn.kernels.compiled import kernel, serial
from minifcn.kernels.elementwise import _flat, _like
from minifcn.kernels.jobs import share_out
from minifcn.kernels.stream import fence, past_caches
from minifcn.kernels.vector import INT64, LLVM_FLOAT, stream
from minifcn.launch import launch

REALS = (np.float32, np.float64)  # what is compiled; other dtypes take the definition


def relu(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(y, gate): max(x, 0), NaN staying NaN, and ⌈size/8⌉ bytes of bits, y > 0; NaN's bit is 0.

    Any shape; a picture's result is channels-last in memory.
    """
    if device.is_reference() or x.dtype not in REALS:
        return _definition(x)
    if device.is_gpu(x):
        return _relu_cuda(x)
    source = _flat(x)
    y, gate = workspace.empty(source.shape, x.dtype), _bits(x)
    whole = _whole(x)
    if whole:
        past = past_caches(y, 16)
        _relu_numba(-(-whole // BLOCK), (source[:whole], y, gate, BLOCK, past))
    if whole < x.size:
        y[whole:], gate[whole // 8 :] = _definition(source[whole:])
    return _like(y, x), gate


def positive(y: np.ndarray) -> np.ndarray:
    """The gate alone, of any y: ⌈size/8⌉ bytes of bits, y > 0."""
    if device.is_reference() or y.dtype not in REALS:
        return _packed(y)
    if device.is_gpu(y):
        return _positive_cuda(y)
    source, gate, whole = _flat(y), _bits(y), _whole(y)
    if whole:
        _positive_numba(-(-whole // BLOCK), (source[:whole], gate, BLOCK))
    if whole < y.size:
        gate[whole // 8 :] = _packed(source[whole:])
    return gate


def relu_backward(grad: np.ndarray, gate: np.ndarray) -> np.ndarray:
    """grad where its bit in the gate is 1, else 0."""
    if device.is_gpu(grad):
        return _relu_backward_cuda(grad, gate)
    source = _flat(grad)
    if device.is_reference():
        return _like(_passed(source, gate), grad)
    dx, whole = workspace.empty(source.shape, grad.dtype), _whole(grad)
    if whole:
        past = past_caches(dx, 16)
        _relu_backward_numba(-(-whole // BLOCK), (source[:whole], gate, dx, BLOCK, past))
    if whole < grad.size:
        dx[whole:] = _passed(source[whole:], gate[whole // 8 :])
    return _like(dx, grad)


def _definition(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y = device.array_module(x).where(x < 0, x.dtype.type(0), x)
    return y, _packed(y)


def _packed(y: np.ndarray) -> np.ndarray:
    return device.array_module(y).packbits(_flat(y) > 0, bitorder="little")


def _passed(grad: np.ndarray, gate: np.ndarray) -> np.ndarray:
    bits = np.unpackbits(gate, count=grad.size, bitorder="little")
    return np.where(bits == 1, grad, grad.dtype.type(0))


# -- CUDA ------------------------------------------------------------------------------------------

THREADS = 256
TURN = 8 * THREADS  # elements that a block takes at a time
MOST = 1 << 14  # blocks; then they go round again


def _relu_cuda(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    xp = device.array_module(x)
    y, gate = xp.empty((x.size,), x.dtype), xp.empty((-(-x.size // 8),), np.uint8)
    _start("relu", (_flat(x), y, gate), x)
    return _like(y, x), gate


def _positive_cuda(y: np.ndarray) -> np.ndarray:
    gate = device.array_module(y).empty((-(-y.size // 8),), np.uint8)
    _start("positive", (_flat(y), gate), y)
    return gate


def _relu_backward_cuda(grad: np.ndarray, gate: np.ndarray) -> np.ndarray:
    dx = device.array_module(grad).empty((grad.size,), grad.dtype)
    _start("relu_backward", (_flat(grad), gate, dx), grad)
    return _like(dx, grad)


def _start(kernel: str, arrays: tuple[np.ndarray, ...], like: np.ndarray) -> None:
    if like.size:
        grid = (min(-(-like.size // TURN), MOST),)
        launch("relu.cu", kernel, grid, (THREADS,), (*arrays, like.size), real=like.dtype)


# -- Numba -----------------------------------------------------------------------------------------

# The compiler makes no vectors of a loop that packs bits, so the step of these loops is written for
# it: sixteen elements, whose comparison is sixteen bits, two bytes. Where a register holds fewer,
# LLVM takes several. The last elements that are no sixteen take the definition.

BLOCK = 16384  # elements that one thread takes at a time, a multiple of 16


def _whole(x: np.ndarray) -> int:
    """How many elements the loops take."""
    return x.size - x.size % 16


def _bits(x: np.ndarray) -> np.ndarray:
    return workspace.empty((-(-x.size // 8),), np.uint8)


class _Sixteen:
    """Elements i … i + 15 of an intrinsic's arrays, and their bits; i is its last argument."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        arrays = [pair for pair in zip(signature.args, args) if isinstance(pair[0], types.Array)]
        self.data = [context.make_array(kind)(context, builder, a).data for kind, a in arrays]
        self.builder, self.first = builder, args[-1]
        number = signature.args[0].dtype
        self.size = number.bitwidth // 8
        self.vector = ir.VectorType(LLVM_FLOAT[number], 16)
        self.zero = ir.Constant(self.vector, [0.0] * 16)

    def load(self, array: int) -> Any:
        """A vector from array number ``array``."""
        value = self.builder.load(self._elements(array))
        value.align = self.size
        return value

    def store(self, value: Any, array: int, past: Any) -> None:
        """Write a vector; if ``past``, past the caches."""
        place = self._elements(array)
        with self.builder.if_else(past) as (beyond, kept):
            with beyond:
                stream(self.builder, value, place)
            with kept:
                self.builder.store(value, place).align = self.size

    def bits(self, array: int) -> Any:
        """Sixteen bits of a gate, as a vector."""
        both = self.builder.load(self._two_bytes(array))
        both.align = 1
        return self.builder.bitcast(both, ir.VectorType(ir.IntType(1), 16))

    def store_positive(self, value: Any, array: int) -> None:
        """Write the bits of a gate, value > 0."""
        bits = self.builder.fcmp_ordered(">", value, self.zero)
        both = self.builder.bitcast(bits, ir.IntType(16))
        self.builder.store(both, self._two_bytes(array)).align = 1

    def _elements(self, array: int) -> Any:
        place = self.builder.gep(self.data[array], [self.first])
        return self.builder.bitcast(place, self.vector.as_pointer())

    def _two_bytes(self, array: int) -> Any:
        byte = self.builder.lshr(self.first, ir.Constant(INT64, 3))
        place = self.builder.gep(self.data[array], [byte])
        return self.builder.bitcast(place, ir.IntType(16).as_pointer())


@intrinsic
def _relu_sixteen(typing, x, y, gate, past, i):  # type: ignore[no-untyped-def]
    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        at = _Sixteen(context, builder, signature, args)
        value = at.load(0)
        y = builder.select(builder.fcmp_ordered("<", value, at.zero), at.zero, value)
        at.store(y, 1, args[3])
        at.store_positive(y, 2)
        return context.get_dummy_value()

    return types.void(x, y, gate, types.boolean, types.int64), code


@intrinsic
def _positive_sixteen(typing, y, gate, i):  # type: ignore[no-untyped-def]
    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        at = _Sixteen(context, builder, signature, args)
        at.store_positive(at.load(0), 1)
        return context.get_dummy_value()

    return types.void(y, gate, types.int64), code


@intrinsic
def _relu_backward_sixteen(typing, grad, gate, dx, past, i):  # type: ignore[no-untyped-def]
    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        at = _Sixteen(context, builder, signature, args)
        at.store(builder.select(at.bits(1), at.load(0), at.zero), 2, args[3])
        return context.get_dummy_value()

    return types.void(grad, gate, dx, types.boolean, types.int64), code


@serial
def _relu_block(b, x, y, gate, block, past):  # type: ignore[no-untyped-def]
    for i in range(b * block, min((b + 1) * block, x.size), 16):
        _relu_sixteen(x, y, gate, past, i)
    if past:
        fence()


@kernel
def _relu_numba(count, arguments):  # type: ignore[no-untyped-def]
    share_out(_relu_block, count, arguments)


@serial
def _positive_block(b, y, gate, block):  # type: ignore[no-untyped-def]
    for i in range(b * block, min((b + 1) * block, y.size), 16):
        _positive_sixteen(y, gate, i)


@kernel
def _positive_numba(count, arguments):  # type: ignore[no-untyped-def]
    share_out(_positive_block, count, arguments)


@serial
def _relu_backward_block(b, grad, gate, dx, block, past):  # type: ignore[no-untyped-def]
    for i in range(b * block, min((b + 1) * block, grad.size), 16):
        _relu_backward_sixteen(grad, gate, dx, past, i)
    if past:
        fence()


@kernel
def _relu_backward_numba(count, arguments):  # type: ignore[no-untyped-def]
    share_out(_relu_backward_block, count, arguments)
