"""Training: settings, recipes, the loop, checkpoints, the log, evaluation."""

from minifcn.training.checkpoint import Checkpoint
from minifcn.training.evaluate import Evaluation, evaluate
from minifcn.training.run import Observer, Run
from minifcn.training.segmenter import Segmenter
from minifcn.training.settings import Settings
from minifcn.training.trainer import Step, Trainer

__all__ = [
    "Checkpoint",
    "Evaluation",
    "Observer",
    "Run",
    "Segmenter",
    "Settings",
    "Step",
    "Trainer",
    "evaluate",
]
