"""Initial values against their definitions, written out as loops, and against statistics."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minifcn import functional as F
from minifcn.errors import InputError, ShapeError
from minifcn.nn import init
from minifcn.tensor import Tensor


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def naive_bilinear(k: int) -> np.ndarray:
    """The tent at every tap, counted from the nearer end: distance to the end over the half-width.

    Even k = 2f gives (1, 3, 5, …)/(2f) up and down again; odd k = 2f - 1 gives (1, 2, …, f)/f.
    """
    f = (k + 1) // 2
    rise = [(2 * i + 1) / (2 * f) if k % 2 == 0 else (i + 1) / f for i in range(f)]
    tent = rise + (rise[::-1] if k % 2 == 0 else rise[-2::-1])
    return np.array([[a * b for b in tent] for a in tent])


@pytest.mark.parametrize("k", [*range(1, 17), 32, 63, 64])
def test_bilinear_filter(k: int) -> None:
    np.testing.assert_allclose(init.bilinear_filter(k), naive_bilinear(k), rtol=1e-14)


def test_bilinear_filter_is_the_published_one() -> None:
    row = np.array([1, 3, 3, 1]) / 4  # kernel 4, upsampling by 2
    np.testing.assert_array_equal(init.bilinear_filter(4), np.outer(row, row))
    with pytest.raises(InputError, match="is 0"):
        init.bilinear_filter(0)


def test_bilinear_fills_the_diagonal_only() -> None:
    full = init.bilinear_(Tensor(np.ones((3, 3, 4, 4)))).data
    for c in range(3):
        for k in range(3):
            np.testing.assert_array_equal(full[c, k], naive_bilinear(4) * (c == k))
    depthwise = init.bilinear_(Tensor(np.ones((3, 1, 5, 5))), groups=3).data
    for c in range(3):
        np.testing.assert_allclose(depthwise[c, 0], naive_bilinear(5))


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_bilinear_means_the_same_in_any_number_of_groups(groups: int) -> None:
    x = Tensor(rng().standard_normal((1, 4, 3, 5)))
    w = init.bilinear_(Tensor(np.zeros((4, 4 // groups, 4, 4))), groups)
    y = F.conv_transpose2d(x, w, None, 2, 1, groups=groups)
    whole = init.bilinear_(Tensor(np.zeros((4, 4, 4, 4))))
    np.testing.assert_allclose(y.data, F.conv_transpose2d(x, whole, None, 2, 1).data, rtol=1e-12)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_bilinear_reproduces_a_plane_inside(factor: int) -> None:
    rows, columns = np.mgrid[:6, :7].astype(float)
    x = Tensor((2 * rows - 3 * columns + 1)[None, None])
    w = init.bilinear_(Tensor(np.zeros((1, 1, 2 * factor, 2 * factor))))
    y = F.conv_transpose2d(x, w, None, factor, factor // 2).data[0, 0]
    fine_rows, fine_columns = np.mgrid[: 6 * factor, : 7 * factor]
    shift = (factor - 1) / 2  # the first coarse unit covers fine pixels 0 … factor-1
    wanted = 2 * (fine_rows - shift) / factor - 3 * (fine_columns - shift) / factor + 1
    inside = slice(factor, -factor)
    np.testing.assert_allclose(y[inside, inside], wanted[inside, inside], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("shape", "groups"), [((2, 3, 4, 4), 1), ((2, 2, 4, 5), 1), ((4, 2), 1)])
def test_bilinear_refuses_what_cannot_interpolate(shape: tuple[int, ...], groups: int) -> None:
    with pytest.raises(ShapeError, match="bilinear_"):
        init.bilinear_(Tensor(np.zeros(shape)), groups)


@pytest.mark.parametrize(("mode", "fan"), [("fan_in", 32 * 9), ("fan_out", 128 * 9)])
def test_kaiming_variance(mode: str, fan: int) -> None:
    w = init.kaiming_normal_(Tensor(np.zeros((128, 32, 3, 3))), rng(), mode).data  # type: ignore[arg-type]
    n = w.size  # the variance's own standard error is √(2/n) of it, the mean's √(var/n)
    assert abs(w.var() / (2 / fan) - 1) < 5 * math.sqrt(2 / n)
    assert abs(w.mean()) < 5 * math.sqrt(2 / fan / n)
    assert abs((w**4).mean() / w.var() ** 2 - 3) < 5 * math.sqrt(24 / n)  # normal, not uniform


def test_xavier_range_and_variance() -> None:
    w = init.xavier_uniform_(Tensor(np.zeros((64, 32, 3, 3))), rng(), gain=2.0).data
    bound = 2 * math.sqrt(6 / ((64 + 32) * 9))
    assert 0.99 * bound < np.abs(w).max() <= bound
    assert abs(w.var() / (bound**2 / 3) - 1) < 0.03


def test_constants() -> None:
    w = Tensor(np.zeros((2, 3)), requires_grad=True)
    assert init.ones_(w) is w and np.all(w.data == 1)
    assert np.all(init.zeros_(w).data == 0) and np.all(init.constant_(w, 2.5).data == 2.5)
    assert w.requires_grad


def test_one_seed_one_draw_whatever_the_dtype() -> None:
    single = init.kaiming_normal_(Tensor(np.zeros((5, 4, 3, 3), np.float32)), rng(3)).data
    double = init.kaiming_normal_(Tensor(np.zeros((5, 4, 3, 3))), rng(3)).data
    again = init.kaiming_normal_(Tensor(np.zeros((5, 4, 3, 3))), rng(3)).data
    assert single.dtype == np.float32
    np.testing.assert_array_equal(double, again)
    np.testing.assert_array_equal(single, double.astype(np.float32))


def test_misuse_is_named() -> None:
    with pytest.raises(InputError, match="generator is 0"):
        init.kaiming_normal_(Tensor(np.zeros((2, 2))), 0)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'both'"):
        init.kaiming_normal_(Tensor(np.zeros((2, 2))), rng(), "both")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"\(2,\)"):
        init.xavier_uniform_(Tensor(np.zeros(2)), rng())
