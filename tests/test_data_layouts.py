"""Layouts of folders: SBD, CamVid as SegNet's tutorial has it, Cityscapes, images and masks."""

import re
import sys

import numpy as np
import pytest
from PIL import Image

from minifcn.data import camvid, cityscapes, nuclei, plain, sbd, voc
from minifcn.data.recognise import recognise
from minifcn.errors import InputError


def refuse(function, *parts):
    with pytest.raises(InputError) as error:
        function()
    message = str(error.value)
    assert all(str(part) in message for part in parts), message
    assert "\n" not in message and not re.search(r"[.!?]\s", message), message
    assert not message.endswith(".") and len(message.split("; ")) == 2, message


def image(path, seed=0, size=(6, 9)):
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(colours).save(path)


def label(path, values=(0, 1), seed=0, size=(6, 9), dtype=np.uint8):
    """A grey label drawn from `values`; what was written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = np.random.default_rng(seed).choice(values, size).astype(dtype)
    Image.fromarray(drawn).save(path)
    return drawn


def make_camvid(root, split="train", names=("b", "a 1", "ä")):
    for seed, name in enumerate(names):
        image(root / split / f"{name}.png", seed)
        label(root / f"{split}annot" / f"{name}.png", [0, 3, 10, 11], seed)
    return root


def make_cityscapes(root, split="train", kind="labelTrainIds"):
    for city, name in (("ulm", "ulm_000001_000019"), ("aachen", "aachen_000000_000019")):
        image(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png")
        label(root / "gtFine" / split / city / f"{name}_gtFine_{kind}.png", [0, 18, 255])
    return root


def make_plain(root, names, values=(0, 1, 2, 255), below=""):
    for seed, name in enumerate(names):
        image(root / "images" / below / f"{name}.jpg", seed)
        label(root / "masks" / below / f"{name}.png", values, seed)
    return root


# CamVid


def test_camvid_void_is_eleven_in_the_files(tmp_path):
    train = camvid.load(make_camvid(tmp_path / "Cam Vid"), "train")
    assert train.names == ("a 1", "b", "ä") and train.void == 255
    written = np.asarray(Image.open(tmp_path / "Cam Vid/trainannot/b.png"))
    expected = [[255 if v == 11 else v for v in row] for row in written.tolist()]
    assert train[1].label.tolist() == expected and 255 in np.ravel(expected)
    assert len(train.classes) == 11 and len(np.unique(train.palette, axis=0)) == 11
    assert camvid.splits(tmp_path / "Cam Vid") == ("train",)


def test_camvid_refuses(tmp_path):
    root = make_camvid(tmp_path)
    refuse(lambda: camvid.load(root, "val"), root / "val", "valannot")
    label(root / "trainannot" / "b.png", [12])
    bad = camvid.load(root, "train")
    refuse(lambda: bad[1], root / "trainannot" / "b.png", "index 12", "54 pixels", "void 11")
    (root / "trainannot" / "b.png").unlink()
    refuse(lambda: camvid.load(root, "train"), root / "trainannot" / "b.png", "does not exist")
    for path in (root / "train").iterdir():
        path.unlink()
    refuse(lambda: camvid.load(root, "train"), root / "train", "no picture")


# Cityscapes


def test_cityscapes(tmp_path):
    train = cityscapes.load(make_cityscapes(tmp_path), "train")
    assert train.names == ("aachen_000000_000019", "ulm_000001_000019")
    assert set(np.unique(train[0].label)) == {0, 18, 255}
    # Three of the published colours, and the count of classes in the benchmark.
    colours = dict(zip(train.classes, train.palette.tolist(), strict=True))
    assert len(colours) == 19 and colours["road"] == [128, 64, 128]
    assert colours["person"] == [220, 20, 60] and colours["bicycle"] == [119, 11, 32]
    refuse(lambda: cityscapes.load(tmp_path, "test"), "test", "give the val split")
    make_cityscapes(tmp_path, "test")
    assert cityscapes.splits(tmp_path) == ("train",)


def test_cityscapes_refuses(tmp_path):
    root = make_cityscapes(tmp_path, kind="labelIds")
    refuse(lambda: cityscapes.load(root, "train"), "labelIds", "csCreateTrainIdLabelImgs", root)
    for path in (root / "gtFine/train/aachen").iterdir():
        path.unlink()
    refuse(lambda: cityscapes.load(root, "train"), "aachen_000000_000019_gtFine_labelTrainIds.png")
    refuse(lambda: cityscapes.load(root, "val"), root / "leftImg8bit" / "val")


# SBD


def test_sbd_finds_its_files(tmp_path):
    """Their values are read in tests/oracle/test_sbd.py, with SciPy."""
    root = tmp_path / "benchmark_RELEASE" / "dataset"
    image(root / "img" / "2008_000001.jpg")
    (root / "cls").mkdir()
    (root / "cls" / "2008_000001.mat").touch()
    (root / "train.txt").write_text("2008_000001\n")
    for folder in (root, root.parent, tmp_path):
        train = sbd.load(folder, "train")
        assert train.labels == (root / "cls" / "2008_000001.mat",)
        assert sbd.splits(folder) == ("train",)
    assert train.classes[20] == "tvmonitor" and train.palette.shape == (21, 3)
    refuse(lambda: sbd.load(root, "val"), root / "val.txt", "here: train")
    (root / "cls" / "2008_000001.mat").unlink()
    refuse(lambda: sbd.load(root, "train"), "2008_000001.mat", "does not exist")
    refuse(lambda: sbd.load(root / "img", "train"), root / "img", "dataset/cls")


def test_sbd_without_scipy_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    refuse(lambda: sbd.read(tmp_path / "a.mat"), tmp_path / "a.mat", "pip install 'minifcn[sbd]'")


# images and masks


def test_plain_split_by_place(tmp_path):
    names = [f"Zelle {i:02} ä" for i in range(23)]
    root = make_plain(tmp_path, names)
    got = {s: plain.load(root, s).names for s in ("train", "val", "test")}
    assert got["test"] == tuple(names[i] for i in (0, 10, 20))
    assert got["val"] == tuple(names[i] for i in (5, 15))
    assert sorted(sum(got.values(), ())) == names
    fourths = plain.load(root, "test", test_every=4).names
    assert fourths == tuple(names[0::4])
    train = plain.load(root, "train")
    assert train.classes == ("class 0", "class 1", "class 2")
    assert train.palette.tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    sample = train[0]
    stored = np.asarray(Image.open(root / "masks" / f"{sample.name}.png"))
    assert (sample.label == stored).all() and (train.label(0) == stored).all()


def test_plain_split_by_lists_and_by_folders(tmp_path):
    lists = make_plain(tmp_path / "lists", "abcd")
    (lists / "train.txt").write_text("d\na\n")
    (lists / "val.txt").write_text("b\n")
    (lists / "classes.txt").write_text("Wiese\nWeg\nFluß\n", "utf-8")
    assert plain.load(lists, "train").names == ("d", "a")
    assert plain.load(lists, "val").classes == ("Wiese", "Weg", "Fluß")
    assert plain.splits(lists) == ("train", "val")
    refuse(lambda: plain.load(lists, "test"), lists / "test.txt", "here: train, val)")
    refuse(lambda: plain.load(lists, "val", test_every=5), lists, "lists", "--test-every")
    (lists / "val.txt").write_text("\n")
    refuse(lambda: plain.load(lists, "val"), lists / "val.txt", "lists no picture")

    folders = make_plain(tmp_path / "folders", "ab", below="train")
    make_plain(folders, "a", values=(0, 4), below="val")
    assert plain.splits(folders) == ("train", "val")
    assert plain.load(folders, "val").labels == (folders / "masks/val/a.png",)
    # All masks name the classes, not those of one split alone.
    assert plain.load(folders, "train").classes == tuple(f"class {k}" for k in range(5))
    (folders / "train.txt").write_text("a\n")
    refuse(lambda: plain.load(folders, "train"), folders, "lists", "images/train")


def test_plain_own_palette_unless_two_colours_are_the_same(tmp_path):
    root = make_plain(tmp_path, [f"{i}" for i in range(10)])
    for path in (root / "masks").iterdir():
        mask = Image.open(path)
        mask.putpalette([9, 8, 7, 6, 5, 4, 3, 2, 1] + [0] * 759)
        mask.save(path)
    assert plain.load(root, "train").palette.tolist() == [[9, 8, 7], [6, 5, 4], [3, 2, 1]]
    two = ("a", "b", "c", "d", "e")  # classes 3 and 4 are both black in the files
    assert plain.load(root, "train", two).palette.tolist() == voc.colour_map(5).tolist()


def test_plain_endings_in_capitals(tmp_path):
    root = make_plain(tmp_path, "abc")
    (root / "images/b.jpg").rename(root / "images/b.JPG")
    (root / "masks/b.png").rename(root / "masks/b.PNG")
    (root / "train.txt").write_text("b\n")
    assert plain.load(root, "train")[0].label.shape == (6, 9)


def test_plain_lists_may_name_folders(tmp_path):
    """Pictures of one name in two folders have two masks."""
    root = make_plain(make_plain(tmp_path, "a", (1,), "x"), "a", (2,), "y")
    label(root / "masks" / "a.png", (0,))  # nobody's
    (root / "train.txt").write_text("x/a\ny/a\n")
    train = plain.load(root, "train", ("k", "l", "m"))
    assert train.names == ("x/a", "y/a")
    assert [int(train.label(i).max()) for i in (0, 1)] == [1, 2]


def test_plain_awkward_masks(tmp_path):
    root = make_plain(tmp_path, [f"{i}" for i in range(10)])
    classes = ("x", "y", "z")
    mask = root / "masks" / "1.png"
    written = label(mask, [0, 2], dtype=np.uint16)
    assert (plain.load(root, "train", classes)[0].label == written).all()  # sixteen bits will do
    label(mask, [300], dtype=np.uint16)
    refuse(lambda: plain.load(root, "train", classes)[0], mask, "index 300", "0 to 2 or void 255")
    label(mask, [3])
    refuse(lambda: plain.load(root, "train", classes)[0], mask, "index 3", "54 pixels")
    Image.fromarray(np.zeros((6, 9, 3), np.uint8)).save(mask)
    refuse(lambda: plain.load(root, "train", classes)[0], mask, "RGB", "palette or greyscale PNG")
    refuse(lambda: plain.load(root, "train"), mask, "RGB")  # when looking for the classes
    label(mask, size=(9, 6))
    refuse(lambda: plain.load(root, "train", classes)[0], mask, "6×9", "9×6")
    mask.unlink()
    refuse(lambda: plain.load(root, "train", classes), mask, root / "images/1.jpg")
    Image.fromarray(np.zeros((6, 9), np.uint8)).save(root / "masks" / "1.jpg")
    refuse(lambda: plain.load(root, "train", classes)[0], root / "masks/1.jpg", "JPEG")
    refuse(lambda: plain.load(root, "train"), root / "masks/1.jpg", "JPEG")


def test_plain_refuses(tmp_path):
    refuse(lambda: plain.load(tmp_path, "train"), tmp_path, "images and masks")
    root = make_plain(tmp_path / "black and white", "abcdefgh", values=(0, 255))
    refuse(lambda: plain.load(root, "train"), root / "masks", "255 is void")
    few = make_plain(tmp_path / "few", "abc")
    refuse(lambda: plain.load(few, "val"), few / "images", "3 pictures", "val", "10th")
    refuse(lambda: plain.load(few, "val", test_every=2), "test_every", 2)
    image(few / "images" / "a.png")
    refuse(lambda: plain.load(few, "train"), "a.jpg", "a.png", "endings alone")


# which layout a folder has


def test_recognised(tmp_path):
    made = {
        "camvid": make_camvid(tmp_path / "camvid"),
        "cityscapes": make_cityscapes(tmp_path / "cityscapes"),
        "folder": make_plain(tmp_path / "plain", "ab"),
        "nuclei": make_plain(tmp_path / "n", "a"),
        "voc": tmp_path / "voc",
        "sbd": tmp_path / "sbd",
    }
    image(made["nuclei"] / "images" / f"{nuclei.load('val').names[3]}.png")
    (made["voc"] / "VOCdevkit/VOC2012/ImageSets/Segmentation").mkdir(parents=True)
    for name in ("img", "cls"):
        (made["sbd"] / "dataset" / name).mkdir(parents=True)
    assert {name: recognise(folder) for name, folder in made.items()} == {n: n for n in made}


def test_not_recognised(tmp_path):
    names = ("ImageSets", "trainannot", "gtFine", "masks", "cls")
    refuse(lambda: recognise(tmp_path / "no"), tmp_path / "no", "not a folder", *names)
    refuse(lambda: recognise(tmp_path), tmp_path, "is empty", *names)
    (tmp_path / "images").mkdir()
    refuse(lambda: recognise(tmp_path), tmp_path, "no layout", *names)
    make_camvid(make_plain(tmp_path, "ab"))
    refuse(lambda: recognise(tmp_path), tmp_path, "camvid and folder", "--layout")
