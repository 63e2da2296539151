"""The operations once more, as loops over every index: slow, plain, and independent of minifcn.

Every function takes and gives NumPy arrays of shape (N, C, H, W) or as stated, and computes in
float64. Nothing here is imported from the package, and no trick is used that would need a proof.
"""

from __future__ import annotations

import math

import numpy as np


def pair(value):
    """(a, b) from a or (a, b)."""
    return (value, value) if isinstance(value, int) else tuple(value)


def conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Cross-correlation: b[k] + Σ_{c,r,s} w[k,c,r,s] · x[n, c, p·stride + r·dilation − pad, …]."""
    (sh, sw), (ph, pw), (dh, dw) = pair(stride), pair(padding), pair(dilation)
    n, c, h, w = x.shape
    k, per_group, kr, ks = weight.shape
    p_out = (h + 2 * ph - (kr - 1) * dh - 1) // sh + 1
    q_out = (w + 2 * pw - (ks - 1) * dw - 1) // sw + 1
    y = np.zeros((n, k, p_out, q_out))
    for i in range(n):
        for o in range(k):
            first = (o // (k // groups)) * per_group
            for p in range(p_out):
                for q in range(q_out):
                    total = 0.0 if bias is None else float(bias[o])
                    for ci in range(per_group):
                        for r in range(kr):
                            for s in range(ks):
                                a, b = p * sh + r * dh - ph, q * sw + s * dw - pw
                                if 0 <= a < h and 0 <= b < w:
                                    total += float(weight[o, ci, r, s]) * float(
                                        x[i, first + ci, a, b]
                                    )
                    y[i, o, p, q] = total
    return y


def conv_transpose2d(
    x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1
):
    """Every input pixel stamps its kernel, scaled, into the output. weight (C, K/groups, R, S)."""
    (sh, sw), (ph, pw), (dh, dw) = pair(stride), pair(padding), pair(dilation)
    oh, ow = pair(output_padding)
    n, c, h, w = x.shape
    _, per_group, kr, ks = weight.shape
    k = per_group * groups
    p_out = (h - 1) * sh - 2 * ph + dh * (kr - 1) + oh + 1
    q_out = (w - 1) * sw - 2 * pw + dw * (ks - 1) + ow + 1
    y = np.zeros((n, k, p_out, q_out))
    for i in range(n):
        for ci in range(c):
            first = (ci // (c // groups)) * per_group
            for a in range(h):
                for b in range(w):
                    for o in range(per_group):
                        for r in range(kr):
                            for s in range(ks):
                                p, q = a * sh + r * dh - ph, b * sw + s * dw - pw
                                if 0 <= p < p_out and 0 <= q < q_out:
                                    y[i, first + o, p, q] += float(weight[ci, o, r, s]) * float(
                                        x[i, ci, a, b]
                                    )
    if bias is not None:
        for o in range(k):
            y[:, o] += float(bias[o])
    return y


def pooled_length(length, kernel, stride, padding, dilation=1, ceil_mode=False):
    """How many windows: the last one may hang over the end (ceil) but not start beyond it."""
    free = length + 2 * padding - dilation * (kernel - 1) - 1
    count = free // stride + 1
    if ceil_mode and free % stride:
        count += 1
    if ceil_mode and (count - 1) * stride >= length + padding:
        count -= 1
    return count


def max_pool2d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """(values, rows, columns): NaN beats everything, the first of equals wins, row by row."""
    (kr, ks), (ph, pw), (dh, dw) = pair(kernel_size), pair(padding), pair(dilation)
    sh, sw = pair(kernel_size if stride is None else stride)
    n, c, h, w = x.shape
    p_out = pooled_length(h, kr, sh, ph, dh, ceil_mode)
    q_out = pooled_length(w, ks, sw, pw, dw, ceil_mode)
    y = np.zeros((n, c, p_out, q_out))
    rows, columns = np.zeros(y.shape, int), np.zeros(y.shape, int)
    for i in range(n):
        for ci in range(c):
            for p in range(p_out):
                for q in range(q_out):
                    best = None
                    for r in range(kr):
                        for s in range(ks):
                            a, b = p * sh - ph + r * dh, q * sw - pw + s * dw
                            if not (0 <= a < h and 0 <= b < w):
                                continue
                            value = float(x[i, ci, a, b])
                            if best is None or (
                                not math.isnan(best) and (math.isnan(value) or value > best)
                            ):
                                best = value
                                rows[i, ci, p, q], columns[i, ci, p, q] = a, b
                    y[i, ci, p, q] = -math.inf if best is None else best
    return y, rows, columns


def max_pool2d_backward(shape, rows, columns, upstream):
    """Each window's gradient goes to the place of its maximum."""
    g = np.zeros(shape)
    for i, c, p, q in np.ndindex(*upstream.shape):
        g[i, c, rows[i, c, p, q], columns[i, c, p, q]] += float(upstream[i, c, p, q])
    return g


