"""A second process compiles nothing: all kernels of a training step come from the disk.

The first one compiles everything anew, which takes most of a minute: `pytest -m slow`.
"""

import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest

import minifcn
from minifcn.kernels.ahead import MARK


def compiled(folder, *arguments):
    """The kernels that a process with this cache compiles for a step of training."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.check_compiled", *arguments],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "NUMBA_CACHE_DIR": str(folder), MARK: "1"},  # nobody else compiles
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


@pytest.mark.slow
def test_a_second_process_compiles_nothing(tmp_path):
    first = compiled(tmp_path)
    assert len(first) > 15 and {
        "im2col._multiply_loop",
        "strip._strip",
        "gathered._summing_strip",
    } <= set(first)
    assert compiled(tmp_path) == []
    # and beside a kernel that must be compiled, the loop that hands out its jobs: see `jobs`
    assert compiled(tmp_path, "plant") == ["im2col._multiply_loop", "jobs._call_each"]


@pytest.mark.slow
def test_the_kernels_that_a_step_meets_late_are_compiled_ahead(tmp_path):
    """What the second process leaves on disk is what the first would have compiled itself.

    It is started where another package of this name lies, as in a checkout beside the installed.
    """
    if numba.get_num_threads() < 2:
        pytest.skip("one processor: nothing is compiled ahead")
    decoy = tmp_path / "here" / "minifcn"
    decoy.mkdir(parents=True)
    (decoy / "__init__.py").write_text("raise SystemExit('the wrong package')")
    code = "from minifcn.kernels import ahead; raise SystemExit(ahead.begin().wait())"
    env = {k: v for k, v in os.environ.items() if k != MARK}
    env |= {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(Path(minifcn.__file__).parents[1])}
    call = [sys.executable, "-P", "-c", code]
    subprocess.run(call, cwd=decoy.parent, env=env, check=True)
    left = compiled(tmp_path)
    assert "im2col._multiply_loop" in left and "winograd._tiles_loop" in left
    late = {
        "cross_entropy._cross_entropy_numba",
        "depthwise._row_loop",
        "depthwise._weight_loop",
        "im2col_weight._weight_loop",
        "lines_weight._weight_loop",
        "winograd_weight._weight_loop",
    }
    assert not late & set(left)
