"""The operations: one family a file, each forward over its backward.

Importing this package binds the operators and methods of `minifcn.tensor.Tensor`.
"""

from minifcn.ops import methods

__all__ = ["methods"]
