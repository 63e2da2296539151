"""Bad input: one sentence that names the file and the mend, exit code 2, nothing saved is lost."""

import errno
import os
import warnings

import numpy as np
import pytest
from PIL import Image

from minifcn.cli.main import main
from minifcn.training import Checkpoint, files
from minifcn.training import trainer as trainer_module
from tests.little import voc_folder, write_label

LITTLE = "--widths 4,4,4,4,4 --steps 3 --batch-size 2 --crop 32 --head fcn8s".split()


def train(data, out, *options):
    return main(["train", "--data", str(data), "--out", str(out), "--name", "r", *LITTLE, *options])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run: the folder of its data and its own."""
    root = tmp_path_factory.mktemp("good")
    data = voc_folder(root / "voc")
    assert train(data, root) == 0
    return data, root / "r"


@pytest.fixture
def data(tmp_path):
    return voc_folder(tmp_path / "voc")


def refused(capsys, code, *words):
    """The one sentence on stderr; fails when there is more, or a traceback."""
    said = capsys.readouterr().err
    assert code == 2, said
    assert said.startswith("minifcn: ") and said.count("\n") == 1, said
    assert "Traceback" not in said
    assert "; " in said, f"no mend: {said}"
    for word in words:
        assert str(word) in said, f"{word!r} is not in: {said}"
    return said


def test_a_picture_that_is_no_picture(data, tmp_path, capsys):
    path = data / "JPEGImages" / "train2.png"
    path.write_text("hello")
    refused(capsys, train(data, tmp_path / "runs"), path)


def test_a_picture_cut_short(data, tmp_path, capsys):
    path = data / "JPEGImages" / "train2.png"
    path.write_bytes(path.read_bytes()[:500])
    refused(capsys, train(data, tmp_path / "runs"), path)


def test_a_label_of_another_size(data, tmp_path, capsys):
    path = data / "SegmentationClass" / "train1.png"
    write_label(path, np.zeros((30, 32), np.uint8))
    refused(capsys, train(data, tmp_path / "runs"), path, "32×30", "32×32")


def test_an_index_beyond_the_classes(data, tmp_path, capsys):
    path = data / "SegmentationClass" / "val1.png"
    write_label(path, np.full((32, 32), 3, np.uint8))
    refused(capsys, train(data, tmp_path / "runs"), path, "index 3", "0 to 2")


def test_colours_where_indices_are_wanted(data, tmp_path, capsys):
    path = data / "SegmentationClass" / "train0.png"
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(path)
    refused(capsys, train(data, tmp_path / "runs"), path, "RGB", "indices")


def test_an_empty_folder(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    refused(capsys, train(tmp_path / "empty", tmp_path / "runs"), tmp_path / "empty")
    refused(capsys, train(tmp_path / "none", tmp_path / "runs"), tmp_path / "none")


def test_an_empty_list(data, tmp_path, capsys):
    path = data / "ImageSets/Segmentation/val.txt"
    path.write_text("")
    refused(capsys, train(data, tmp_path / "runs"), path)


def test_classes_that_cannot_be_read(data, tmp_path, capsys):
    code = train(data, tmp_path / "runs", "--classes", str(tmp_path / "no.txt"))
    refused(capsys, code, tmp_path / "no.txt")
    (data / "classes.txt").unlink()
    refused(capsys, train(data, tmp_path / "runs"), "classes.txt")


def test_a_loss_that_is_no_number(data, tmp_path, capsys, monkeypatch):
    """The third step's loss is made NaN; the state saved before, of step 2, stays."""
    honest = trainer_module.Trainer.loss

    def poisoned(trainer, logits, labels):
        loss = honest(trainer, logits, labels)
        return loss * float("nan") if trainer.step_number == 2 else loss

    monkeypatch.setattr(trainer_module.Trainer, "loss", poisoned)
    code = train(data, tmp_path / "runs", "--eval-every", "2")
    refused(capsys, code, "loss became nan", "step 3", "of step 2", "--lr")
    kept = Checkpoint.load(tmp_path / "runs/r/checkpoint.safetensors")
    assert kept.about["step"] == 2
    assert all(np.isfinite(array).all() for array in kept.model.values())


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_a_learning_rate_far_too_high(data, tmp_path, capsys, device):
    options = ("--optimizer", "sgd", "--lr", "1e38", "--warmup", "0", "--steps", "30")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # on a terminal, warnings would stand above the sentence
        code = train(data, tmp_path / "runs", *options, "--device", device)
    refused(capsys, code, "--lr", "checkpoint.safetensors")


def test_a_full_disk_keeps_what_was_saved(data, tmp_path, capsys, monkeypatch):
    """The disk fills up at the third file written: after the first state and the log."""
    honest, calls = os.fsync, []

    def full(number):
        calls.append(number)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        honest(number)

    monkeypatch.setattr(files.os, "fsync", full)
    said = refused(capsys, train(data, tmp_path / "runs"), "No space left", "free some space")
    assert str(tmp_path / "runs/r") in said
    assert Checkpoint.load(tmp_path / "runs/r/checkpoint.safetensors").about["step"] == 0
    assert not list((tmp_path / "runs/r").glob(".*part*"))
    monkeypatch.setattr(files.os, "fsync", honest)
    assert main(["train", "--resume", str(tmp_path / "runs/r")]) == 0


