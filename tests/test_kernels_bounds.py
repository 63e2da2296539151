"""No kernel reads or writes past its arrays, and each can be the first that a process runs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*arguments, **settings):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="the pages are closed by Linux's mprotect")
def test_no_element_beyond_an_array():
    result = run("-m", "tests.check_bounds")
    assert result.returncode == 0 and "nothing beyond" in result.stdout, result.stderr
    assert run("-m", "tests.check_bounds", "plant").returncode == -signal.SIGSEGV


ALONE = """
import sys, numpy as np, minifcn as mf, minifcn.functional as F
x = mf.Tensor(np.ones((1, 16, 100, 100), np.float32), requires_grad=True)
{"relu": lambda: F.relu(x), "pool": lambda: F.max_pool2d(x, 2)}[sys.argv[1]]()
"""


FORKED = """
import os, sys, numpy as np, minifcn as mf, minifcn.functional as F
x = mf.Tensor(np.ones((1, 16, 100, 100), np.float32))
child = os.fork()
assert (F.relu(x).numpy() == 1).all()
sys.exit(os.waitpid(child, 0)[1] if child else 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_an_import_alone_starts_no_threads_that_a_forked_process_would_lack(tmp_path):
    assert run("-c", FORKED, NUMBA_CACHE_DIR=str(tmp_path)).returncode == 0


def test_a_kernel_from_the_disk_can_be_the_first_that_runs(tmp_path):
    """The second is compiled where the loop for jobs comes from the disk; the third loads it."""
    for kernel in ("relu", "pool", "pool"):
        result = run("-c", ALONE, kernel, NUMBA_CACHE_DIR=str(tmp_path))
        assert result.returncode == 0, (kernel, result.returncode, result.stderr)
