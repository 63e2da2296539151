"""The stand-in for CuPy: its arrays, and its strictness."""

import os
import subprocess
import sys

import numpy as np
import pytest

from minifcn import simulator as cp
from minifcn.errors import InputError
from minifcn.simulator import build
from tests.simulated import needs_compiler

HOST = np.arange(12, dtype=np.float32).reshape(3, 4)


def device():
    return cp.asarray(HOST)


MIXTURES = {
    "plus": lambda: device() + HOST,
    "plus, the other way round": lambda: HOST + device(),
    "in place": lambda: device().__iadd__(HOST),
    "numpy.add": lambda: np.add(device(), HOST),
    "numpy.concatenate": lambda: np.concatenate([device(), HOST]),
    "where": lambda: cp.where(HOST > 1, device(), 0),
    "assignment": lambda: device().__setitem__(0, HOST[0]),
    "index": lambda: device()[np.array([0, 1])],
    "out": lambda: np.add(device(), device(), out=HOST.copy()),
    "asarray": lambda: np.asarray(device()),
    "matrix product": lambda: HOST.T @ device(),
    "set": lambda: device().set(device()),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_arrays_of_host_and_device_do_not_mix(name):
    with pytest.raises(TypeError):
        MIXTURES[name]()


RESULTS = {
    "arithmetic": lambda x: (2 * x + 1 - x / 3) ** 2,
    "comparison": lambda x: (x > 3) & (x <= 7),
    "numpy's ufunc": lambda x: np.sqrt(np.maximum(x, 1)),
    "where": lambda x: np.where(x > 3, x, -x),
    "concatenate": lambda x: np.concatenate([x, x[:1]], axis=0),
    "transpose": lambda x: np.transpose(x),
    "zeros_like": lambda x: np.zeros_like(x),
    "sum": lambda x: x.sum(axis=0, keepdims=True),
    "mean": lambda x: np.mean(x, axis=1),
    "argmax": lambda x: x.argmax(axis=1),
    "matrix product": lambda x: x @ x.T,
    "broadcast_to": lambda x: np.broadcast_to(x[0], (2, 4)),
    "strides": lambda x: x[::-2, 1::2],
    "mask": lambda x: x[x > 4],
    "astype": lambda x: x.astype(np.int64),
    "reshape": lambda x: x.reshape(2, -1).T,
    "moveaxis": lambda x: np.moveaxis(x[None], 0, -1),
    "clip": lambda x: np.clip(x, 2, 5),
}


@pytest.mark.parametrize("name", RESULTS)
def test_operations_stay_on_the_device_and_agree_with_numpy(name):
    found, wanted = RESULTS[name](device()), RESULTS[name](HOST)
    assert isinstance(found, cp.ndarray)
    assert found.dtype == wanted.dtype and found.shape == wanted.shape
    assert np.array_equal(found.get(), wanted)


TURNED = {
    "ufunc": lambda x: np.exp(x),
    "two inputs": lambda x: x + x,
    "a number": lambda x: 2 * x,
    "comparison": lambda x: x > 3,
    "where": lambda x: np.where(x > 3, x, -x),
    "clip": lambda x: np.clip(x, 2, 5),
    "concatenate": lambda x: np.concatenate([x, x]),
    "sum": lambda x: x[None].sum(axis=0),
    "copy": lambda x: x.copy(),
    "ascontiguousarray": lambda x: cp.ascontiguousarray(x),
    "mask": lambda x: x[np.ones(4, bool).tolist()],
}
KEPT = {
    "astype": lambda x: x.astype(np.float64),
    "astype of its own dtype": lambda x: x.astype(x.dtype),
    "copy K": lambda x: x.copy(order="K"),
    "array": lambda x: cp.array(x),
    "zeros_like": lambda x: np.zeros_like(x),
    "out": lambda x: np.add(x, x, out=cp.empty_like(x)),
}


@pytest.mark.parametrize("name", [*TURNED, *KEPT])
def test_results_are_in_c_order_and_copies_as_they_lie(name):
    """As CuPy's ufuncs (`_get_out_args_from_optionals`) and reductions make their outputs, in
    whatever order their inputs are; `astype` and the ``_like`` functions have order="K"."""
    x = device().T
    found = (TURNED | KEPT)[name](x)
    assert found.shape[1] == 3 and found.flags.f_contiguous == (name in KEPT)
    assert found.flags.c_contiguous == (name in TURNED)


def test_views_share_memory_and_results_do_not():
    x = device()
    for view in (x[1:], x.T, x.reshape(-1), np.expand_dims(x, 0), x[:, ::2]):
        assert cp.may_share_memory(x, view) and view.base is x
    for copy in (x + 0, x.copy(), x.astype(np.float32), x[[0, 1]], cp.array(x)):
        assert not cp.may_share_memory(x, copy) and copy.base is None
    x[1:] += 10
    x.T[0] *= 2
    wanted = HOST.copy()
    wanted[1:] += 10
    wanted[:, 0] *= 2
    assert np.array_equal(x.get(), wanted)


def test_a_reduction_is_an_array_of_no_dimension_as_in_cupy():
    total = device().sum()
    assert isinstance(total, cp.ndarray) and total.shape == ()
    assert float(total) == total.item() == 66 and bool(total > 3)


def test_fresh_memory_is_poisoned():
    assert np.isnan(cp.empty(3, np.float32).get()).all()
    assert abs(cp.empty(3, np.int64).get()).min() > 1e18


KERNEL = """extern "C" __global__ void scale(const float* x, float* y, float by, int n)
{ if (threadIdx.x < n) y[threadIdx.x] = x[threadIdx.x] * by; }"""
GOOD = (np.float32(2), np.int32(3))


def arguments(**changes):
    given = {"x": cp.ones(3, np.float32), "y": cp.empty(3, np.float32), "by": GOOD[0], "n": GOOD[1]}
    return tuple((given | changes).values())


WRONG = {
    "a Python float": (arguments(by=2.0), "argument 2 is a Python float"),
    "a Python int": (arguments(n=3), "argument 3 is a Python int"),
    "another width": (arguments(n=np.int64(3)), "argument 3 is int64; the kernel reads int32"),
    "float64": (arguments(x=cp.ones(3)), "argument 0 is an array of float64"),
    "a NumPy array": (arguments(x=HOST), "argument 0 is ndarray, not an array on the device"),
    "strides": (arguments(x=cp.ones((6,), np.float32)[::2]), "argument 0 is not C-contiguous"),
    "an array for a number": (arguments(n=cp.ones(1, np.int32)), "argument 3 is an array"),
    "too many": ((*arguments(), GOOD[0]), "takes 4 arguments, got 5"),
    "too few": (arguments()[:3], "takes 4 arguments, got 3"),
}


@needs_compiler
@pytest.mark.parametrize("name", WRONG)
def test_what_cupy_would_pass_on_unseen_is_refused(name):
    given, message = WRONG[name]
    with pytest.raises(TypeError, match=message):
        cp.RawModule(code=KERNEL).get_function("scale")((1,), (32,), given)


@needs_compiler
@pytest.mark.parametrize("grid, block, shared", [
    ((0,), (32,), 0), ((1, 70000), (32,), 0), ((1,), (1025,), 0), ((1,), (1, 1, 65), 0),
    ((1,), (32,), 60000),
])  # fmt: skip
def test_a_launch_that_no_device_could_run_is_refused(grid, block, shared):
    with pytest.raises(ValueError, match="scale"):
        kernel = cp.RawModule(code=KERNEL).get_function("scale")
        kernel(grid, block, arguments(), shared_mem=shared)


@needs_compiler
def test_dynamic_shared_memory_and_a_null_pointer():
    code = """extern "C" __global__ void turn(float* x, const float* none)
    { extern __shared__ float s[]; s[threadIdx.x] = x[threadIdx.x]; __syncthreads();
      if (!none) x[threadIdx.x] = s[blockDim.x - 1 - threadIdx.x]; }"""
    x = cp.arange(40, dtype=np.float32)
    turn = cp.RawModule(code=code).get_function("turn")
    with cp.checked():
        turn((1,), (40,), (x, None), shared_mem=160)
    assert np.array_equal(x.get(), np.arange(40)[::-1])
    with cp.checked(), pytest.raises(cp.KernelFault, match="out of bounds"):
        turn((1,), (40,), (x, None), shared_mem=156)


@needs_compiler
def test_a_text_that_does_not_compile_says_where():
    with pytest.raises(InputError, match=r"bad\.cu:2:.*error"):
        text = '#line 1 "bad.cu"\nextern "C" __global__ void k(float* x)\n{ x[0] = nothing; }'
        cp.RawModule(code=text).get_function("k")((1,), (1,), (cp.ones(1, np.float32),))


def test_without_a_compiler_one_sentence_says_how_to_install_it(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(InputError, match="g\\+\\+, which is not installed; install it"):
        build.shared_object(KERNEL, (), False)


@needs_compiler
def test_two_processes_may_build_at_once_and_a_third_only_loads(tmp_path):
    code = f"""
import numpy as np
from minifcn import simulator as cp
x = cp.ones(3, np.float32)
cp.RawModule(code={KERNEL!r}).get_function("scale")((1,), (32,), (x, x, np.float32(2), np.int32(3)))
assert (x.get() == 2).all()"""
    env = {**os.environ, "MINIFCN_SIMULATOR_CACHE": str(tmp_path / "cache")}
    both = [subprocess.Popen([sys.executable, "-c", code], env=env) for _ in range(2)]
    assert [one.wait() for one in both] == [0, 0]
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert {path.suffix for path in files} == {".o", ".so"} and len(files) == 2
    subprocess.run([sys.executable, "-c", code], env=env, check=True)
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
