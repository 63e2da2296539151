"""`minifcn selfcheck`: what it reports of the simulated GPU, and of one with a mistake in it."""

import json

import pytest

from minifcn import selfcheck
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
    right = "v.at[j] = v.at[j] < 0 ? 0 : v.at[j]"
    wrong = "v.at[j] = v.at[j] > 0 ? v.at[j] : 0"
    file = tmp_path / "report.json"
    with planted(monkeypatch, "elementwise.cu", right, wrong):
        assert main(["selfcheck", "--device", "cuda-sim", "--json", str(file)]) == 1
    forget()
    printed = capsys.readouterr().out
    assert "✗ relu, NaN" in printed and "something differs" in printed
    assert not json.loads(file.read_text())["ok"]


def test_a_device_that_is_not_here_is_one_sentence(capsys):
    assert main(["selfcheck", "--device", "tpu"]) == 2
    assert capsys.readouterr().err.count("\n") <= 2
