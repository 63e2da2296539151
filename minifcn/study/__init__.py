"""What a model does and is made of: overlay, panel, curves, confusion matrix; its layers.

The functions draw and return pictures, `summary` a table of layers; none writes a file.
"""

from minifcn.study.confusion import confusion_csv, draw_confusion
from minifcn.study.curves import draw_curves
from minifcn.study.overlay import draw_overlay
from minifcn.study.panel import Example, draw_panel
from minifcn.study.pictures import blend, colour, error_map
from minifcn.study.summary import Layer, Summary, summary

__all__ = [
    "Example",
    "Layer",
    "Summary",
    "blend",
    "colour",
    "confusion_csv",
    "draw_confusion",
    "draw_curves",
    "draw_overlay",
    "draw_panel",
    "error_map",
    "summary",
]
