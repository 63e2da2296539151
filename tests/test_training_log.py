"""The log: rows that last, and a clean cut when a run goes on."""

import os

import numpy as np
import pytest

from minifcn.errors import InputError
from minifcn.training.log import Log, read_columns, read_rows

COLUMNS = ("step", "loss", "val")


def write(path, steps, keep=0):
    with Log(path, COLUMNS, keep) as log:
        for step in steps:
            log.add({"step": step, "loss": 1 / step} | ({"val": 0.5} if step % 2 == 0 else {}))


def test_rows_are_there_as_they_come(tmp_path):
    with Log(tmp_path / "log.csv", COLUMNS) as log:
        log.add({"step": 1, "loss": 0.1})
        assert (tmp_path / "log.csv").read_text() == "step,loss,val\n1,0.1,\n"
        log.add({"step": 2, "loss": float("nan"), "val": np.float32(0.5)})
    assert (tmp_path / "log.csv").read_text() == "step,loss,val\n1,0.1,\n2,,0.5\n"


def test_going_on_gives_the_same_bytes(tmp_path):
    write(tmp_path / "whole", range(1, 8))
    write(tmp_path / "broken", range(1, 6))  # two rows more than the checkpoint, of step 3
    write(tmp_path / "broken", range(4, 8), keep=3)
    assert (tmp_path / "broken").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_row_cut_short_by_a_crash_is_dropped(tmp_path):
    write(tmp_path / "log", range(1, 4))
    with open(tmp_path / "log", "a") as file:
        file.write("4,0.2")
    assert [row["step"] for row in read_rows(tmp_path / "log")] == ["1", "2", "3"]
    write(tmp_path / "log", range(4, 6), keep=3)
    assert read_columns(tmp_path / "log")["step"] == [1, 2, 3, 4, 5]


def test_columns_have_nan_for_empty_cells(tmp_path):
    write(tmp_path / "log", range(1, 4))
    columns = read_columns(tmp_path / "log")
    np.testing.assert_array_equal(columns["val"], [np.nan, 0.5, np.nan])
    np.testing.assert_array_equal(columns["loss"], [1 / step for step in (1, 2, 3)])


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b"nonsense\nmore\n", b"step\nx\n"])
def test_a_log_that_is_missing_or_damaged_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "log.csv").write_bytes(content)
    with pytest.raises(InputError, match="log.csv"):
        Log(tmp_path / "log.csv", COLUMNS, keep=2)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a full disk to hand")
def test_a_full_disk_is_one_sentence(tmp_path):
    log = Log(tmp_path / "log.csv", COLUMNS)
    log._file = open("/dev/full", "w")
    with pytest.raises(InputError, match="No space left"):
        log.add({"step": 1})
    with pytest.raises(InputError, match="No space left"):
        log.close()
