"""The command `train`: what it says, what it leaves behind, and how it stops and goes on."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from numba import njit
from PIL import Image

from minifcn.cli.compiling import CompileWatch
from minifcn.cli.interrupt import StopRequest
from minifcn.cli.main import main
from minifcn.training import Checkpoint
from tests.little import voc_folder

LITTLE = "--widths 4,4,4,4,4 --batch-size 2 --crop 32".split()
FILES = {
    "best.safetensors",
    "checkpoint.safetensors",
    "confusion.csv",
    "confusion.png",
    "curves.png",
    "examples.png",
    "log.csv",
    "scores.json",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return voc_folder(tmp_path_factory.mktemp("voc"))


def weights(folder):
    return Checkpoint.load(folder / "checkpoint.safetensors").model


def test_a_whole_run_on_a_folder(data, tmp_path, capsys):
    options = ["--steps", "5", "--eval-every", "2", "--out", str(tmp_path), "--seed", "3"]
    assert main(["train", "--data", str(data), *LITTLE, *options]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    for words in (
        "6 pictures to train, 2 to validate, 3 to test; 3 classes: background, square, stripe",
        "97 % of the best",
        "validation at step 2",
        "validation at step 4",
        "validation at step 5",
        "every pixel background",
        "most frequent class at each place",
        "step 5/5",
        "minifcn predict",
    ):
        assert words in said.out, words
    # Stripes of 5 pixels and squares of 10: only the finest head keeps them.
    folder = tmp_path / f"{data.name}-fcn2s"
    assert {path.name for path in folder.iterdir()} == FILES
    rows = list(csv.DictReader((folder / "log.csv").open()))
    assert [row["step"] for row in rows] == list("12345")
    assert [row["val_mean_iou"] != "" for row in rows] == [False, True, False, True, True]
    for name in ("confusion", "curves", "examples"):
        with Image.open(folder / f"{name}.png") as picture:
            picture.load()
            assert min(picture.size) > 200
    # Own score in scores.json is that of confusion.csv, which counts every pixel but void.
    counts = [row[1:] for row in csv.reader((folder / "confusion.csv").open())][1:]
    counts = np.array(counts, int)
    assert counts.sum() == 3 * 32 * 31
    scores = json.loads((folder / "scores.json").read_text())
    own = scores[list(scores)[-1]]
    assert own["pixel_accuracy"] == pytest.approx(np.trace(counts) / counts.sum())


def test_every_option_has_its_effect(data, tmp_path):
    """Each option changes the weights, beside a run without it; and the seed alone decides."""
    common = ["--data", str(data), "--steps", "2", "--head", "fcn16s", "--out", str(tmp_path)]

    def trained(name, *options):
        assert main(["train", *common, *LITTLE, "--name", name, *options]) == 0
        return weights(tmp_path / name)

    plain = trained("plain")
    again = trained("again")
    assert all(np.array_equal(plain[key], again[key]) for key in plain)
    for number, options in enumerate(
        (
            ("--seed", "1"),
            ("--crop", "16x24"),
            ("--crop", "none"),
            ("--resize", "40x36"),
            ("--augment", "off"),
            ("--normalise", "picture"),
            ("--optimizer", "sgd"),
            ("--lr", "0.01"),
            ("--weight-decay", "0.9"),
            ("--schedule", "constant"),
            ("--warmup", "5"),
            ("--class-weights", "balanced"),
            ("--batch-size", "3"),
            ("--eval-every", "1"),
            ("--head", "fcn8s"),
            ("--widths", "4,4,4,4,5"),
        )
    ):
        other = trained(f"run{number}", *options)
        same = set(other) == set(plain) and all(
            np.array_equal(other[key], plain[key]) for key in plain
        )
        assert same == (options[0] == "--eval-every"), options


def test_a_folder_like_the_nuclei(tmp_path, capsys):
    """Names decide the split; enough of them make all three. Otsu is what has to be beaten."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / "cells" / name).mkdir(parents=True)
    for i in range(24):
        label = np.zeros((32, 32), np.uint8)
        label[8:20, 5:17] = 1
        image = np.clip(label[..., None] * 150 + rng.normal(30, 9, (32, 32, 3)), 0, 255)
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / "cells/images" / f"cell{i}.png")
        Image.fromarray(label).save(tmp_path / "cells/masks" / f"cell{i}.png")
    options = ["--layout", "nuclei", "--steps", "2", "--out", str(tmp_path / "runs")]
    assert main(["train", "--data", str(tmp_path / "cells"), *LITTLE, *options]) == 0
    said = capsys.readouterr().out
    assert "Otsu's threshold" in said and "IoU of nucleus" in said


