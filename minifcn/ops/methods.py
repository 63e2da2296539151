"""Tensor's operators and methods: each one is the operation of that name."""

from minifcn import device, graph
from minifcn.conversion import Cast, Move
from minifcn.ops import arithmetic, matmul, pointwise, reduction, shape
from minifcn.tensor import Tensor


def _to(x: Tensor, where: object) -> Tensor:
    """The values on another device, if ``where`` is the name of one; else in that dtype.

    A Tensor that is on the device already is given back as it is.
    """
    if not (isinstance(where, str) and where in device.DEVICES):
        return Cast(where)(x)
    device.module(where)
    lives_there = x.device == ("cpu" if where in device.HOST else where)
    return x if lives_there else Move(where)(x)


def _clone(x: Tensor) -> Tensor:
    """A copy with memory of its own, in the graph."""
    return Cast(x.dtype)(x)


Tensor.backward = graph.backward
Tensor.__add__ = arithmetic.add
Tensor.__radd__ = lambda a, b: arithmetic.add(b, a)
Tensor.__sub__ = arithmetic.sub
Tensor.__rsub__ = lambda a, b: arithmetic.sub(b, a)
Tensor.__mul__ = arithmetic.mul
Tensor.__rmul__ = lambda a, b: arithmetic.mul(b, a)
Tensor.__truediv__ = arithmetic.div
Tensor.__rtruediv__ = lambda a, b: arithmetic.div(b, a)
Tensor.__pow__ = arithmetic.power
Tensor.__neg__ = arithmetic.neg
Tensor.__matmul__ = matmul.matmul
Tensor.__rmatmul__ = lambda a, b: matmul.matmul(b, a)
Tensor.__getitem__ = shape.index
Tensor.__lt__ = arithmetic.less
Tensor.__le__ = arithmetic.less_equal
Tensor.__gt__ = lambda a, b: arithmetic.less(b, a)
Tensor.__ge__ = lambda a, b: arithmetic.less_equal(b, a)
Tensor.__eq__ = arithmetic.equal  # type: ignore[method-assign,assignment]
Tensor.__ne__ = arithmetic.not_equal  # type: ignore[method-assign,assignment]

Tensor.abs = pointwise.absolute
Tensor.exp = pointwise.exp
Tensor.log = pointwise.log
Tensor.sqrt = pointwise.sqrt
Tensor.tanh = pointwise.tanh
Tensor.sigmoid = pointwise.sigmoid
Tensor.clamp = pointwise.clamp

Tensor.sum = reduction.total
Tensor.mean = reduction.mean
Tensor.var = reduction.var
Tensor.max = reduction.maximum_along
Tensor.min = reduction.minimum_along
Tensor.argmax = reduction.argmax
Tensor.expand = reduction.expand

Tensor.reshape = shape.reshape
Tensor.flatten = shape.flatten
Tensor.permute = shape.permute
Tensor.transpose = shape.transpose
Tensor.squeeze = shape.squeeze
Tensor.unsqueeze = shape.unsqueeze

Tensor.to = _to
Tensor.cpu = lambda x: _to(x, "cpu")
Tensor.cuda = lambda x: _to(x, "cuda")
Tensor.clone = _clone
