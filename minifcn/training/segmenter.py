"""A model together with all that is needed to label a picture with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minifcn import functional as F
from minifcn.data.loader import normalise
from minifcn.data.sample import Sample
from minifcn.data.transforms import Resize
from minifcn.errors import InputError, ShapeError, one_line
from minifcn.models import FCN, from_config
from minifcn.recording import no_grad
from minifcn.tensor import Tensor
from minifcn.training.checkpoint import Checkpoint
from minifcn.training.views import averaged


@dataclass
class Segmenter:
    """A model, the names and colours of its classes, and how its pictures are prepared.

    `palette` uint8 (n, 3). `mean` and `std` are three numbers for pixels scaled to 0..1, or both
    None: each picture by its own (see `minifcn.data.loader.normalise`).
    `resize`: (height, width) to which each picture is brought before the model sees it, or None.
    `views`: whose answers are averaged, see `minifcn.training.views`; no part of a checkpoint.
    """

    model: FCN
    classes: tuple[str, ...]
    palette: np.ndarray
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    resize: tuple[int, int] | None = None
    views: str = "one"

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Class probabilities of pictures of one size: uint8 (N, H, W, 3) → float32 (N, K, H, W).

        The model runs where it lives, in evaluation mode, without a graph, and is left in the mode
        it was in.
        """
        return averaged(self._of_one_view, images, self.views)

    def _of_one_view(self, images: np.ndarray) -> np.ndarray:
        size = images.shape[1:3]
        x = self.prepared(images)
        was_training = self.model.training
        self.model.eval()
        try:
            with no_grad():
                logits = self.model(x)
                if logits.shape[2:] != size:
                    logits = F.interpolate(logits, size=size, mode="bilinear")
                return F.softmax(logits, 1).numpy()
        finally:
            self.model.train(was_training)

    def prepared(self, images: np.ndarray) -> Tensor:
        """What the model is shown, where it lives: uint8 (N, H, W, 3) → float32 (N, 3, P, Q)."""
        x = np.stack([normalise(self.resized(image), self.mean, self.std) for image in images])
        # A transposed view: (N, C, H, W) over the channels-last memory of the kernels.
        return Tensor(x.transpose(0, 3, 1, 2)).to(next(self.model.parameters()).device)

    def resized(self, image: np.ndarray) -> np.ndarray:
        """The picture (H, W, 3) at the size at which the model sees it, (P, Q, 3)."""
        if self.resize is None:
            return image
        height, width = self.resize
        unlabelled = Sample("", image, np.zeros(image.shape[:2], np.uint8))
        return Resize(width=width, height=height)(unlabelled).image

    def label(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Label pictures of one size: uint8 (N, H, W, 3) → classes uint8, confidence float32.

        Both results are (N, H, W); the confidence is the probability of the class chosen.
        """
        probabilities = self.probabilities(images)
        return probabilities.argmax(axis=1).astype(np.uint8), probabilities.max(axis=1)

    def about(self) -> dict[str, Any]:
        """All but the weights, as JSON values for a checkpoint."""
        return {
            "model": self.model.config,
            "classes": list(self.classes),
            "palette": self.palette.tolist(),
            "mean": None if self.mean is None else list(self.mean),
            "std": None if self.std is None else list(self.std),
            "resize": None if self.resize is None else list(self.resize),
        }

    @classmethod
    def load(cls, path: Path) -> Segmenter:
        """The model in a checkpoint file, or the best one in the folder of a run."""
        path = checkpoint_file(path)
        return cls.from_checkpoint(Checkpoint.load(path), path)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, path: Path) -> Segmenter:
        """Rebuild the model and load its weights; `path` is for the messages alone.

        Raises InputError when the description is incomplete or the weights are another model's.
        """
        about = checkpoint.about
        try:
            # The generator fills weights that are overwritten at once.
            model = from_config(about["model"], generator=np.random.default_rng(0))
            segmenter = cls(
                model,
                tuple(str(name) for name in about["classes"]),
                np.array(about["palette"], np.uint8).reshape(-1, 3),
                _three(about["mean"]),
                _three(about["std"]),
                None if about["resize"] is None else (about["resize"][0], about["resize"][1]),
            )
        except (KeyError, TypeError, ValueError, OverflowError, IndexError) as error:
            raise InputError(
                f"{path} describes a model that this minifcn cannot build ({one_line(error)}); "
                "use the minifcn that wrote it"
            ) from error
        try:
            model.load_state_dict(checkpoint.model)
        except (InputError, ShapeError, KeyError) as error:
            raise InputError(
                f"{path} holds the weights of another model than it describes ({one_line(error)}); "
                "take a checkpoint that was not edited"
            ) from error
        model.eval()
        return segmenter


def checkpoint_file(path: Path) -> Path:
    """A folder of a run stands for its `best.safetensors`; a file for itself.

    Raises InputError for a path that is neither, and for a run that has no such file yet.
    """
    if not path.exists():
        raise InputError(
            f"{path} does not exist; give the folder of a run, such as runs/nuclei-fcn2s, or a "
            ".safetensors file that `minifcn train` wrote"
        )
    if not path.is_dir():
        return path
    best = path / "best.safetensors"
    if best.is_file():
        return best
    if (path / "checkpoint.safetensors").is_file():
        raise InputError(
            f"{path} has no best.safetensors, for it stopped before its first validation; go on "
            f"with: minifcn train --resume {path}"
        )
    raise InputError(f"{path} is not the folder of a run: it holds no best.safetensors; give one")


def _three(values: Any) -> tuple[float, ...] | None:
    if values is None:
        return None
    if len(values) != 3:
        raise ValueError(f"{len(values)} channels of normalisation, wanted 3")
    return tuple(float(v) for v in values)