def test_without_a_test_split_the_score_says_so(tmp_path, capsys):
    data = voc_folder(tmp_path / "voc", test=0)
    options = ["--steps", "1", "--head", "fcn32s", "--out", str(tmp_path), "--name", "r"]
    assert main(["train", "--data", str(data), *LITTLE, *options]) == 0
    said = capsys.readouterr().out
    assert "no test split" in said and "they flatter it" in " ".join(said.split())
    assert "2 validation pictures" in said
    for command in ("evaluate", "compare"):  # on the pictures that training ended with
        assert main([command, str(tmp_path / "r")]) == 0
        assert "2 val pictures" in capsys.readouterr().out
        assert main([command, str(tmp_path / "r"), "--split", "test"]) == 2
        assert "test.txt does not exist" in capsys.readouterr().err
    with_test = voc_folder(tmp_path / "other")
    assert main(["evaluate", str(tmp_path / "r"), "--data", str(with_test)]) == 0
    assert "3 test pictures" in capsys.readouterr().out


def test_runs_get_names_of_their_own(data, tmp_path, capsys):
    command = ["train", "--data", str(data), *LITTLE, "--steps", "1", "--head", "fcn32s"]
    for _ in range(2):
        assert main([*command, "--out", str(tmp_path)]) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"{data.name}-fcn32s", f"{data.name}-fcn32s-2"}


def test_ctrl_c_saves_and_resume_gives_the_same_bits(data, tmp_path, capsys):
    """A real SIGINT in a process of its own; then the same bytes as an unbroken run."""
    command = ["train", "--data", str(data), *LITTLE, "--head", "fcn8s"]
    options = ["--steps", "250", "--eval-every", "100", "--out", str(tmp_path)]
    broken = tmp_path / "broken"
    process = subprocess.Popen(
        [sys.executable, "-m", "minifcn", *command, *options, "--name", "broken"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (broken / "log.csv").exists() or (broken / "log.csv").stat().st_size < 300:
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err == ""
    assert f"minifcn train --resume {broken}" in out
    at = Checkpoint.load(broken / "checkpoint.safetensors").about["step"]
    assert 0 < at < 250
    assert (broken / "log.csv").read_text().count("\n") == 1 + at

    assert main(["train", "--resume", str(broken)]) == 0
    assert f"after step {at} of 250" in " ".join(capsys.readouterr().out.split())
    assert main([*command, *options, "--name", "whole"]) == 0
    for name in ("checkpoint.safetensors", "best.safetensors", "log.csv", "confusion.csv"):
        assert (broken / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_resume_of_a_finished_run_scores_it_again(data, tmp_path, capsys):
    command = ["train", "--data", str(data), *LITTLE, "--steps", "2", "--head", "fcn32s"]
    assert main([*command, "--out", str(tmp_path), "--name", "r"]) == 0
    before = (tmp_path / "r/checkpoint.safetensors").read_bytes()
    for name in ("scores.json", "examples.png"):
        (tmp_path / "r" / name).unlink()
    moved = data.rename(data.with_name("moved"))
    try:
        assert main(["train", "--resume", str(tmp_path / "r"), "--data", str(moved)]) == 0
    finally:
        moved.rename(data)
    assert {path.name for path in (tmp_path / "r").iterdir()} == FILES
    assert (tmp_path / "r/checkpoint.safetensors").read_bytes() == before


def test_the_second_ctrl_c_is_obeyed_at_once():
    before = signal.getsignal(signal.SIGINT)
    with StopRequest() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
    assert signal.getsignal(signal.SIGINT) is before


def test_stop_request_outside_the_main_thread_leaves_signals_alone():
    seen = []

    def work():
        with StopRequest() as stop:
            seen.append(stop())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_compiling_is_counted_once_and_named():
    def inner(x):
        return x + 1

    inner = njit(inner)

    @njit
    def outer_kernel(x):
        return inner(x) * 2

    seen = []
    with CompileWatch() as watch:
        watch.on_first = lambda: seen.append("first")
        assert outer_kernel(3) == 8
        assert outer_kernel(4) == 10
        assert watch.count == 1 and watch.seconds > 0 and not watch.current
        assert not watch.kept  # no cache was asked for
        assert "compiled 1 kernel in" in watch.summary()
        assert "kept on disk" not in watch.summary()
        outer_kernel(3.0)
        assert watch.count == 2
    assert seen == ["first"]
    outer_kernel(3j)
    assert watch.count == 2
    assert CompileWatch().summary() == ""
