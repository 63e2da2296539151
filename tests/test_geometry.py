"""Geometry against naive counts of window positions and against published numbers."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minifcn.errors import ShapeError
from minifcn.geometry import (
    IDENTITY,
    CoordinateMap,
    Window,
    cells,
    conv_output_size,
    conv_transpose_output_size,
    coordinate_map,
    crop_offset,
    output_size,
    pool_output_size,
    receptive_interval,
)

SIZES = st.integers(1, 40)
KERNELS = st.integers(1, 9)
STRIDES = st.integers(1, 7)
PADS = st.integers(0, 6)
DILATIONS = st.integers(1, 4)


# -- naive counts ----------------------------------------------------------------------------------


def naive_conv(n: int, k: int, s: int, p: int, d: int) -> int:
    """Slide a window over the padded pixels until its last tap leaves them."""
    count, start = 0, -p
    while start + d * (k - 1) < n + p:
        count, start = count + 1, start + s
    return count


def naive_ceil_pool(n: int, k: int, s: int, p: int, d: int) -> int:
    """Windows until one reaches the last padded pixel, without those that start past the input."""
    starts = [-p]
    while starts[-1] + d * (k - 1) < n + p - 1:
        starts.append(starts[-1] + s)
    return sum(start < n for start in starts)


def naive_transposed(n: int, k: int, s: int, p: int, d: int, output_padding: int) -> int:
    touched = {i * s + r * d for i in range(n) for r in range(k)}
    return max(touched) + 1 - 2 * p + output_padding


@given(SIZES, KERNELS, STRIDES, PADS, DILATIONS)
@settings(max_examples=400, deadline=None)
def test_conv_size_counts_windows(n: int, k: int, s: int, p: int, d: int) -> None:
    wanted = naive_conv(n, k, s, p, d)
    if wanted:
        assert conv_output_size(n, k, s, p, d) == wanted
    else:
        with pytest.raises(ShapeError, match="does not fit"):
            conv_output_size(n, k, s, p, d)


@given(SIZES, KERNELS, STRIDES, PADS, DILATIONS, st.booleans())
@settings(max_examples=400, deadline=None)
def test_pool_size_counts_windows(n: int, k: int, s: int, p: int, d: int, ceil: bool) -> None:
    span = d * (k - 1) + 1
    if 2 * p > k:
        with pytest.raises(ShapeError, match="half"):
            pool_output_size(n, k, s, p, d, ceil)
        return
    if n + 2 * p < span and not (ceil and n + 2 * p - span > -s):
        with pytest.raises(ShapeError, match="leaves nothing"):
            pool_output_size(n, k, s, p, d, ceil)
        return
    wanted = naive_ceil_pool(n, k, s, p, d) if ceil else naive_conv(n, k, s, p, d)
    assert pool_output_size(n, k, s, p, d, ceil) == wanted


@given(SIZES, KERNELS, STRIDES, PADS, DILATIONS, st.integers(0, 3))
@settings(max_examples=400, deadline=None)
def test_transposed_size_counts_touched_pixels(
    n: int, k: int, s: int, p: int, d: int, extra: int
) -> None:
    wanted = naive_transposed(n, k, s, p, d, extra)
    if extra >= max(s, d):
        with pytest.raises(ShapeError, match="output_padding"):
            conv_transpose_output_size(n, k, s, p, extra, d)
    elif wanted < 1:
        with pytest.raises(ShapeError, match="less padding"):
            conv_transpose_output_size(n, k, s, p, extra, d)
    else:
        assert conv_transpose_output_size(n, k, s, p, extra, d) == wanted


def test_output_padding_tells_the_inputs_of_a_strided_convolution_apart() -> None:
    for k, s, p in [(3, 2, 1), (4, 3, 1), (7, 5, 2), (1, 4, 0)]:
        for n in range(1, 30):
            if n + 2 * p < k:
                continue
            small = conv_output_size(n, k, s, p)
            back = [conv_transpose_output_size(small, k, s, p, extra) for extra in range(s)]
            assert back.count(n) == 1


def test_no_pooling_window_starts_outside_the_input() -> None:
    # kernel 1, stride 3 on 3 pixels: rounding up alone would give a second window at pixel 3
    assert pool_output_size(3, 1, 3, ceil_mode=True) == 1
    # kernel 3, stride 3, padding 1 on 5 pixels: windows at -1 and 2; one at 5 sees padding only
    assert pool_output_size(5, 3, 3, 1, ceil_mode=True) == 2


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: conv_output_size(0, 1), "input size is 0"),
        (lambda: conv_output_size(5, 0), "kernel size is 0"),
        (lambda: pool_output_size(5, 2, 0), "stride is 0"),
        (lambda: conv_transpose_output_size(5, 2, 1, -1), "padding is -1"),
        (lambda: Window(3, dilation=0).output_size(9), "dilation is 0"),
    ],
)
def test_settings_out_of_range_are_named(call: object, says: str) -> None:
    with pytest.raises(ShapeError, match=says):
        call()  # type: ignore[operator]


@pytest.mark.oracle
@given(st.integers(1, 20), KERNELS, STRIDES, PADS, st.integers(1, 3), st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_sizes_agree_with_pytorch(n: int, k: int, s: int, p: int, d: int, extra: int) -> None:
    torch = pytest.importorskip("torch")
    x = torch.zeros(1, 1, n, 1)
    w = torch.zeros(1, 1, k, 1)
    functional = torch.nn.functional

    def agrees(ours: object, theirs: object) -> None:
        try:
            wanted = theirs().shape[2]  # type: ignore[operator]
        except RuntimeError:
            with pytest.raises(ShapeError):
                ours()  # type: ignore[operator]
        else:
            assert ours() == wanted  # type: ignore[operator]

    agrees(
        lambda: conv_output_size(n, k, s, p, d),
        lambda: functional.conv2d(x, w, None, (s, 1), (p, 0), (d, 1)),
    )
    agrees(
        lambda: conv_transpose_output_size(n, k, s, p, extra, d),
        lambda: functional.conv_transpose2d(
            x, w, None, (s, 1), (p, 0), (extra, 0), dilation=(d, 1)
        ),
    )
    for ceil in (False, True):
        agrees(
            lambda ceil=ceil: pool_output_size(n, k, s, p, d, ceil),
            lambda ceil=ceil: functional.max_pool2d(
                x, (k, 1), (s, 1), (p, 0), (d, 1), ceil_mode=ceil
            ),
        )


# -- published numbers -----------------------------------------------------------------------------

POOL = Window(2, 2, pooling=True, ceil_mode=True)
VGG16 = {"conv1_1": Window(3, padding=100)}  # as in the authors' Caffe nets
for _stage, _convs in enumerate((2, 2, 3, 3, 3), 1):
    for _conv in range(1, _convs + 1):
        VGG16.setdefault(f"conv{_stage}_{_conv}", Window(3, padding=1))
    VGG16[f"pool{_stage}"] = POOL
VGG16["fc6"] = Window(7)
VGG16["fc7"] = Window(1)
VGG16["score_fr"] = Window(1)

ALEXNET = {
    "conv1": Window(11, 4, 100),
    "pool1": Window(3, 2, pooling=True, ceil_mode=True),
    "conv2": Window(5, padding=2),
    "pool2": Window(3, 2, pooling=True, ceil_mode=True),
    "conv3": Window(3, padding=1),
    "conv4": Window(3, padding=1),
    "conv5": Window(3, padding=1),
    "pool5": Window(3, 2, pooling=True, ceil_mode=True),
    "fc6": Window(6),
    "fc7": Window(1),
    "score_fr": Window(1),
}


def upto(net: dict[str, Window], last: str) -> list[Window]:
    names = list(net)
    return [net[name] for name in names[: names.index(last) + 1]]


def deconv(kernel: int, stride: int) -> Window:
    return Window(kernel, stride, transposed=True)


def paper_offsets(strides_of_skips: list[int]) -> list[int]:
    """Crop offsets of the authors' nets: one for each skip, then the picture's."""
    here = coordinate_map(upto(VGG16, "score_fr"))
    offsets = []
    for stride in strides_of_skips:
        skip = coordinate_map(upto(VGG16, f"pool{stride.bit_length() - 1}"))
        here = here.then(deconv(4, 2))
        offsets.append(crop_offset(skip, here))  # the padded net's skips are the larger maps
    factor = int(here.scale)
    offsets.append(crop_offset(here.then(deconv(2 * factor, factor)), IDENTITY))
    return offsets


def test_crop_offsets_of_the_published_nets() -> None:
    assert paper_offsets([]) == [19]
    assert paper_offsets([16]) == [5, 27]
    assert paper_offsets([16, 8]) == [5, 9, 31]
    alexnet = coordinate_map(upto(ALEXNET, "score_fr")).then(deconv(63, 32))
    assert crop_offset(alexnet, IDENTITY) == 18


def test_cells_are_where_two_by_two_pools_lie() -> None:
    pool = Window(2, 2, pooling=True)
    for i in range(6):
        there, here = coordinate_map([pool] * i), cells(2**i)
        assert (there.scale, there.shift) == (here.scale, here.shift)
    with pytest.raises(ShapeError, match="stride of the cells is 0"):
        cells(0)


def test_the_published_crops_leave_room_for_every_picture() -> None:
    for n in range(1, 701):
        score = output_size(upto(VGG16, "score_fr"), n)
        assert deconv(64, 32).output_size(score) - 19 >= n
        pool4 = output_size(upto(VGG16, "pool4"), n)
        up2 = deconv(4, 2).output_size(score)
        assert 5 + up2 <= pool4
        assert deconv(32, 16).output_size(up2) - 27 >= n
        up4 = deconv(4, 2).output_size(up2)
        assert 9 + up4 <= output_size(upto(VGG16, "pool3"), n)
        assert deconv(16, 8).output_size(up4) - 31 >= n


def test_receptive_fields_and_strides_of_vgg16() -> None:
    fields = {
        "conv1_1": 3,
        "conv1_2": 5,
        "pool1": 6,
        "conv2_1": 10,
        "conv2_2": 14,
        "pool2": 16,
        "conv3_3": 40,
        "pool3": 44,
        "conv4_3": 92,
        "pool4": 100,
        "conv5_3": 196,
        "pool5": 212,
        "fc6": 404,
        "fc7": 404,
    }
    strides = {"conv1_2": 1, "pool1": 2, "pool2": 4, "conv4_3": 8, "pool4": 16, "fc6": 32}
    for name, field in fields.items():
        assert coordinate_map(upto(VGG16, name)).receptive_field == field
    for name, stride in strides.items():
        assert coordinate_map(upto(VGG16, name)).scale == stride


def test_receptive_field_and_stride_of_alexnet() -> None:
    there = coordinate_map(upto(ALEXNET, "fc7"))
    assert (there.receptive_field, there.scale) == (355, 32)  # Long et al. (2015), table 1


# -- maps against a naive walk ---------------------------------------------------------------------

WINDOWS = st.builds(
    Window,
    kernel=st.integers(1, 5),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    transposed=st.booleans(),
)


def naive_inputs(windows: list[Window], unit: int) -> set[int]:
    """All input positions that a unit depends on, by enumerating taps."""
    units = {unit}
    for window in reversed(windows):
        taps = [window.dilation * r - window.padding for r in range(window.kernel)]
        if window.transposed:
            reach = range(min(units) - 40, max(units) + 40)
            units = {i for i in reach if any(i * window.stride + t in units for t in taps)}
        else:
            units = {o * window.stride + t for o in units for t in taps}
        if not units:
            break
    return units


@given(st.lists(WINDOWS, max_size=4), st.integers(-3, 12))
@settings(max_examples=400, deadline=None)
def test_receptive_interval_is_what_a_naive_walk_finds(windows: list[Window], unit: int) -> None:
    seen = naive_inputs(windows, unit)
    found = receptive_interval(windows, unit)
    if all(window.kernel >= window.stride for window in windows):
        assert found == (min(seen), max(seen))
    if not seen:
        return
    assert found is not None and found[0] <= min(seen) and max(seen) <= found[1]
    there = coordinate_map(windows)
    assert max(seen) - min(seen) + 1 <= there.receptive_field
    assert there.position(unit) - there.extent / 2 <= min(seen)
    assert max(seen) <= there.position(unit) + there.extent / 2


def test_a_unit_in_a_hole_sees_nothing() -> None:
    holes = [Window(1, 3, transposed=True)]
    assert receptive_interval(holes, 3) == (1, 1)
    assert receptive_interval(holes, 4) is None


@given(
    st.lists(
        st.builds(
            Window,
            kernel=KERNELS,
            stride=STRIDES,
            padding=PADS,
            dilation=DILATIONS,
        ),
        max_size=5,
    )
)
@settings(max_examples=200, deadline=None)
def test_map_of_convolutions_is_exact(windows: list[Window]) -> None:
    there = coordinate_map(windows)
    for unit in (0, 1, 7):
        first, last = receptive_interval(windows, unit)  # type: ignore[misc]
        assert there.receptive_field == last - first + 1
        assert there.position(unit) == Fraction(first + last, 2)


@given(st.integers(1, 9), st.integers(1, 6), PADS, DILATIONS)
def test_transposed_convolution_undoes_the_map_of_its_convolution(
    k: int, s: int, p: int, d: int
) -> None:
    there = IDENTITY.then(Window(k, s, p, d)).then(Window(k, s, p, d, transposed=True))
    assert (there.scale, there.shift) == (1, 0)


def test_crop_offset_refuses_what_no_crop_can_align() -> None:
    half = CoordinateMap(Fraction(1), Fraction(1, 2))
    with pytest.raises(ShapeError, match="whole number"):
        crop_offset(IDENTITY, half)
    with pytest.raises(ShapeError, match="one scale"):
        crop_offset(IDENTITY, CoordinateMap(Fraction(2)))
    with pytest.raises(ShapeError, match="starts inside"):
        crop_offset(CoordinateMap(Fraction(1), Fraction(3)), IDENTITY)
