"""Each kind of fault, planted in a tiny kernel, is caught at its line; its clean twin is not."""
# ruff: noqa: E501 - a kernel's line stays one line, because its number is expected

import numpy as np
import pytest

from minifcn import simulator as cp
from tests.simulated import needs_compiler

pytestmark = needs_compiler

HEAD = 'extern "C" __global__ void kernel(float* x, int n)\n'
#: what is found, its line, threads, faulty text, clean text
CASES = {
    "write behind the end": (
        "out of bounds: write", 3, 32,
        "{ int i = threadIdx.x;\n  x[i + 1] = n; }",
        "{ int i = threadIdx.x;\n  x[i] = n; }",
    ),
    "read before the start": (
        "out of bounds: read", 2, 32,
        "{ float v = x[(int)threadIdx.x - 1];\n x[threadIdx.x] = v; }",
        "{ float v = x[threadIdx.x];\n x[threadIdx.x] = v; }",
    ),
    "far away": (
        "far from every array", 2, 1,
        "{ x[1LL << 40] = n; }",
        "{ x[0] = n; }",
    ),
    "16 bytes from an address that is no multiple of 16": (
        "misaligned", 2, 1,
        "{ float4 v = *(float4*)(x + 1); *(float4*)x = v; }",
        "{ float4 v = *(float4*)(x + 4); *(float4*)x = v; }",
    ),
    "shared memory without a barrier": (
        "race: read", 4, 64,
        "{ __shared__ float s[64]; int t = threadIdx.x;\n  s[t] = t; \n  if (t > 31) x[t % 32] = s[0]; }",
        "{ __shared__ float s[64]; int t = threadIdx.x;\n  s[t] = t; __syncthreads();\n"
        "  if (t > 31) x[t % 32] = s[0]; }",
    ),
    "overwritten before everybody has read": (
        "race: write", 4, 64,
        "{ __shared__ float s[1]; int t = threadIdx.x; if (t == 0) s[0] = 1; __syncthreads();\n"
        "  float v = s[0]; \n  if (t == 63) s[0] = 2; if (t < 32) x[t] = v; }",
        "{ __shared__ float s[1]; int t = threadIdx.x; if (t == 0) s[0] = 1; __syncthreads();\n"
        "  float v = s[0]; __syncthreads();\n  if (t == 63) s[0] = 2; if (t < 32) x[t] = v; }",
    ),
    "lanes of a warp without __syncwarp": (
        "race: ", 4, 32,
        "{ __shared__ float s[32]; int t = threadIdx.x;\n  s[t] = t;\n  x[t] = s[31 - t]; }",
        "{ __shared__ float s[32]; int t = threadIdx.x;\n  s[t] = t; __syncwarp();\n  x[t] = s[31 - t]; }",
    ),
    "all write one element of global memory": (
        "race: write", 2, 32,
        "{ x[0] = threadIdx.x; }",
        "{ if (threadIdx.x == 0) x[0] = threadIdx.x; }",
    ),
    "shared memory that nobody has written": (
        "uninitialised: read of 4 bytes at byte", 3, 32,
        "{ __shared__ float s[64]; int t = threadIdx.x; s[t] = t; __syncthreads();\n  x[t] = s[t + 32]; }",
        "{ __shared__ float s[64]; int t = threadIdx.x; s[t] = t; __syncthreads();\n  x[t] = s[t]; }",
    ),
    "threads that end before a barrier": (
        "divergent barrier: 12 threads", 3, 32,
        "{ if (threadIdx.x >= n) return;\n  __syncthreads(); x[threadIdx.x] = 1; }",
        "{ bool in = threadIdx.x < n;\n  __syncthreads(); if (in) x[threadIdx.x] = 1; }",
    ),
    "two barriers": (
        "divergent barrier: some", 3, 32,
        "{ if (threadIdx.x < n) __syncthreads();\n  else __syncthreads(); }",
        "{ __syncthreads();\n  __syncthreads(); }",
    ),
    "a barrier and a shuffle": (
        "deadlock", 2, 64,
        "{ if (threadIdx.x < 40) __syncthreads();\n  else __syncwarp(); }",
        "{ __syncthreads();\n  __syncwarp(); }",
    ),
    "a shuffle of lanes that do not come": (
        "bad mask: it names lane 20, which has ended", 2, 32,
        "{ if (threadIdx.x < n) x[threadIdx.x] = __shfl_down_sync(~0u, 1.0f, 1); }",
        "{ float v = __shfl_down_sync(~0u, 1.0f, 1); if (threadIdx.x < n) x[threadIdx.x] = v; }",
    ),
    "a shuffle by a lane that its mask leaves out": (
        "bad mask: lane 4 takes part", 2, 32,
        "{ __shfl_sync(15u, 1.0f, 0); }",
        "{ if (threadIdx.x < 4) __shfl_sync(15u, 1.0f, 0); }",
    ),
    "a shuffle from outside its mask": (
        "bad shuffle: reads lane 4", 2, 32,
        "{ if (threadIdx.x < 4) __shfl_down_sync(15u, 1.0f, 1); }",
        "{ if (threadIdx.x < 4) __shfl_down_sync(15u, 1.0f, 1, 4); }",
    ),
    "more than an int holds": (
        "integer overflow: 1310720 * 65536 in 'int'", 2, 1,
        "{ int size = n * 65536 * 65536; if (size > 0) x[0] = 1; }",
        "{ long long size = n * 65536LL * 65536; if (size > 0) x[0] = 1; }",
    ),
    "a shift by 40": (
        "shift out of range", 2, 1,
        "{ x[0] = 1 << (n * 2); }",
        "{ x[0] = 1 << (n / 2); }",
    ),
    "division by zero": (
        "division by zero", 2, 1,
        "{ x[0] = n / (n - 20); }",
        "{ x[0] = n / (n - 19); }",
    ),
    "the next row of a shared array": (
        "array index out of range", 2, 1,
        "{ __shared__ float s[4][8]; s[1][n - 12] = 1; x[0] = 1; }",
        "{ __shared__ float s[4][8]; s[1][n - 13] = 1; x[0] = 1; }",
    ),
}  # fmt: skip


