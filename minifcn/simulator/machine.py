"""A compiled library and its simulated machine: the C side, as ctypes sees it."""

from __future__ import annotations

import ctypes
import functools
import subprocess
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minifcn.simulator import faults
from minifcn.simulator.array import ndarray
from minifcn.simulator.report import Buffer, Line, Report

Three = tuple[int, int, int]


class Fault(ctypes.Structure):
    """``faults.h``."""

    _fields_ = [
        ("kind", ctypes.c_int), ("space", ctypes.c_int), ("size", ctypes.c_int),
        ("written", ctypes.c_int), ("offset", ctypes.c_longlong), ("code", ctypes.c_ulonglong),
        ("other_code", ctypes.c_ulonglong), ("file", ctypes.c_char_p), ("line", ctypes.c_int),
        ("other_line", ctypes.c_int), ("thread", ctypes.c_uint * 3), ("block", ctypes.c_uint * 3),
        ("other_thread", ctypes.c_int), ("other_written", ctypes.c_int), ("count", ctypes.c_int),
        ("this_block", ctypes.c_longlong), ("other_block", ctypes.c_longlong),
        ("text", ctypes.c_char * 96),
    ]  # fmt: skip


class Site(ctypes.Structure):
    """``traffic.h``."""

    _fields_ = [
        ("code", ctypes.c_ulonglong), ("space", ctypes.c_int), ("size", ctypes.c_int),
        ("writes", ctypes.c_int), ("requests", ctypes.c_ulonglong), ("bytes", ctypes.c_ulonglong),
        ("sectors", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong),
        ("passes", ctypes.c_ulonglong), ("conflicts", ctypes.c_ulonglong),
    ]  # fmt: skip


class Stretch(ctypes.Structure):
    """``memory.h``'s Buffer."""

    _fields_ = [
        ("start", ctypes.c_void_p), ("end", ctypes.c_void_p), ("element", ctypes.c_int),
        ("floating", ctypes.c_int), ("read", ctypes.c_ulonglong), ("written", ctypes.c_ulonglong),
        ("moved_read", ctypes.c_ulonglong), ("moved_written", ctypes.c_ulonglong),
    ]  # fmt: skip


class Launch(ctypes.Structure):
    """``runtime.cpp``."""

    _fields_ = [
        ("kernel", ctypes.c_void_p), ("arguments", ctypes.c_void_p), ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3), ("dynamic_bytes", ctypes.c_ulonglong),
        ("order", ctypes.c_int), ("checked", ctypes.c_int), ("shared_element", ctypes.c_int),
        ("buffer_count", ctypes.c_int), ("first", ctypes.c_longlong), ("last", ctypes.c_longlong),
        ("buffers", ctypes.c_void_p), ("image", ctypes.c_void_p * 3),
    ]  # fmt: skip


class Machine:
    """One library, loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checked = False
        self._library = ctypes.CDLL(str(path))
        self._image = (ctypes.c_void_p * 3)()
        self._library.simulated_image(self._image)
        self._source: dict[int, tuple[str, int]] = {}
        self.checked = hasattr(self._library, "simulated_is_checked")

    @functools.cache  # noqa: B019 - machines live as long as the program
    def parameters(self, kernel: str) -> list[str]:
        """What the kernel reads: "f4" a float, "Pf4" a pointer to floats, "pf4" to const."""
        text = ctypes.create_string_buffer(1024)
        self._library[f"simulated_parameters_{kernel}"](text)
        return text.value.decode().split()

    def launch(
        self,
        kernel: str,
        grid: Three,
        block: Three,
        args: Sequence[Any],
        packed: Sequence[np.ndarray],
        shared: int,
        blocks: range,
        order: int,
        shared_element: int,
        names: Sequence[str],
    ) -> Report:
        """Run some blocks of a kernel, its parameters so named; what was found."""
        addresses = (ctypes.c_void_p * max(len(packed), 1))(*(p.ctypes.data for p in packed))
        groups = _overlapping(args)
        stretches = (Stretch * max(len(groups), 1))(*(_stretch(args, group) for group in groups))
        call = Launch(
            ctypes.cast(self._library[f"simulated_run_{kernel}"], ctypes.c_void_p),
            ctypes.addressof(addresses), grid, block, shared, order, self.checked, shared_element,
            len(groups), blocks.start, blocks.stop, ctypes.addressof(stretches), self._image,
        )  # fmt: skip
        found = self._library.simulated_launch(ctypes.byref(call))
        told = tuple(self._faults(found, groups, names, block)) if found else ()
        if not self.checked:
            return Report(kernel, grid, block, (), (), told)
        buffers = tuple(
            Buffer(group[0], s.read, s.written, s.moved_read, s.moved_written)
            for group, s in zip(groups, stretches)
        )
        return Report(kernel, grid, block, self._lines(), buffers, told)

    def _faults(
        self, count: int, groups: list[list[int]], parameters: Sequence[str], block: Three
    ) -> list[str]:
        found = (Fault * count)()
        self._library.simulated_faults(found)
        self._look_up([address for f in found for address in (f.code, f.other_code) if address])
        names = [" and ".join(parameters[i] for i in group) for group in groups]
        return [faults.sentence(f, self._source.__getitem__, names, block) for f in found]

    def _lines(self) -> tuple[Line, ...]:
        room = 4096
        all_sites = (Site * room)()
        sites = all_sites[: self._library.simulated_sites(all_sites, room)]
        self._look_up([site.code for site in sites])
        sums: dict[tuple[str, int, str, str], np.ndarray] = defaultdict(lambda: np.zeros(5, int))
        for s in sites:
            space, kind = "global" if s.space else "shared", "store" if s.writes else "load"
            key = (*self._source[s.code], space, kind)
            sums[key] += np.array([s.requests, s.bytes, s.sectors, s.used, s.conflicts], int)
        return tuple(Line(*key, *map(int, counts)) for key, counts in sorted(sums.items()))

    def _look_up(self, addresses: list[int]) -> None:
        """Find file and line of each address that is not known yet."""
        new = sorted(set(addresses) - set(self._source))
        if not new:
            return
        # a return address is behind the call
        call = ["addr2line", "-e", str(self.path), *(hex(address - 1) for address in new)]
        answer = subprocess.run(call, capture_output=True, text=True, check=True).stdout
        for address, text in zip(new, answer.splitlines()):
            file, _, line = text.split(" ")[0].rpartition(":")
            self._source[address] = Path(file).name, int(line) if line.isdigit() else 0


def _overlapping(args: Sequence[Any]) -> list[list[int]]:
    """The positions of the arrays among the arguments, those that overlap together."""
    ends = [(a.data.ptr, a.data.ptr + a.nbytes, i) for i, a in enumerate(args) if _is_array(a)]
    groups: list[list[int]] = []
    reach = -1
    for start, end, i in sorted(ends):
        if start < reach:
            groups[-1].append(i)
        else:
            groups.append([i])
        reach = max(reach, end) if start < reach else end
    return sorted(sorted(group) for group in groups)


def _is_array(a: Any) -> bool:
    return isinstance(a, ndarray) and a.nbytes > 0


def _stretch(args: Sequence[Any], group: list[int]) -> Stretch:
    arrays = [args[i] for i in group]
    return Stretch(
        min(a.data.ptr for a in arrays), max(a.data.ptr + a.nbytes for a in arrays),
        min(min(a.itemsize for a in arrays), 8), all(a.dtype.kind == "f" for a in arrays),
    )  # fmt: skip
