"""The self-check's times: what is timed runs, and is what it is called; by a clock of our own."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from minifcn import device, launch, selfcheck
from minifcn.cli import selfcheck as command
from minifcn.cli.console import standard_output
from minifcn.selfcheck import speed
from minifcn.tensor import Tensor
from tests.simulated import needs_compiler

SIM = "cuda-sim"
#: kernels that no training step of an FCN starts, in study versions and second derivatives alone
NOT_TIMED = {"im2col", "col2im", "take_pixels", "join_columns", "split_columns", "amounts"}


def took(ms, run):
    run()
    return ms


@pytest.fixture
def small(monkeypatch):
    """Few pixels, and two milliseconds for everything that runs."""
    small = {"BATCH": 1, "SIZE": 8, "PARAMETERS": 99, "STEP_SIZE": 33, "WIDTHS": (3, 4, 4, 4, 4)}
    for name, value in small.items():
        monkeypatch.setattr(speed, name, value)
    monkeypatch.setattr(speed, "_ms", lambda gpu, run: took(2.0, run))
    monkeypatch.setattr(speed, "_torch", lambda: None)


@needs_compiler
def test_every_kernel_of_a_training_step_has_its_time(small):
    with launch.counted() as launches:
        found = list(selfcheck.speeds(SIM))
    timed = {re.sub("_(staged|strided|apart|int32)$", "", one.name) for one in launches}
    declared = {
        name for path in launch.FOLDER.glob("*.cu") for name in launch.parameters(path.name)
    }
    declared = {re.sub("_(staged|strided|apart|int32)$", "", name) for name in declared}
    # these belong to more pixels, more parts of sums or joined channels than are here
    large = {"moments", "merge_statistics", "backward_sums", "merge_slopes", "add_counts"}
    large |= {"add_parts", "copy_columns"}
    # ReLU behind a convolution, and a loss that is differentiated twice, are timed with neither
    assert declared - timed - large - NOT_TIMED <= {"relu_backward_sum", "positive"}
    assert all(one.ms == 2 and one.gb_s > 0 and one.gflop_s > 0 for one in found)
    assert len({one.name for one in found[-3:]}) == 3 and found[-1].name.startswith("training step")


@needs_compiler
def test_bytes_and_flop_are_those_of_the_definition(small):
    found = list(selfcheck.speeds(SIM))
    at = {one.name: i for i, one in enumerate(found)}
    picture, weight = 4 * 64 * 8 * 8, 4 * 64 * 64 * 9
    convolution = found[at["conv2d 3×3"]]
    assert convolution.bytes == 2 * picture + weight + 4 * 64
    assert convolution.flop == 2 * 64 * 64 * 9 * 8 * 8
    assert convolution.gflop_s == pytest.approx(convolution.flop / 2e-3 / 1e9)
    of_input, of_weight, of_bias = found[at["conv2d 3×3"] + 1 :][:3]
    assert of_input.bytes == 3 * picture + weight + 4 * 64  # it reads x, y's gradient; writes x's
    assert of_weight.bytes == 2 * picture + 2 * weight + 4 * 64 and of_bias.bytes > 2 * picture
    assert found[at["relu"]].bytes == 2 * picture
    assert found[at["max_pool2d 2×2"]].bytes == 1.25 * picture
    assert found[at["AdamW"]].bytes == 7 * 4 * 99


@needs_compiler
def test_the_report_has_the_rates(small, monkeypatch, capsys):
    monkeypatch.setattr(selfcheck, "speeds", lambda: speed.speeds(SIM))
    rows = command._speeds(standard_output())
    json.dumps(rows)
    assert all({"name", "ms", "gb_s", "gflop_s", "torch_ms"} <= set(row) for row in rows)
    assert "conv2d 3×3" in capsys.readouterr().out


def test_a_time_is_the_median_by_the_cards_clock():
    """Events tell 7 ms, of a run that takes longer now and then."""
    runs, marks = [], []

    class Event:
        def record(self):
            self.at = len(runs)

        def synchronize(self):
            marks.append(self.at)

    def elapsed(begin, end):
        assert end.at == begin.at + 1 and marks[-1] == end.at
        return 50.0 if end.at % 4 == 0 else 7.0

    gpu = SimpleNamespace(cuda=SimpleNamespace(Event=Event, get_elapsed_time=elapsed))
    assert speed._ms(gpu, lambda: runs.append(1)) == 7.0
    assert len(runs) == speed.RUNS + speed.WARM_UP


@pytest.mark.oracle
@pytest.mark.parametrize("operation", speed.OPERATIONS, ids=lambda one: one.name)
def test_what_is_timed_is_what_pytorch_is_timed_for(operation, small, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(speed, "CARD", "cpu")
    host = speed.arrays()
    ours = {key: Tensor(device.move(array, "cpu")) for key, array in host.items()}
    theirs = {key: speed._there(torch, array) for key, array in host.items()}
    for wanted in (None, *operation.wanted):
        found = speed.of_minifcn(operation, ours, wanted)[0]().numpy()
        wants = speed.of_torch(torch, operation, theirs, wanted)[0]().detach().numpy()
        np.testing.assert_allclose(found, wants, rtol=1e-4, atol=1e-4 * np.abs(wants).max())


@pytest.mark.oracle
@needs_compiler
def test_pytorchs_times_stand_beside_ours(small, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(speed, "CARD", "cpu")
    monkeypatch.setattr(speed, "_torch", lambda: torch)
    monkeypatch.setattr(speed, "_torch_ms", lambda torch, run: took(3.0, run))
    assert all(one.torch_ms == 3 for one in selfcheck.speeds(SIM))