def run(text, threads, blocks=1, x=None):
    x = cp.zeros(32, np.float32) if x is None else x
    kernel = cp.RawModule(code='#line 1 "tiny.cu"\n' + HEAD + text).get_function("kernel")
    with cp.checked() as reports:
        kernel((blocks,), (threads,), (x, np.int32(20)))
    return reports


@pytest.mark.parametrize("name", CASES)
def test_a_planted_fault_is_caught_at_its_line_and_the_clean_twin_is_not(name):
    what, line, threads, faulty, clean = CASES[name]
    with pytest.raises(cp.KernelFault) as caught:
        run(faulty, threads)
    told = [fault for fault in caught.value.faults if what in fault]
    assert told, caught.value.faults
    at_line = [fault for fault in told if fault.startswith(f"tiny.cu:{line}: ")]
    assert at_line and "by thread (" in at_line[0], told
    assert "of block (0, 0, 0)" in at_line[0]
    assert run(clean, threads)[0].faults == ()


def test_a_race_of_two_blocks_names_both_lines():
    with pytest.raises(cp.KernelFault, match=r"tiny.cu:2: race: read .* tiny.cu:2 by thread "
                       r"\(0, 0, 0\) of another block, by thread \(0, 0, 0\) of block \(1, 0, 0\)"):  # fmt: skip
        run("{ x[0] += 1; }", 1, blocks=2)


def test_memory_that_nothing_has_written():
    with pytest.raises(cp.KernelFault, match="uninitialised: .* at byte 12 of x"):
        run("{ x[0] = x[3]; }", 1, x=cp.empty(32, np.float32))
    run("{ x[0] = x[3]; }", 1, x=cp.full(32, np.nan, np.float32))  # a NaN may be meant


