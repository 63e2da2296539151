"""The command `data`, and what `train` and `evaluate` say and refuse of labelled folders."""

import io
import re

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from minifcn.cli import tables
from minifcn.cli import watched as watched_module
from minifcn.cli.main import main
from minifcn.cli.watched import watched
from minifcn.data.counts import PixelCounts
from minifcn.training.splits import LAYOUTS
from tests.little import plain_folder, voc_folder, write_label

LITTLE = "--widths 4,4,4,4,4 --batch-size 2 --crop 32 --steps 1 --head fcn32s".split()


def rows(said):
    """The cells of each row of a table, by the name in the second column."""
    start = said.index("the classes in the training labels")
    lines = [line for line in said[start:].splitlines() if "#" in line or " void " in line]
    found = [re.fullmatch(r" *(\d*) +(.+?) +(#\w+|) +(\d.*)", line) for line in lines]
    return {m[2]: [m[1], m[2], m[3], *m[4].split()] for m in found if m}


def test_everything_about_a_folder(tmp_path, capsys):
    root = plain_folder(tmp_path / "Ordner ü")
    out = tmp_path / "new" / "sheet.png"
    assert main(["data", str(root), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    flat = " ".join(said.split())
    for words in (
        "(layout folder): 9 pictures to train, 1 to validate, 2 to test; 3 classes",
        "split by place",
        "on all 9 training labels",
        "mean IoU at best",
        "every pixel class 0",
        f"wrote {out}",
    ):
        assert words in flat, words
    assert "without background" not in flat  # class 0 has no such name here
    # Pixels, counted here from the files that fall to train by the rule.
    train = [i for i in range(12) if i % 10 not in (0, 5)]
    labels = [np.asarray(Image.open(root / "masks" / f"Bild {i:02}.png")) for i in train]
    table = rows(said)
    for k in range(3):
        cells = table[f"class {k}"]
        own = sum(int((label == k).sum()) for label in labels)
        share = 100 * own / sum(int((label != 255).sum()) for label in labels)
        assert cells[3] == f"{own:,}" and float(cells[4]) == pytest.approx(share, abs=0.006)
        assert cells[5] == str(sum(bool((label == k).any()) for label in labels))
    assert table["class 1"][2] == "#46c8aa"  # of tests/little.py: 70, 200, 170
    assert table["void"][3] == str(9 * 32)
    with Image.open(out) as sheet:
        sheet.load()
        assert min(sheet.size) > 500


def test_the_nuclei_and_their_ceilings(capsys):
    """All 68 training labels; 0.830 at stride 8 without background, 0.900 with it."""
    assert main(["data"]) == 0
    said = capsys.readouterr().out
    assert "on all 68 training labels" in said and "Otsu's threshold" in said
    fcn8s = next(line for line in said.splitlines() if "fcn8s" in line)
    assert re.findall(r"0\.\d+", fcn8s) == ["0.900", "0.830"]
    assert rows(said)["nucleus"][3] == "667,742"


def test_train_shows_classes_and_balances_by_the_same_counts(tmp_path, capsys):
    root = plain_folder(tmp_path / "pictures")
    (root / "classes.txt").write_text("background\nsquare\nstripe\n")
    options = ["--class-weights", "balanced", "--out", str(tmp_path), "--name", "r"]
    assert main(["train", "--data", str(root), *LITTLE, *options]) == 0
    said = capsys.readouterr().out
    assert "layout folder" in said and "without background" in said
    assert "on all 9 training labels" in said
    train = [i for i in range(12) if i % 10 not in (0, 5)]
    labels = [np.asarray(Image.open(root / "masks" / f"Bild {i:02}.png")) for i in train]
    # Every class is in every label, so each frequency is its share of all labelled pixels.
    assert all({0, 1, 2} <= set(np.unique(label)) for label in labels)
    pixels = np.array([sum(int((label == k).sum()) for label in labels) for k in range(3)])
    weights = np.median(pixels) / pixels
    shown = [float(rows(said)[name][-1]) for name in ("background", "square", "stripe")]
    np.testing.assert_allclose(shown, weights, rtol=0.006)
    assert main(["train", "--resume", str(tmp_path / "r")]) == 0


def test_evaluate_on_a_plain_folder_that_lacks_the_last_class(tmp_path, capsys):
    root = plain_folder(tmp_path / "pictures")
    assert main(["train", "--data", str(root), *LITTLE, "--out", str(tmp_path), "--name", "r"]) == 0
    other = plain_folder(tmp_path / "others")
    for path in (other / "masks").iterdir():
        label = np.array(Image.open(path))
        label[label == 2] = 0
        write_label(path, label)
    assert main(["evaluate", str(tmp_path / "r"), "--data", str(other)]) == 0
    assert "2 test pictures" in capsys.readouterr().out


def test_a_class_that_is_never_seen(tmp_path, capsys):
    root = voc_folder(tmp_path / "voc")
    (root / "classes.txt").write_text("background\nsquare\nstripe\nghost\n")
    for i in range(6):
        path = root / "SegmentationClass" / f"train{i}.png"
        label = np.array(Image.open(path))
        label[label == 2] = 255
        write_label(path, label)
    write_label(root / "SegmentationClass" / "train0.png", np.full((32, 32), 255, np.uint8))
    assert main(["data", str(root)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "stripe (index 2) is in no training label, but in 2 of val and 3 of test" in said
    assert "ghost (index 3) is in no training label nor anywhere else" in said
    assert "square (index 1)" not in said
    assert "1 training labels are void all over" in said


def refused(capsys, code, *words):
    said = capsys.readouterr().err
    assert code == 2 and said.startswith("minifcn: ") and said.count("\n") == 1, said
    assert "; " in said, said
    for word in words:
        assert str(word) in said, f"{word!r} is not in: {said}"


def test_refused_before_training(tmp_path, capsys):
    """A test label that is wrong is found at once, not at the end of the run."""
    root = voc_folder(tmp_path / "voc")
    path = root / "SegmentationClass" / "test2.png"
    write_label(path, np.full((32, 32), 7, np.uint8))
    code = main(["train", "--data", str(root), *LITTLE, "--out", str(tmp_path / "runs")])
    refused(capsys, code, path, "index 7", "1024 pixels", "0 to 2")
    assert not (tmp_path / "runs").exists()
    refused(capsys, main(["data", str(tmp_path / "no")]), tmp_path / "no", "not a folder")
    refused(capsys, main(["data", str(root), "--out", "sheet.jpg"]), "sheet.jpg", ".png")
    code = main(["data", str(root), "--layout", "camvid", "--classes", str(root / "classes.txt")])
    refused(capsys, code, "camvid", "leave out --classes")
    refused(capsys, main(["data", str(root), "--layout", "coco"]), "coco", "cityscapes")
    plain_folder(root)
    refused(capsys, main(["data", str(root)]), root, "voc and folder", "--layout")
    assert main(["data", str(root), "--layout", "folder"]) == 0


def test_options_offer_every_layout(capsys):
    assert main(["data", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(layout in said for layout in LAYOUTS)


def test_the_table_of_classes_fits_eighty_columns_and_shows_the_colours():
    each = np.array([[123_456_789, 98_765_432], [0, 7]])
    counts = PixelCounts(each, np.array([12_345_678, 0]))
    palette = np.array([(70, 200, 170), (1, 2, 3)], np.uint8)
    weights = np.array([0.123456, 123.456])
    names = ("a class with a long name", "b")
    file = io.StringIO()
    console = Console(file=file, width=80, force_terminal=True, color_system="truecolor")
    parts = {"val": counts, "test": counts}
    console.print(tables.classes(counts, parts, names, palette, weights))
    said = file.getvalue()
    assert "38;2;70;200;170m████" in said and "38;2;1;2;3m████" in said
    for number in ("123,456,789", "98,765,439", "12,345,678", "0.123", "123"):
        assert number in said, said
    assert "…" not in said


@pytest.mark.parametrize("terminal", [True, False])
def test_a_sign_of_life_only_where_it_takes_long(monkeypatch, terminal):
    now = [0.0]
    monkeypatch.setattr(watched_module.time, "perf_counter", lambda: now[0])

    def said(seconds_each):
        file = io.StringIO()
        console = Console(file=file, force_terminal=terminal, width=80)
        for item in watched(range(30), 30, "counting", console):
            assert item * seconds_each <= now[0] + 1e-9
            now[0] += seconds_each
        return file.getvalue()

    assert said(0.01) == ""
    assert "counting" in said(1.0)
