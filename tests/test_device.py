"""Devices: what is here and why not, moves, and that arrays of two devices never mix."""

import ctypes
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import minifcn as mf
import minifcn.functional as F
from minifcn import device, nn, optim
from minifcn.errors import DeviceError, InputError, ShapeError
from tests.simulated import needs_compiler

SIM = "cuda-sim"


@pytest.fixture(autouse=True)
def probed_anew():
    device.why_not.cache_clear()
    yield
    device.why_not.cache_clear()


def fake_cupy(monkeypatch, *, runtime=12090, count=1, fails=None):
    """A CuPy that answers as told; its arrays are NumPy's."""

    def arange(n):
        if fails:
            raise fails
        return np.arange(n)

    answers = SimpleNamespace(runtimeGetVersion=lambda: runtime, getDeviceCount=lambda: count)
    cupy = SimpleNamespace(cuda=SimpleNamespace(runtime=answers), arange=arange)
    monkeypatch.setattr(device, "_cupy", lambda: cupy)


def missing():
    raise ModuleNotFoundError("No module named 'cupy'", name="cupy")


@pytest.mark.parametrize(
    "driver, cupy, said",
    [
        (None, {}, "no GPU: this machine has no NVIDIA driver"),
        (11080, {}, "the NVIDIA driver speaks CUDA 11.8, too old"),
        (12040, None, "CuPy is missing; install it with `pip install 'minifcn[cuda12]'`"),
        (13000, None, "pip install 'minifcn[cuda13]'"),
        (12040, {"runtime": 13000}, "CUDA 12.4, older than CuPy's own"),
        (12040, {"count": 0}, "finds no card"),
        (12040, {"fails": RuntimeError("cudaErrorNoDevice:\n no device.")}, "cudaErrorNoDevice"),
        (12040, {}, None),
        (13000, {}, None),
    ],
)
def test_why_there_is_no_gpu(monkeypatch, driver, cupy, said):
    monkeypatch.setattr(device, "driver_version", lambda: driver)
    if cupy is None:
        monkeypatch.setattr(device, "_cupy", missing)
    else:
        fake_cupy(monkeypatch, **cupy)
    reason = device.why_not("cuda")
    assert (reason is None) == (said is None) == (device.choose("auto") == "cuda")
    if said:
        assert said in reason and "\n" not in reason
        with pytest.raises(InputError, match="device 'cuda' cannot be used: "):
            device.use("cuda")


def test_a_cupy_that_cannot_be_loaded_is_no_crash(monkeypatch):
    def broken():
        raise ImportError("libcublas.so.12: cannot open shared object file")

    monkeypatch.setattr(device, "driver_version", lambda: 12040)
    monkeypatch.setattr(device, "_cupy", broken)
    assert "libcublas.so.12" in device.why_not("cuda")


def test_the_driver_is_asked_itself(monkeypatch):
    def answer(pointer):
        ctypes.cast(pointer, ctypes.POINTER(ctypes.c_int))[0] = 12040
        return 0

    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(cuDriverGetVersion=answer))
    assert device.driver_version() == 12040
    assert device.version_text(12040) == "12.4"


def test_without_a_compiler_the_simulator_says_so(monkeypatch):
    monkeypatch.setattr(device.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match=r"cuda-sim.*g\+\+.*apt install"):
        device.use(SIM)


def test_an_unknown_device():
    with pytest.raises(InputError, match="device is 'gpu'; choose one of cpu, reference, cuda"):
        device.use("gpu")


def test_importing_minifcn_loads_no_device():
    code = (
        "import sys, minifcn; from minifcn import device; device.choose('auto')\n"
        "print({'cupy', 'numba'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.fixture
def draw():
    generator = np.random.default_rng(0)
    return lambda *shape: generator.standard_normal(shape).astype(np.float32)


pytestmark = needs_compiler


@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (5, 7), (2, 3, 4, 5), (1, 1, 1, 1)])
def test_there_and_back(shape, draw):
    x = np.asarray(draw(*shape))
    there = device.move(x, SIM)
    assert device.name_of(there) == SIM and device.is_gpu(there) and not device.is_gpu(x)
    assert there.shape == shape and np.array_equal(device.move(there, "cpu"), x)
    assert device.move(there, SIM) is there and device.move(x, "reference") is x


def test_a_picture_keeps_its_order_in_memory(draw):
    x = draw(2, 5, 7, 3).transpose(0, 3, 1, 2)
    there = device.move(x, SIM)
    assert there.strides == x.strides and device.move(there, "cpu").strides == x.strides
    assert device.contiguous(there.transpose(0, 2, 3, 1)).flags.c_contiguous


def test_a_tensor_knows_where_it_is(draw):
    x = mf.Tensor(draw(2, 3))
    assert x.device == "cpu" and x.to("cpu") is x and x.cpu() is x
    there = x.to(SIM)
    assert there.device == SIM and there.to(SIM) is there
    assert f"device='{SIM}'" in repr(there)
    assert np.array_equal(there.numpy(), x.numpy())
    assert there.to(np.float64).dtype == np.float64 and there.to(np.float64).device == SIM
    assert there.sum().item() == pytest.approx(float(x.numpy().sum()), rel=1e-6)


