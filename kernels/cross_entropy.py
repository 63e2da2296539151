"""Softmax cross-entropy of every pixel, and its gradient, in one pass over the logits.

    loss[m] = a[m] · (ln Σₖ exp(z[m, k]) − z[m, t[m]])
    grad[m, k] = a[m] · (softmax(z[m])ₖ − [k = t[m]])

``a[m] = share[picture of m, t[m]]`` is what the pixel counts for: its class weight over the
normaliser, and 0 where it is void. The largest logit is subtracted first, so that no exponential
overflows. Rows are pixels; since memory is channels-last, a pixel's logits are neighbours.

The fast reading takes 64 pixels at a time and turns their logits about, so that pixels are
neighbours: then every step, the exponential too, runs on a vector of pixels, whatever K is.
"""

from __future__ import annotations

from math import prod

import numpy as np

from minifcn import device
from minifcn.errors import ShapeError
from minifcn.kernels import workspace
from minifcn.kernels.compiled import kernel, serial
from minifcn.kernels.exponential import exp_of_negative
from minifcn.kernels.jobs import share_out
from minifcn.kernels.row import clear
from minifcn.kernels.turn import turn
from minifcn.kernels.vector import lanes
from minifcn.launch import launch

LANES = 64
BLOCK = 16 * LANES  # pixels that one thread takes at a time
PARTS = 8  # of a picture's labels, which are counted apart …
LEAST = 2048  # … of so many pixels or more


