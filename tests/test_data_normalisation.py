"""The normalisations that weights were trained with, against their definitions."""

import numpy as np

from minifcn.data import normalise
from minifcn.data.normalisation import KNOWN

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)


def test_imagenet():
    scaled = PIXELS / 255.0
    for c, (mean, std) in enumerate(((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))):
        found = normalise(PIXELS, *KNOWN["imagenet"])[..., c]
        np.testing.assert_allclose(found, (scaled[..., c] - mean) / std, rtol=1e-5, atol=1e-6)


def test_caffe_is_the_difference_from_the_mean_with_red_first():
    found = normalise(PIXELS, *KNOWN["caffe"])
    bgr = PIXELS[..., ::-1] - np.array([104.00698793, 116.66876762, 122.67891434])
    np.testing.assert_allclose(found[..., ::-1], bgr, rtol=1e-5, atol=1e-4)
