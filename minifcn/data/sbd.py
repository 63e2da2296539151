"""SBD, the Semantic Boundaries Dataset: VOC's 21 classes drawn on 11,355 pictures.

    dataset/img/NAME.jpg
    dataset/cls/NAME.mat               MATLAB's struct GTcls; its Segmentation holds 0 to 20
    dataset/train.txt, dataset/val.txt one NAME a line: 8,498 and 2,857

Hariharan et al., "Semantic contours from inverse detectors", ICCV 2011. The published FCNs were
trained on it. No pixel is void. SciPy reads the labels (extra `sbd`); some damaged files bring its
reader down and the process with it, so take them from a whole download.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minifcn.data.folder import PairedFiles, check_listed, find_image, read_list
from minifcn.data.voc import PASCAL_CLASSES, colour_map
from minifcn.errors import InputError, one_line


def load(folder: Path | str, split: str) -> PairedFiles:
    """The pictures of one split, "train" or "val", in the order of their list.

    Args:
        folder: holds `img` and `cls`, or `dataset`, or `benchmark_RELEASE/dataset`.
        split: the name of a list.

    Raises:
        InputError: the folder is not laid out so, the list is missing or empty, or a listed
            picture lacks its image or its label.
    """
    root = _root(Path(folder))
    if root is None:
        raise InputError(
            f"{folder} holds no img and cls where SBD is wanted; give the folder that holds "
            "dataset/img and dataset/cls"
        )
    names = read_list(root, split)
    images = tuple(find_image(root / "img", name) for name in names)
    labels = tuple(root / "cls" / f"{name}.mat" for name in names)
    check_listed(names, labels, split)
    n = len(PASCAL_CLASSES)
    return PairedFiles(names, images, labels, PASCAL_CLASSES, colour_map(n), read)


def fits(folder: Path) -> bool:
    """Whether a folder is laid out so."""
    return _root(folder) is not None


def splits(folder: Path | str) -> tuple[str, ...]:
    """The splits that have a list."""
    root = _root(Path(folder))
    return tuple(s for s in ("train", "val", "test") if root and (root / f"{s}.txt").exists())


def read(path: Path) -> NDArray[np.uint8]:
    """The classes in a label file, uint8 (H, W).

    Raises:
        InputError: no MATLAB file, without GTcls.Segmentation, or with an index above 20; or
            SciPy is missing.
    """
    label = _segmentation(path)
    if label.ndim != 2 or label.dtype.kind not in "iu":
        raise InputError(
            f"{path} holds a Segmentation of {label.dtype} in shape {label.shape} where whole "
            "numbers in rows and columns are wanted; replace it by the published file"
        )
    if label.size and not 0 <= label.min() <= label.max() < len(PASCAL_CLASSES):
        wrong = (label < 0) | (label >= len(PASCAL_CLASSES))
        raise InputError(
            f"{path} holds index {int(label[wrong][0])} ({int(wrong.sum())} pixels are so) where 0 "
            f"to {len(PASCAL_CLASSES) - 1} is wanted; correct the label"
        )
    return np.ascontiguousarray(label, np.uint8)


def _segmentation(path: Path) -> NDArray:
    """GTcls.Segmentation as it stands in the file."""
    try:
        from scipy.io import loadmat
    except ImportError:
        raise InputError(
            f"{path} is a MATLAB file, which SciPy reads and is not installed; "
            "`pip install 'minifcn[sbd]'`"
        ) from None
    try:
        found = loadmat(path, variable_names=("GTcls",))
        return np.asarray(found["GTcls"][0, 0]["Segmentation"])
    except Exception as error:  # a damaged file raises many kinds; what they mean is the same
        raise InputError(
            f"{path} has no GTcls.Segmentation that can be read ({one_line(error)}); replace it by "
            "the published file"
        ) from error


def _root(folder: Path) -> Path | None:
    for root in (folder, folder / "dataset", folder / "benchmark_RELEASE" / "dataset"):
        if (root / "img").is_dir() and (root / "cls").is_dir():
            return root
    return None
