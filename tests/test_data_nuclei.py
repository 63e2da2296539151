"""The shipped nuclei pictures, and folders laid out like them."""

import os
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minifcn.data import baselines, nuclei, oracle, otsu
from minifcn.errors import InputError

HOME = Path(nuclei.__file__).parent
DATA = Path(os.environ.get("MINIFCN_DATA") or Path(__file__).parents[2] / "shared" / "data")


def refuse(function, *parts):
    with pytest.raises(InputError) as error:
        function()
    message = str(error.value)
    assert all(str(part) in message for part in parts), message
    assert "\n" not in message and not re.search(r"[.!?]\s", message), message
    assert not message.endswith(".") and len(message.split("; ")) == 2, message


def folder_with(root, names, value=1):
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(root / "images" / f"{name}.png")
        Image.fromarray(np.full((4, 5), value, np.uint8)).save(root / "masks" / f"{name}.png")
    return root


def test_what_is_shipped():
    sets = {split: nuclei.load(split) for split in nuclei.SPLITS}
    assert {k: len(v) for k, v in sets.items()} == {"train": 68, "val": 12, "test": 30}
    names = [name for s in sets.values() for name in s.names]
    kinds = nuclei.kinds()
    assert len(set(names)) == 110 and set(names) == set(kinds)
    assert set(names) == {p.stem for p in (HOME / "images").iterdir()}
    assert set(names) == {p.stem for p in (HOME / "masks").iterdir()}
    assert Counter(kinds.values()) == {
        "fluorescence": 62, "stain-on-purple": 22, "stain-on-white": 16, "smear": 10,
    }  # fmt: skip
    for s in sets.values():  # every kind in every split, near its share
        count = Counter(kinds[name] for name in s.names)
        for kind, n in Counter(kinds.values()).items():
            assert abs(count[kind] - n * len(s) / 110) < 1.1
    assert "CC0" in (HOME / "LICENSE.md").read_text()
    assert sum(p.stat().st_size for p in HOME.rglob("*.png")) < 5.2e6


def test_every_shipped_picture_is_whole():
    pictures = set()
    for split in nuclei.SPLITS:
        three = nuclei.load(split, border="class")
        for sample in (three[i] for i in range(len(three))):
            assert sample.image.shape == (256, 256, 3) and sample.label.shape == (256, 256)
            assert set(np.unique(sample.label)) <= {0, 1, 2} and 0.004 < (sample.label > 0).mean()
            dark = nuclei.kinds()[sample.name] == "fluorescence"
            assert (np.median(sample.image) < 100) == dark
            coloured = np.ptp(sample.image.astype(int), axis=2).any()
            assert coloured == ("stain" in nuclei.kinds()[sample.name])
            pictures.add(sample.image.tobytes())
    assert len(pictures) == 110  # no picture twice


def test_border_choices():
    three = nuclei.load("train", border="class")
    index = next(i for i in range(len(three)) if (three[i].label == 2).any())
    truth = three[index].label
    assert three.classes == ("background", "nucleus", "border") and three.palette.shape == (3, 3)
    for border, value in {"nucleus": 1, "background": 0, "void": 255}.items():
        two = nuclei.load("train", border=border)
        assert two.classes == ("background", "nucleus") and two.palette.shape == (2, 3)
        assert two.void == 255
        assert (two[index].label == np.where(truth == 2, value, truth)).all()
    assert (nuclei.load("train")[index].label == (truth > 0)).all()


def test_a_folder_keeps_the_shipped_split_and_is_steady(tmp_path):
    shipped = {s: nuclei.load(s).names for s in nuclei.SPLITS}
    others = [f"{i:012x}" for i in range(600)]
    few = folder_with(tmp_path / "few", [n[0] for n in shipped.values()] + others[:60])
    many = folder_with(tmp_path / "many", [x for n in shipped.values() for x in n] + others)
    sizes = {}
    for split in nuclei.SPLITS:
        a, b = (set(nuclei.load(split, f).names) for f in (few, many))
        assert set(shipped[split]) <= b and shipped[split][0] in a
        assert a == b & {p.stem for p in (few / "images").iterdir()}  # more pictures move none
        sizes[split] = len(b - set(shipped[split])) / 600
        assert list(nuclei.load(split, many).names) == sorted(b)
    assert sizes["test"] == pytest.approx(30 / 110, abs=0.05)
    assert sizes["val"] == pytest.approx(12 / 110, abs=0.04)
    assert sum(sizes.values()) == pytest.approx(1)


