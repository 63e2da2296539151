"""What a model does and is made of: overlay, panel, curves, confusion matrix; its layers.

The functions draw and return pictures, `summary` a table of layers, `memory_plan` what training
will take of memory, `patches_against_fcn` a table
of the patch-wise method beside a fully convolutional net; none writes a file.
"""

from minifcn.study.confusion import confusion_csv, draw_confusion
from minifcn.study.counting import Count, counting
from minifcn.study.curves import draw_curves
from minifcn.study.free_memory import free_memory
from minifcn.study.labelled import draw_labelled
from minifcn.study.memory_plan import LayerMemory, MemoryPlan, memory_plan
from minifcn.study.overlay import draw_overlay
from minifcn.study.panel import Example, draw_panel
from minifcn.study.patches_against_fcn import Comparison, patches_against_fcn
from minifcn.study.pictures import blend, colour, error_map
from minifcn.study.side_by_side import draw_side_by_side
from minifcn.study.summary import Layer, Summary, summary
from minifcn.study.upsampling import UpsamplingStage, draw_upsampling, upsampling_stages

__all__ = [
    "Comparison",
    "Count",
    "Example",
    "Layer",
    "LayerMemory",
    "MemoryPlan",
    "Summary",
    "UpsamplingStage",
    "blend",
    "colour",
    "confusion_csv",
    "counting",
    "draw_confusion",
    "draw_curves",
    "draw_labelled",
    "draw_overlay",
    "draw_panel",
    "draw_upsampling",
    "draw_side_by_side",
    "error_map",
    "free_memory",
    "memory_plan",
    "patches_against_fcn",
    "summary",
    "upsampling_stages",
]
