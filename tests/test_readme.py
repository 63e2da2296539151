"""README's snippets run, and the package works from where a newcomer starts it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_snippets_run(capsys):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    names: dict = {}
    for block in blocks:  # the second goes on where the first ends
        exec(block, names)
    printed = capsys.readouterr().out
    assert "(1, 21, 180, 240)" in printed
    assert printed.count(": right") == 2
    assert "wrong" not in printed


@pytest.mark.skipif(not (ROOT / "kernels").is_dir(), reason="this is not a checkout")
def test_python_started_in_the_checkout_finds_the_kernels():
    """There `minifcn/` shadows the installed package, and the kernels lie beside it."""
    call = [sys.executable, "-c", "import minifcn as mf; print(mf.ones(2).sum().item())"]
    run = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "2.0"
