"""What a gradient check found: one line an input, one verdict over all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["right", "kink", "wrong"]
"""right: the derivative agrees. kink: there is none at this point (a tie, a corner), and what was
given lies between the slopes of the two sides. wrong: neither."""


def worst_verdict(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the gravest of some verdicts: wrong before kink before right."""
    if "wrong" in verdicts:
        return "wrong"
    return "kink" if "kink" in verdicts else "right"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows of text in columns as wide as their widest cell, a rule under the header."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(header, widths, strict=True)).rstrip()]
    lines.append("  ".join("-" * w for w in widths))
    for row in rows:
        lines.append("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())
    return "\n".join(lines)


@dataclass(frozen=True)
class InputReport:
    """The check of one input.

    `place` is where the largest error (or the first kink, if the verdict is kink) was found: an
    index into the input, or "direction i" for a random projection. `analytic` and `numeric` are
    the two values there. `error` is the relative error there: their difference ÷ the largest of
    the two sizes, the root mean square of the input's gradient, and atol/rtol. `largest` is the
    largest entry of the gradient: next to zero means that the check had nothing to hold on to.
    """

    name: str
    shape: tuple[int, ...]
    entries: int
    directions: int
    kinks: int
    error: float
    place: tuple[int, ...] | str
    analytic: float
    numeric: float
    largest: float
    verdict: Verdict

    def cells(self) -> list[str]:
        """Give the cells of this input's line in the table."""
        return [
            self.name,
            "×".join(map(str, self.shape)) or "scalar",
            f"{self.entries} + {self.directions}",
            f"{self.error:.1e}",
            str(self.place).replace(" ", "") if isinstance(self.place, tuple) else self.place,
            f"{self.analytic:.10g}",
            f"{self.numeric:.10g}",
            f"{self.largest:.1e}",
            self.verdict + (f" ({self.kinks} places)" if self.verdict == "kink" else ""),
        ]


@dataclass(frozen=True)
class Report:
    """A gradient check of one function: a line an input. It is true only if all are right.

    `verdict` is the gravest of the inputs' verdicts, so that a caller who knows that the point is
    a tie can ask for `report.verdict == "kink"`. `error` is the largest relative error over
    the inputs that have no kink. Printing gives a table.
    """

    title: str
    inputs: tuple[InputReport, ...]

    @property
    def verdict(self) -> Verdict:
        """The gravest verdict over the inputs: wrong, then kink, then right."""
        return worst_verdict([i.verdict for i in self.inputs])

    @property
    def ok(self) -> bool:
        """Whether every input's derivative is right (a kink is not)."""
        return self.verdict == "right"

    @property
    def error(self) -> float:
        """The largest relative error over the inputs that have no kink (0 if all have one)."""
        return max((i.error for i in self.inputs if i.verdict != "kink"), default=0.0)

    def __bool__(self) -> bool:
        """Give `ok`."""
        return self.ok

    def __str__(self) -> str:
        """Give the table."""
        header = ["input", "shape", "entries", "error", "at", "analytic", "numeric"]
        header += ["largest", "verdict"]
        lines = table(header, [i.cells() for i in self.inputs])
        return f"{self.title}: {self.verdict}\n{lines}"
