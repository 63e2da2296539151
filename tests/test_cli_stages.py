"""`train --from`: 32s, 16s, 8s with the weights handed on; `compare`: their scores and pictures."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from minifcn.cli.main import main
from minifcn.training import Checkpoint, Segmenter
from tests.little import CLASSES, plain_folder, voc_folder

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


def test_compare_keeps_the_models_apart(stages, tmp_path, capsys):
    """Each of three nets calls every pixel by one class: its IoU is that class's share."""
    checkpoint = Checkpoint.load(stages[2] / "best.safetensors")
    order = (2, 0, 1)
    for k in order:
        checkpoint.model["score.fc7.bias"] = 1e4 * np.eye(3, dtype=np.float32)[k]
        checkpoint.save(tmp_path / CLASSES[k] / "best.safetensors")
    assert (
        main(["compare", *(str(tmp_path / CLASSES[k]) for k in order), "--views", "mirrored"]) == 0
    )
    said = capsys.readouterr().out
    assert "3 test pictures, mean of 2 views" in said
    files = (stages[0].parent / "voc" / "SegmentationClass").glob("test*.png")
    truth = np.concatenate([np.asarray(Image.open(file)).ravel() for file in files])
    for k in range(3):
        (row,) = [line for line in said.splitlines() if line[2:].startswith(f"{CLASSES[k]} ")]
        share = f"{(truth == k).sum() / (truth != 255).sum():.3f}"
        wanted = [share if other == k else "0.000" for other in order]
        assert re.findall(r"\d\.\d{3}", row) == wanted


def test_data_without_names_of_classes_are_scored_by_the_models(stages, tmp_path, capsys):
    data = voc_folder(tmp_path / "voc")
    (data / "classes.txt").unlink()
    assert main(["compare", str(stages[0]), "--data", str(data)]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in CLASSES)


def test_other_classes_are_refused_before_any_label_is_read(stages, tmp_path, monkeypatch, capsys):
    other = plain_folder(tmp_path / "other")
    (other / "classes.txt").write_text("kitchen\ngarden\nhall\n")
    monkeypatch.setattr("minifcn.cli.train.show_classes", lambda *arguments: pytest.fail("read"))
    assert main(["train", "--from", str(stages[0]), "--data", str(other)]) == 2
    assert "start from a run on the same classes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("train --from {c} --head fcn16s", "has score.pool3"),
        ("train --from {a} --widths 5,5,5,5,5", "and 50 more: the first is (4, 3, 3, 3)"),
        ("train --from {a} --weights w.safetensors", "start from one of them"),
        ("train --from {a}/nothing", "does not exist"),
        ("train --resume {a} --from {a}", "--from cannot be given together with --resume"),
        ("compare {a} {a}", "give each model once"),
        ("compare {a} {b} --out x.jpg", "ends in .png"),
        ("compare {a} --out x.png --pictures 0", "write 1 or more"),
        ("compare {a} --pictures 2", "nothing is drawn; add --out"),
        ("compare {a} {b} --data {other}", "knows the classes background, square, stripe, and"),
        ("train --from {a} --data {other}", "and the data have 3 (kitchen, garden, hall)"),
        ("train --from {a} --trunk resnet18", "leave --trunk out"),
    ],
)
def test_bad_input_is_one_sentence(stages, tmp_path, monkeypatch, capsys, command, says):
    monkeypatch.chdir(tmp_path)
    runs = dict(zip("abc", stages, strict=True))
    other = plain_folder(tmp_path / "other")
    (other / "classes.txt").write_text("kitchen\ngarden\nhall\n")
    assert main(command.format(**runs, other=other).split()) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
    assert not list(tmp_path.rglob("*.safetensors"))
