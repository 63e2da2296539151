"""Every CUDA kernel, compiled by NVIDIA's compiler for six architectures, with no GPU.

What a kernel takes of a processor stands in ``nvrtc_budget.txt``. A kernel may take less; one that
takes more has fewer threads at work at once. To write the table anew, after a look at why:

    python -m tests.test_kernels_nvrtc
"""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from minifcn import launch
from tests import nvrtc

ARCHITECTURES = 75, 80, 86, 90, 100, 120
REALS = {"float32": "float", "float64": "double"}
BUDGET = Path(__file__).with_name("nvrtc_budget.txt")
FILES = sorted(path.name for path in launch.FOLDER.glob("*.cu"))
HEAD = """\
# Registers a thread by architecture and bytes of shared memory a block that each kernel may take,
# as NVRTC 12.9 compiles it. Written by: python -m tests.test_kernels_nvrtc
"""
ROW = "{:18} {:21} {:8}" + " {:>4}" * len(ARCHITECTURES) + " {:>7}\n"

pytestmark = pytest.mark.skipif(
    nvrtc.compiler() is None,
    reason=f"NVIDIA's compiler is not installed: pip install {nvrtc.WHEEL}",
)


def compile_all():
    """{(file, kernel, real): {architecture: what it takes}}, two at a time."""
    jobs = [(file, real, number) for file in FILES for real in REALS for number in ARCHITECTURES]
    texts = [launch.source(file) for file, *_ in jobs]
    options = [("-std=c++17", f"-Dreal={REALS[real]}") for _, real, _ in jobs]
    numbers = [number for *_, number in jobs]
    found = {}
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        compiled = pool.map(nvrtc.compiled, texts, numbers, options, chunksize=3)
        for (file, real, number), kernels in zip(jobs, compiled, strict=True):
            for name, kernel in kernels.items():
                found.setdefault((file, name, real), {})[number] = kernel
    return found


@pytest.fixture(scope="module")
def kernels():
    return compile_all()


def budget():
    """{(file, kernel, real): (registers by architecture, bytes of shared memory)}."""
    rows = [line.split() for line in BUDGET.read_text().splitlines() if line[:1] != "#"]
    taken = {tuple(row[:3]): list(map(int, row[3:])) for row in rows[1:]}
    return {key: (dict(zip(ARCHITECTURES, row)), row[-1]) for key, row in taken.items()}


def test_every_kernel_that_is_declared_compiles(kernels):
    declared = {(file, name) for file in FILES for name in launch.parameters(file, "float32")}
    assert declared == {(file, name) for file, name, _ in kernels}
    assert all(set(by_number) == set(ARCHITECTURES) for by_number in kernels.values())


def test_no_register_is_spilled(kernels):
    """A spilled register lives in device memory, hundreds of cycles away."""
    found = [
        (*key, number, kernel.spilled)
        for key, by_number in kernels.items()
        for number, kernel in by_number.items()
        if kernel.spilled
    ]
    assert not found


def test_registers_and_shared_memory_within_the_budget(kernels):
    allowed = budget()
    assert set(kernels) == set(allowed), "a kernel came or went: see the head of this file"
    for key, by_number in kernels.items():
        registers, shared = allowed[key]
        for number, kernel in by_number.items():
            assert kernel.registers <= registers[number], (*key, number)
            assert kernel.shared <= shared, (*key, number)


def test_parameters_are_what_the_launcher_packs(kernels):
    """A pointer takes 8 bytes; a number as many as the type that the launcher casts it to."""
    for (file, name, real), by_number in kernels.items():
        declared = launch.parameters(file, real)[name]
        packed = tuple(8 if pointer else dtype.itemsize for _, dtype, pointer in declared)
        assert all(kernel.parameters == packed for kernel in by_number.values()), (file, name)


def test_shared_memory_lies_where_it_is_read_16_bytes_at_once(kernels):
    """The simulator puts every variable on a multiple of 16; a GPU's compiler where it was told."""
    found = [
        (*key, number, kernel.vector, kernel.aligned)
        for key, by_number in kernels.items()
        for number, kernel in by_number.items()
        if kernel.aligned % kernel.vector
    ]
    assert not found
    wide = {key[:2] for key, by_number in kernels.items() if by_number[75].vector == 16}
    assert {("conv2d.cu", "conv2d"), ("conv2d_weight.cu", "conv2d_weight")} <= wide


def test_shared_memory_that_lies_anywhere_is_seen():
    text = "struct Four { float at[4]; };\nstruct alignas(16) Vector { float at[4]; };\n"
    text += 'extern "C" __global__ void odd(Vector* x) {\n    __shared__ Four all[32];\n'
    text += "    *(Vector*)&all[threadIdx.x] = x[threadIdx.x];\n    __syncthreads();\n"
    text += "    x[threadIdx.x] = *(Vector*)&all[31 - threadIdx.x];\n}\n"
    odd = nvrtc.compiled(text, 90, ())["odd"]
    assert (odd.vector, odd.aligned) == (16, 4)
    right = nvrtc.compiled(text.replace("struct Four", "struct alignas(16) Four"), 90, ())["odd"]
    assert (right.vector, right.aligned) == (16, 16)


def test_a_spill_and_a_mistake_are_seen():
    """The compiler's report is read right: 300 numbers alive at once do not fit 255 registers."""
    text = 'extern "C" __global__ void many(float* x, int n, double d) {\n    float v[300];\n'
    text += "#pragma unroll\n    for (int i = 0; i < 300; ++i) v[i] = x[i * n];\n"
    text += "    __syncthreads();\n"
    text += "#pragma unroll\n    for (int i = 0; i < 300; ++i) x[i] = v[(i * 7) % 300] * v[i];\n}\n"
    many = nvrtc.compiled(text, 90, ())["many"]
    assert many.spilled > 0 and many.registers > 200 and many.parameters == (8, 4, 8)
    with pytest.raises(ValueError, match="undefined"):
        nvrtc.compiled(text.replace("x[i * n]", "z"), 90, ())


def write_budget():
    """The table, from the kernels as they are."""
    lines = [HEAD, ROW.format("file", "kernel", "real", *ARCHITECTURES, "shared")]
    for key, by_number in sorted(compile_all().items()):
        registers = [by_number[number].registers for number in ARCHITECTURES]
        shared = max(kernel.shared for kernel in by_number.values())
        lines.append(ROW.format(*key, *registers, shared))
    BUDGET.write_text("".join(lines))


if __name__ == "__main__":
    write_budget()
