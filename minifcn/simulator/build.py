"""A kernel's text → a compiled library, by g++, kept in a folder of the user's.

The text is compiled as it is, behind ``cuda_language.h``, and linked with the machine that runs it
(``runtime.cpp``, compiled once). Two builds: **fast**, and **checked**, in which g++ puts a call
before every memory access (``-fsanitize=thread``) and beside arithmetic that can overflow; the
machine answers those calls itself. Sums and products are never contracted, so that both give the
same bits on every processor.

The folder is ``$MINIFCN_SIMULATOR_CACHE``, or ``minifcn/simulator`` in ``$XDG_CACHE_HOME`` or
``~/.cache``. A file there is named by what it was made of, is written beside and renamed: several
processes may build at once.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from minifcn.errors import InputError

HERE = Path(__file__).parent
KERNEL = re.compile(
    r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)'
)
DYNAMIC = re.compile(
    r"extern\s+__shared__\s+(?:__align__\s*\(\s*\d+\s*\)\s*)?(\w[\w ]*?)\s+(\w+)\s*\[\s*\]\s*;"
)
LANGUAGE = ("-std=c++17", "-fPIC", "-w", "-ffp-contract=off", "-fno-strict-aliasing")
FAST = ("-O2", "-ftree-vectorize", "-march=native")
CHECKED = (
    "-DCHECKED",
    "-O1",
    "-gdwarf-4",  # addr2line mistakes the files of later versions
    "-fsanitize=thread,signed-integer-overflow,integer-divide-by-zero,shift,bounds",
    "--param=tsan-instrument-func-entry-exit=0",
    # keep a float4 one access of 16 bytes, and every loop's accesses where they stand
    "-fno-tree-sra",
    "-fno-ipa-sra",
    "-fno-inline-functions-called-once",
    "-fno-tree-loop-distribute-patterns",
)


def kernel_names(code: str) -> list[str]:
    """The kernels that a text defines."""
    return KERNEL.findall(code)


def parameter_names(code: str, kernel: str, count: int) -> list[str]:
    """What the text calls a kernel's parameters; "argument 0" and so on if that cannot be read."""
    plain = re.sub(r"//[^\n]*|/\*.*?\*/", " ", code, flags=re.DOTALL)
    found = re.search(rf"__global__[^;{{}}]*?\b{kernel}\s*\(([^)]*)\)", plain)
    names = re.findall(r"(\w+)\s*(?:,|$)", found[1].strip()) if found else []
    return names if len(names) == count else [f"argument {i}" for i in range(count)]


def shared_object(code: str, options: Sequence[str], checked: bool) -> Path:
    """The shared object made of a ``.cu`` text, compiled now or before.

    Raises:
        InputError: if there is no g++, or the text does not compile.
    """
    compiler = _compiler()
    defines = [option for option in options if option.startswith("-D")]
    flags = [*LANGUAGE, *(CHECKED if checked else FAST), *defines, f"-I{HERE}"]
    text = _translation_unit(code)
    target = _folder() / f"{_name(text, _machine_text(), *flags[:-1], _processor())}.so"
    if not target.exists():
        machine = _machine(compiler)
        with tempfile.TemporaryDirectory(dir=_folder()) as own:
            compiled = Path(own) / "kernel.o"
            _compile([compiler, *flags, "-x", "c++", "-", "-c"], text, compiled)
            # without the flags: the machine stands in for the sanitizers' libraries
            _compile([compiler, "-shared", str(compiled), str(machine)], "", target)
    return target


def _translation_unit(code: str) -> str:
    """Behind the language: the text itself in a namespace, and a way in to each kernel."""
    code = DYNAMIC.sub(r"\1* \2 = (\1*)simulated_dynamic_shared_memory();", code)
    ways_in = "\n".join(f"SIMULATED_KERNEL({name})" for name in kernel_names(code))
    language = f'#include "{HERE / "cuda_language.h"}"'
    return f'{language}\nnamespace {{\n#line 1 "kernel.cu"\n{code}\n}}\n{ways_in}\n'


def _machine(compiler: str) -> Path:
    flags = ["-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden", "-w"]
    target = _folder() / f"machine-{_name(_machine_text(), *flags)}.o"
    if not target.exists():
        _compile([compiler, *flags, str(HERE / "runtime.cpp"), "-c"], "", target)
    return target


@functools.cache
def _machine_text() -> str:
    """All that a library is made of besides the kernel's text, and how."""
    files = sorted(HERE.glob("*.h")) + [HERE / "runtime.cpp", Path(__file__)]
    return "".join(path.read_text() for path in files)


def _compile(command: list[str], text: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=target.parent, suffix=target.suffix)
    os.close(handle)
    try:
        done = subprocess.run([*command, "-o", beside], input=text, capture_output=True, text=True)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "error" in line] or [done.stderr]
            raise InputError(f"g++ cannot compile the kernel: {lines[0].strip()}")
        os.chmod(beside, 0o755)
        os.replace(beside, target)
    finally:
        Path(beside).unlink(missing_ok=True)


def _compiler() -> str:
    found = shutil.which(os.environ.get("CXX", "g++"))
    if found is None:
        raise InputError(
            "the CUDA simulator compiles kernels with g++, which is not installed; install it "
            "(Debian, Ubuntu: `sudo apt install g++`; Fedora: `sudo dnf install gcc-c++`; "
            "conda: `conda install gxx`)"
        )
    return found


def _folder() -> Path:
    chosen = os.environ.get("MINIFCN_SIMULATOR_CACHE")
    if chosen:
        return Path(chosen)
    return (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minifcn" / "simulator"
    )


@functools.cache
def _processor() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _name(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]
