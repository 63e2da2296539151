"""Pictures with labels: the shipped nuclei, VOC-style folders, augmentation, batches, baselines."""

from minifcn.data import baselines, nuclei, oracle, otsu, pictures, transforms, voc
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
    "channel_statistics",
    "normalise",
    "nuclei",
    "oracle",
    "otsu",
    "pictures",
    "transforms",
    "voc",
]