def test_neighbouring_bytes_do_not_race():
    code = """extern "C" __global__ void kernel(unsigned char* x)
    { __shared__ unsigned char s[64]; s[threadIdx.x] = threadIdx.x; x[threadIdx.x] = s[threadIdx.x]; }"""
    x = cp.zeros(64, np.uint8)
    with cp.checked():
        cp.RawModule(code=code).get_function("kernel")((1,), (64,), (x,))
    assert np.array_equal(x.get(), np.arange(64))


def test_lanes_that_read_one_word_and_meet_may_then_write_it():
    text = """{ __shared__ float s[1]; int t = threadIdx.x; if (t == 0) s[0] = 1; __syncwarp();
      float v = s[0]; __syncwarp(); if (t == 5) s[0] = s[0] + v; __syncwarp(); x[t] = s[0]; }"""
    x = cp.zeros(32, np.float32)
    for seed in range(6):
        with cp.thread_order(seed):
            assert run(text, 32, x=x)[0].faults == ()
        assert (x.get() == 2).all()


def test_an_overflow_beyond_two_billion_elements_needs_no_such_memory():
    code = """extern "C" __global__ void kernel(float* x, int rows, int columns)
    { int i = blockIdx.x * blockDim.x + threadIdx.x; int total = rows * columns; if (i > total) x[0] = 1; }"""
    kernel = cp.RawModule(code=code).get_function("kernel")
    last = 2**24
    with cp.checked(), pytest.raises(cp.KernelFault, match="integer overflow: 65536 \\* 65536"):
        kernel((last,), (256,), (cp.zeros(1, np.float32), np.int32(2**16), np.int32(2**16)),
               blocks=(last - 1, last))  # fmt: skip


def test_the_guard_zones_betray_a_write_in_the_fast_build():
    kernel = cp.RawModule(code=HEAD + "{ x[32 + threadIdx.x] = n; }").get_function("kernel")
    with pytest.raises(cp.KernelFault, match="wrote outside the memory of argument 0"):
        kernel((1,), (1,), (cp.zeros(32, np.float32), np.int32(1)))


REVERSE = """extern "C" __global__ void reverse(const int* x, int* y, int n)
{   // a block reverses 96 elements, twice through shared memory, with sums by shuffles between
    __shared__ int s[96];
    const int t = threadIdx.x, i = blockIdx.x * 96 + t;
    s[t] = i < n ? x[i] : 0;
    __syncthreads();
    int v = s[95 - t], sum = v;
    for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
    __syncthreads();
    s[t] = v + (__any_sync(~0u, v == 7) ? 1000 : 0) + sum;
    __syncthreads();
    if (i < n) y[i] = s[t];
}"""


@pytest.mark.parametrize("order", (0, 1, 2, 3, 99))
@pytest.mark.parametrize("checked", (False, True))
def test_values_in_several_orders(order, checked):
    x = np.arange(5 * 96, dtype=np.int32)
    y = cp.zeros(5 * 96, np.int32)
    with cp.thread_order(order), cp.checked(checked):
        cp.RawModule(code=REVERSE).get_function("reverse")(
            (5,), (96,), (cp.asarray(x), y, np.int32(480))
        )
    back = x.reshape(5, 96)[:, ::-1].reshape(5, 3, 32)
    wanted = back + back.sum(2, keepdims=True) + 1000 * (back == 7).any(2, keepdims=True)
    assert np.array_equal(y.get().reshape(wanted.shape), wanted)


def test_a_fault_leaves_the_machine_fit():
    text = "{ __syncthreads(); x[threadIdx.x] = n; __syncthreads(); x[threadIdx.x] += 1; }"
    with pytest.raises(cp.KernelFault, match="out of bounds"):
        run(text, 64)
    assert run(text, 32)[0].faults == ()
