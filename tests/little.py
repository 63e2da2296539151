"""A tiny folder of labelled pictures, and tiny settings, for tests of training and commands."""

from pathlib import Path

import numpy as np
from PIL import Image

from minifcn.training.settings import Settings

CLASSES = ("background", "square", "stripe")


def picture(seed: int, height: int = 32, width: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """A noisy picture with a bright square and a red stripe, and its labels with some void."""
    rng = np.random.default_rng(seed)
    label = np.zeros((height, width), np.uint8)
    top, left = rng.integers(0, (height // 2, width // 2))
    label[top : top + height // 3, left : left + width // 3] = 1
    label[-height // 6 :] = 2
    colours = np.array([(40, 40, 60), (200, 190, 180), (190, 40, 30)])
    image = np.clip(colours[label] + rng.normal(0, 12, (height, width, 3)), 0, 255)
    label[:, -1] = 255
    return image.astype(np.uint8), label


def voc_folder(
    root: Path, train: int = 6, val: int = 2, test: int = 3, size: tuple[int, int] = (32, 32)
) -> Path:
    """Write a folder in VOC's layout; `test=0` leaves the test list out."""
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True, exist_ok=True)
    seed = 0
    for split, count in (("train", train), ("val", val), ("test", test)):
        names = [f"{split}{i}" for i in range(count)]
        for name in names:
            image, label = picture(seed, *size)
            seed += 1
            Image.fromarray(image).save(root / "JPEGImages" / f"{name}.png")
            write_label(root / "SegmentationClass" / f"{name}.png", label)
        if count:
            (root / "ImageSets/Segmentation" / f"{split}.txt").write_text("\n".join(names) + "\n")
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return root


def plain_folder(root: Path, count: int = 12) -> Path:
    """Images and masks of background, square and stripe, with void at the right."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for i in range(count):
        image, label = picture(i)
        Image.fromarray(image).save(root / "images" / f"Bild {i:02}.png")
        write_label(root / "masks" / f"Bild {i:02}.png", label)
    return root


def write_label(path: Path, label: np.ndarray) -> None:
    """A palette PNG with these indices."""
    mask = Image.fromarray(label, mode="P")
    # All 256 colours: with fewer, Pillow packs the pixels into too few bits for 255.
    mask.putpalette([20, 20, 40, 70, 200, 170, 250, 190, 60] + [0] * 759)
    mask.save(path)


def little_settings(**changes: object) -> Settings:
    """A net of four channels and a few steps on crops of 32 × 32."""
    values: dict = {
        "layout": "voc",
        "head": "fcn8s",
        "widths": (4, 4, 4, 4, 4),
        "convs": (1, 1, 1, 1, 1),
        "fc_channels": 4,
        "steps": 6,
        "batch_size": 2,
        "crop": (32, 32),
        "warmup": 2,
        "eval_every": 3,
        **changes,
    }
    return Settings(**values)