def cross_entropy(
    logits: np.ndarray, target: np.ndarray, share: np.ndarray, void: int, summed: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """(loss (M,), gradient (M, K)) from logits (M, K), target (M,) int64 and share (N, K).

    ``summed``, the loss is one number, its sum taken in float64.

    The M pixels are those of N pictures, one after the other. Void pixels and those whose share
    is 0 give exactly 0, whatever their logits are.
    """
    if device.is_gpu(logits):
        return _summed(*_cross_entropy_cuda(logits, target, share, void), summed)
    if device.is_reference():
        amount = amounts(target, share, void)
        return _summed(*_cross_entropy_numpy(logits, target, amount), summed)
    loss = workspace.empty((0,) if summed else target.shape, logits.dtype)
    grad = workspace.empty(logits.shape, logits.dtype)
    blocks = -(-len(logits) // BLOCK) if logits.size else 0
    sums = np.zeros(blocks)
    if blocks:
        turned = workspace.empty((blocks, logits.shape[1] + 2, LANES), logits.dtype)
        arguments = logits, target, share, void, turned, loss, sums, grad, lanes(logits.dtype)
        _cross_entropy_numba(blocks, arguments)
    return (np.array(sums.sum(), logits.dtype) if summed else loss), grad


def _summed(loss: np.ndarray, grad: np.ndarray, summed: bool) -> tuple[np.ndarray, np.ndarray]:
    return (loss.sum(dtype=np.float64).astype(loss.dtype) if summed else loss), grad


def amounts(target: np.ndarray, share: np.ndarray, void: int) -> np.ndarray:
    """a (M,): what each pixel counts for."""
    if device.is_gpu(target):
        return _amounts_cuda(target, share, void)
    picture = np.repeat(np.arange(len(share)), target.size // max(len(share), 1))
    valid = target != void
    return np.where(valid, share[picture, np.where(valid, target, 0)], share.dtype.type(0))


def copied_labels(labels: np.ndarray, classes: int, void: int) -> tuple[np.ndarray, np.ndarray]:
    """A copy of labels (N, …), of any integer dtype, as int64, and its `count_labels`."""
    flags, elsewhere = labels.flags, device.is_gpu(labels) or device.is_reference()
    if elsewhere or labels.dtype != np.int64 or not (flags.c_contiguous and flags.writeable):
        own = workspace.copy(labels, np.int64)
        return own, count_labels(own, classes, void)
    own = workspace.empty(labels.shape, labels.dtype)
    return own, count_labels(labels, classes, void, own)


def count_labels(
    target: np.ndarray, classes: int, void: int, copy: np.ndarray | None = None
) -> np.ndarray:
    """Pixels of each class (N, classes + 1) in target (N, …) int64, void ones left out.

    The last column counts what is neither a class nor void. On the device `cpu` the labels are
    written into a ``copy`` on the way.
    """
    if device.is_gpu(target):
        return _count_labels_cuda(target, classes, void)
    n, pixels = len(target), prod(target.shape[1:])
    target = target.reshape(n, pixels)
    counts = np.zeros((n, classes + 1), np.int64)
    if device.is_reference():
        label = np.where((target >= 0) & (target < classes), target, classes)
        for row, found, valid in zip(counts, label, target != void, strict=True):
            row += np.bincount(found[valid], minlength=classes + 1)
    elif target.size:
        parts = max(1, min(PARTS, pixels // LEAST))
        counted = counts[:, None] if parts == 1 else np.zeros((n, parts, classes + 1), np.int64)
        own = np.empty((0, 0), np.int64) if copy is None else copy.reshape(n, pixels)
        _count_labels_numba(n * parts, (target, void, own, counted))
        counts = counted.sum(axis=1) if parts > 1 else counts
    return counts


def _cross_entropy_numpy(
    logits: np.ndarray, target: np.ndarray, amount: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    loss, grad = np.zeros(target.shape, logits.dtype), np.zeros_like(logits)
    counts = np.flatnonzero(amount)
    z, t, a = logits[counts], target[counts], amount[counts]
    z = z - z.max(axis=1, keepdims=True, initial=-np.inf)
    e = np.exp(z)
    total = e.sum(axis=1)
    row = np.arange(len(t))
    loss[counts] = a * (np.log(total) - z[row, t])
    p = e / total[:, None]
    p[row, t] -= 1
    grad[counts] = a[:, None] * p
    return loss, grad


# -- CUDA ------------------------------------------------------------------------------------------

THREADS = 128
SHARED = 48 << 10  # bytes of shared memory that every GPU has for a block
BLOCKS = 1 << 14  # at most; then a block goes round again
PICTURES = 65535  # along a grid's y, at most; then they go round again
PIXELS = 16  # a thread, at least, where a block has numbers of its own to read or to write


def _cross_entropy_cuda(
    logits: np.ndarray, target: np.ndarray, share: np.ndarray, void: int
) -> tuple[np.ndarray, np.ndarray]:
    xp, real = device.array_module(logits), logits.dtype
    (m, classes), pixels = logits.shape, _pixels(target, share)
    loss, grad = xp.empty((m,), real), xp.empty(logits.shape, real)
    if logits.size:
        row = (classes | 1) * real.itemsize
        if row > SHARED:
            raise ShapeError(
                f"cross_entropy: {classes} classes of {real} do not fit a block's shared memory, "
                f"wanted at most {SHARED // real.itemsize - 1}; use the device cpu"
            )
        tile = min(THREADS, 1 << ((SHARED // row).bit_length() - 1))
        threads = tile * min(32, THREADS // tile)
        grid = (min(-(-m // tile), BLOCKS),)
        arguments = logits, target, share, loss, grad, m, pixels, classes, void, tile
        sizes = {"real": real, "shared": tile * row}
        launch("cross_entropy.cu", "cross_entropy", grid, (threads,), arguments, **sizes)
    return loss, grad


def _amounts_cuda(target: np.ndarray, share: np.ndarray, void: int) -> np.ndarray:
    a = device.array_module(target).empty(target.shape, share.dtype)
    if a.size:
        pixels, (n, classes) = _pixels(target, share), share.shape
        arguments = target, share, a, n, pixels, classes, void
        grid = min(-(-pixels // (PIXELS * THREADS)), BLOCKS), min(n, PICTURES)
        sizes = {"real": a.dtype, "shared": classes * a.itemsize}
        launch("cross_entropy.cu", "amounts", grid, (THREADS,), arguments, **sizes)
    return a


def _pixels(target: np.ndarray, share: np.ndarray) -> int:
    """Pixels of a picture."""
    return target.size // max(share.shape[0], 1)


def _count_labels_cuda(target: np.ndarray, classes: int, void: int) -> np.ndarray:
    xp, n = device.array_module(target), target.shape[0]
    if not target.size:
        return xp.zeros((n, classes + 1), np.int64)
    pixels = target.size // n
    blocks = min(-(-pixels // (PIXELS * THREADS)), 64)
    counts = xp.empty((n, classes + 1), np.int64)
    parts = xp.empty((n, blocks, classes + 1), np.int64) if blocks > 1 else counts
    arguments = target, parts, n, pixels, classes, void
    sizes = {"shared": 4 * THREADS}
    launch(
        "cross_entropy.cu",
        "count_labels",
        (blocks, min(n, PICTURES)),
        (THREADS,),
        arguments,
        **sizes,
    )
    if blocks > 1:
        grid, arguments = (-(-counts.size // THREADS),), (parts, counts, n, blocks, classes + 1)
        launch("cross_entropy.cu", "add_counts", grid, (THREADS,), arguments)
    return counts


# -- Numba -----------------------------------------------------------------------------------------


@serial
def _cross_entropy_block(block, logits, target, share, void, turned, loss, sums, grad, side):  # type: ignore[no-untyped-def]
    m, classes = logits.shape
    pixels = m // len(share)
    zero = logits.dtype.type(0)
    z = turned[block]  # logits, their exponentials, then gradients; below them two rows more
    flat_z, flat_logits, flat_grad = z.reshape(-1), logits.reshape(-1), grad.reshape(-1)
    zeroth, row = np.int64(0), z.shape[1]
    top, total = classes, classes + 1
    picture = block * BLOCK // pixels
    last, whole = min(m, (block + 1) * BLOCK), 0.0
    if last % LANES != 0:  # what lies beyond the last pixel is computed with, and never read out
        clear(flat_z, zeroth, z.size)
    for low in range(block * BLOCK, last, LANES):
        n = min(LANES, last - low)
        turn(flat_logits, low * classes, classes, n, classes, flat_z, zeroth, row, side)
        for j in range(LANES):
            z[top, j] = z[0, j]
            z[total, j] = zero
        for k in range(1, classes):
            for j in range(LANES):
                z[top, j] = z[k, j] if z[k, j] > z[top, j] else z[top, j]
        for k in range(classes):
            for j in range(LANES):
                # a NaN that was not the largest comes in here, and in the sum: it must reach
                # the loss, for it is what tells a broken training run
                e = exp_of_negative(z[k, j] - z[top, j])
                z[k, j] = e
                z[total, j] += e
        for j in range(n):
            i = low + j
            if i >= (picture + 1) * pixels:
                picture += 1
            t = target[i]
            a = zero if t == void else share[picture, t]
            own = zero
            if a != zero:
                own = a * (np.log(z[total, j]) - (logits[i, t] - z[top, j]))
            whole += own
            if loss.size:
                loss[i] = own
            z[top, j] = a / z[total, j]  # from here on what the exponentials are multiplied by
            z[total, j] = a
        for k in range(classes):
            for j in range(LANES):
                z[k, j] *= z[top, j]
        for j in range(n):
            if z[total, j] != zero:
                z[target[low + j], j] -= z[total, j]
        turn(flat_z, zeroth, row, classes, n, flat_grad, low * classes, classes, side)
        for j in range(n):
            if z[total, j] == zero:  # whatever its logits are
                clear(flat_grad, (low + j) * classes, classes)
    sums[block] = whole


@kernel
def _cross_entropy_numba(count, arguments):  # type: ignore[no-untyped-def]
    share_out(_cross_entropy_block, count, arguments)


@serial
def _count_labels_part(item, target, void, copy, parts):  # type: ignore[no-untyped-def]
    pixels, count = target.shape[1], parts.shape[1]
    i, part = item // count, item % count
    classes = parts.shape[2] - 1
    for m in range(pixels * part // count, pixels * (part + 1) // count):
        t = target[i, m]
        if copy.size:
            copy[i, m] = t
        if t != void:
            parts[i, part, t if 0 <= t < classes else classes] += 1


@kernel
def _count_labels_numba(count, arguments):  # type: ignore[no-untyped-def]
    share_out(_count_labels_part, count, arguments)
