"""`minifcn bench`: what it prints, what it writes, and what an interruption leaves."""

import json

import pytest
from PIL import Image

from minifcn.bench import cases, contenders, suites
from minifcn.bench.row import Row
from minifcn.cli.main import main
from minifcn.cli.options import build_parser

TINY = (
    cases.Convolution("tiny convolution", 3, 4, 9, 3, padding=1, batch=1, bar=0.5, quick=True),
    cases.Operation("tiny ReLU", "relu", (1, 3, 8, 8), bar=0.9, quick=True),
    cases.Operation("left out when quick", "relu", (1, 3, 8, 8)),
)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(cases, "LAYERS", TINY)
    monkeypatch.setattr(contenders, "torch_is_installed", lambda: False)


def run(tmp_path, *arguments):
    code = main(["bench", *arguments, "--quick", "--rounds", "1", "--out", str(tmp_path)])
    path = tmp_path / "bench.json"
    return code, json.loads(path.read_text()) if path.exists() else None


def test_layers_without_pytorch(tmp_path, capsys):
    code, content = run(tmp_path, "layers")
    printed = capsys.readouterr().out
    assert code == 0
    assert "PyTorch is not installed" in printed and "fused multiply-adds" in printed
    assert [row["name"] for row in content["rows"]] == ["tiny convolution", "tiny ReLU"]
    convolution = content["rows"][0]
    assert set(convolution["figures"]) == {"minifcn", "textbook"}
    assert convolution["rival"] == "textbook" and convolution["kept"] is None
    for name, figure in convolution["figures"].items():
        assert 0 < convolution["least"][name] <= figure
    assert convolution["flops"] == 3 * 2 * 9 * 9 * 3 * 4 * 9
    assert content["multiply_adds"]["one"] > 1 and content["threads"]["minifcn"] >= 1
    assert Image.open(tmp_path / "bench.png").size[0] > 600


def test_an_interruption_leaves_what_was_measured(tmp_path, capsys, monkeypatch):
    def rows(suite, arena, torch, quick):
        yield Row("layers", "done", "ms", {"minifcn": 1.0, "torch": 2.0}, bar=0.6)
        raise KeyboardInterrupt

    monkeypatch.setattr(suites, "rows", rows)
    code, content = run(tmp_path)
    assert code == 130
    assert [row["name"] for row in content["rows"]] == ["done"]
    assert (tmp_path / "bench.png").exists()
    assert "1 of 1 bars kept" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["everything"], "'everything' is none of layers, step"),
        (["--rounds", "0"], "--rounds is 0; give 1 or more"),
    ],
)
def test_bad_arguments(arguments, words, capsys):
    assert main(["bench", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_memory_of_a_fresh_process(tmp_path, monkeypatch):
    monkeypatch.setattr(
        cases, "STEPS", (cases.TrainingStep("tiny", 2, 32, batch=1, memory_bar=0.8, quick=True),)
    )
    code, content = run(tmp_path, "memory")
    assert code == 0
    (row,) = content["rows"]
    assert row["unit"] == "MiB" and 20 < row["figures"]["minifcn"] < 2000


def test_the_command_line_knows_every_suite():
    for suite in suites.SUITES + suites.BY_NAME:
        assert build_parser().parse_args(["bench", suite]).suites == [suite]
