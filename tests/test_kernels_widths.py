"""The kernels at other vector widths than this processor's own, and what an import makes of them.

Numba's settings choose the processor that code is made for. Each width compiles everything anew,
in a process and a cache of its own: half a minute each, so `pytest -m slow` runs them.
"""

import os
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import pytest

ROOT = Path(__file__).parents[1]
HOST = {name for name, present in llvm.get_host_cpu_features().items() if present}
#: a processor that takes these vectors in halves: tiles of one vector and a half run there alone
HALVES = {
    "NUMBA_CPU_NAME": "znver4",
    "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+avx512f,+avx512bw,+avx512dq,+avx512vl,-sse4a",
}
WIDTHS = {  # lanes of float32: the settings, and what this processor must have to run the code
    16: (HALVES, "avx512f"),
    8: ({"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma"}, "avx2"),
    4: ({"NUMBA_CPU_NAME": "nehalem", "NUMBA_CPU_FEATURES": "+sse4.2"}, "sse4.2"),
}


def run(*arguments, **settings):
    """A Python process with these settings of Numba, and none from outside."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_CPU", "NUMBA_ENABLE"))}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**own, **settings},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("lanes", WIDTHS)
def test_every_algorithm(lanes, tmp_path):
    settings, needed = WIDTHS[lanes]
    if needed not in HOST:
        pytest.skip(f"this processor has no {needed}")
    result = run("-m", "tests.check_width", str(lanes), **settings, NUMBA_CACHE_DIR=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert f"right at {lanes} lanes" in result.stdout


def shown(**settings):
    """(bytes of a vector, registers, whether it is taken in halves) that an import finds."""
    code = "import minifcn.kernels.conv2d, minifcn.kernels.vector as v"
    result = run("-c", f"{code}; print(v.VECTOR_BYTES, v.REGISTERS, int(v.HALVES))", **settings)
    assert result.returncode == 0, result.stderr
    return tuple(int(word) for word in result.stdout.split())


def test_without_settings_the_host_s_own_width():
    wide = 64 if "avx512f" in HOST else 32 if HOST & {"avx", "avx2"} else 16
    assert shown()[:2] == (wide, 32 if HOST & {"avx512f", "neon"} else 16)


@pytest.mark.parametrize(
    "settings, found",
    [
        ({"NUMBA_CPU_NAME": "generic"}, (16, 16, 0)),
        ({"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}, (16, 16, 0)),
        (HALVES, (64, 32, 1)),
        (WIDTHS[8][0], (32, 16, 0)),
        (WIDTHS[4][0], (16, 16, 0)),
        ({"NUMBA_CPU_NAME": "cortex-a72", "NUMBA_CPU_FEATURES": "+neon"}, (16, 32, 0)),
    ],
    ids=str,
)
def test_other_processors(settings, found):
    assert shown(**settings) == found


def test_numba_s_own_switch_for_avx():
    if "avx" not in HOST:
        pytest.skip("this processor has no avx")
    assert shown(NUMBA_ENABLE_AVX="0")[:2] == (16, 16)
