"""The memory of results and of kernels: where arrays lie, and when their place is used again."""

import gc
import tracemalloc
from itertools import permutations

import numpy as np
import pytest

import minifcn as mf
from minifcn.kernels import workspace

F = mf.functional


def tensor(*shape, seed=0):
    return mf.randn(*shape, generator=np.random.default_rng(seed), requires_grad=True)


def test_memory_starts_at_a_cache_line():
    arrays = [workspace.empty((size,), np.uint8) for size in (65536, 65537, 99_991, 1 << 20)]
    assert all(array.ctypes.data % 64 == 0 for array in arrays)


@pytest.fixture
def fresh(monkeypatch):
    """A workspace that keeps nothing yet, whatever other tests still hold of it."""
    gc.collect()  # what dies during the test would come back into this one
    workspace.clear()
    monkeypatch.setattr(workspace, "_starts", [])
    monkeypatch.setattr(workspace, "_sizes", [])
    return monkeypatch


def peak(call):
    """The most bytes that NumPy held at once during the call, beyond what it held before.

    `fresh`, and with regions as large as what is asked for: other memory would not be seen.
    """
    workspace.clear()
    workspace._starts.clear()
    workspace._sizes.clear()
    tracemalloc.start()
    try:
        result = call()
        return tracemalloc.get_traced_memory()[1], result
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "device, name, ahead, back",
    [
        ("reference", None, 1 / 3, 1 / 2),
        ("cpu", "im2col", 1 / 3, 1 / 2),
        ("cpu", "direct", 1 / 2, 3 / 4),  # sums beside the result; its dW is by Winograd, as below
        ("cpu", None, 1 / 3, 3 / 4),  # Winograd: 16 MB of transformed patches, however many pixels
    ],
)
def test_the_column_matrix_never_exists_whole(device, name, ahead, back, fresh):
    """im2col of this layer is 37.7 MB, nine times the 4.2 MB activation; shares of it at most."""
    x, w = tensor(1, 64, 128, 128), tensor(64, 64, 3, 3, seed=1)
    columns = 9 * x.data.nbytes
    fresh.setattr(workspace, "REGION", 0)
    upstream = np.ones(x.shape, np.float32)
    with mf.device.use(device), mf.conv_algorithm(name):
        F.conv2d(x, w, padding=1).backward(upstream)  # compiled
        x.grad = w.grad = None
        forward, y = peak(lambda: F.conv2d(x, w, padding=1))
        backward, _ = peak(lambda: y.backward(upstream))
    assert forward < columns * ahead
    assert backward < columns * back


def test_a_whole_column_matrix_is_caught(fresh):
    """Memory that was used before counts too, though the system is not asked for it again."""
    fresh.setattr(workspace, "REGION", 0)
    size = (128 * 128, 9 * 64)
    used = workspace.empty(size, np.float32)
    del used
    held, _ = peak(lambda: workspace.empty(size, np.float32))
    assert held >= 4 * size[0] * size[1]


def test_memory_is_used_again_only_when_nothing_refers_to_it(fresh):
    first = workspace.empty((512, 512), np.float32)
    address, view = first.ctypes.data, first[100:].T
    del first
    assert workspace.empty((512, 512), np.float32).ctypes.data != address
    del view
    assert workspace.empty((512, 512), np.float32).ctypes.data == address


def address(array):
    return array.ctypes.data


def test_an_array_gets_the_first_place_that_holds_it(fresh):
    parts = [workspace.empty((k << 20,), np.uint8) for k in (1, 2, 1, 4)]
    places = [address(part) for part in parts]
    assert [place - places[0] for place in places] == [0, 1 << 20, 3 << 20, 4 << 20]
    parts[0] = parts[1] = None  # three at the front
    assert address(workspace.empty((3 << 20,), np.uint8)) == places[0]
    small = workspace.empty((1 << 20,), np.uint8)
    assert address(small) == places[0]
    assert address(workspace.empty((3 << 20,), np.uint8)) == places[3] + (4 << 20)


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_places_that_come_back_join(order, fresh):
    whole = workspace.empty((3 << 20,), np.uint8)
    start = address(whole)
    del whole
    parts = [workspace.empty((1 << 20,), np.uint8) for _ in range(3)]
    assert [address(part) - start for part in parts] == [0, 1 << 20, 2 << 20]
    for number in order:
        parts[number] = None
    assert address(workspace.empty((3 << 20,), np.uint8)) == start


def test_arrays_never_share_a_byte(fresh):
    """Any sequence of births and deaths, each array with its own number in every byte."""
    random = np.random.default_rng(0)
    alive = {}
    for number in range(600):
        if alive and random.random() < 0.5:
            born = list(alive)[int(random.integers(len(alive)))]
            assert (alive.pop(born) == born % 251).all()
        else:
            array = workspace.empty((int(random.integers(1 << 16, 1 << 19)),), np.uint8)
            array.fill(number % 251)
            alive[number] = array
    for number, array in alive.items():
        assert (array == number % 251).all()


def test_what_outlives_a_workspace_apart_leaves_nothing_behind(fresh):
    regions = set(workspace._regions)
    outer = workspace.empty((1 << 20,), np.uint8)
    with workspace.apart():
        inner = workspace.empty((1 << 20,), np.uint8)
        del outer  # its place belongs to the workspace outside
    inner.fill(1)
    del inner
    workspace.clear()
    assert set(workspace._regions) == regions and not workspace.free_bytes()
    assert (workspace.empty((1 << 20,), np.uint8).size, workspace.free_bytes() > 0) == (
        1 << 20,
        True,
    )


def test_whole_regions_beyond_what_is_kept_go_back(fresh):
    fresh.setattr(workspace, "REGION", 1 << 20)
    fresh.setattr(workspace, "KEPT", 4 << 20)
    arrays = [workspace.empty((1 << 20,), np.uint8) for _ in range(9)]
    assert not workspace.free_bytes()
    del arrays
    last = workspace.empty((1 << 16,), np.uint8)
    assert workspace.free_bytes() + last.size == 4 << 20
