"""Whether a gradient is held in one place alone, so that it may be kept or added to without a copy.

A gradient may be shared: a sum hands the same Tensor to both of its inputs, an expansion is a view
of one number, an operation may give out an array that it saved, a user holds what they passed to
`backward`. Python counts the references to each object; where the Tensor, its array and the memory
under it have one each, nobody else can see a change. (PyTorch's AccumulateGrad asks the same of its
counts.) A reference too many costs a copy and nothing else.
"""

from __future__ import annotations

import sys

import numpy as np

from minifcn import device
from minifcn.kernels.workspace import Lease
from minifcn.tensor import Tensor


def is_alone(tensor: Tensor) -> bool:
    """Whether one variable of the caller is all that refers to ``tensor``, or to its memory."""
    found, alone = _references(tensor), _ALONE
    return found[0] <= alone[0] and found[1] <= alone[1] and found[2] <= alone[2]


def _references(tensor: Tensor) -> tuple[float, ...]:
    """References to the Tensor, to its array, and to the object whose memory the array views."""
    array, base = tensor.data, tensor.data.base
    known = base is None or isinstance(base, Lease)
    if type(base) is np.ndarray:
        known = base.base is None or isinstance(base.base, Lease)
    if device.is_gpu(array):  # CuPy's views refer to the array that has the memory
        known = base is None or type(base) is type(array) and base.base is None
    expanded = 0 in array.strides and any(
        step == 0 < n - 1 for n, step in zip(array.shape, array.strides)
    )
    if not known or expanded or not getattr(array.flags, "writeable", True):
        return (np.inf,) * 3  # memory of somebody else's, or one number for many
    return (
        sys.getrefcount(tensor),
        sys.getrefcount(array),
        0 if base is None else sys.getrefcount(base),
    )


def _lonely() -> tuple[float, ...]:
    tensor = Tensor(np.empty(2)[:1])

    def is_alone(tensor: Tensor) -> tuple[float, ...]:
        return _references(tensor)

    return is_alone(tensor)


#: the counts of a Tensor that is alone, as Python gives them: the counting itself refers to it too,
#: and how often differs from version to version
_ALONE = _lonely()
