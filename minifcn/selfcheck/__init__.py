"""A device held against the reference: does it compute what the NumPy definitions say, how fast?

For the first person with a card of a kind: `minifcn selfcheck --device cuda`.
"""

from minifcn.selfcheck.cases import CASES, Case
from minifcn.selfcheck.speed import Speed, speeds
from minifcn.selfcheck.training import differences, repeated, step
from minifcn.selfcheck.values import Finding, findings

__all__ = [
    "CASES",
    "Case",
    "Finding",
    "Speed",
    "differences",
    "findings",
    "repeated",
    "speeds",
    "step",
]
