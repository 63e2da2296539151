"""Pictures with labels: the shipped nuclei, folders in six layouts, batches, baselines."""

from minifcn.data import (
    baselines,
    camvid,
    cityscapes,
    counts,
    nuclei,
    oracle,
    otsu,
    pictures,
    plain,
    sbd,
    transforms,
    voc,
)
from minifcn.data.folder import PairedFiles
from minifcn.data.loader import Batch, Loader, channel_statistics, normalise
from minifcn.data.sample import VOID, Dataset, Sample

__all__ = [
    "VOID",
    "Batch",
    "Dataset",
    "Loader",
    "PairedFiles",
    "Sample",
    "baselines",
    "camvid",
    "channel_statistics",
    "cityscapes",
    "counts",
    "normalise",
    "nuclei",
    "oracle",
    "otsu",
    "pictures",
    "plain",
    "sbd",
    "transforms",
    "voc",
]
