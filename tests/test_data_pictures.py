"""Picture files of every kind, and every way in which one can be refused."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from minifcn.data.pictures import (
    picture_size,
    read_image,
    read_label,
    read_names,
    read_palette,
)
from minifcn.errors import InputError

CLASSES = ("sky", "road", "car")
RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3), np.uint8)
GREY = RGB[..., 0].copy()


def refuse(function, *parts):
    """The call is refused in one sentence that holds `parts` and a mend."""
    with pytest.raises(InputError) as error:
        function()
    message = str(error.value)
    assert all(str(part) in message for part in parts), message
    assert "\n" not in message and not re.search(r"[.!?]\s", message), message
    assert not message.endswith(".") and len(message.split("; ")) == 2, message


def save(path, array, mode=None, **options):
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


def test_rgb_and_grey(tmp_path):
    assert (read_image(save(tmp_path / "a.png", RGB)) == RGB).all()
    grey = read_image(save(tmp_path / "b.png", GREY))
    assert grey.dtype == np.uint8 and (grey == GREY[..., None]).all() and grey.shape == (5, 7, 3)
    assert grey.flags.writeable
    bits = read_image(save(tmp_path / "c.png", GREY > 99))
    assert (bits[..., 1] == np.where(GREY > 99, 255, 0)).all()


def test_palette_is_looked_up_in_images(tmp_path):
    index = RNG.integers(0, 4, (5, 7), np.uint8)
    picture = Image.fromarray(index)
    picture.putpalette([1, 2, 3, 40, 50, 60, 7, 8, 9, 250, 251, 252])
    picture.save(tmp_path / "p.png")
    colours = np.array([[1, 2, 3], [40, 50, 60], [7, 8, 9], [250, 251, 252]])
    assert (read_image(tmp_path / "p.png") == colours[index]).all()
    assert (read_label(tmp_path / "p.png", ("a", "b", "c", "d")) == index).all()
    assert (read_palette(tmp_path / "p.png")[:4] == colours).all()


def test_transparency_lies_on_white(tmp_path):
    alpha = np.zeros((5, 7), np.uint8)
    alpha[:, :3] = 255
    alpha[0, 6] = 51
    image = read_image(save(tmp_path / "a.png", np.dstack([RGB, alpha])))
    assert (image[:, :3] == RGB[:, :3]).all() and (image[1:, 3:] == 255).all()
    assert np.abs(image[0, 6] - (0.2 * RGB[0, 6] + 0.8 * 255)).max() <= 1


@pytest.mark.parametrize("top", [255, 1023, 4095, 16383, 65535])
def test_sixteen_bits_keep_their_range(tmp_path, top):
    values = np.linspace(0, top, 35).round().astype(np.uint16).reshape(5, 7)
    image = read_image(save(tmp_path / "a.png", values))
    assert np.abs(image[..., 2] - values * (255 / top)).max() <= 0.5
    assert image.max() == 255 and image.min() == 0


def test_orientation_of_a_photograph(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter
    wide = np.zeros((8, 16, 3), np.uint8)
    wide[:, :8] = 250
    save(tmp_path / "a.jpg", wide, exif=exif.tobytes(), quality=95)
    image = read_image(tmp_path / "a.jpg")
    assert image.shape == (16, 8, 3) and image[:7].min() > 200 and image[9:].max() < 50
    assert picture_size(tmp_path / "a.jpg") == (16, 8)
    save(tmp_path / "b.png", wide)
    assert picture_size(tmp_path / "b.png") == (8, 16)


def test_unreadable_images(tmp_path):
    refuse(lambda: read_image(tmp_path / "none.png"), tmp_path / "none.png", "does not exist")
    text = tmp_path / "text.png"
    text.write_text("no picture")
    refuse(lambda: read_image(text), text, "is not a picture that can be read", "give")
    (tmp_path / "empty.jpg").write_bytes(b"")
    refuse(lambda: read_image(tmp_path / "empty.jpg"), tmp_path / "empty.jpg")
    refuse(lambda: read_image(tmp_path), tmp_path, "cannot be read")
    floats = save(tmp_path / "f.tif", np.ones((3, 3), np.float32))
    refuse(lambda: read_image(floats), floats, "floating-point", "16-bit PNG")
    huge = save(tmp_path / "i.tif", np.full((3, 3), 70000, np.int32))
    refuse(lambda: read_image(huge), huge, "70000", "65535")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", np.zeros((50, 50), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    refuse(lambda: read_image(path), path, "cannot be read")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, beside its exception
@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "bmp", "gif"])
def test_a_file_cut_anywhere_is_refused_or_whole(tmp_path, kind):
    """A download that broke off must never give half a picture, nor another exception."""
    big = np.repeat(np.repeat(RGB, 6, 0), 6, 1)
    data = save(tmp_path / f"whole.{kind}", big).read_bytes()
    whole = read_image(tmp_path / f"whole.{kind}")
    path = tmp_path / f"cut.{kind}"
    refused = 0
    for n in sorted({int(x) for x in np.linspace(0, len(data) - 1, 40)}):
        path.write_bytes(data[:n])
        try:
            assert (read_image(path) == whole).all()
        except InputError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > 30


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(st.data())
def test_a_damaged_png_gives_a_picture_or_an_input_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "a.png"
    content = bytearray(save(path, RGB).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    try:
        assert read_image(path).dtype == np.uint8
    except InputError as error:
        assert str(path) in str(error)


@given(
    hnp.arrays(
        np.uint8,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9),
        elements=st.sampled_from([0, 1, 2, 255]),
    ),
    st.sampled_from(["L", "P", "I;16", "tif"]),
)
def test_labels_come_back_as_written(tmp_path_factory, label, kind):
    path = tmp_path_factory.mktemp("label") / ("a.tif" if kind == "tif" else "a.png")
    picture = Image.fromarray(label.astype(np.uint16) if kind == "I;16" else label)
    if kind == "P":
        picture.putpalette([*range(0, 9), *([0, 0, 0] * 252), 9, 9, 9])
    picture.save(path)
    read = read_label(path, CLASSES)
    assert read.dtype == np.uint8 and (read == label).all()


def test_black_and_white_label(tmp_path):
    label = read_label(save(tmp_path / "a.png", GREY > 99), ("no", "yes"))
    assert (label == (GREY > 99)).all() and label.dtype == np.uint8


def test_labels_with_another_index(tmp_path):
    label = np.zeros((4, 6), np.uint8)
    label[2, 3:5], label[3, 0] = 9, 7
    path = save(tmp_path / "a.png", label)
    parts = (path, "index 9", "row 2, column 3", "3 pixels", "0 to 2 or void 255", "3 classes")
    refuse(lambda: read_label(path, CLASSES), *parts)
    label[label > 0] = 255
    path = save(tmp_path / "b.png", label)
    assert (read_label(path, CLASSES) == label).all()  # void is a label ...
    refuse(lambda: read_label(path, CLASSES, void=None), path, "index 255")  # ... if there is one
    path = save(tmp_path / "c.png", np.full((2, 2), 300, np.uint16))
    refuse(lambda: read_label(path, CLASSES), path, "index 300")


def test_labels_in_colour(tmp_path):
    grey_in_rgb = np.zeros((4, 6, 3), np.uint8)
    for mode in ("RGB", "RGBA", "LA"):
        path = save(tmp_path / f"{mode}.png", grey_in_rgb, mode)
        refuse(lambda path=path: read_label(path, CLASSES), path, mode, "class indices", "palette")
    jpeg = save(tmp_path / "a.jpg", np.zeros((4, 6), np.uint8))
    refuse(lambda: read_label(jpeg, CLASSES), jpeg, "JPEG", "PNG")


def test_a_truncated_label(tmp_path):
    path = save(tmp_path / "a.png", RNG.integers(0, 3, (64, 64), np.uint8))
    path.write_bytes(path.read_bytes()[:400])
    refuse(lambda: read_label(path, CLASSES), path, "truncated")


def test_names(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_bytes("\ufeffsky\r\nroad side\r\n été \r\n\r\n".encode())
    assert read_names(path) == ("sky", "road side", "été")
    refuse(lambda: read_names(tmp_path / "none.txt"), tmp_path / "none.txt", "No such file")
    for content, parts in {
        b"\n\n": ("empty", "one name a line"),
        b"sky\n\ncar\n": ("line 2", "class 1"),
        b"sky\ncar\nsky\n": ("'sky'", "lines 1 and 3"),
        b"\xff\xfe\x00sky": ("UTF-8",),
        "\n".join(map(str, range(256))).encode(): ("256 names", "255"),
    }.items():
        path.write_bytes(content)
        refuse(lambda: read_names(path), path, *parts)
