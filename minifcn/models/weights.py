"""Weights in and out under torchvision's names, for FCNs and classifiers.

What must be the same is said in `torchvision_names`; here the arrays are compared, carried over and
given back. Files are read and written by `minifcn.training.weight_files`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from minifcn import nn
from minifcn.errors import InputError
from minifcn.models.torchvision_names import Row, left_behind, network_of, rows
from minifcn.nn import LoadResult

SHOWN = 3
"""Names that a message lists of each kind of difference."""


def load(net: nn.Module, arrays: Mapping[str, np.ndarray], strict: bool = True) -> LoadResult:
    """Copy arrays by torchvision's names into ``net``, all or none.

    Args:
        net: an FCN, whose trunk, fc6 and fc7 are filled (its scores are its own, and the
            classifier's last layer stays behind); or a classifier, which is filled whole.
        arrays: floating arrays of any precision, for example of torchvision's vgg16, vgg16_bn,
            resnet18, resnet34 or alexnet.
        strict: whether every name must be there and no other. If False, such names are passed
            over; shapes and kinds of numbers must agree all the same, and every value be finite.

    Returns:
        The names that were missing and those that were too many.

    Raises:
        InputError: naming the differences. Then nothing was written.
    """
    table = rows(net)
    wanted = {row.theirs for row in table}
    missing = [row.theirs for row in table if row.theirs not in arrays and not row.counts]
    alone = left_behind(net)
    too_many = [name for name in arrays if name not in wanted and not name.startswith(alone)]
    faults = [
        f"{row.theirs} is {arrays[row.theirs].shape}, wanted {row.shape}"
        for row in table
        if row.theirs in arrays and arrays[row.theirs].shape != row.shape
    ]
    kinds = [
        f"{row.theirs} is {arrays[row.theirs].dtype}"
        for row in table
        if row.theirs in arrays and not _fits(arrays[row.theirs].dtype, row)
    ]
    differences = [
        _counted(faults, "shape differs", "shapes differ"),
        _counted(kinds, "array is not of floating numbers", "arrays are not of floating numbers"),
    ]
    if strict:
        differences.append(_counted(missing, "name is missing", "names are missing"))
        differences.append(_counted(too_many, "name is too many", "names are too many"))
    if any(differences):
        what = network_of(arrays)
        raise InputError(
            f"the weights do not fit this {type(net).__name__}: "
            f"{', '.join(d for d in differences if d)}; "
            + (f"they look like {what}'s: " if what else "")
            + "build the network that they belong to, or give this one's weights"
        )
    ours = _ours(net, table, arrays)
    wild = [row.theirs for row in table if row.ours in ours and not _finite(ours[row.ours])]
    if wild:
        raise InputError(
            f"{_counted(wild, 'array is not finite', 'arrays are not finite')} in "
            f"{next(net.parameters()).dtype}; give weights of a training that went well"
        )
    net.load_state_dict(ours, strict=False)
    return LoadResult(missing, too_many)


def save(net: nn.Module) -> dict[str, np.ndarray]:
    """The network's weights by torchvision's names and in its shapes: contiguous copies.

    Of an FCN the trunk, fc6 and fc7. In torchvision they load with ``strict=False``, for the last
    layer of a classifier is not among them.
    """
    state = net.state_dict()
    dtype = next(net.parameters()).dtype
    return {
        row.theirs: state[row.ours].reshape(row.shape) if row.ours else np.zeros(row.shape, dtype)
        for row in rows(net)
    }


def red_first(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same weights for pictures whose channels are turned round: (blue, green, red) → RGB.

    The input channels of the first convolution, ``features.0`` or ``conv1``, change their order.
    """
    turned = dict(arrays)
    for name in ("features.0.weight", "conv1.weight"):
        if name in turned and turned[name].ndim == 4:
            turned[name] = turned[name][:, ::-1]
    return turned


def _fits(dtype: np.dtype, row: Row) -> bool:
    """Whether weights can be of this kind: floating numbers, but whole ones where they count."""
    return np.issubdtype(dtype, np.integer if row.counts else np.floating)


def _finite(array: np.ndarray) -> bool:
    return bool(np.isfinite(array).all())


def _ours(
    net: nn.Module, table: Sequence[Row], arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The arrays by our names, in our shapes and precision."""
    target = dict(net.named_parameters()) | dict(net.named_buffers())
    ours = {}
    for row in table:
        if not row.ours or row.theirs not in arrays:
            continue
        array = np.asarray(arrays[row.theirs])
        if row.less in arrays:
            array = array - arrays[row.less]
        place = target[row.ours]
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found by the caller
            ours[row.ours] = array.reshape(place.shape).astype(place.dtype, copy=False)
    return ours


def _counted(found: Sequence[str], one: str, several: str) -> str:
    """Such as "2 names are missing (a, b)"; "" for none."""
    if not found:
        return ""
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"{len(found)} {one if len(found) == 1 else several} ({', '.join(found[:SHOWN])}{more})"
