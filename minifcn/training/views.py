"""Several views of a picture, whose answers are averaged (test-time augmentation).

A network that saw pictures mirrored and turned in training answers nearly, not exactly, the same
for each view; the mean of the answers errs less than one of them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

VIEWS = {"one": 1, "mirrored": 2, "turned": 8}
"""How many each is: the picture alone; with its left-right mirror; all turns and mirrors."""


def averaged(
    probabilities: Callable[[np.ndarray], np.ndarray], images: np.ndarray, views: str
) -> np.ndarray:
    """The mean over the views of `probabilities`, each turned back to lie over the picture.

    `probabilities`: uint8 (N, H, W, 3) → float32 (N, K, H, W), for any H and W.
    """
    answers = []
    for turns in range(4 if views == "turned" else 1):
        turned = np.rot90(images, turns, (1, 2))
        for step in (1,) if views == "one" else (1, -1):  # -1 reads each row backwards
            answer = probabilities(np.ascontiguousarray(turned[:, :, ::step]))
            answers.append(np.rot90(answer[..., ::step], -turns, (2, 3)))
    return np.asarray(np.mean(answers, axis=0, dtype=np.float32))


def described(views: str) -> str:
    """What a table says of a score: "" for one view, ", mean of 8 views" for more."""
    return "" if views == "one" else f", mean of {VIEWS[views]} views"
