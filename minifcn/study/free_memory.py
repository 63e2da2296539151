"""How much memory is there for a process to take, on the host or on the card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minifcn import device


def free_memory(name: str = "cpu", root: Path = Path("/")) -> int | None:
    """Bytes that can still be had on a device; None where the system does not tell.

    On the host (Linux): what the kernel can give without swapping (MemAvailable), and no more than
    the control group, which a container has, leaves. Under `root` lie /proc and /sys.
    """
    if name == "cuda":
        cupy = device.module(name)
        return int(cupy.cuda.runtime.memGetInfo()[0] + cupy.get_default_memory_pool().free_bytes())
    known = [_available(root), _left_by_group(root / "sys/fs/cgroup")]
    return min((n for n in known if n is not None), default=None)


def _available(root: Path) -> int | None:
    lines = _text(root / "proc/meminfo").splitlines()
    return next((1024 * int(s.split()[1]) for s in lines if s.startswith("MemAvailable:")), None)


def _left_by_group(folder: Path) -> int | None:
    """The limit less what is used; cached files count as used there, and can be dropped."""
    for limit, used, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        most, now = _text(folder / limit).strip(), _text(folder / used).strip()
        if most.isdigit() and now.isdigit():
            lines = _text((folder / used).with_name("memory.stat")).splitlines()
            stat: dict[str, Any] = dict(s.split() for s in lines if len(s.split()) == 2)
            return max(0, int(most) - int(now) + int(stat.get(cached, 0)))
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # another system, or no such limit
        return ""
