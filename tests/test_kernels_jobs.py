"""Jobs: each number of a range is met once, whatever the arguments, by whichever thread is free."""

import os
import subprocess
import sys
from random import Random

import numba as nb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minifcn.kernels.compiled import kernel, serial
from minifcn.kernels.jobs import share_out
from minifcn.kernels.runs import LINE, _read, _write, begin, taken

TURNS = 1_000_000_000  # that a job waits at most: a few seconds


@serial
def _mark(number, met, who, factor, pair, nothing, wanted):  # type: ignore[no-untyped-def]
    row = met[number]  # a view, which a job may make and drop
    for i in range(len(row)):
        row[i] += factor * (number + pair[0] * i + pair[1])
    if wanted and nothing is None:
        who[number] = nb.get_thread_id()


@kernel
def _mark_all(count, arguments):  # type: ignore[no-untyped-def]
    share_out(_mark, count, arguments)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 1000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_each_number_is_met_once(count: int, dtype: type) -> None:
    met, who = np.zeros((count, 3), dtype), np.full(count, -1)
    _mark_all(count, (met, who, dtype(2), (10, 1), None, True))
    expected = [[2 * (number + 10 * i + 1) for i in range(3)] for number in range(count)]
    assert met.tolist() == (expected if count else [])


@serial
def _wait_for_others(number, place, count, others):  # type: ignore[no-untyped-def]
    if number > 0:
        _write(place + 8 * number, 1)
        return
    for _ in range(TURNS):
        met = 0
        for other in range(1, count):
            met += _read(place + 8 * other)
        if met == count - 1:
            others[0] = met
            return


@kernel
def _wait_for_others_all(count, arguments):  # type: ignore[no-untyped-def]
    share_out(_wait_for_others, count, arguments)


def test_fewer_than_none_is_none() -> None:
    met = np.zeros((4, 1))
    _mark_all(-100, (met, np.zeros(4, np.int64), 1.0, (0, 1), None, True))
    assert not met.any()


def test_what_a_slow_thread_has_not_begun_others_do() -> None:
    if nb.get_num_threads() < 2:
        pytest.skip("one processor")
    count = 12
    met, others = np.zeros(count, np.int64), np.zeros(1, np.int64)
    _wait_for_others_all(count, (met.ctypes.data, count, others))
    assert others[0] == count - 1  # job 0 saw all the others done, those of its own run as well


def test_no_more_threads_than_asked_for() -> None:
    who, threads = np.full(64, -1), nb.get_num_threads()
    nb.set_num_threads(1)
    try:
        _mark_all(len(who), (np.zeros((64, 1)), who, 1.0, (0, 0), None, True))
    finally:
        nb.set_num_threads(threads)
    assert set(who.tolist()) == {0}


@kernel
def _begin(runs, team, count):  # type: ignore[no-untyped-def]
    begin(runs, team, count)


@kernel
def _taken(run, front, stay):  # type: ignore[no-untyped-def]
    return taken(run, front, stay)


@given(st.integers(1, 9), st.integers(0, 60), st.randoms(use_true_random=False))
def test_runs_give_each_number_once_from_both_ends(team: int, count: int, random: Random) -> None:
    room = np.full((team, LINE // 8), -1, np.int64)
    addresses = [room.ctypes.data + own * LINE for own in range(team)]
    _begin(addresses[0], team, count)
    left = [list(range(count * own // team, count * (own + 1) // team)) for own in range(team)]
    assert max(map(len, left)) - min(map(len, left)) <= 1
    while any(left):
        own, front, stay = random.randrange(team), random.random() < 0.5, random.randrange(3)
        wanted = left[own].pop(0 if front else -1) if len(left[own]) > stay else -1
        assert _taken(addresses[own], front, stay) == wanted
    assert all(_taken(address, front, 0) == -1 for address in addresses for front in (True, False))


CROWD = """
import numpy as np
from numba import njit
from minifcn.kernels.jobs import share_out

@njit
def mark(number, met):
    met[number] += number

@njit
def mark_all(count, arguments):
    share_out(mark, count, arguments)

for count in (7, 64, 100_003):
    met = np.zeros(count, np.int64)
    for _ in range(50):
        mark_all(count, (met,))
    assert (met == 50 * np.arange(count)).all(), count
"""


def test_more_threads_than_processors_meet_each_number_once() -> None:
    env = os.environ | {"NUMBA_NUM_THREADS": "8"}
    subprocess.run([sys.executable, "-c", CROWD], env=env, check=True, timeout=120)