def test_a_copy_of_the_shipped_folder_is_the_shipped_set(tmp_path):
    for part in ("images", "masks"):
        shutil.copytree(HOME / part, tmp_path / part)
    for split in nuclei.SPLITS:
        assert nuclei.load(split, tmp_path).names == nuclei.load(split).names


def test_every_nth_picture(tmp_path):
    """By place in the order of the names, whatever split a picture has otherwise."""
    names = [f"{i:02}" for i in range(21)]
    folder_with(tmp_path, names[::-1])
    got = {s: nuclei.load(s, tmp_path, test_every=8).names for s in nuclei.SPLITS}
    assert got["test"] == ("00", "08", "16") and got["val"] == ("04", "12", "20")
    assert sorted(sum(got.values(), ())) == names
    thirds = [nuclei.load(s, tmp_path, test_every=3).names[:2] for s in nuclei.SPLITS]
    assert thirds == [("02", "05"), ("01", "04"), ("00", "03")]
    assert len(nuclei.load("test", test_every=8)) == 14  # of the shipped 110


def test_refused(tmp_path):
    refuse(lambda: nuclei.load("test", test_every=2), "test_every", 2, "at least 3")
    refuse(lambda: nuclei.load("dev"), "split", "'dev'", "train, val, test")
    refuse(lambda: nuclei.load("train", border="edge"), "border", "'edge'", "nucleus")
    refuse(lambda: nuclei.load("train", tmp_path), tmp_path / "images", "images/NAME.png")
    refuse(lambda: nuclei.load("train", tmp_path / "no"), tmp_path / "no" / "images")
    one = folder_with(tmp_path / "one", ["00071198d059"])  # a shipped name, of the train split
    refuse(lambda: nuclei.load("test", one), one / "images", "test split")
    mask = one / "masks" / "00071198d059.png"
    mask.unlink()
    refuse(lambda: nuclei.load("train", one), mask, "does not exist", "00071198d059.png")
    folder_with(one, ["00071198d059"], value=255)  # 0 and 255: a common way to write two classes
    refuse(lambda: nuclei.load("train", one)[0], mask, "index 255", "row 0, column 0", "0 to 2")
    Image.fromarray(np.zeros((5, 4), np.uint8)).save(mask)
    refuse(lambda: nuclei.load("train", one)[0], mask, "4×5", "5×4")
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(mask)
    refuse(lambda: nuclei.load("train", one)[0], mask, "RGB")


def test_otsu_on_the_shipped_test_split():
    """The figure to beat, 0.703; it falls when the polarity or the border are read otherwise."""
    test = nuclei.load("test")
    matrix = baselines.score(test, lambda sample: otsu.segment(sample.image))
    assert matrix.iou()[1] == pytest.approx(0.7028, abs=0.0005)
    always_bright = baselines.score(
        test, lambda s: (otsu.grey(s.image) > otsu.threshold(otsu.grey(s.image))).astype(np.uint8)
    )
    assert always_bright.iou()[1] < 0.5
    majority = baselines.score(test, baselines.Majority(nuclei.load("train")))
    assert majority.iou()[1] == 0 and majority.mean_iou == pytest.approx(0.4255, abs=0.0005)


def test_ceilings_of_the_shipped_test_split():
    matrices = oracle.ceilings(nuclei.load("test"))
    ious = [matrix.iou()[1] for matrix in matrices.values()]
    assert list(matrices) == [2, 4, 8, 16, 32]
    assert ious == pytest.approx([0.986, 0.948, 0.834, 0.606, 0.331], abs=0.001)


@pytest.mark.skipif(
    not (DATA / "nuclei-256").is_dir(),
    reason="the 664 pictures are not at hand: set MINIFCN_DATA to the folder with nuclei-256",
)
def test_the_whole_set():
    folder = DATA / "nuclei-256"
    sets = {split: nuclei.load(split, folder) for split in nuclei.SPLITS}
    assert sum(map(len, sets.values())) == 664
    assert set(nuclei.load("test").names) <= set(sets["test"].names)
    shipped, whole = (
        nuclei.load("test", border="class"),
        nuclei.load("test", folder, border="class"),
    )
    for i in range(0, 30, 7):  # what ships is what was given, bit for bit
        other = whole[whole.names.index(shipped.names[i])]
        assert (other.image == shipped[i].image).all() and (other.label == shipped[i].label).all()
