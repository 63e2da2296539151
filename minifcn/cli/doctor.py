"""`minifcn doctor`: what this machine offers, and how to mend what it lacks."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import numpy as np
from rich.markup import escape
from rich.table import Table

from minifcn import device
from minifcn.cli.console import standard_output
from minifcn.errors import one_line

ABSENT = "not installed"


class Finding(NamedTuple):
    """One line of the table; ``mend`` is empty where all is well."""

    what: str
    found: str
    mend: str = ""


def doctor() -> int:
    """Print the table. It ends in 0: a machine without a GPU is not ill."""
    table = Table(title="minifcn on this machine", title_justify="left", show_edge=False)
    for heading in ("", "found", "mend"):
        table.add_column(heading, overflow="fold")
    for finding in findings():
        table.add_row(*map(escape, finding))
    standard_output().print(table)
    return 0


def findings() -> list[Finding]:
    """Everything looked at, in the order of the table."""
    return [
        Finding("Python", f"{platform.python_version()} on {platform.system()}"),
        Finding("device cpu", f"Numba {_version('numba')}, NumPy {np.__version__}"),
        Finding("BLAS", _blas()),
        _threads(),
        _cuda(),
        _driver(),
        _package("CuPy", _cupy_package()),
        _nvrtc(),
        _simulator(),
        _compiler(),
    ]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ABSENT


def _blas() -> str:
    config: Any = np.show_config(mode="dicts")
    blas = (config or {}).get("Build Dependencies", {}).get("blas", {})
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()


def _threads() -> Finding:
    import numba

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    used = numba.get_num_threads()
    mend = "" if used == cores else "unset NUMBA_NUM_THREADS to use all cores"
    return Finding("threads", f"{used} of {cores} cores", mend)


def _cuda() -> Finding:
    reason = device.why_not("cuda")
    if reason is None:
        return Finding("device cuda", _card())
    what, _, mend = reason.partition("; ")
    return Finding("device cuda", what, mend or "none needed: the device cpu does all it does")


def _card() -> str:
    runtime = device.module("cuda").cuda.runtime
    card = runtime.getDeviceProperties(0)
    memory = card["totalGlobalMem"] / 2**30
    return f"{card['name'].decode()}, sm_{card['major']}{card['minor']}, {memory:.0f} GiB"


def _driver() -> Finding:
    driver = device.driver_version()
    if driver is None:
        return Finding("NVIDIA driver", ABSENT, "with an NVIDIA card: install its driver")
    return Finding("NVIDIA driver", f"speaks CUDA {device.version_text(driver)}")


def _extra() -> str:
    return "cuda13" if (device.driver_version() or 12000) >= 13000 else "cuda12"


def _cupy_package() -> str:
    names = ("cupy-cuda12x", "cupy-cuda13x", "cupy")
    return next((name for name in names if _version(name) != ABSENT), names[0])


def _package(what: str, name: str) -> Finding:
    found = _version(name)
    if found == ABSENT:
        return Finding(what, found, f"with a GPU: pip install 'minifcn[{_extra()}]'")
    return Finding(what, f"{name} {found}")


def _nvrtc() -> Finding:
    """NVIDIA's compiler, through CuPy: it needs no GPU."""
    if _version(_cupy_package()) == ABSENT:
        return Finding("NVRTC", "comes with CuPy", "")
    try:
        nvrtc = importlib.import_module("cupy_backends.cuda.libs.nvrtc")
        major, minor = nvrtc.getVersion()
    except Exception as error:
        return Finding(
            "NVRTC", f"cannot be loaded ({one_line(error)})", f"pip install 'minifcn[{_extra()}]'"
        )
    return Finding("NVRTC", f"{major}.{minor}")


def _simulator() -> Finding:
    reason = device.why_not("cuda-sim")
    if reason is None:
        return Finding("device cuda-sim", "the GPU's kernels run on the CPU, slowly")
    return Finding("device cuda-sim", "cannot be used", reason.partition("; ")[2] or reason)


def _compiler() -> Finding:
    path = shutil.which("g++")
    if path is None:
        return Finding("g++", ABSENT, "for cuda-sim: apt install g++ (macOS: brew install gcc)")
    asked = subprocess.run([path, "-dumpfullversion"], capture_output=True, text=True, check=False)
    return Finding("g++", asked.stdout.strip() or path)
