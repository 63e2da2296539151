"""What moves during training, and one step of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minifcn import device
from minifcn import functional as F
from minifcn.data.counts import PixelCounts, count, labels
from minifcn.data.feed import Fed, feed
from minifcn.data.folder import PairedFiles
from minifcn.data.loader import Loader, channel_statistics
from minifcn.data.normalisation import KNOWN
from minifcn.data.sample import VOID, Dataset
from minifcn.errors import InputError
from minifcn.metrics import ConfusionMatrix
from minifcn.models import FCN, RESNET_BLOCKS, TRUNKS, fcn_on, weights
from minifcn.models.stages import hand_on
from minifcn.nn import Dropout
from minifcn.study.memory_plan import MemoryPlan, memory_plan
from minifcn.tensor import Tensor
from minifcn.training.augment import augmentation
from minifcn.training.average import follow
from minifcn.training.checkpoint import Checkpoint, under
from minifcn.training.class_weights import median_frequency_weights
from minifcn.training.descent import optimizer_of, schedule_of
from minifcn.training.even_kinds import with_even_kinds
from minifcn.training.iou_loss import soft_iou_loss
from minifcn.training.segmenter import Segmenter
from minifcn.training.settings import Settings
from minifcn.training.splits import resized

FADE = 0.95
"""How much of the running confusion matrix is kept at each step: a memory of some 20 steps."""


@dataclass(frozen=True)
class Step:
    """What one step measured. `loss` is the batch's, the scores run over some 20 batches."""

    number: int
    loss: float
    lr: float
    pixel_accuracy: float
    mean_iou: float
    pictures: int


class NotFiniteError(Exception):
    """The loss or a weight became NaN or infinite, at the step given."""

    def __init__(self, what: str, step: int):
        super().__init__(f"{what} at step {step}")
        self.what, self.step = what, step