def test_new_tensors_go_to_the_device_in_use(draw):
    array = draw(2)
    with device.use(SIM):
        made = [mf.zeros(2), mf.ones(2), mf.randn(2, generator=np.random.default_rng(1))]
        made.append(mf.Tensor([1.0, 2.0]))
        assert [x.device for x in made] == [SIM] * 4
        assert mf.Tensor(array).device == "cpu"  # an array stays where it is
    here = mf.randn(2, generator=np.random.default_rng(1))
    assert np.array_equal(made[2].numpy(), here.numpy())


def test_the_gradient_lives_where_the_tensor_lives(draw):
    here = mf.Tensor(draw(2, 3), requires_grad=True)
    there = mf.Tensor(device.move(draw(2, 3), SIM), requires_grad=True)
    (here.to(SIM) * there).sum().backward()
    assert here.grad.device == "cpu" and there.grad.device == SIM
    assert np.array_equal(here.grad.numpy(), there.numpy())
    assert np.array_equal(there.grad.numpy(), here.numpy())


def mixtures():
    x = mf.Tensor(np.ones((1, 2, 4, 4), np.float32))
    y = x.to(SIM)
    w = mf.Tensor(np.ones((2, 2, 3, 3), np.float32))
    yield "Add|add", lambda: x + y
    yield "mul", lambda: y * x
    yield "lt", lambda: x < y
    yield "Conv2d", lambda: F.conv2d(y, w)
    yield "Cat", lambda: mf.cat([x, y], 1)
    yield "cross_entropy", lambda: F.cross_entropy(y, np.zeros((1, 4, 4), np.int64))
    yield "batch_norm", lambda: F.batch_norm(y, np.zeros(2), np.ones(2))
    yield "add_", lambda: y.add_(x)
    yield "mul_", lambda: y.mul_(x.numpy())
    yield r"x\[\.\.\.\] = value", lambda: y.__setitem__(0, x[0])
    yield "numpy.asarray", lambda: np.asarray(y)
    yield "backward", lambda: mf.Tensor(y.data, True).backward(x)


@pytest.mark.parametrize("number", range(12))
def test_mixing_raises_and_says_how_to_mend_it(number):
    op, mix = list(mixtures())[number]
    with pytest.raises(DeviceError, match=f"^({op}): .*'cuda-sim'.*(\\.to\\(|\\.numpy\\(\\))"):
        mix()


def test_copy_moves():
    x = mf.Tensor(np.zeros(3)).to(SIM)
    x.copy_(np.arange(3.0))
    assert x.device == SIM and x.numpy().tolist() == [0, 1, 2]


def small():
    generator = np.random.default_rng(4)
    return nn.Sequential(nn.Linear(3, 4, generator=generator), nn.Linear(4, 2, generator=generator))


@pytest.mark.parametrize("make", [lambda p: optim.SGD(p, 0.1, 0.9), lambda p: optim.AdamW(p, 0.1)])
def test_a_module_and_its_optimiser_move_and_their_state_fits_any_device(make, draw):
    x = draw(5, 3)
    states = {}
    for name in ("cpu", SIM):
        model = small().to(name)
        optimizer = make(model.parameters())
        for _ in range(3):
            optimizer.zero_grad()
            (model(mf.Tensor(x).to(name)) ** 2).sum().backward()
            optimizer.step()
        assert {p.device for p in model.parameters()} == {name}
        states[name] = model.state_dict() | optimizer.state_dict()
        other = small().to("cpu" if name == SIM else SIM)
        other.load_state_dict(model.state_dict())
        fresh = make(other.parameters())
        fresh.load_state_dict(optimizer.state_dict())
        assert all(
            np.array_equal(a, fresh.state_dict()[key]) for key, a in optimizer.state_dict().items()
        )
    for key, there in states[SIM].items():
        assert isinstance(there, np.ndarray)
        np.testing.assert_allclose(there, states["cpu"][key], rtol=2e-5, atol=1e-7)


def test_dropout_drops_the_same_elements_everywhere(draw):
    x = mf.Tensor(np.abs(draw(2, 3, 5, 4)) + 1)
    found = [
        F.dropout(x.to(name), 0.4, True, np.random.default_rng(9)).numpy() for name in ("cpu", SIM)
    ]
    assert np.array_equal(*found) and 0 < (found[0] == 0).mean() < 1


def test_an_index_array_has_no_gradient_on_a_gpu(draw):
    x = mf.Tensor(device.move(draw(4, 2), SIM), requires_grad=True)
    y = x[[0, 2, 2]]
    assert np.array_equal(y.numpy(), x.numpy()[[0, 2, 2]])
    with pytest.raises(DeviceError, match="index with slices"):
        y.sum().backward()


def test_indexing_is_the_cpus(draw):
    """CuPy would take a number beyond the length modulo it."""
    x = mf.Tensor(device.move(draw(4, 2), SIM), requires_grad=True)
    for beyond in ([0, 4], np.array([-5]), (slice(None), [2])):
        with pytest.raises(ShapeError, match="out of bounds"):
            x[beyond]
    x[np.int64(1)].sum().backward()
    assert np.array_equal(x.grad.numpy(), [[0, 0], [1, 1], [0, 0], [0, 0]])


def test_whole_numbers_and_raw_arrays():
    whole = mf.Tensor(np.arange(-3, 3).reshape(1, 2, 3, 1)).to(SIM)
    assert np.array_equal(F.relu(whole).numpy(), np.maximum(whole.numpy(), 0))
    assert np.array_equal(mf.cat([whole, whole], 1).numpy()[:, 2:], whole.numpy())
    x = mf.Tensor(np.ones(2, np.float32)).to(SIM)
    assert np.array_equal((x + x.data).numpy(), [2, 2])
