"""Weights on the command line: `train --weights`, `convert`, and what they refuse."""

import json

import numpy as np
import pytest

from minifcn import models
from minifcn.cli.main import main
from minifcn.models import weights
from minifcn.training import Checkpoint, Segmenter
from minifcn.training.weight_files import read_weights, write_weights
from tests.little import voc_folder

LITTLE = (
    "--trunk resnet18 --widths 4,4,4,6 --head fcn16s --steps 2 --batch-size 2 --crop 32".split()
)


def train(data, out, *options):
    return main(["train", "--data", str(data), "--out", str(out), "--name", "r", *LITTLE, *options])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that started from weights at a rate too small to move them: (weights, run, data)."""
    root = tmp_path_factory.mktemp("weights")
    net = models.resnet18(10, widths=(4, 4, 4, 6), generator=np.random.default_rng(5))
    write_weights(net.state_dict(), root / "w.safetensors")
    data = voc_folder(root / "voc")
    rate = ("--lr", "1e-12", "--warmup", "0")
    assert train(data, root, "--weights", str(root / "w.safetensors"), *rate) == 0
    return root / "w.safetensors", root / "r", data


def test_the_trunk_starts_from_the_file_and_its_normalisation(trained):
    file, run, _ = trained
    given, segmenter = read_weights(file), Segmenter.load(run)
    assert type(segmenter.model) is models.ResNetFCN
    found = segmenter.model.state_dict()["trunk.layer3.0.downsample.0.weight"]
    np.testing.assert_allclose(found, given["layer3.0.downsample.0.weight"], atol=1e-9)
    assert segmenter.mean == (0.485, 0.456, 0.406)
    settings = Checkpoint.load(run / "best.safetensors").about["settings"]
    assert (settings["weights"], settings["normalise"]) == (str(file), "imagenet")
    assert "resnet18-fcn16s (step 2)" in json.loads((run / "scores.json").read_text())


def test_a_run_is_resumed_without_the_file(trained, capsys):
    file, run, _ = trained
    file.rename(file.with_suffix(".moved"))
    try:
        code = main(["train", "--resume", str(run)])
    finally:
        file.with_suffix(".moved").rename(file)
    assert code == 0 and "resnet18-fcn16s" in capsys.readouterr().out


def test_weights_that_want_blue_first_are_turned(trained, tmp_path):
    file, _, data = trained
    options = ("--weights", str(file), "--normalise", "caffe", "--lr", "1e-12", "--warmup", "0")
    assert train(data, tmp_path, *options) == 0
    segmenter = Segmenter.load(tmp_path / "r")
    found = segmenter.model.state_dict()["trunk.conv1.weight"]
    np.testing.assert_allclose(found, read_weights(file)["conv1.weight"][:, ::-1], atol=1e-9)
    assert segmenter.std == (1 / 255,) * 3


def test_a_converted_net_is_shown_what_it_was_trained_on(trained, tmp_path, capsys):
    """Its channels are not turned a second time, and its numbers come back, asked for by none."""
    file, _, data = trained
    still = ("--lr", "1e-12", "--warmup", "0")
    for way in ("caffe", "dataset"):
        folder, out = tmp_path / way, tmp_path / f"{way}.safetensors"
        assert train(data, folder, "--weights", str(file), "--normalise", way, *still) == 0
        assert main(["convert", str(folder / "r"), str(out)]) == 0
        assert "expect red first" in capsys.readouterr().out
        assert main(["summary", str(out)]) == 2
        assert "is no checkpoint of minifcn" in capsys.readouterr().err
        assert train(data, folder / "again", "--weights", str(out), *still) == 0
        known = "caffe" if way == "caffe" else "weights"
        assert f"{known} (its header says: {known}, red first)" in capsys.readouterr().out
        first, again = (Segmenter.load(f / "r") for f in (folder, folder / "again"))
        assert (first.mean, first.std) == (again.mean, again.std)
        before, after = (s.model.state_dict()["trunk.conv1.weight"] for s in (first, again))
        np.testing.assert_allclose(before, after, atol=1e-9)
    assert main(["train", "--resume", str(tmp_path / "dataset" / "again" / "r")]) == 0


def test_a_run_as_weights_names_convert(trained, tmp_path, capsys):
    _, run, data = trained
    for source in (run, run / "best.safetensors"):
        code = train(data, tmp_path, "--weights", str(source))
        refused(capsys, code, f"minifcn convert {source} FILE.safetensors")


def test_values_that_are_no_numbers_are_one_sentence(trained, tmp_path, capsys):
    file, _, data = trained
    write_weights(
        read_weights(file) | {"bn1.bias": np.full(4, np.nan, np.float32)},
        tmp_path / "nan.safetensors",
    )
    code = train(data, tmp_path / "runs", "--weights", str(tmp_path / "nan.safetensors"))
    refused(capsys, code, "nan.safetensors", "not finite", "bn1.bias")


def test_convert_gives_the_trunk_back(trained, tmp_path, capsys):
    _, run, _ = trained
    out = tmp_path / "out.safetensors"
    assert main(["convert", str(run), str(out)]) == 0
    said = capsys.readouterr().out
    arrays = read_weights(out)
    assert f"{len(arrays)} arrays" in said and "named as in resnet18" in said
    wanted = weights.save(Segmenter.load(run).model)
    for name, array in wanted.items():
        np.testing.assert_array_equal(arrays[name], array)


def refused(capsys, code, *words):
    said = capsys.readouterr().err
    assert code == 2 and said.startswith("minifcn: ") and said.count("\n") == 1, said
    for word in words:
        assert str(word) in said, f"{word!r} is not in: {said}"


def test_what_train_refuses(trained, tmp_path, capsys):
    file, _, data = trained
    options = ("--weights", str(file))
    refused(capsys, train(data, tmp_path, *options, "--widths", "4,4,4,4"), file, "wanted (4, 4, ")
    refused(capsys, train(data, tmp_path, *options, "--trunk", "resnet34"), "look like resnet18's",
            "--trunk is resnet34 now")  # fmt: skip
    refused(capsys, train(data, tmp_path, "--weights", str(tmp_path / "no.pth")), "is not a file")
    refused(capsys, train(data, tmp_path, "--dropout", "0.1"), "leave --dropout out")
    refused(capsys, train(data, tmp_path, "--head", "fcn2s"), "fcn2s", "fcn4s")
    refused(capsys, train(data, tmp_path, "--trunk", "vgg11"), "vgg11", "vgg16_bn")
    refused(capsys, train(data, tmp_path, "--widths", "4,4,4,4,4"), "give four channel counts")
    refused(capsys, train(data, tmp_path, "--widths", "4,x"), "a whole number for each stage")
    assert list(tmp_path.iterdir()) == []


def test_what_convert_refuses(trained, tmp_path, capsys):
    _, run, _ = trained
    refused(capsys, main(["convert", str(run), str(tmp_path / "x.pth")]), "x.pth", "safetensors")
    refused(capsys, main(["convert", str(tmp_path / "none"), "x.safetensors"]), "does not exist")


def test_convert_writes_over_nothing(trained, tmp_path, capsys):
    _, run, _ = trained
    for best in (run / "best.safetensors", run / "../r/best.safetensors"):
        before = best.read_bytes()
        for source in (run, best):
            refused(capsys, main(["convert", str(source), str(best)]), best, "exists")
        assert best.read_bytes() == before


def test_summary_knows_the_trunks(capsys):
    options = ["--widths", "2,2,2,2", "--input", "3x40x50", "--classes", "3"]
    assert main(["summary", "resnet34-fcn4s", *options]) == 0
    assert "trunk.layer3.5.conv1" in capsys.readouterr().out
