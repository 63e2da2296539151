"""Everything that decides the outcome of a training run, in one frozen record."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import Any

from minifcn.data.normalisation import KNOWN
from minifcn.device import DEVICES
from minifcn.errors import InputError
from minifcn.models import RESNET_BLOCKS, TRUNKS
from minifcn.models.fcn import UPSAMPLE
from minifcn.training.views import VIEWS

OPTIMIZERS = ("adam", "sgd")
LOSS_REDUCTIONS = ("mean", "image", "batch")
RECIPES = ("none", "heavy", "batch20")
SCHEDULES = ("poly", "cosine", "constant")
NORMALISATIONS = ("dataset", "picture", *KNOWN, "weights")
VGG_WIDTHS = (16, 32, 64, 128, 128)
"""Of the trunk "vgg", if none are given."""
CLASS_WEIGHTS = ("none", "balanced")


@dataclass(frozen=True)
class Settings:
    """The settings of one run. Equal settings on equal data give equal bits.

    Sizes are (height, width) in pixels. `crop` is cut from a picture at each visit; `resize`
    is applied first, to every picture, in training and afterwards. `steps` counts batches.
    """

    layout: str = "nuclei"
    folder: str | None = None  # None: the nuclei that come with the package
    classes: tuple[str, ...] | None = None  # None: the layout's own names
    test_every: int | None = None  # layout nuclei: see `minifcn.data.nuclei.load`

    recipe: str = "none"  # or whose settings these are, see `minifcn.training.published`
    trunk: str = "vgg"  # of the widths below, or one of `minifcn.models.TRUNKS`
    head: str = "fcn8s"
    widths: tuple[int, ...] = ()  # none given: the trunk's own; ResNets have four
    convs: tuple[int, ...] = (2, 2, 2, 2, 2)
    fc_channels: int = 256
    dropout: float = 0.5
    padding: str | int = "same"  # or 100; this, `at_once` and `upsample`: see `minifcn.models.FCN`
    at_once: bool = False
    upsample: str = "learned"
    weights: str | None = None  # file that the trunk starts from
    start: str | None = None  # run whose net, of a coarser head, this one starts from

    steps: int = 400
    batch_size: int = 8
    gradient_checkpointing: bool = False  # less memory, more time; the same bits
    crop: tuple[int, int] | None = (128, 128)
    resize: tuple[int, int] | None = None
    augment: bool = True
    scale: float = 1.25  # augmentation enlarges or shrinks a picture by up to this factor
    even_kinds: float = 0.0  # layout nuclei: see `minifcn.training.even_kinds`
    normalise: str = "dataset"  # by the training set's mean and deviation, each picture's own, or
    # those that weights were trained with, see `minifcn.data.normalisation`; "weights": by
    mean: tuple[float, ...] = ()  # and
    std: tuple[float, ...] = ()  # of red, green and blue in 0..1

    optimizer: str = "adam"
    lr: float = 2e-3
    momentum: float = 0.9  # of SGD
    weight_decay: float = 1e-2
    bias_lr: float = 1.0  # biases learn at so many times the rate (of normalisations, too)
    bias_decay: bool = True  # whether weight decay pulls at biases
    schedule: str = "poly"
    warmup: int = 20
    class_weights: str = "none"
    loss_reduction: str = "mean"  # over the batch's pixels; "image": over each picture's, then over
    # the pictures; "batch": the sum over all pixels ÷ pictures, for which lr is ÷ pixels, too
    iou_loss: float = 0.0  # weight of the soft IoU beside the cross-entropy
    average: float = 0.99  # of the weights over the steps, see `minifcn.training.average`

    eval_every: int = 100
    views: str = "one"  # in the final test, see `minifcn.training.views`
    seed: int = 0
    device: str = "auto"  # cuda where that works, else cpu

    def __post_init__(self) -> None:
        """Raises InputError, naming the setting, the value found and the values wanted."""
        for name, least in (("steps", 1), ("batch_size", 1), ("eval_every", 1), ("warmup", 0)):
            _at_least(name, getattr(self, name), least)
        _at_least("seed", self.seed, 0)
        for name in ("crop", "resize"):
            size = getattr(self, name)
            if size is not None and (len(size) != 2 or min(size) < 1):
                raise InputError(f"{name} is {size}; give a height and a width of 1 or more")
        _one_of("trunk", self.trunk, ("vgg", *TRUNKS))
        if not self.widths:  # a frozen record is written to only here, before anyone has seen it
            own = TRUNKS[self.trunk]["widths"] if self.trunk in TRUNKS else VGG_WIDTHS
            object.__setattr__(self, "widths", own)
        stages = 4 if self.trunk in RESNET_BLOCKS else 5
        if len(self.widths) != stages or min(self.widths) < 1:
            raise InputError(
                f"widths is {self.widths}; give {'four' if stages == 4 else 'five'} channel counts "
                "of 1 or more"
            )
        _at_least("fc_channels", self.fc_channels, 1)
        # The stride of the deepest layer that is normalised: a crop of that size is one cell.
        deepest = {"vgg16": 0, "vgg16_bn": 16}.get(self.trunk, 32)
        if self.padding == 100:  # 26 + 198 pixels are 7 cells, and one window of fc6
            deepest = 26 if self.trunk == "vgg" else 0
        if self.batch_size == 1 and self.crop is not None and max(self.crop) <= deepest:
            raise InputError(
                f"crop is {self.crop} and batch_size 1, so that the deepest layers have one value "
                "a channel, and no variance to normalise by; give a larger crop or batch"
            )
        if not 0.0 < self.lr < float("inf"):
            raise InputError(f"lr is {self.lr}; give a learning rate above 0, such as 0.001")
        if not 0.0 <= self.weight_decay < float("inf"):
            raise InputError(f"weight_decay is {self.weight_decay}; give 0 or more")
        if not 0.0 <= self.momentum < 1.0:
            raise InputError(f"momentum is {self.momentum}; give 0 (none) or more, below 1")
        if not 0.0 <= self.bias_lr < float("inf"):
            raise InputError(f"bias_lr is {self.bias_lr}; give a factor of 0 (biases stay) or more")
        if not 1.0 <= self.scale < float("inf"):
            raise InputError(f"scale is {self.scale}; give a factor of 1 (none) or more")
        if not 0.0 <= self.dropout < 1.0:
            raise InputError(f"dropout is {self.dropout}; give 0 (none) or more, and less than 1")
        if not 0.0 <= self.iou_loss < float("inf"):
            raise InputError(f"iou_loss is {self.iou_loss}; give 0 (none) or more")
        if not 0.0 <= self.even_kinds <= 1.0:
            raise InputError(f"even_kinds is {self.even_kinds}; give 0 to 1")
        if self.even_kinds and self.layout != "nuclei":
            raise InputError(
                f"even_kinds is {self.even_kinds} and the layout {self.layout}; leave out "
                "--even-kinds, which knows the kinds of nuclei pictures alone"
            )
        if not 0.0 <= self.average < 1.0:
            raise InputError(f"average is {self.average}; give 0 (none) or more, below 1")
        _one_of("optimizer", self.optimizer, OPTIMIZERS)
        _one_of("schedule", self.schedule, SCHEDULES)
        _one_of("normalise", self.normalise, NORMALISATIONS)
        if self.normalise == "weights" and not (
            len(self.mean) == len(self.std) == 3
            and all(map(isfinite, self.mean + self.std))
            and min(self.std) > 0
        ):
            raise InputError(
                f"normalise is weights, mean {self.mean} and std {self.std}; give three numbers "
                "each, and std above 0"
            )
        if self.padding not in ("same", 100):
            raise InputError(f"padding is {self.padding!r}; choose same or 100")
        if self.trunk in RESNET_BLOCKS and (self.padding == 100 or self.at_once):
            raise InputError(
                f"padding is {self.padding} and at_once {self.at_once}, and {self.trunk} knows "
                "neither 100 nor scaled skips; leave them out"
            )
        _one_of("upsample", self.upsample, UPSAMPLE)
        _one_of("recipe", self.recipe, RECIPES)
        _one_of("loss_reduction", self.loss_reduction, LOSS_REDUCTIONS)
        _one_of("class_weights", self.class_weights, CLASS_WEIGHTS)
        _one_of("views", self.views, tuple(VIEWS))
        _one_of("device", self.device, ("auto", *DEVICES))

    @property
    def net(self) -> str:
        """The network's name: the head's, after that of the trunk if it has one."""
        return self.head if self.trunk == "vgg" else f"{self.trunk}-{self.head}"

    def as_dict(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any], exactly: bool = True) -> Settings:
        """The inverse of `as_dict`, also after a round trip through JSON.

        A missing one is as by default; unless ``exactly`` the same run is wanted. Raises
        InputError then, and for a setting that this version does not know.
        """
        known = {field.name for field in fields(cls)}
        odd_ones = set(values) ^ known if exactly else set(values) - known
        if odd_ones:
            odd = ", ".join(sorted(odd_ones))
            raise InputError(
                f"the training settings differ from this version's in: {odd}; "
                "use the minifcn that wrote them"
            )
        # JSON turns tuples into lists; a frozen record wants them back.
        restored: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**restored)


def _at_least(name: str, value: int, least: int) -> None:
    if not isinstance(value, int) or value < least:
        raise InputError(f"{name} is {value!r}; give a whole number of {least} or more")


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name} is {value!r}; choose one of {', '.join(choices)}")
