"""The patch-wise method, the dense net and their comparison: equal scores, exact counts."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minifcn as mf
from minifcn import nn
from minifcn.errors import InputError, ShapeError
from minifcn.models import (
    classify_densely,
    classify_patches,
    enlarge,
    small_classifier,
    to_dense,
    to_fully_convolutional,
    windows_about,
)
from minifcn.models.patches import mirrored
from minifcn.study import counting, patches_against_fcn, summary


def rng(seed=0):
    return np.random.default_rng(seed)


def classifier(side=9, stages=((2,), (3,)), dtype=np.float64):
    made = {"generator": rng(), "dtype": dtype}
    return small_classifier(3, side, in_channels=2, stages=stages, fc_channels=4, **made).eval()


def window_by_loop(picture, i, j, side):
    """The window about a pixel; beyond the edge the picture goes on as in a mirror."""

    def mirror(k, n):
        k %= 2 * n
        return k if k < n else 2 * n - 1 - k

    height, width, _ = picture.shape
    around = range(-(side // 2), side // 2 + 1)
    return np.array(
        [[picture[mirror(i + a, height), mirror(j + b, width)] for b in around] for a in around]
    )


@given(st.integers(1, 7), st.integers(1, 7), st.sampled_from([1, 3, 5, 9]))
def test_the_window_about_each_pixel(height, width, side):
    picture = rng().standard_normal((height, width, 2))
    found = windows_about(picture, side)
    assert found.shape == (height, width, side, side, 2)
    for i, j in np.ndindex(height, width):
        np.testing.assert_array_equal(found[i, j], window_by_loop(picture, i, j, side))


@given(
    st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 7, 1024]),
    st.sampled_from([(9, ((2,), (3,))), (15, ((2, 2), (3,))), (21, ((2,), (2,), (3,)))]),
)  # fmt: skip
def test_patches_and_the_dense_net_give_the_same(height, width, batch, shape):
    net = classifier(*shape)
    side = shape[0]
    full, verdict = to_fully_convolutional(net, side)
    dense = to_dense(full)
    picture = rng(3).standard_normal((height, width, 2))
    patches = classify_patches(net, picture, batch)
    found = classify_densely(dense, picture, side)
    np.testing.assert_allclose(found, patches, rtol=1e-9, atol=1e-11)
    s = verdict.stride[0]
    coarse = classify_densely(full, picture, side)
    np.testing.assert_allclose(coarse, patches[:, ::s, ::s], rtol=1e-9, atol=1e-11)


@given(st.integers(1, 11), st.integers(1, 11), st.integers(1, 5))
def test_enlarged_cells_stay_over_their_pixels(height, width, stride):
    """Of a plane, row + 100·column, the cells give all pixels back up to the last cell's."""
    rows, columns = np.mgrid[:height, :width].astype(float)
    plane = (rows + 100 * columns)[None]
    found = enlarge(plane[:, ::stride, ::stride], stride, (height, width))
    last = [(n - 1) // stride * stride for n in (height, width)]
    wanted = np.minimum(rows, last[0]) + 100 * np.minimum(columns, last[1])
    np.testing.assert_allclose(found[0], wanted, rtol=1e-12)


def test_interpolate_alone_would_lay_the_cells_of_stride_4_one_and_a_half_pixels_too_far():
    cells = mf.Tensor(np.arange(0.0, 32.0, 4.0) * np.ones((1, 1, 8, 1)))
    found = mf.functional.interpolate(cells, size=(32, 32)).numpy()[0, 0, 0]
    np.testing.assert_allclose(found[2:-2], np.arange(32.0)[2:-2] - 1.5)


def test_cells_that_do_not_fit_the_picture_are_named():
    with pytest.raises(ShapeError, match=r"\(2, 3, 3\); wanted \(classes, 3, 2\).*4 pixels of 9×8"):
        enlarge(np.zeros((2, 3, 3)), 4, (9, 8))


def test_a_patch_by_hand():
    net, picture = classifier(), rng(3).standard_normal((6, 5, 2))
    scores = classify_patches(net, picture)
    with mf.no_grad():
        for i, j in ((0, 0), (3, 2), (5, 4)):
            window = window_by_loop(picture, i, j, 9)[None].transpose(0, 3, 1, 2)
            np.testing.assert_allclose(
                scores[:, i, j], net(mf.Tensor(window)).numpy()[0], rtol=1e-9
            )


def test_forgotten_holes_show():
    """Stride 1 without the dilation behind it is another net."""
    net = classifier()
    full, _ = to_fully_convolutional(net, 9)
    for layer in full.modules():
        if isinstance(layer, nn.MaxPool2d):
            layer.stride = (1, 1)
    picture = rng(3).standard_normal((6, 5, 2))
    wanted = classify_patches(net, picture)
    with mf.no_grad():
        border = mirrored(picture, 7)[None].transpose(0, 3, 1, 2)  # what a cell sees without holes
        found = full(mf.Tensor(border)).numpy()[0]
    assert found.shape == wanted.shape and np.abs(found - wanted).max() > 0.01


def visited(size, side):
    """Each place of each layer that the windows of a size×size picture compute, and how often.

    Along one axis: window i begins at pixel i of the mirrored picture. A place is named by the
    first pixel that it sees, so that two windows that compute the same product name it alike.
    """
    conv1, conv2 = Counter(), Counter()
    pooled = (side - 2 - 3) // 2 + 1
    for i in range(size):
        conv1.update(i + a for a in range(side - 2))
        conv2.update(i + 2 * a for a in range(pooled - 2))
    return conv1, conv2


def test_counted_multiplications_are_those_of_the_places_visited():
    net, size, side = classifier(), 8, 9
    result = patches_against_fcn(net, rng().standard_normal((size, size, 2)), runs=1)
    conv1, conv2 = visited(size, side)
    per_place = (2 * 2 * 9, 3 * 2 * 9)  # products at one place: channels in × out × taps
    top = size * size * (3 * 4 + 4 * 4 + 4 * 3)  # fc6 has a window of 1×1 here
    every = sum(sum(c.values()) ** 2 * n for c, n in zip((conv1, conv2), per_place)) + top
    distinct = sum(len(c) ** 2 * n for c, n in zip((conv1, conv2), per_place)) + top
    assert result.patches.count.multiplications == every
    assert result.dense.count.multiplications == distinct
    assert result.repeated == pytest.approx(1 - distinct / every)
    assert result.patches.count.fed == size * size * side * side * 2 * 8
    assert result.dense.count.fed == (size + side - 1) ** 2 * 2 * 8
    assert result.at_stride.scores.shape == (3, 4, 4) and result.stride == 2
    assert result.dense.difference < 1e-12 and result.at_stride.difference < 1e-12


def test_a_transposed_convolution_counts_as_in_the_summary():
    net = nn.Sequential(nn.ConvTranspose2d(2, 6, (3, 2), stride=2, groups=2, generator=rng()))
    with counting(net) as count, mf.no_grad():
        net(mf.Tensor(np.zeros((5, 2, 4, 7), np.float32)))
    assert count.multiplications == 5 * (2 * 4 * 7) * (3 * 3 * 2)  # pictures, inputs, from each one
    assert count.multiplications == 5 * summary(net, (2, 4, 7)).multiplications


def test_the_table_shows_what_was_counted():
    result = patches_against_fcn(classifier(), rng().standard_normal((4, 5, 2)), runs=1)
    text = str(result)
    assert "picture 4×5, window 9×9 (the receptive field), stride 2" in text
    assert f"{result.factors['multiplications']:.1f} ×" in text
    assert f"{result.repeated:.1%} of the patches' multiplications" in text


def test_15x15_windows_of_a_256x256_picture_multiply_13_times_what_is_needed():
    """The counts, against the layers' sizes written out: 13, 11 | 5, 3 | 1 for a window."""
    net = small_classifier(2, 15, stages=((16, 16), (32,)), generator=rng()).eval()
    dense = to_dense(to_fully_convolutional(net, 15)[0])
    conv1, conv2, conv3, top = 16 * 3 * 9, 16 * 16 * 9, 32 * 16 * 9, 64 * 288 + 64 * 64 + 2 * 64
    with counting(net) as window, mf.no_grad():
        net(mf.Tensor(np.zeros((1, 3, 15, 15), np.float32)))
    assert window.multiplications == 13**2 * conv1 + 11**2 * conv2 + 3**2 * conv3 + top
    with counting(dense) as once:
        classify_densely(dense, np.zeros((256, 256, 3), np.float32), 15)
    wanted = 268**2 * conv1 + 266**2 * conv2 + 260**2 * conv3 + 256**2 * top
    assert once.multiplications == wanted
    assert round(256**2 * window.multiplications / wanted, 1) == 13.7


def test_a_window_of_which_the_net_drops_a_row_is_refused():
    net = classifier(10)  # 10, 8 | 3: the pool leaves the last row out
    full, _ = to_fully_convolutional(net, 10)
    with pytest.raises(InputError, match="a cell sees 9 pixels, but window is 11"):
        classify_densely(full, np.zeros((5, 5, 2)), 11)


def test_dense_refuses_what_it_cannot_make_exact():
    padded = small_classifier(2, 9, stages=((2,), (2,)), padding=1, generator=rng())
    g = {"generator": rng()}
    cases = [
        (to_fully_convolutional(padded, 9)[0], "features.0 pads"),
        (nn.Sequential(nn.MaxPool2d(2, ceil_mode=True)), "0 pads, or hangs over"),
        (nn.Sequential(nn.AvgPool2d(2)), "0 is a AvgPool2d, which takes no dilation"),
        (nn.Sequential(nn.Flatten(), nn.Linear(2, 2, **g)), "0 is a Flatten"),
    ]
    for net, says in cases:
        with pytest.raises(InputError, match=says):
            to_dense(net)


def test_bad_windows_and_pictures_are_named():
    with pytest.raises(InputError, match="window is 4; give an odd number"):
        windows_about(np.zeros((5, 5, 3)), 4)
    with pytest.raises(ShapeError, match=r"wanted \(H, W, C\)"):
        windows_about(np.zeros((5, 5)), 3)
    oblong = mf.models.Classifier(classifier().features, classifier().classifier, (9, 11))
    with pytest.raises(InputError, match="9×11; give one for squares"):
        classify_patches(oblong, np.zeros((5, 5, 2)))
