"""VOC-style folders, made here and, where it is at hand, CamVid."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minifcn.data import baselines, voc
from minifcn.errors import InputError

DATA = Path(os.environ.get("MINIFCN_DATA") or Path(__file__).parents[2] / "shared" / "data")
needs_camvid = pytest.mark.skipif(
    not (DATA / "camvid-240").is_dir(),
    reason="CamVid (240×180) is not at hand: set MINIFCN_DATA to the folder with camvid-240",
)


def refuse(function, *parts):
    with pytest.raises(InputError) as error:
        function()
    message = str(error.value)
    assert all(str(part) in message for part in parts), message
    assert "\n" not in message and not re.search(r"[.!?]\s", message), message
    assert not message.endswith(".") and len(message.split("; ")) == 2, message


def make(root, names=("a", "b b", "ç"), palette=None):
    """A small set with one list, `train`."""
    rng = np.random.default_rng(1)
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for name in names:
        image = Image.fromarray(rng.integers(0, 256, (6, 9, 3), np.uint8))
        image.save(root / "JPEGImages" / f"{name}.jpg")
        label = Image.fromarray(rng.choice([0, 1, 2, 255], (6, 9)).astype(np.uint8))
        if palette is not None:
            label.putpalette(palette)
        label.save(root / "SegmentationClass" / f"{name}.png")
    (root / "ImageSets/Segmentation/train.txt").write_text("\n".join(names) + "\n", "utf-8")
    (root / "classes.txt").write_text("sky\nroad\ncar\n")
    return root


@pytest.mark.parametrize("below", ["", "VOCdevkit/Tiny", "Tiny"])
def test_the_folder_is_found(tmp_path, below):
    root = make(tmp_path / below)
    train = voc.load(str(tmp_path), "train")
    assert len(train) == 3 and train.names == ("a", "b b", "ç")
    assert train.classes == ("sky", "road", "car") and train.void == 255
    sample = train[1]
    assert sample.name == "b b" and sample.image.shape == (6, 9, 3)
    stored = np.asarray(Image.open(root / "SegmentationClass" / "b b.png"))
    assert (sample.label == stored).all() and sample.label.dtype == np.uint8
    with pytest.raises(IndexError):
        train[3]


def test_colour_map_is_the_published_one():
    # The devkit's colours, as in its documentation: 0 to 20, then void's.
    published = {
        0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128),
        5: (128, 0, 128), 6: (0, 128, 128), 7: (128, 128, 128), 8: (64, 0, 0), 9: (192, 0, 0),
        10: (64, 128, 0), 11: (192, 128, 0), 12: (64, 0, 128), 13: (192, 0, 128),
        14: (64, 128, 128), 15: (192, 128, 128), 16: (0, 64, 0), 17: (128, 64, 0),
        18: (0, 192, 0), 19: (128, 192, 0), 20: (0, 64, 128), 255: (224, 224, 192),
    }  # fmt: skip
    colours = voc.colour_map(256)
    assert colours.shape == (256, 3) and colours.dtype == np.uint8
    assert {k: tuple(colours[k].tolist()) for k in published} == published
    assert len({tuple(c) for c in colours.tolist()}) == 256
    assert len(voc.PASCAL_CLASSES) == 21 and voc.PASCAL_CLASSES[15] == "person"


def test_palette_is_the_labels_own(tmp_path):
    own = [10, 20, 30, 40, 50, 60, 70, 80, 90]
    train = voc.load(make(tmp_path / "a", palette=[*own, *([1] * 759)]), "train")
    assert train.palette.tolist() == [own[0:3], own[3:6], own[6:9]]
    train = voc.load(make(tmp_path / "b"), "train")
    assert train.palette.tolist() == voc.colour_map(3).tolist()


def test_given_classes_replace_the_file(tmp_path):
    root = make(tmp_path)
    (root / "classes.txt").unlink()
    assert voc.load(root, "train", classes=("x", "y", "z")).classes == ("x", "y", "z")
    refuse(lambda: voc.load(root, "train"), root / "classes.txt", "one name a line")
    two = voc.load(root, "train", classes=("x", "y"))
    refuse(lambda: two[0], root / "SegmentationClass" / "a.png", "index 2", "row", "0 to 1")


def test_pascals_own_folder_needs_no_names(tmp_path):
    """As VOCtrainval_11-May-2012.tar unpacks: VOCdevkit/VOC2012 without classes.txt."""
    root = make(tmp_path / "VOCdevkit" / "VOC2012")
    (root / "classes.txt").unlink()
    train = voc.load(tmp_path, "train")
    assert len(train.classes) == 21 and train.classes[:2] == ("background", "aeroplane")
    assert voc.load(root, "train", classes=("x", "y", "z")).classes == ("x", "y", "z")
    (root / "classes.txt").write_text("sky\nroad\ncar\n")
    assert voc.load(root, "train").classes == ("sky", "road", "car")
    (root / "classes.txt").unlink()
    other = root.rename(root.with_name("VOCs"))
    refuse(lambda: voc.load(tmp_path, "train"), other / "classes.txt", "--classes")


def test_refused_folders(tmp_path):
    refuse(lambda: voc.load(tmp_path / "none", "train"), tmp_path / "none", "not a folder")
    refuse(lambda: voc.load(tmp_path, "train"), tmp_path, "is empty", "ImageSets")
    (tmp_path / "other").mkdir()
    refuse(lambda: voc.load(tmp_path, "train"), tmp_path, "no ImageSets/Segmentation")
    make(tmp_path / "one")
    make(tmp_path / "two")
    refuse(lambda: voc.load(tmp_path, "train"), tmp_path, "2 sets (one, two)")
    lists = tmp_path / "one" / "ImageSets" / "Segmentation"
    one = tmp_path / "one"
    refuse(lambda: voc.load(one, "dev"), lists / "dev.txt", "here: train")
    (lists / "val.txt").write_text("\n \n")
    refuse(lambda: voc.load(one, "val"), lists / "val.txt", "lists no picture")
    (lists / "val.txt").write_text("a\nb b\na\n")
    refuse(lambda: voc.load(one, "val"), lists / "val.txt", "'a' more than once")
    (lists / "val.txt").write_text("a\nmissing\n")
    refuse(lambda: voc.load(one, "val"), one / "JPEGImages" / "missing.jpg", "'missing'")
    label = one / "SegmentationClass" / "a.png"
    label.unlink()
    refuse(lambda: voc.load(one, "train"), label, "does not exist", "'a'")


def test_a_label_of_another_size(tmp_path):
    root = make(tmp_path)
    label = root / "SegmentationClass" / "a.png"
    Image.fromarray(np.zeros((9, 6), np.uint8)).save(label)
    train = voc.load(root, "train")
    refuse(lambda: train[0], label, root / "JPEGImages" / "a.jpg", "6×9", "9×6")


@needs_camvid
def test_camvid():
    sets = {split: voc.load(DATA / "camvid-240", split) for split in ("train", "val", "test")}
    assert {split: len(s) for split, s in sets.items()} == {"train": 367, "val": 101, "test": 233}
    names = [name for s in sets.values() for name in s.names]
    assert len(set(names)) == 701
    train = sets["train"]
    lower = [name.lower() for name in train.classes]
    assert len(lower) == 11 and lower[:6] == "sky building pole road pavement tree".split()
    assert train.palette[0].tolist() == [128, 128, 128]  # sky, in CamVid's own colours
    counts = np.zeros(256, int)
    for i in range(0, 233, 4):
        sample = sets["test"][i]
        assert sample.image.shape == (180, 240, 3) and sample.label.shape == (180, 240)
        counts += np.bincount(sample.label.ravel(), minlength=256)
    assert set(np.flatnonzero(counts).tolist()) <= {*range(11), 255}
    assert 0.01 < counts[255] / counts.sum() < 0.08


@needs_camvid
def test_camvid_baselines_have_the_known_scores():
    train, test = (voc.load(DATA / "camvid-240", split) for split in ("train", "test"))
    road, prior = baselines.Majority(train), baselines.LocationPrior(train)
    assert train.classes[road.label].lower() == "road"
    assert baselines.score(test, road).mean_iou == pytest.approx(0.025, abs=0.001)
    assert baselines.score(test, prior).mean_iou == pytest.approx(0.170, abs=0.001)
