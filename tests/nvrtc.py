"""NVIDIA's run-time compiler, from the wheel ``nvidia-cuda-nvrtc-cu12``: it needs no GPU."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files

WHEEL = "nvidia-cuda-nvrtc-cu12"
#: what CuPy passes beside a RawModule's own options
CUPY_OPTIONS = "-ftz=true", "--device-as-default-execution-space"
#: bytes of a parameter by its type in PTX, NVIDIA's assembly language
BYTES = {"u64": 8, "s64": 8, "b64": 8, "f64": 8, "u32": 4, "s32": 4, "b32": 4, "f32": 4}
BYTES |= {"u16": 2, "s16": 2, "b16": 2, "u8": 1, "s8": 1, "b8": 1}


@dataclass(frozen=True)
class Kernel:
    """What a kernel takes of a processor: per thread, per block, per thread; and its parameters.

    ``vector`` is the most bytes of shared memory that it reads or writes at once, ``aligned`` what
    the address of its largest variable there is a multiple of; 1 where there is none.
    """

    registers: int
    shared: int
    spilled: int
    parameters: tuple[int, ...]
    vector: int
    aligned: int


def compiler() -> str | None:
    """The compiler's file, if the wheel is installed."""
    try:
        installed = files(WHEEL) or []
    except PackageNotFoundError:
        return None
    found = [file for file in installed if re.fullmatch(r"libnvrtc\.so\.\d+", file.name)]
    return str(found[0].locate()) if found else None


def compiled(text: str, architecture: int, options: tuple[str, ...]) -> dict[str, Kernel]:
    """Each kernel of a source text, compiled for one architecture (75 is sm_75) as CuPy does.

    Raises:
        ValueError: with the compiler's words, if it does not compile.
    """
    nvrtc = ctypes.CDLL(compiler())
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernel.cu", 0, None, None)
    flags = [f"--gpu-architecture=sm_{architecture}", "--ptxas-options=-v", *CUPY_OPTIONS, *options]
    words = (ctypes.c_char_p * len(flags))(*(flag.encode() for flag in flags))
    failed = nvrtc.nvrtcCompileProgram(program, len(flags), words)
    log = _text(nvrtc, program, "ProgramLog")
    if failed:
        raise ValueError(log)
    ptx = _text(nvrtc, program, "PTX")
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return {name: _kernel(log, ptx, name) for name in re.findall(r"\.entry (\w+)\(", ptx)}


def _text(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> str:
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    found = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{what}")(program, found)
    return found.value.decode()


def _kernel(log: str, ptx: str, name: str) -> Kernel:
    report = log.split(f"Compiling entry function '{name}'")[1].split("Compiling entry")[0]

    def number(words: str) -> int:
        return sum(int(count) for count in re.findall(rf"(\d+) {words}", report))

    declared = re.search(rf"\.entry {name}\(([^)]*)\)", ptx)
    types = re.findall(r"\.param\s+(?:\.align \d+ )?\.(\w+)", declared[1]) if declared else []
    body = ptx.split(f".entry {name}(")[1].split(".entry ")[0]
    widths = re.findall(r"\b(?:ld|st)(?:\.volatile)?\.shared\.(?:v(\d)\.)?[bfus](\d+)", body)
    variables = re.findall(r"\.shared \.align (\d+) \.b8 (\w+)\[(\d*)\]", ptx)
    own = [(int(size or 1 << 30), int(to)) for to, what, size in variables if what in body]
    return Kernel(
        registers=int(re.findall(r"Used (\d+) registers", report)[0]),
        shared=number("bytes smem"),
        spilled=number("bytes spill stores") + number("bytes spill loads"),
        parameters=tuple(BYTES[kind] for kind in types),
        vector=max((int(count or 1) * int(bits) // 8 for count, bits in widths), default=1),
        aligned=max(own, default=(0, 1))[1],
    )
