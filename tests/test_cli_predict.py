"""The commands `predict` and `evaluate`, and the front door."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minifcn.cli.main import main
from minifcn.study import blend
from minifcn.training import Segmenter
from tests.little import CLASSES, voc_folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    data = voc_folder(root / "voc")
    options = "--widths 4,4,4,4,4 --steps 30 --batch-size 2 --crop 32 --head fcn4s".split()
    where = ["--data", str(data), "--out", str(root), "--name", "r"]
    assert main(["train", *where, *options, "--lr", "0.01"]) == 0
    return root / "r"


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (37, 23), (300, 200)])
def test_all_three_files_at_the_pictures_own_size(run, tmp_path, capsys, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "in.png")
    out = tmp_path / "out"
    assert main(["predict", str(run), str(tmp_path / "in.png"), "-o", str(out)]) == 0
    assert f"in.png {size[1]}×{size[0]}:" in capsys.readouterr().out
    assert sorted(p.name for p in out.iterdir()) == [
        "in-confidence.png",
        "in-mask.png",
        "in-overlay.png",
    ]
    segmenter = Segmenter.load(run)
    labels, confidence = segmenter.label(image[None])
    with Image.open(out / "in-mask.png") as mask:
        assert mask.mode == "P"
        np.testing.assert_array_equal(np.asarray(mask), labels[0])
        colours = np.asarray(mask.convert("RGB"))
        np.testing.assert_array_equal(colours, segmenter.palette[labels[0]])
    with Image.open(out / "in-confidence.png") as grey:
        assert grey.mode == "L"
        assert np.abs(np.asarray(grey) - 255.0 * confidence[0]).max() <= 0.5
    overlay = np.asarray(Image.open(out / "in-overlay.png"))
    height, width = size
    assert overlay.shape[0] > height and overlay.shape[1] >= width  # the legend is below
    tinted = blend(image, labels[0], segmenter.palette, CLASSES)
    np.testing.assert_array_equal(overlay[:height, :width], tinted)


def test_stages_are_drawn_when_asked_for(run, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (20, 45, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "in.png")
    where = [str(tmp_path / "in.png"), "-o", str(tmp_path)]
    assert main(["predict", str(run), *where, "--stages"]) == 0
    with Image.open(tmp_path / "in-stages.png") as sheet:
        assert sheet.width > 1000 and sheet.height > 300


def test_a_folder_and_the_reference_device(run, tmp_path):
    pictures = run.parent / "voc" / "JPEGImages"
    out = {name: tmp_path / name for name in ("cpu", "reference")}
    for name, folder in out.items():
        assert main(["predict", str(run), str(pictures), "-o", str(folder), "--device", name]) == 0
        assert len(list(folder.iterdir())) == 3 * 11
    for path in out["cpu"].glob("*-confidence.png"):
        fast, plain = (np.asarray(Image.open(out[n] / path.name), int) for n in out)
        assert np.abs(fast - plain).max() <= 1


def test_evaluate_agrees_with_the_masks_that_predict_writes(run, tmp_path, capsys):
    voc = run.parent / "voc"
    target = tmp_path / "confusion.csv"
    assert main(["evaluate", str(run), "--confusion", str(target)]) == 0
    said = capsys.readouterr().out
    pictures = [str(voc / f"JPEGImages/test{i}.png") for i in range(3)]
    assert main(["predict", str(run), *pictures, "-o", str(tmp_path)]) == 0
    counts = np.zeros((3, 3), int)
    for i in range(3):
        truth = np.asarray(Image.open(voc / f"SegmentationClass/test{i}.png"))
        mask = np.asarray(Image.open(tmp_path / f"test{i}-mask.png"))
        for t, p in zip(truth.ravel(), mask.ravel(), strict=True):
            if t != 255:
                counts[t, p] += 1
    rows = list(csv.reader(target.open()))
    assert rows[0][1:] == list(CLASSES)
    np.testing.assert_array_equal(np.array([row[1:] for row in rows[1:]], int), counts)
    for k, name in enumerate(CLASSES):
        union = counts[k].sum() + counts[:, k].sum() - counts[k, k]
        line = next(line for line in said.splitlines() if f"│ {name}" in line)
        assert f"{counts[k, k] / union:.3f}" in line


def test_evaluate_other_splits_and_data(run, tmp_path, capsys):
    other = voc_folder(tmp_path / "voc", val=4)
    assert main(["evaluate", str(run), "--data", str(other), "--split", "val"]) == 0
    assert "4 val pictures" in " ".join(capsys.readouterr().out.split())
    picture = tmp_path / "c.png"
    assert main(["evaluate", str(run / "best.safetensors"), "--confusion", str(picture)]) == 0
    with Image.open(picture) as drawn:
        drawn.load()


def test_the_front_door(capsys):
    from minifcn import __version__

    assert main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out
    assert main([]) == 0
    assert "train" in capsys.readouterr().out
    for command in ("train", "predict", "evaluate"):
        assert main([command, "--help"]) == 0
        assert "--device" in capsys.readouterr().out


def test_as_a_module_with_nothing_heavy_for_help():
    root = Path(__file__).resolve().parents[1]
    code = (
        "import sys; from minifcn.cli.main import main; main(['--help']);"
        "heavy = {'numba', 'numpy', 'PIL', 'matplotlib', 'rich'} & set(sys.modules);"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "minifcn", "predict", "none", "x.png", "-o", "y"],
        capture_output=True,
        text=True,
        cwd=root,
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
