"""Scoring a model on a whole dataset, each picture at its own size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from minifcn.data.sample import Dataset, Sample
from minifcn.metrics import ConfusionMatrix
from minifcn.training.segmenter import Segmenter


@dataclass
class Evaluation:
    """One confusion matrix over all pictures, and the score of each picture by itself.

    `names[i]` had the score `scores[i]`: its own mean IoU (NaN where it is all void).
    """

    matrix: ConfusionMatrix
    names: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    def ranking(self) -> list[int]:
        """Numbers of the pictures that have a score, the best first."""
        known = [i for i, score in enumerate(self.scores) if not np.isnan(score)]
        return sorted(known, key=lambda i: -self.scores[i])


def evaluate(
    segmenter: Segmenter,
    dataset: Dataset,
    batch_size: int = 8,
    report: Callable[[int], None] = lambda done: None,
) -> Evaluation:
    """Label every picture and compare; `report` is told how many pictures are done.

    Neighbours of one size go through the model together. No picture is padded, so no answer
    depends on which pictures stand beside it.
    """
    classes = len(segmenter.classes)
    result = Evaluation(ConfusionMatrix(classes))
    for group in _same_size(dataset, batch_size):
        predictions, _ = segmenter.label(np.stack([sample.image for sample in group]))
        for sample, prediction in zip(group, predictions, strict=True):
            one = ConfusionMatrix(classes)
            one.update(sample.label, prediction, dataset.void)
            result.matrix.counts += one.counts
            result.names.append(sample.name)
            result.scores.append(one.mean_iou)
        report(len(result.names))
    return result


def _same_size(dataset: Dataset, most: int) -> Iterator[list[Sample]]:
    """Runs of neighbours that have one size, of at most `most` samples."""
    group: list[Sample] = []
    for index in range(len(dataset)):
        sample = dataset[index]
        if group and (len(group) == most or sample.image.shape != group[0].image.shape):
            yield group
            group = []
        group.append(sample)
    if group:
        yield group
