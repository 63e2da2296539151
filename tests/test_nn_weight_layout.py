"""The layers keep their weights as (R, S, C, K) in memory, and there they stay."""

import copy

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minifcn as mf
from minifcn import nn, optim

LAYERS = {
    "conv": lambda seed: nn.Conv2d(18, 20, (3, 2), generator=np.random.default_rng(seed)),
    "grouped": lambda seed: nn.Conv2d(18, 20, 3, groups=2, generator=np.random.default_rng(seed)),
    "deconv": lambda seed: nn.ConvTranspose2d(18, 20, 4, 2, generator=np.random.default_rng(seed)),
}
every_layer = pytest.mark.parametrize("build", LAYERS.values(), ids=LAYERS)


def by_taps(layer):
    """Whether the weight (A, B, R, S) lies as (R, S, B, A) in memory."""
    return layer.weight.data.transpose(2, 3, 1, 0).flags.c_contiguous


def answer(layer):
    x = mf.randn(2, 18, 9, 8, generator=np.random.default_rng(5))
    return layer(x).numpy().tobytes()


@every_layer
def test_state_dict_and_files(build, tmp_path):
    layer, other = build(0), build(1)
    assert by_taps(layer) and answer(layer) != answer(other)
    other.load_state_dict(layer.state_dict())
    assert by_taps(other) and answer(layer) == answer(other)
    state = {name: np.ascontiguousarray(a) for name, a in layer.state_dict().items()}
    save_file(state, tmp_path / "layer")  # as (K, C, R, S) in memory, as others write it
    another = build(2)
    another.load_state_dict(load_file(tmp_path / "layer"))
    assert by_taps(another) and answer(layer) == answer(another)


@every_layer
def test_a_copy(build):
    layer = build(0)
    twin = copy.deepcopy(layer)
    assert by_taps(twin) and answer(twin) == answer(layer)
    twin.weight.data[...] = 0
    assert by_taps(layer) and answer(twin) != answer(layer)


@every_layer
@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.SGD(p, 0.1, momentum=0.9, weight_decay=1e-3),
        lambda p: optim.AdamW(p, 0.1),
    ],
)
def test_optimizer_steps(build, make):
    """Steps are right for this memory: a weight in plain memory goes the same way."""
    layer = build(0)
    plain = nn.Parameter(np.ascontiguousarray(layer.weight.data))
    steps, plain_steps = make([layer.weight]), make([plain])
    for seed in range(3):
        gradient = np.random.default_rng(seed).standard_normal(plain.shape).astype(np.float32)
        layer.weight.grad, plain.grad = mf.Tensor(gradient), mf.Tensor(gradient.copy())
        steps.step()
        plain_steps.step()
    assert by_taps(layer)
    np.testing.assert_array_equal(layer.weight.data, plain.data)


@every_layer
def test_a_step_of_training(build):
    layer = build(0)
    before, steps = layer.weight.data.copy(), optim.SGD(layer.parameters(), 0.1)
    layer(mf.randn(2, 18, 9, 8, generator=np.random.default_rng(5))).sum().backward()
    gradient = layer.weight.grad.numpy().copy()
    steps.step()
    assert by_taps(layer)
    np.testing.assert_allclose(layer.weight.data, before - 0.1 * gradient, atol=1e-5)


@every_layer
def test_the_drawn_numbers_do_not_depend_on_the_layout(build):
    """A seed gives the numbers that it gave in (K, C, R, S) memory, in that order."""
    layer = build(3)
    plain = nn.Parameter(np.zeros(layer.weight.shape, np.float32))
    nn.init.normal_(plain, np.random.default_rng(3), std=1.0)
    ratio = layer.weight.data / plain.data
    np.testing.assert_allclose(ratio, ratio.flat[0], rtol=1e-5)
