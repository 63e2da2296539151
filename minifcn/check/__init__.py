"""Checks that a derivative is right: finite differences, adjoints, one device against another.

`gradcheck` and `gradgradcheck` compare first and second derivatives with finite differences,
`adjoint` tests a linear operation at its real size, `parity` runs one function on several devices.
"""

from minifcn.check.adjoint import AdjointReport, adjoint
from minifcn.check.gradcheck import gradcheck, gradgradcheck
from minifcn.check.parity import ParityReport, parity
from minifcn.check.report import InputReport, Report

__all__ = [
    "AdjointReport",
    "InputReport",
    "ParityReport",
    "Report",
    "adjoint",
    "gradcheck",
    "gradgradcheck",
    "parity",
]
