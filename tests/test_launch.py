"""The one function that starts kernels: what it refuses, casts, compiles once and counts."""

import numpy as np
import pytest

from minifcn import device, launch, simulator
from minifcn.errors import DeviceError
from tests.simulated import forget, needs_compiler

pytestmark = needs_compiler

SOURCE = """
#ifndef FACTOR
#define FACTOR 1
#endif
extern "C" __global__ void scaled(const real* __restrict__ x, real* y, const real* bias, double by,
                                  int offset, bool twice, long long n) {
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < n;
         i += (long long)gridDim.x * blockDim.x)
        y[i] = x[i] * (real)by * (twice ? 2 : 1) * FACTOR + offset + (bias ? bias[i] : 0);
}
"""


@pytest.fixture(autouse=True)
def kernels(tmp_path, monkeypatch):
    (tmp_path / "scaled.cu").write_text(SOURCE)
    monkeypatch.setattr(launch, "FOLDER", tmp_path)
    launch.source.cache_clear()
    forget()
    yield
    launch.source.cache_clear()
    forget()


def run(arguments, grid=(2,), real=np.float32, name="scaled", **settings):
    launch.launch("scaled.cu", name, grid, (32,), arguments, real=real, **settings)


def arrays(dtype=np.float32, n=70):
    x = np.arange(n, dtype=dtype)
    return x, simulator.asarray(x), simulator.empty((n,), dtype)


@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_values_numbers_are_cast_and_none_is_a_null_pointer(real):
    host, x, y = arrays(real)
    run((x, y, None, 3, 5.0, True, len(host)), real=real)  # an int for a double, a float for an int
    assert np.array_equal(y.get(), host * 6 + 5)
    run((x, y, x, 0.5, np.int64(-1), False, len(host)), real=real)
    assert np.array_equal(y.get(), host * real(0.5) - 1 + host)


def test_macros_compile_a_kernel_of_their_own():
    host, x, y = arrays()
    for factor in (1, 7, 1):
        run((x, y, None, 1, 0, False, len(host)), macros={"FACTOR": factor})
        assert np.array_equal(y.get(), host * factor)
    assert launch._module.cache_info().misses == 2  # the third launch compiled nothing


def wrong(change):
    _, x, y = arrays()
    arguments = dict(x=x, y=y, bias=None, by=1.0, offset=0, twice=False, n=70)
    arguments.update(change)
    return tuple(arguments.values())


@pytest.mark.parametrize(
    "change, error, said",
    [
        ({"x": np.zeros(70, np.float32)}, TypeError, "scaled: x is .*ndarray, wanted an array on"),
        ({"x": 3}, TypeError, "x is .*int, wanted an array"),
        ({"x": simulator.asarray(np.zeros(70))}, TypeError, "x is float64, .*wanted .* float32"),
        ({"y": simulator.asarray(np.zeros((70, 2), np.float32))[:, 0]}, TypeError,
         "y is float32, contiguous False"),
        ({"n": simulator.asarray(np.zeros(1))}, TypeError, "n is an array.*reads one int64"),
        ({"n": None}, TypeError, "n is None, the kernel reads one int64"),
        ({"offset": 2**31}, OverflowError, "offset is 2147483648, which does not fit int32"),
        ({"offset": 0.5}, TypeError, "offset is 0.5, the kernel reads a whole number"),
    ],
)  # fmt: skip
def test_what_is_refused(change, error, said):
    with pytest.raises(error, match=said):
        run(wrong(change))


def test_counts_and_names_are_refused():
    with pytest.raises(TypeError, match="scaled takes 7 arguments, got 6"):
        run(wrong({})[:-1])
    with pytest.raises(TypeError, match="has no kernel 'other'; it has scaled"):
        run(wrong({}), name="other")
    with pytest.raises(TypeError, match=r"grid \(0,\) of blocks \(32,\) is empty"):
        run(wrong({}), grid=(0,))
    with pytest.raises(TypeError, match="no argument is an array on a device"):
        run((None, None, None, 1.0, 0, False, 0))


def test_a_grid_larger_than_a_gpu_takes_is_refused():
    """The simulator would run it; a GPU has 65,535 blocks along y and z."""
    host, x, y = arrays(n=1)
    for grid in ((1, 65536), (1, 1, 65536), (1 << 31,)):
        with pytest.raises(TypeError, match="is larger than a GPU takes"):
            run((x, y, None, 1, 0, False, 1), grid=grid)
    run((x, y, None, 1, 0, False, 1), grid=(1, 3))


def test_arrays_of_two_devices(monkeypatch):
    names = iter(["cuda-sim", "cuda-sim", "cuda", "cuda-sim"] * 3)
    monkeypatch.setattr(device, "name_of", lambda x: next(names))
    with pytest.raises(DeviceError, match="^scaled: argument 1"):
        run(wrong({}))


def test_a_null_pointer_for_cupy_is_eight_bytes_of_zero(monkeypatch):
    taken = []

    def kernel(grid, block, args, **_):
        taken.extend(args)

    monkeypatch.setattr(launch, "_kernel", lambda *_: kernel)
    monkeypatch.setattr(device, "name_of", lambda x: "cuda")
    run(wrong({}))
    monkeypatch.undo()
    null = taken[2]
    assert isinstance(null, np.uint64) and null == 0 and None not in taken[3:]


def test_launches_are_counted_with_their_bytes():
    host, x, y = arrays()
    with launch.counted() as outer:
        run((x, y, None, 1, 0, False, len(host)))
        with launch.counted() as inner:
            run((x, y, x, 1, 0, False, len(host)))
    run((x, y, None, 1, 0, False, len(host)))
    assert [(one.name, one.grid, one.block) for one in outer] == [("scaled", (2,), (32,))] * 2
    assert [one.bytes for one in outer] == [2 * 280, 3 * 280] and inner == outer[1:]


def test_parameters_are_read_from_the_declaration():
    found = launch.parameters("scaled.cu", "float64")
    assert list(found) == ["scaled"]
    assert found["scaled"] == [
        ("x", np.float64, True), ("y", np.float64, True), ("bias", np.float64, True),
        ("by", np.float64, False), ("offset", np.int32, False), ("twice", np.bool_, False),
        ("n", np.int64, False),
    ]  # fmt: skip


def test_what_stands_in_a_comment_is_no_kernel(tmp_path):
    (tmp_path / "none.cu").write_text('/* extern "C" __global__ void k(int a) */\n// ' + SOURCE[1:])
    assert "k" not in launch.parameters("none.cu")


def test_every_kernel_of_the_package_can_be_read(monkeypatch):
    monkeypatch.undo()
    launch.source.cache_clear()
    forget()
    files = sorted(launch.FOLDER.glob("*.cu"))
    assert files, "the kernels are not installed beside their Python"
    assert all(launch.parameters(file.name) for file in files)
