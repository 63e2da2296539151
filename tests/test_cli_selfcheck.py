"""`minifcn selfcheck`: what it reports of the simulated GPU, and of one with a mistake in it."""

import json

import pytest

from minifcn import selfcheck
from minifcn.cli import selfcheck as command
from minifcn.cli.console import standard_output
from minifcn.cli.main import main
from tests.simulated import forget, needs_compiler, planted

FEW = [case for case in selfcheck.CASES if case.name.endswith(("relu, NaN", "2×2", "small"))]


@pytest.fixture
def few(monkeypatch):
    plain = selfcheck.findings
    monkeypatch.setattr(selfcheck, "findings", lambda name: plain(name, tuple(FEW)))


@needs_compiler
def test_a_device_that_agrees(few, tmp_path, capsys):
    file = tmp_path / "report.json"
    assert main(["selfcheck", "--device", "cuda-sim", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "all agrees" in printed and "times mean nothing" in printed
    report = json.loads(file.read_text())
    assert report["ok"] and report["device"] == "cuda-sim" and report["speed"] == []
    assert {check["check"] for check in report["checks"]} == {
        "values, float32", "values, float64", "gradient", "equal bits",
    }  # fmt: skip
    training = report["training"]
    assert training["steps"] == 20 == len(training["differences"]) and training["equal_bits"]
    assert 0 < max(training["differences"]) < 1e-4  # other sums, so not the CPU's own bits


@needs_compiler
def test_a_mistake_in_a_kernel_is_told_and_ends_in_1(few, monkeypatch, tmp_path, capsys):
    """NaN is taken for negative: an error that only the case with NaN can show."""
    right = "values[j] = values[j] < 0 ? 0 : values[j]"
    wrong = "values[j] = values[j] > 0 ? values[j] : 0"
    file = tmp_path / "report.json"
    with planted(monkeypatch, "relu.cu", right, wrong):
        assert main(["selfcheck", "--device", "cuda-sim", "--json", str(file)]) == 1
    forget()
    printed = capsys.readouterr().out
    assert "✗ relu, NaN" in printed and "something differs" in printed
    assert not json.loads(file.read_text())["ok"]


@needs_compiler
def test_a_card_that_breaks_down_in_training_leaves_a_report(few, monkeypatch, tmp_path, capsys):
    """After an illegal access every call to a card fails, the one for its name among them."""
    plain, broken = command.machine, []

    def machine():
        assert not broken
        return plain()

    def training(*arguments):
        broken.append(True)
        raise RuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")

    monkeypatch.setattr(command, "machine", machine)
    monkeypatch.setattr(selfcheck, "differences", training)
    file = tmp_path / "report.json"
    assert main(["selfcheck", "--device", "cuda-sim", "--json", str(file)]) == 1
    assert "✗ training: RuntimeError: cudaErrorIllegalAddress" in capsys.readouterr().out
    report = json.loads(file.read_text())
    assert not report["ok"] and "illegal memory access" in report["training"]["error"]
    assert report["checks"] and "device cuda" in report["machine"]


def test_times_that_end_early_are_kept(monkeypatch, capsys):
    def speeds():
        yield selfcheck.Speed("relu", 2.0, 1e6, 1e6)
        raise MemoryError("out of memory allocating 1 GiB")

    monkeypatch.setattr(selfcheck, "speeds", speeds)
    assert [row["name"] for row in command._speeds(standard_output())] == ["relu"]
    printed = capsys.readouterr().out
    assert "relu" in printed and "the times end here: MemoryError: out of memory" in printed


def test_a_device_that_is_not_here_is_one_sentence(capsys):
    assert main(["selfcheck", "--device", "tpu"]) == 2
    assert capsys.readouterr().err.count("\n") <= 2
