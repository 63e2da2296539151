"""One line of the result: what was measured, for whom, and whether it keeps its bar."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from minifcn.bench.contenders import CPU, TEXTBOOK

RATIO, AT_MOST, AT_LEAST = "ratio", "at most", "at least"


@dataclass
class Row:
    """``figures``: the median of each contender that was measured, in ``unit``.

    ``kind`` says what is held against the bar: RATIO, minifcn's figure over PyTorch's best, which
    is to be at most the bar; AT_MOST, minifcn's figure itself; AT_LEAST, how many times the figure
    "1 thread" is that of "2 threads".

    ``least``: the smallest time of each, where several were taken. On a busy machine, which can
    only make things slower, `at_best` is nearer the truth than the medians; the verdict is theirs.
    """

    suite: str
    name: str
    unit: str
    figures: dict[str, float]
    bar: float | None = None
    kind: str = RATIO
    flops: int | None = None
    least: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def own(self) -> float | None:
        """Minifcn's figure."""
        return self.figures.get(CPU.name)

    @property
    def best_torch(self) -> str | None:
        """PyTorch's contender with the smallest figure, if one was measured."""
        names = [name for name in self.figures if name.startswith("torch")]
        return min(names, key=self.figures.__getitem__, default=None)

    @property
    def rival(self) -> str | None:
        """Whom minifcn is compared with: PyTorch at its best, without it the textbook."""
        return self.best_torch or (TEXTBOOK.name if TEXTBOOK.name in self.figures else None)

    @property
    def value(self) -> float | None:
        """What is held against the bar; None if it could not be measured."""
        if self.kind == AT_LEAST:
            both = [self.figures.get(name) for name in ("1 thread", "2 threads")]
            return None if None in both else both[0] / both[1]  # type: ignore[operator]
        if self.kind == AT_MOST:
            return self.own
        if self.own is None or self.rival is None:
            return None
        return self.own / self.figures[self.rival]

    @property
    def at_best(self) -> float | None:
        """The ratio of the smallest times: minifcn's over PyTorch's, or whoever the rival is."""
        others = [t for name, t in self.least.items() if name.startswith("torch")]
        if not others and self.rival in self.least:
            others = [self.least[self.rival]]
        if not others or CPU.name not in self.least:
            return None
        return self.least[CPU.name] / min(others)

    @property
    def kept(self) -> bool | None:
        """Whether the bar is kept; None where there is none, or nobody to compare with."""
        if self.bar is None or self.value is None:
            return None
        if self.kind == RATIO and self.best_torch is None:
            return None
        return self.value >= self.bar if self.kind == AT_LEAST else self.value <= self.bar

    @property
    def gflops(self) -> float | None:
        """Minifcn's rate, in 10⁹ operations of a direct convolution a second; for times in ms."""
        if self.flops is None or self.own is None:
            return None
        return self.flops / self.own / 1e6

    def as_json(self) -> dict[str, Any]:
        """The fields and what follows from them."""
        derived = {"value": self.value, "at_best": self.at_best, "rival": self.rival}
        return asdict(self) | derived | {"kept": self.kept, "gflops": self.gflops}
