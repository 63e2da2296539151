"""Who takes part: each contender by name, with the module, the setting and the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec

from minifcn.bench import cases
from minifcn.bench.cases import Case


@dataclass(frozen=True)
class Contender:
    """``module`` is loaded in the worker alone; ``slow``: measured once, under a time limit."""

    name: str
    module: str
    setting: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    slow: bool = False

    def takes(self, case: Case) -> bool:
        """Whether this contender computes such a case."""
        if self.module == "contender_textbook":
            return isinstance(case, cases.Convolution) and case.groups == 1 and not case.transposed
        if self.setting == "reference" and isinstance(case, cases.TrainingStep):
            return case.width * case.size <= 32 * 128  # the larger ones are over the limit
        if self.setting == "reference":
            return not isinstance(case, cases.Prediction)
        if self.setting == "compile":
            return isinstance(case, cases.TrainingStep) and case.compiled
        return True


# "tuned": glibc then keeps what is freed and need not ask the system for fresh pages, which
# dominates PyTorch's point-wise operations otherwise.
KEEP_PAGES = {
    "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
}

CPU = Contender("minifcn", "contender_minifcn", "cpu")
REFERENCE = Contender("reference", "contender_minifcn", "reference", slow=True)
TEXTBOOK = Contender("textbook", "contender_textbook", slow=True)
TORCH = (
    Contender("torch", "contender_torch", "contiguous"),
    Contender("torch channels_last", "contender_torch", "channels_last"),
    Contender("torch tuned", "contender_torch", "channels_last", KEEP_PAGES),
)
COMPILED = Contender("torch compile", "contender_torch", "compile", KEEP_PAGES)

ALL = {c.name: c for c in (CPU, REFERENCE, TEXTBOOK, *TORCH, COMPILED)}


def torch_is_installed() -> bool:
    """Asked without importing it: this process stays clean of its thread pool."""
    return find_spec("torch") is not None