def test_options_that_make_no_sense(data, tmp_path, capsys):
    for options, words in (
        (("--steps", "0"), ("steps", "0")),
        (("--steps", "many"), ("--steps", "many")),
        (("--lr", "-1"), ("lr", "-1")),
        (("--crop", "12by9"), ("--crop", "12by9", "128x96")),
        (("--crop", "0x5"), ("--crop", "0x5", "1 or more")),
        (("--resize", "0x9"), ("resize", "1 or more")),
        (("--widths", "4,4"), ("widths", "five")),
        (("--widths", "a"), ("--widths", "16,32")),
        (("--head", "fcn3s"), ("fcn3s", "fcn8s")),
        (("--augment", "maybe"), ("--augment", "maybe")),
        (("--optimizer", "lbfgs"), ("lbfgs", "adam")),
        (("--layout", "nuclei", "--classes", str(data / "classes.txt")), ("--classes",)),
        (("--depth", "3"), ("--depth", "--help")),
    ):
        refused(capsys, train(data, tmp_path / "runs", *options), *words)
    refused(capsys, main(["train", "--layout", "voc"]), "--data")
    refused(capsys, main(["fly"]), "fly", "train")
    refused(capsys, main(["predict"]), "checkpoint")


def test_a_name_that_is_taken(run, capsys):
    data, folder = run
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    refused(capsys, train(data, folder.parent), folder, "--name", "--resume")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_resume_of_nothing_and_with_other_settings(run, tmp_path, capsys):
    _, folder = run
    refused(capsys, main(["train", "--resume", str(tmp_path)]), tmp_path, "nothing to resume")
    code = main(["train", "--resume", str(folder), "--batch-size", "4"])
    refused(capsys, code, "--batch-size", "--resume")


def damaged(folder, tmp_path, how):
    whole = (folder / "best.safetensors").read_bytes()
    path = tmp_path / "model.safetensors"
    if how == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "text":
        path.write_text("this is not a checkpoint at all")
    elif how == "another model":
        checkpoint = Checkpoint.load(folder / "best.safetensors")
        checkpoint.about["model"]["widths"] = [4, 4, 4, 4, 8]
        checkpoint.save(path)
    return path


@pytest.mark.parametrize("how", ["missing", "cut", "text", "another model"])
@pytest.mark.parametrize("command", ["predict", "evaluate", "resume"])
def test_what_is_no_checkpoint_of_this_model(run, tmp_path, capsys, how, command):
    _, folder = run
    path = damaged(folder, tmp_path, how)
    if command == "predict":
        picture = folder.parent / "voc/JPEGImages/test0.png"
        code = main(["predict", str(path), str(picture), "-o", str(tmp_path / "out")])
        assert not (tmp_path / "out").exists()
    elif command == "evaluate":
        code = main(["evaluate", str(path)])
    else:
        (tmp_path / "r").mkdir()
        if path.exists():
            path = path.rename(tmp_path / "r" / "checkpoint.safetensors")
        else:
            path = tmp_path / "r" / "checkpoint.safetensors"
        code = main(["train", "--resume", str(tmp_path / "r")])
    refused(capsys, code, path)


def test_pictures_that_cannot_be_predicted(run, tmp_path, capsys):
    _, folder = run
    (tmp_path / "bad.png").write_bytes(b"\x89PNG nonsense")
    (tmp_path / "empty").mkdir()
    for inputs, words in (
        ([tmp_path / "bad.png"], [tmp_path / "bad.png"]),
        ([tmp_path / "none.png"], [tmp_path / "none.png"]),
        ([tmp_path / "empty"], [tmp_path / "empty", "no picture"]),
        ([tmp_path / "a.png", tmp_path / "b" / "a.jpg"], ["a.png", "a.jpg", "both"]),
    ):
        code = main(["predict", str(folder), *map(str, inputs), "-o", str(tmp_path / "out")])
        refused(capsys, code, *words)


def test_an_output_folder_that_is_a_file(run, tmp_path, capsys):
    data, folder = run
    (tmp_path / "out").write_text("")
    picture = str(data / "JPEGImages/test0.png")
    code = main(["predict", str(folder), picture, "-o", str(tmp_path / "out")])
    refused(capsys, code, tmp_path / "out")


def test_evaluate_on_other_classes_or_no_split(run, data, tmp_path, capsys):
    _, folder = run
    (tmp_path / "names.txt").write_text("background\ncircle\nstripe\n")
    names = ("--classes", str(tmp_path / "names.txt"))
    refused(
        capsys, main(["evaluate", str(folder), "--data", str(data), *names]), "circle", "square"
    )
    refused(capsys, main(["evaluate", str(folder), "--split", "extra"]), "extra.txt")
    refused(capsys, main(["evaluate", str(folder), "--confusion", "c.pdf"]), "c.pdf", ".csv")
