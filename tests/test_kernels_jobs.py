"""Jobs: each number of a range is met once, whatever the arguments, by one thread."""

import numba as nb
import numpy as np
import pytest

from minifcn.kernels.compiled import serial
from minifcn.kernels.jobs import share_out


@serial
def _mark(number, met, who, factor, pair, nothing, wanted):  # type: ignore[no-untyped-def]
    row = met[number]  # a view, which a job may make and drop
    for i in range(len(row)):
        row[i] += factor * (number + pair[0] * i + pair[1])
    if wanted and nothing is None:
        who[number] = nb.get_thread_id()


@serial
def _mark_all(count, arguments):  # type: ignore[no-untyped-def]
    share_out(_mark, count, arguments)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 1000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_each_number_is_met_once(count: int, dtype: type) -> None:
    met, who = np.zeros((count, 3), dtype), np.full(count, -1)
    _mark_all(count, (met, who, dtype(2), (10, 1), None, True))
    expected = [[2 * (number + 10 * i + 1) for i in range(3)] for number in range(count)]
    assert met.tolist() == (expected if count else [])


def test_every_thread_takes_one_run_of_the_numbers() -> None:
    threads = nb.get_num_threads()
    who = np.full(10 * threads, -1)
    _mark_all(len(who), (np.zeros((len(who), 1)), who, 1.0, (0, 0), None, True))
    assert (np.diff(who) != 0).sum() == len(set(who.tolist())) - 1
    assert set(who.tolist()) <= set(range(threads))


def test_no_more_threads_than_asked_for() -> None:
    who, threads = np.full(64, -1), nb.get_num_threads()
    nb.set_num_threads(1)
    try:
        _mark_all(len(who), (np.zeros((64, 1)), who, 1.0, (0, 0), None, True))
    finally:
        nb.set_num_threads(threads)
    assert set(who.tolist()) == {0}
