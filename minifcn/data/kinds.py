"""The kind of a microscope picture, read from the picture itself."""

import numpy as np
from numpy.typing import NDArray

LITTLE_COLOUR = 48
"""Between stain on white and on purple: mean difference of a pixel's strongest and weakest channel.

The boundary lies in the gap of the shipped pictures, 46.3 to 49."""


def kind_of(image: NDArray[np.uint8]) -> str:
    """fluorescence, smear, stain-on-white or stain-on-purple, as in `nuclei.kinds()`.

    Grey pictures are fluorescence when dark and smears when bright; coloured ones are told apart by
    how much colour they have.
    """
    colour = float(np.ptp(image, axis=-1).mean())
    if colour < 1:
        return "fluorescence" if image.mean() < 128 else "smear"
    return "stain-on-white" if colour < LITTLE_COLOUR else "stain-on-purple"
