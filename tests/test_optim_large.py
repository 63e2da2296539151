"""Large parameters take the compiled step: the same bits as the definition, whatever the memory."""

import numpy as np
import pytest

from minifcn import Tensor, device, optim

KINDS = {
    "sgd": lambda p: optim.SGD(p, lr=0.1, weight_decay=0.01),
    "plain sgd": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.2, weight_decay=0.01),
    "nesterov": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda p: optim.Adam(p, lr=0.1, weight_decay=0.01),
    "adamw": lambda p: optim.AdamW(p, lr=0.1),
}
SHAPE = (37, 19, 3, 5)  # above the size from which the compiled step is used, divisible by nothing


def contiguous(array):
    return np.array(array, order="C")


def transposed(array):
    return np.ascontiguousarray(array.transpose(2, 3, 1, 0)).transpose(3, 2, 0, 1)


def gapped(array):
    wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), np.nan, array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


def after_steps(make, name, p_layout, g_layout, dtype):
    rng = np.random.default_rng(0)
    p = Tensor(p_layout(rng.standard_normal(SHAPE).astype(dtype)), requires_grad=True)
    array = p.data
    optimizer = make([p])
    with device.use(name):
        for _ in range(3):
            p.grad = Tensor(g_layout(rng.standard_normal(SHAPE).astype(dtype)))
            before = p.grad.data.copy()
            optimizer.step()
            np.testing.assert_array_equal(p.grad.data, before)
    assert p.data is array  # changed in place, for whoever else holds it
    return np.ascontiguousarray(p.data), optimizer.state_dict()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("g_layout", [contiguous, transposed, gapped])
@pytest.mark.parametrize("p_layout", [contiguous, transposed, gapped])
@pytest.mark.parametrize("kind", KINDS)
def test_the_bits_of_the_definition(kind, p_layout, g_layout, dtype):
    wanted, state = after_steps(KINDS[kind], "reference", contiguous, contiguous, dtype)
    found, found_state = after_steps(KINDS[kind], "cpu", p_layout, g_layout, dtype)
    assert found.tobytes() == wanted.tobytes()
    assert all(found_state[key].tobytes() == state[key].tobytes() for key in state)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_a_number_stays_where_it_is(kind):
    p = Tensor(np.ones(5000, np.float32), requires_grad=True)
    g = np.ones(5000, np.float32)
    g[[7, 4999]] = np.nan, np.inf
    optimizer = KINDS[kind]([p])
    p.grad = Tensor(g)
    with np.errstate(invalid="ignore"):
        optimizer.step()
        optimizer.step()
    broken = np.flatnonzero(~np.isfinite(p.data))
    assert broken.tolist() == [7, 4999]


def test_a_float64_gradient_for_a_float32_parameter():
    p = Tensor(np.ones(5000, np.float32), requires_grad=True)
    p.grad = Tensor(np.ones(5000))
    optim.SGD([p], lr=0.5).step()
    assert p.dtype == np.float32 and (p.data == 0.5).all()
