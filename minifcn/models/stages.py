"""Training in stages: FCN-32s, then 16s from its weights, then 8s from theirs.

Long, Shelhamer and Darrell (2015), section 4.2: "we … initialize with the parameters" of the
coarser net; "the new parameters acting on pool4 are zero-initialized so that the net starts with
unmodified predictions". Here a finer head has all parts of a coarser one but its last
interpolation, with the same names, and two besides: the score of the new skip, zero at first, and
a bilinear interpolation by two. So handing on is copying what has the same name.

Unmodified they are but for one thing: bilinear interpolation in two steps, by 2 and by 16, cuts
the corners over each unit a little that one step by 32 has.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from minifcn.errors import InputError
from minifcn.models.fcn import FCN

LAST = "upscore.input_x"
"""What the name of the last interpolation begins with; its factor follows."""


def hand_on(coarse: Mapping[str, np.ndarray], fine: FCN) -> list[str]:
    """Copy a coarser net's weights, by ``FCN.state_dict``'s names, into a finer one: all or none.

    Returns:
        The names in ``fine`` that keep their first values: the new skips'.

    Raises:
        InputError: ``coarse`` has parts that ``fine`` has not, other shapes, or lacks more than
            skips do; naming them.
    """
    own = fine.state_dict()
    given = {name: array for name, array in coarse.items() if not name.startswith(LAST)}
    given |= {name: array for name, array in coarse.items() if name in own}
    too_many = [name for name in given if name not in own]
    new = [name for name in own if name not in given]
    lacking = [name for name in new if not name.startswith(("score.", "upscore."))]
    for names, what in ((too_many, "has"), (lacking, "lacks")):
        if names:
            raise InputError(
                f"the net to start from {what} {_some(names)}, unlike {fine.config['head']}; hand "
                "on to a head with the same skips or more, on the same trunk"
            )
    differ = [name for name, array in given.items() if array.shape != own[name].shape]
    if differ:
        found, wanted = given[differ[0]].shape, own[differ[0]].shape
        raise InputError(
            f"the coarser net has other shapes in {_some(differ)}: the first is {found}, wanted "
            f"{wanted}; build {fine.config['head']} with the settings of the coarser net"
        )
    fine.load_state_dict(given, strict=False)
    return new


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
