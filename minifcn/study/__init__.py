"""Pictures that show what a model does: overlay, panel, curves, confusion matrix.

Each function draws and returns a picture; none writes a file.
"""

from minifcn.study.confusion import confusion_csv, draw_confusion
from minifcn.study.curves import draw_curves
from minifcn.study.overlay import draw_overlay
from minifcn.study.panel import Example, draw_panel
from minifcn.study.pictures import blend, colour, error_map

__all__ = [
    "Example",
    "blend",
    "colour",
    "confusion_csv",
    "draw_confusion",
    "draw_curves",
    "draw_overlay",
    "draw_panel",
    "error_map",
]
