"""`minifcn simulate`: what it prints, and how it refuses."""

import pytest

from minifcn.cli.main import main
from tests.simulated import forget, needs_compiler, planted


def test_without_a_name_it_lists_the_kernels(capsys):
    assert main(["simulate"]) == 0
    printed = capsys.readouterr().out
    assert "max_pool2d" in printed and "kernels/optimizer.cu" in printed


@pytest.mark.parametrize("arguments, message", [
    (["simulate", "nothing"], "'nothing' is no kernel to simulate; choose one of relu"),
    (["simulate", "relu", "--size", "1x2x3"], "'1x2x3' is no size"),
    (["simulate", "relu", "--size", "1x0x3x3"], "'1x0x3x3' is no size"),
])  # fmt: skip
def test_bad_input_is_one_sentence(arguments, message, capsys):
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


@needs_compiler
@pytest.mark.parametrize("name", ["relu", "max_pool2d", "batch_norm", "interpolate", "sgd"])
def test_a_clean_kernel(name, capsys):
    assert main(["simulate", name, "--size", "1x8x6x5"]) == 0
    printed = capsys.readouterr().out
    assert "no fault found" in printed and "arithmetic intensity" in printed
    assert ".cu:" in printed and "global load" in printed


@needs_compiler
def test_a_fault_is_told_and_ends_in_1(monkeypatch, capsys):
    with planted(monkeypatch, "relu.cu", "blockIdx.x * blockDim.x", "blockIdx.x"):
        assert main(["simulate", "relu", "--size", "1x8x20x20"]) == 1
    forget()
    assert "race: write" in capsys.readouterr().out
