"""What training will take of memory, in a line or as a table."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from minifcn.data.folder import PairedFiles
from minifcn.data.pictures import picture_size
from minifcn.study import LayerMemory, MemoryPlan, free_memory
from minifcn.training import Trainer

MEND = (
    "give a smaller --crop or --batch-size, or --gradient-checkpointing on, which keeps less and "
    "computes it again"
)


def say_memory(trainer: Trainer, train: PairedFiles, console: Console) -> None:
    """One line on what a step of this run will take, and a warning if that is not there."""
    settings = trainer.settings
    size = settings.crop or settings.resize or _largest(train)
    free = free_memory(trainer.device)
    try:
        plan = trainer.memory_plan(size)
    except MemoryError:
        console.print(
            f"warning: a training step will take more memory than this system gives: {MEND}",
            soft_wrap=True,
        )
        return
    if plan is None:
        if trainer.device == "cuda" and free is not None:
            console.print(f"{amount(free)} of the card's memory are free", soft_wrap=True)
    else:
        there = plan.weights + plan.averaged  # the models are in memory by now,
        there += plan.state if trainer.optimizer.state else 0  # and in a resumed run this
        copies = plan.weights + plan.averaged + plan.state  # a save writes what it has copied
        saving = f"; a save copies {amount(copies)} for a moment"
        console.print(sum_up(plan, free, there) + saving, soft_wrap=True)
        if free is not None and plan.total + copies - there > free:
            console.print(f"warning: that may not fit: {MEND}", soft_wrap=True)


def _largest(train: PairedFiles) -> tuple[int, int]:
    """The height and the width that the pictures of a batch may be padded to."""
    sizes = [picture_size(path) for path in train.images]
    return max(h for h, _ in sizes), max(w for _, w in sizes)


def sum_up(plan: MemoryPlan, free: int | None, there: int = 0) -> str:
    """The plan in a line; ``there``: bytes of it that are taken already."""
    n, _, h, w = plan.input
    averaged = f", their average {amount(plan.averaged)}" if plan.averaged else ""
    spare = "" if free is None else f"; {amount(free + there)} are there for it"
    return (
        f"a training step on {n} × {w}×{h} will take about {amount(plan.total)} (weights "
        f"{amount(plan.weights)}{averaged}, gradients {amount(plan.gradients)}, optimiser "
        f"{amount(plan.state)}; kept for the way back {amount(plan.kept)}){spare}"
    )


def plan_table(plan: MemoryPlan, title: str) -> Table:
    """A row for each layer: what it keeps for backward, and the most that is held meanwhile."""
    n, c, h, w = plan.input
    heading = Text(f"{title}, a training step on {n} × {c}×{h}×{w}")
    rows = Table(title=heading, title_justify="left", box=SIMPLE_HEAD, show_footer=True)
    rows.add_column("layer", footer="all", no_wrap=True)
    rows.add_column("operations", overflow="fold")
    for name, footer in (
        ("weights", plan.weights),
        ("kept more after it", plan.kept),
        ("highest in its backward", plan.highest),
    ):
        rows.add_column(name, justify="right", footer=amount(footer))
    for layer in plan.layers:
        rows.add_row(*_cells(layer, plan.highest))
    return rows


def _cells(layer: LayerMemory, highest: int) -> list[Text]:
    bold = "bold" if layer.backward == highest else ""
    return [
        Text(layer.name),
        Text(" + ".join(layer.kinds)),
        Text(amount(layer.weights) if layer.weights else ""),
        Text(amount(layer.kept)),
        Text(amount(layer.backward), bold),
    ]


def amount(number: int) -> str:
    """Bytes in KiB, MiB or, from 10 on, GiB."""
    if abs(number) >= 10 * 2**30:
        return f"{number / 2**30:.1f} GiB"
    if abs(number) >= 2**20 / 10:
        return f"{number / 2**20:,.1f} MiB"
    return f"{number / 2**10:.1f} KiB"
