"""`minifcn selfcheck`: whether a device computes what it should, and how fast."""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from minifcn import __version__
from minifcn import selfcheck as checks
from minifcn.cli.console import standard_output
from minifcn.cli.doctor import findings as machine
from minifcn.cli.finish import save_text
from minifcn.cli.place import place
from minifcn.errors import one_line

STEPS, CLOSE = 20, 2e-3
"""Training steps beside the CPU's; how far the losses may drift apart by rounding, relatively."""

SANITIZER = """\
for reads out of bounds and races on the card itself, by NVIDIA's memcheck, racecheck, initcheck and
synccheck; without CuPy's pool, in which arrays lie side by side, so that the end of each is known:
  compute-sanitizer --tool memcheck python -c "import cupy; cupy.cuda.set_allocator(None); \
from minifcn.cli.main import main; main(['selfcheck', '--device', 'cuda'])"
"""


def selfcheck(arguments: argparse.Namespace) -> int:
    """Check and report; 0 if all agrees, 1 if something differs."""
    console = standard_output()
    name = place(arguments.device, console)
    here = {line.what: line.found for line in machine()} | {"node": platform.machine()}
    found = _values(name, console)
    if not all(finding.ok for finding in found):
        _say(console, "training is not tried on kernels that differ")
        training: dict[str, Any] = {"steps": 0, "ok": False}
    else:
        try:
            training = _training(name, console)
        except Exception as error:  # of the device: whatever it says is what there is to report
            _say(console, f"✗ training: {type(error).__name__}: {one_line(error)}")
            training = {"steps": 0, "ok": False, "error": one_line(error)}
    rows: list[dict[str, Any]] = []
    if name == "cuda" and training["ok"]:
        rows = _speeds(console)
    elif name == "cuda-sim":
        _say(console, "cuda-sim runs the kernels on the CPU: their times mean nothing")
    ok = training["ok"] and all(finding.ok for finding in found)
    if arguments.json is not None:
        report = {
            "minifcn": __version__,
            "date": date.today().isoformat(),
            "device": name,
            "machine": here,
            "ok": ok,
            "checks": [asdict(finding) for finding in found],
            "training": training,
            "speed": rows,
        }
        save_text(json.dumps(report, indent=1, default=str) + "\n", Path(arguments.json))
    _say(console, "all agrees" if ok else "something differs: please report it with the JSON file")
    if name == "cuda":
        _say(console, SANITIZER)
    return 0 if ok else 1


def _values(name: str, console: Console) -> list[checks.Finding]:
    found = []
    with console.status("the kernels") as status:
        for finding in checks.findings(name):
            status.update(f"{finding.case}: {finding.check}")
            found.append(finding)
            if not finding.ok:
                _say(console, f"✗ {finding.case}, {finding.check}: {_how(finding)}")
    table = Table(title=f"{name} against the reference", title_justify="left", show_edge=False)
    for heading in ("check", "cases", "agree", "largest error"):
        table.add_column(heading, justify="left" if heading == "check" else "right")
    for check in dict.fromkeys(finding.check for finding in found):
        those = [finding for finding in found if finding.check == check]
        worst = max(finding.error for finding in those)
        table.add_row(check, str(len(those)), str(sum(f.ok for f in those)), f"{worst:.1e}")
    console.print(table)
    return found


def _how(finding: checks.Finding) -> str:
    return finding.note or f"relative error {finding.error:.1e}"


def _training(name: str, console: Console) -> dict[str, Any]:
    """Losses beside the CPU's, and twice the same on the device."""
    with console.status(f"{STEPS} training steps beside the CPU's"):
        drift = checks.differences(name, STEPS)
        equal = checks.repeated(name)
    ok = max(drift) <= CLOSE and equal
    _say(
        console,
        f"{STEPS} training steps of an FCN-8s: losses differ from the CPU's by at most "
        f"{max(drift):.1e}; {'equal' if equal else 'DIFFERENT'} bits when repeated",
    )
    return {"steps": STEPS, "differences": drift, "equal_bits": equal, "ok": ok}


def _speeds(console: Console) -> list[dict[str, Any]]:
    table = Table(title="speed, float32", title_justify="left", show_edge=False)
    for heading in ("", "ms", "GB/s", "GFLOP/s", "PyTorch, ms"):
        table.add_column(heading, justify="right" if heading else "left")
    rows = []
    try:
        for speed in checks.speeds():
            beside = "" if speed.torch_ms is None else f"{speed.torch_ms:.3f}"
            rates = f"{speed.gb_s:.0f}", f"{speed.gflop_s:.0f}"
            table.add_row(speed.name, f"{speed.ms:.3f}", *rates, beside)
            rows.append(asdict(speed) | {"gb_s": speed.gb_s, "gflop_s": speed.gflop_s})
    except Exception as error:  # too little memory, say: the report is worth having all the same
        _say(console, f"✗ the times end here: {type(error).__name__}: {one_line(error)}")
    console.print(table)
    return rows


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