def avg_pool2d(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """Means over windows; a window counts the padding (but nothing beyond it), or only pixels."""
    (kr, ks), (ph, pw) = pair(kernel_size), pair(padding)
    sh, sw = pair(kernel_size if stride is None else stride)
    n, c, h, w = x.shape
    p_out = pooled_length(h, kr, sh, ph, 1, ceil_mode)
    q_out = pooled_length(w, ks, sw, pw, 1, ceil_mode)
    y = np.zeros((n, c, p_out, q_out))
    for i in range(n):
        for ci in range(c):
            for p in range(p_out):
                for q in range(q_out):
                    total, real, framed = 0.0, 0, 0
                    for r in range(kr):
                        for s in range(ks):
                            a, b = p * sh - ph + r, q * sw - pw + s
                            if a < h + ph and b < w + pw:
                                framed += 1
                            if 0 <= a < h and 0 <= b < w:
                                total += float(x[i, ci, a, b])
                                real += 1
                    count = framed if count_include_pad else real
                    y[i, ci, p, q] = total / count
    return y


def batch_norm(
    x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5
):
    """(y, new running mean, new running variance); x (N, C, ...). Running variance is unbiased."""
    y = np.zeros(x.shape)
    new_mean = None if running_mean is None else running_mean.astype(float).copy()
    new_var = None if running_var is None else running_var.astype(float).copy()
    for c in range(x.shape[1]):
        values = [float(v) for v in x[:, c].ravel()]
        if training or running_mean is None:
            count = len(values)
            mean = math.fsum(values) / count
            var = math.fsum((v - mean) ** 2 for v in values) / count
            if new_mean is not None:
                new_mean[c] = (1 - momentum) * new_mean[c] + momentum * mean
                new_var[c] = (1 - momentum) * new_var[c] + momentum * var * count / (count - 1)
        else:
            mean, var = float(running_mean[c]), float(running_var[c])
        scale = (1.0 if weight is None else float(weight[c])) / math.sqrt(var + eps)
        y[:, c] = (x[:, c].astype(float) - mean) * scale + (0.0 if bias is None else float(bias[c]))
    return y, new_mean, new_var


def log_softmax(x, dim):
    """x − log Σ exp x along one dimension, vector by vector."""
    moved = np.moveaxis(np.asarray(x, float), dim, -1)
    y = np.zeros(moved.shape)
    for index in np.ndindex(*moved.shape[:-1]):
        row = [float(v) for v in moved[index]]
        top = max(row)
        log_sum = top + math.log(math.fsum(math.exp(v - top) for v in row))
        y[index] = [v - log_sum for v in row]
    return np.moveaxis(y, -1, dim)


def cross_entropy(x, target, weight=None, ignore_index=-100, reduction="mean"):
    """Negative log-likelihood over pixels; x (N, C, ...), target (N, ...)."""
    logs = log_softmax(x, 1)
    n = x.shape[0]
    losses, weights = np.zeros(target.shape), np.zeros(target.shape)
    for index in np.ndindex(*target.shape):
        t = int(target[index])
        if t == ignore_index:
            continue
        w = 1.0 if weight is None else float(weight[t])
        losses[index] = -w * logs[(index[0], t, *index[1:])]
        weights[index] = w
    if reduction == "none":
        return losses
    if reduction == "sum":
        return math.fsum(losses.ravel())
    if reduction == "batch":
        return math.fsum(losses.ravel()) / max(n, 1)
    if reduction == "mean":
        total = math.fsum(weights.ravel())
        return math.fsum(losses.ravel()) / total if total else 0.0
    if reduction == "image":
        each = []
        for i in range(n):  # weights scale each pixel's loss but are not in the divisor
            valid = sum(int(t) != ignore_index for t in target[i].ravel())
            each.append(math.fsum(losses[i].ravel()) / valid if valid else 0.0)
        return math.fsum(each) / max(n, 1)
    raise ValueError(reduction)


def interpolate_bilinear(x, size, align_corners=False, scale=(None, None)):
    """Every output pixel from its four neighbours; scale: in/out ratio if it was given."""
    n, c, h, w = x.shape
    p_out, q_out = size

    def source(i, length, out, given):
        if align_corners:
            return i * (length - 1) / (out - 1) if out > 1 else 0.0
        ratio = length / out if given is None else 1 / given
        return max(0.0, (i + 0.5) * ratio - 0.5)

    y = np.zeros((n, c, p_out, q_out))
    for p in range(p_out):
        a = source(p, h, p_out, scale[0])
        a0 = min(int(math.floor(a)), h - 1)
        a1 = min(a0 + 1, h - 1)
        fa = min(a - a0, 1.0)
        for q in range(q_out):
            b = source(q, w, q_out, scale[1])
            b0 = min(int(math.floor(b)), w - 1)
            b1 = min(b0 + 1, w - 1)
            fb = min(b - b0, 1.0)
            y[:, :, p, q] = (1 - fa) * ((1 - fb) * x[:, :, a0, b0] + fb * x[:, :, a0, b1]) + fa * (
                (1 - fb) * x[:, :, a1, b0] + fb * x[:, :, a1, b1]
            )
    return y


def interpolate_nearest(x, size):
    """out[p, q] = x[floor(p · H/P), floor(q · W/Q)]."""
    n, c, h, w = x.shape
    y = np.zeros((n, c, *size))
    for p in range(size[0]):
        for q in range(size[1]):
            y[:, :, p, q] = x[:, :, min(p * h // size[0], h - 1), min(q * w // size[1], w - 1)]
    return y
