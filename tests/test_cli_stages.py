"""`train --from`: 32s, 16s, 8s with the weights handed on; `compare`: their scores and pictures."""

import json

import numpy as np
import pytest
from PIL import Image

from minifcn.cli.main import main
from minifcn.training import Checkpoint, Segmenter
from tests.little import CLASSES, voc_folder

STILL = ("--lr", "1e-12", "--weight-decay", "0", "--warmup", "0")
"""A rate too small to move anything, so that what was handed on can be seen."""


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """Folders of a run of FCN-32s and of the 16s and 8s that went on from it."""
    root = tmp_path_factory.mktemp("stages")
    data = voc_folder(root / "voc")
    first = "--head fcn32s --widths 4,4,4,4,4 --steps 2 --batch-size 2 --crop 32 --lr 0.01".split()
    assert main(["train", "--data", str(data), "--out", str(root), "--name", "a", *first]) == 0
    for before, name in (("a", "b"), ("b", "c")):
        options = ("--from", str(root / before), "--out", str(root), "--name", name, *STILL)
        assert main(["train", *options]) == 0
    return root / "a", root / "b", root / "c"


def test_the_next_finer_head_goes_on_with_the_weights_and_settings(stages):
    models = [Segmenter.load(run).model.state_dict() for run in stages]
    for coarse, fine in zip(models, models[1:], strict=False):
        shared = [n for n in coarse if n in fine and "running" not in n and "tracked" not in n]
        assert {"fc6.conv.weight", "score.fc7.weight"} <= set(shared)
        for name in shared:
            np.testing.assert_allclose(fine[name], coarse[name], atol=1e-9)
    settings = [Checkpoint.load(run / "best.safetensors").about["settings"] for run in stages]
    assert [s["head"] for s in settings] == ["fcn32s", "fcn16s", "fcn8s"]
    assert [s["batch_size"] for s in settings] == [2, 2, 2]
    assert settings[1]["start"] == str(stages[0])
    means = [Segmenter.load(run).mean for run in stages]
    assert means[0] == means[1] == means[2]


def test_a_stage_is_resumed_without_the_run_before(stages, capsys):
    stages[0].rename(stages[0].with_name("moved"))
    try:
        code = main(["train", "--resume", str(stages[1])])
    finally:
        stages[0].with_name("moved").rename(stages[0])
    assert code == 0 and "fcn16s" in capsys.readouterr().out


def test_compare_gives_each_models_own_scores_and_draws_them(stages, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    assert main(["compare", *map(str, stages), "--out", str(sheet), "--pictures", "2"]) == 0
    said = capsys.readouterr().out
    for run, head in zip(stages, ("fcn32s", "fcn16s", "fcn8s"), strict=True):
        own = list(json.loads((run / "scores.json").read_text()).values())[-1]
        assert head in said and f"{own['mean_iou']:.3f}" in said
    assert all(name in said for name in CLASSES)
    with Image.open(sheet) as picture:
        assert min(picture.size) > 400


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("train --from {c} --head fcn16s", "has score.pool3"),
        ("train --from {a} --widths 5,5,5,5,5", "wanted float32"),
        ("train --from {a} --weights w.safetensors", "start from one of them"),
        ("train --from {a}/nothing", "does not exist"),
        ("train --resume {a} --from {a}", "--from cannot be given together with --resume"),
        ("compare {a} {a}", "give each model once"),
        ("compare {a} {b} --out x.jpg", "ends in .png"),
        ("compare {a} --pictures 0", "give 1 or more"),
    ],
)
def test_bad_input_is_one_sentence(stages, tmp_path, monkeypatch, capsys, command, says):
    monkeypatch.chdir(tmp_path)
    runs = dict(zip("abc", stages, strict=True))
    assert main(command.format(**runs).split()) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
    assert not list(tmp_path.rglob("*.safetensors"))
