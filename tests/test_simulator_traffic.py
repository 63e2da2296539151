"""Counts of memory traffic equal those that are worked out by hand."""
# ruff: noqa: E501 - a kernel's line stays one line, because its number is expected

import time

import numpy as np
import pytest

from minifcn import simulator as cp
from tests.simulated import needs_compiler

pytestmark = needs_compiler


def measure(body, grid=1, block=32, elements=1024, parameters="const float* x, float* y"):
    code = f'#line 1 "tiny.cu"\nextern "C" __global__ void kernel({parameters})\n{{ int t = threadIdx.x;\n{body} }}'
    x, y = cp.asarray(np.arange(elements, dtype=np.float32)), cp.empty(elements, np.float32)
    with cp.checked() as reports:
        cp.RawModule(code=code).get_function("kernel")((grid,), (block,), (x, y))
    return reports[0]


def line(report, number, space, kind):
    return next(
        one for one in report.lines if (one.line, one.space, one.kind) == (number, space, kind)
    )


def test_a_copy_moves_each_byte_once():
    report = measure("int i = blockIdx.x * 64 + t;\ny[i] = x[i];", grid=4, block=64)
    load, store = line(report, 4, "global", "load"), line(report, 4, "global", "store")
    for one in (load, store):  # 4 blocks of 2 warps; a warp asks for 128 bytes, 4 sectors
        assert (one.requests, one.bytes, one.sectors, one.bytes_a_sector) == (8, 1024, 32, 32)
    assert report.moved == report.least == 2048
    assert report.intensity(256) == 0.125


@pytest.mark.parametrize("step, sectors", [(1, 4), (2, 8), (8, 32), (16, 32)])
def test_strides_waste_sectors(step, sectors):
    load = line(measure(f"y[t] = x[{step} * t];"), 3, "global", "load")
    assert (load.requests, load.sectors) == (1, sectors)
    assert load.bytes_a_sector == 128 / sectors


def test_an_offset_by_one_element_touches_one_more_sector():
    assert line(measure("y[t] = x[t + 1];"), 3, "global", "load").sectors == 5


def test_one_word_for_all_lanes_is_one_sector_and_four_bytes_of_use():
    load = line(measure("y[t] = x[7];"), 3, "global", "load")
    assert (load.bytes, load.sectors, load.used) == (128, 1, 4)


def test_sixteen_bytes_a_lane():
    report = measure("((float4*)y)[t] = ((const float4*)x)[t];")
    load = line(report, 3, "global", "load")
    assert (load.requests, load.bytes, load.sectors) == (1, 512, 16)
    assert report.moved == report.least == 1024


def test_what_a_block_touches_again_comes_from_its_cache():
    # threads read x[t] and x[t + 1]: 33 elements, 5 sectors; two blocks read the same ones
    report = measure("float v = x[t];\ny[blockIdx.x * 32 + t] = v + x[t + 1];", grid=2)
    x = next(buffer for buffer in report.buffers if buffer.parameter == 0)
    assert (x.read, x.moved_read) == (33 * 4, 2 * 5 * 32)
    assert report.sectors == 2 * (4 + 5 + 4)


def test_what_the_kernel_wrote_itself_is_not_needed_from_memory():
    report = measure("y[t] = x[t]; y[t] = y[t] * 2 + y[t];")
    assert report.least == 256


def test_lanes_that_take_no_part():
    load = line(measure("if (t < 8) y[t] = x[t];"), 3, "global", "load")
    assert (load.requests, load.bytes, load.sectors) == (1, 32, 1)


# words of lanes and the extra passes: 32 banks, word w in bank w mod 32
BANKS = {
    "t": 0,
    "31 - t": 0,
    "5": 0,  # one word for all is handed round
    "2 * t": 1,
    "4 * t": 3,
    "32 * t": 31,
    "33 * t": 0,
    "t / 2 * 32": 15,
}


@pytest.mark.parametrize("index, extra", BANKS.items())
def test_bank_conflicts(index, extra):
    body = f"__shared__ float s[1100]; for (int i = t; i < 1100; i += 32) s[i] = i;\n__syncwarp();\ny[t] = s[{index}];"
    assert line(measure(body), 5, "shared", "load").conflicts == extra


@pytest.mark.parametrize("index, extra", [("t", 0), ("2 * t", 4)])
def test_wide_accesses_go_by_quarter_warps(index, extra):
    """Eight lanes of 16 bytes fill the banks once; every other float4 meets each bank twice."""
    body = f"__shared__ float4 s[64]; s[t] = s[t + 32] = make_float4(t, 0, 0, 0);\n__syncwarp();\n((float4*)y)[t] = s[{index}];"
    load = line(measure(body), 5, "shared", "load")
    assert (load.requests, load.bytes, load.conflicts) == (1, 512, extra)


@pytest.mark.parametrize("pitch, extra", [(32, 31 * 32), (33, 0)])
def test_a_transpose_and_its_padding(pitch, extra):
    body = f"""__shared__ float s[32][{pitch}]; for (int r = 0; r < 32; r++) s[r][t] = x[r * 32 + t];
__syncwarp();
for (int r = 0; r < 32; r++) y[r * 32 + t] = s[t][r];"""
    report = measure(body)
    assert report.conflicts == extra
    assert report.moved == report.least == 8192


def test_counts_do_not_depend_on_the_order_of_threads():
    body = "__shared__ float s[64]; s[t] = x[2 * t]; __syncthreads();\nfor (int i = t; i < 100; i += 64) y[i] = s[63 - t];"
    found = []
    for seed in (0, 1, 5):
        with cp.thread_order(seed):
            found.append(measure(body, block=64))
    assert found[0] == found[1] == found[2]


def test_launches_and_memory_are_counted():
    with cp.counting() as counts:
        x = cp.zeros(1000, np.float32)
        more = cp.zeros(100, np.float32)
        del more
        code = 'extern "C" __global__ void one(float* x) { x[threadIdx.x] = 1; }'
        one = cp.RawModule(code=code).get_function("one")
        one((1,), (32,), (x,))
        one((1,), (32,), (x[32:],))
    assert counts.launches == ["one", "one"]
    assert counts.bytes_now - counts.bytes_before == 4096  # multiples of 512, as CuPy's pool
    assert counts.bytes_peak - counts.bytes_before == 4096 + 512


def test_one_context_in_another():
    with cp.checked() as outer:
        with cp.checked() as inner:
            assert outer == inner == []
        measure("y[t] = x[t];")
    assert len(outer) == 1 and inner == []


def test_threads_that_never_wait_run_in_a_plain_loop():
    """A million threads take some hundredths of a second; with a switch each it would be more."""
    code = 'extern "C" __global__ void one(float* x) { x[blockIdx.x * 256LL + threadIdx.x] = 1; }'
    x = cp.empty(4096 * 256, np.float32)
    one = cp.RawModule(code=code).get_function("one")
    one((1,), (256,), (x,))
    start = time.process_time()
    one((4096,), (256,), (x,))
    assert time.process_time() - start < 1
    assert (x == 1).all()
