"""A second process compiles nothing: all kernels of a training step come from the disk.

The first one compiles everything anew, which takes most of a minute: `pytest -m slow`.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def compiled(folder, *arguments):
    """The kernels that a process with this cache compiles for a step of training."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.check_compiled", *arguments],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "NUMBA_CACHE_DIR": str(folder)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


@pytest.mark.slow
def test_a_second_process_compiles_nothing(tmp_path):
    first = compiled(tmp_path)
    assert len(first) > 15 and "im2col._multiply_loop" in first
    assert compiled(tmp_path) == []
    assert compiled(tmp_path, "plant") == ["im2col._pack_loop"]
