"""`minifcn predict`: a mask, an overlay and a confidence picture for each picture given."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from minifcn import device, study
from minifcn.cli.console import standard_output
from minifcn.cli.finish import save_figure
from minifcn.cli.place import place
from minifcn.data.folder import IMAGE_ENDINGS
from minifcn.data.pictures import read_image
from minifcn.errors import InputError
from minifcn.training import Segmenter
from minifcn.training.files import write_atomically


def predict(arguments: argparse.Namespace) -> int:
    """Label every picture; a picture that cannot be read stops it, with the earlier ones done."""
    console = standard_output()
    segmenter = Segmenter.load(Path(arguments.checkpoint))
    segmenter.views = arguments.views
    out = Path(arguments.out)
    pictures = _pictures(arguments.images)
    _distinct(pictures)
    here = place(arguments.device, console)
    segmenter.model.to(here)
    with device.use(here):
        for path in pictures:
            image = read_image(path)
            labels, confidence = segmenter.label(image[None])
            mask, sure = labels[0], confidence[0]
            _save(mask_picture(mask, segmenter.palette), out / f"{path.stem}-mask.png")
            overlay = study.draw_overlay(image, mask, segmenter.palette, segmenter.classes)
            _save(overlay, out / f"{path.stem}-overlay.png")
            grey = np.rint(255 * sure).astype(np.uint8)
            _save(Image.fromarray(grey), out / f"{path.stem}-confidence.png")
            if arguments.stages:
                _save_stages(segmenter, image, path.name, out / f"{path.stem}-stages.png")
            shares = np.bincount(mask.ravel(), minlength=len(segmenter.classes)) / mask.size
            found = ", ".join(
                f"{name} {100 * share:.1f} %"
                for name, share in zip(segmenter.classes, shares, strict=True)
                if share > 0
            )
            console.print(
                f"{path.name} {image.shape[1]}×{image.shape[0]}: {found}; "
                f"mean confidence {sure.mean():.2f}",
                markup=False,
                soft_wrap=True,
            )
    return 0


def _save_stages(segmenter: Segmenter, image: np.ndarray, name: str, path: Path) -> None:
    stages = study.upsampling_stages(segmenter.model, segmenter.prepared(image[None]))
    seen = segmenter.resized(image)
    size = f"{seen.shape[1]}×{seen.shape[0]}"
    title = f"{name}, at {size}: how {segmenter.model.config['head']} makes its scores fine"
    palette, classes = segmenter.palette, segmenter.classes
    save_figure(study.draw_upsampling(seen, stages, palette, classes, title), path)


def mask_picture(mask: np.ndarray, palette: np.ndarray) -> Image.Image:
    """Class indices (H, W) as a palette picture: the indices are its pixel values."""
    picture = Image.fromarray(mask.astype(np.uint8), mode="P")
    picture.putpalette(palette.tobytes())
    return picture


def _pictures(given: list[str]) -> list[Path]:
    """The files given, and for a folder the pictures in it, in order of their names."""
    result: list[Path] = []
    for text in given:
        path = Path(text)
        if not path.is_dir():
            result.append(path)
            continue
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_ENDINGS)
        if not inside:
            raise InputError(
                f"{path} holds no picture ({', '.join(IMAGE_ENDINGS)}); give a folder that does"
            )
        result += inside
    return result


def _distinct(pictures: list[Path]) -> None:
    """Refuse two pictures whose results would be written to the same file."""
    first: dict[str, Path] = {}
    for path in pictures:
        if path.stem in first:
            raise InputError(
                f"{path} and {first[path.stem]} would both be written as {path.stem}-mask.png; "
                "rename one of them, or predict them into different folders"
            )
        first[path.stem] = path


def _save(picture: Image.Image, path: Path) -> None:
    write_atomically(path, lambda file: picture.save(file, format="PNG"))
