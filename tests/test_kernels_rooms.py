"""Rooms: what a kernel needs while it runs, some of it apart for each of its threads."""

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import numba as nb
import numpy as np
import pytest

from minifcn.kernels import rooms, workspace
from minifcn.kernels.compiled import kernel, serial
from minifcn.kernels.jobs import share_out, threads
from minifcn.kernels.rooms import OWN, Rooms, own
from minifcn.kernels.runs import _read, _write

SHAPES = [(3, 5), (1,), (0, 7), (70_001,), (2, 2, 2)]


@pytest.mark.parametrize("some", [SHAPES, SHAPES[:2], [*SHAPES, (OWN // 4,)]])
@pytest.mark.parametrize("count", [1, 2])
def test_no_room_touches_another(some, count, monkeypatch):
    """Small ones lie in the calling thread's own memory, large ones where other arrays lie."""
    wanted = [(np.float32, shape, *whose) for shape in some for whose in ((), (True,), (False,))]
    ours = Rooms(count, *wanted, (np.int64, (9,)))
    arrays = ours.arrays()
    assert [array.dtype for array in arrays] == [np.float32] * len(wanted) + [np.int64]
    parts = []  # what must not touch: an array that all see, or a thread's own
    for array, (_, shape, *whose) in zip(arrays, [*wanted, (np.int64, (9,))], strict=True):
        assert array.shape == ((max(2, count), *shape) if whose else shape)
        if whose == [True]:
            parts += list(array)
        else:
            parts.append(array[0] if whose else array)
    for number, part in enumerate(parts):
        assert part.ctypes.data % 64 == 0 and part.flags.c_contiguous
        part.fill(number)
    assert all((part == number).all() for number, part in enumerate(parts))
    for array, (_, _, *whose) in zip(arrays, wanted):
        if whose == [False]:
            assert np.may_share_memory(array[0], array[1]) or not array.size
    monkeypatch.setattr(workspace, "poisoned", True)
    assert all(np.isnan(array).all() for array in ours.arrays()[:-1])


def test_a_threads_own_room_lies_where_its_room_lay_before():
    """Whatever the sizes: that is what it is for."""
    small, large = Rooms(2, (np.uint8, (100,), True)), Rooms(2, (np.uint8, (1 << 20,), True))
    (few,), (many,) = small.arrays(), large.arrays()
    for thread in range(2):
        assert few[thread].ctypes.data == many[thread].ctypes.data
    assert few[1].ctypes.data - few[0].ctypes.data == OWN


def test_numba_sees_one_type_for_any_number_of_threads():
    """Else it would compile a kernel once for one thread and again for two."""
    for whose in (True, False):
        for size in (100, OWN):  # from the thread's own memory, and from the workspace
            kinds = {
                nb.typeof(Rooms(count, (np.float32, (size,), whose)).arrays()[0])
                for count in (1, 2)
            }
            assert len(kinds) == 1


@serial
def _mark(number, apart, common, place, count):  # type: ignore[no-untyped-def]
    """Every thread writes to its own room, when all have begun."""
    _write(place + 8 * number, 1)
    for _ in range(1_000_000_000):
        met = 0
        for other in range(count):
            met += _read(place + 8 * other)
        if met == count:
            break
    room, shared = own(apart), own(common)
    for i in range(room.shape[0]):
        for j in range(room.shape[1]):
            room[i, j] = 100 * nb.get_thread_id() + 10 * i + j
    shared[number] = nb.get_thread_id() + 1


@kernel
def _mark_all(count, arguments):  # type: ignore[no-untyped-def]
    share_out(_mark, count, arguments)


@pytest.mark.parametrize("size", [1, OWN // 8])
def test_own_gives_a_thread_its_room(size):
    count = threads()
    wanted = (np.int64, (3, 4), True), (np.int64, (count,), False), (np.int64, (size,), True)
    apart, common, _ = Rooms(count, *wanted).arrays()
    begun = np.zeros(count, np.int64)
    _mark_all(count, (apart, common, begun.ctypes.data, count))
    for thread in range(count):
        expected = [[100 * thread + 10 * i + j for j in range(4)] for i in range(3)]
        assert apart[thread].tolist() == expected
    assert sorted(common[0].tolist()) == list(range(1, count + 1))
    assert np.shares_memory(common[0], common[1])


def test_each_calling_thread_has_rooms_of_its_own():
    """One plan serves all of them, also while another holds its rooms."""
    ours = Rooms(2, (np.float32, (4, 100)), (np.float32, (100,), True))
    first = ours.arrays()
    for array in first:
        array.fill(1)
    with ThreadPoolExecutor(1) as pool:
        for array in pool.submit(ours.arrays).result():
            array.fill(2)
    assert all((array == 1).all() for array in first)
    assert ours.arrays()[0].ctypes.data == first[0].ctypes.data
    large = Rooms(1, (np.uint8, (OWN + 1,)))
    assert not large.kept
    assert not np.may_share_memory(large.arrays()[0], large.arrays()[0])


def test_a_threads_rooms_end_with_it():
    ours = Rooms(2, (np.float32, (100,)), (np.float32, (100,), True))
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(lambda: [weakref.ref(array.base) for array in ours.arrays()]).result()
    gc.collect()
    assert [reference() for reference in found] == [None, None]


def test_more_plans_than_are_remembered(monkeypatch):
    monkeypatch.setattr(rooms, "MADE", 2)
    plans = [Rooms(1, (np.float32, (n,))) for n in range(1, 6)]
    assert [plan.arrays()[0].shape for plan in plans] == [(n,) for n in range(1, 6)]
    assert len(rooms._own.made) <= 2