class Trainer:
    """A model, its optimiser and schedule, the order of the batches, and the generators.

    `model` is what is trained; `segmenter` holds the moving average of its weights, which is what
    is scored, saved and used (see `minifcn.training.average`).

    Everything that a later step depends on is in `checkpoint()` and comes back by `restore()`,
    so that a run that was broken off goes on to the same bits as one that was not. `device` is
    where the models live; the first weights, the batches and the draws of dropout are made on the
    host and moved, so they are the same bits on every device. `counts`: the classes in the
    training labels at the size of training, if they have been counted already.
    """

    def __init__(self, settings: Settings, train: PairedFiles, counts: PixelCounts | None = None):
        self.settings = settings
        data = resized(train, settings.resize)
        self.device = device.choose(settings.device)
        self.model = _model(settings, len(train.classes)).to(self.device)
        self.model.trunk.gradient_checkpointing = settings.gradient_checkpointing
        # From the same seed, so that the average starts where the model does.
        average = _model(settings, len(train.classes)).to(self.device).eval()
        mean, std = _normalisation(settings, data)
        self.segmenter = Segmenter(
            average, train.classes, np.asarray(train.palette), mean, std, settings.resize
        )
        self.optimizer = optimizer_of(settings, self.model)
        self.schedule = schedule_of(settings, self.optimizer)
        self.loader = Loader(
            with_even_kinds(data, settings.even_kinds),
            settings.batch_size,
            settings.seed,
            transform=augmentation(settings),
            mean=mean,
            std=std,
        )
        self.weight: Tensor | None = None
        if settings.class_weights == "balanced":
            if counts is None:
                counts = count(labels(data), len(train.classes))
            self.weight = Tensor(median_frequency_weights(counts))
        self.running = np.zeros((len(train.classes),) * 2)
        self.step_number = 0

    def start_from(self, arrays: Mapping[str, np.ndarray], blue_first: bool = False) -> None:
        """Load weights by torchvision's names into the model and its average.

        ``blue_first``: they expect blue before green and red, and are turned round.
        Raises InputError, with the names and shapes that differ, if they are another network's.
        """
        if blue_first:
            arrays = weights.red_first(arrays)
        for model in (self.model, self.segmenter.model):
            weights.load(model, arrays)

    def hand_on(self, coarse: Mapping[str, np.ndarray]) -> list[str]:
        """Start from a coarser net's weights; see `minifcn.models.stages.hand_on`."""
        hand_on(coarse, self.segmenter.model)
        return hand_on(coarse, self.model)

    def steps(self) -> Iterator[Step]:
        """Train step after step, from wherever the trainer stands to the last.

        Raises NotFiniteError, before the weights are touched, when the loss is not finite.
        """
        self.model.train()
        batches = feed(self.loader.batches(start=self.step_number), self.device)
        while self.step_number < self.settings.steps:
            # What overflows ends in a loss that is not finite, which is looked at and explained.
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                step = self._step(next(batches))
            yield step

    def loss(self, logits: Tensor, labels: Any) -> Tensor:
        """What is made small: the cross-entropy and, if the settings say so, the soft IoU."""
        loss = F.cross_entropy(
            logits,
            labels,
            weight=self.weight,
            ignore_index=VOID,
            reduction=self.settings.loss_reduction,
        )
        if self.settings.iou_loss:
            loss = loss + self.settings.iou_loss * soft_iou_loss(logits, labels, VOID)
        return loss

    def memory_plan(self, size: tuple[int, int]) -> MemoryPlan | None:
        """What a step on pictures of this (height, width) will take; None where not on the CPU.

        Raises MemoryError if the system does not even promise so much.
        """
        if self.device != "cpu":
            return None
        return memory_plan(
            self.model,
            (self.model.config["in_channels"], *size),
            self.settings.batch_size,
            loss=self.loss,
            optimizer=lambda parameters: optimizer_of(self.settings, self.model),
            averaged=True,
        )

    def _step(self, fed: Fed) -> Step:
        self.optimizer.zero_grad()
        logits = self.model(Tensor(fed.images))
        loss = self.loss(logits, fed.labels)
        value = float(loss.item())
        if not math.isfinite(value):
            raise NotFiniteError(f"the loss became {value}", self.step_number + 1)
        loss.backward()
        self.optimizer.step()
        rate = self.optimizer.param_groups[0]["lr"]
        self.schedule.step()
        self.step_number += 1
        follow(self.segmenter.model, self.model, self.settings.average, self.step_number)

        now = ConfusionMatrix(len(self.segmenter.classes))
        now.update(fed.batch.labels, logits.argmax(1).numpy(), VOID)
        self.running = FADE * self.running + now.counts
        # Scores are quotients, which a matrix of fading counts gives as well as one of integers.
        now.counts = self.running  # type: ignore[assignment]
        return Step(
            self.step_number,
            value,
            rate,
            now.pixel_accuracy,
            now.mean_iou,
            len(fed.batch.images),
        )

    def checkpoint(self, more: dict[str, Any]) -> Checkpoint:
        """All of the state, with `more` JSON values beside it.

        Raises NotFiniteError rather than give a model with a weight that is not finite.
        """
        model = self.model.state_dict()
        for name, array in model.items():
            if not np.isfinite(array).all():
                raise NotFiniteError(f"{name} became NaN or infinite", self.step_number)
        training = {f"model/{n}": a for n, a in model.items()}
        training |= {f"optimizer/{n}": a for n, a in self.optimizer.state_dict().items()}
        training["running"] = self.running
        about = {
            **self.segmenter.about(),
            "settings": self.settings.as_dict(),
            "step": self.step_number,
            "generators": [g.bit_generator.state for g in self._generators()],
            **more,
        }
        return Checkpoint(self.segmenter.model.state_dict(), about, training)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to the state in a checkpoint of a run with the same settings.

        Raises InputError when the checkpoint lacks that state or fits another model.
        """
        if not checkpoint.training:
            raise InputError("it holds a model alone; give the file with the state of the training")
        self.segmenter.model.load_state_dict(checkpoint.model)
        self.model.load_state_dict(under("model/", checkpoint.training))
        self.optimizer.load_state_dict(under("optimizer/", checkpoint.training))
        try:
            self.running = checkpoint.training["running"].reshape(self.running.shape)
            self.step_number = int(checkpoint.about["step"])
            states = checkpoint.about["generators"]
            for generator, state in zip(self._generators(), states, strict=True):
                generator.bit_generator.state = state
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"its training state is incomplete ({error})") from error
        self.schedule.step(self.step_number)

    def _generators(self) -> list[np.random.Generator]:
        """Those that draw during training: dropout's. Batches draw from (seed, number) alone."""
        return [layer.generator for layer in self.model.modules() if isinstance(layer, Dropout)]


def _model(settings: Settings, num_classes: int) -> FCN:
    given: dict[str, Any] = {
        "head": settings.head,
        "widths": settings.widths,
        "upsample": settings.upsample,
        "generator": np.random.default_rng(settings.seed),
    }
    if settings.trunk in RESNET_BLOCKS:
        return fcn_on(settings.trunk, num_classes, **given)
    given |= {
        "dropout": settings.dropout,
        "padding": settings.padding,
        "at_once": settings.at_once,
    }
    if settings.trunk in TRUNKS:
        return fcn_on(settings.trunk, num_classes, **given)
    return FCN(num_classes, convs=settings.convs, fc_channels=settings.fc_channels, **given)


def _normalisation(
    settings: Settings, data: Dataset
) -> tuple[tuple[float, ...], tuple[float, ...]] | tuple[None, None]:
    """Mean and deviation of each channel over the training pictures; None for each its own."""
    if settings.normalise == "picture":
        return None, None
    if settings.normalise == "weights":
        return settings.mean, settings.std
    if settings.normalise in KNOWN:
        return KNOWN[settings.normalise]
    mean, std = channel_statistics(data)
    # A channel without variation says nothing, and must not be divided by zero.
    return tuple(mean.tolist()), tuple(float(v) if v > 0 else 1.0 for v in std)
