"""Schedules: published values, purity in the step number, resuming."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minifcn import Tensor, optim
from minifcn.errors import InputError


def sgd(lr=0.1):
    a, b = (Tensor(np.zeros(1), requires_grad=True) for _ in range(2))
    return optim.SGD([{"params": [a]}, {"params": [b], "lr": 10 * lr}], lr=lr)


def lrs(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def test_poly():
    optimizer = sgd()
    schedule = optim.PolyLR(optimizer, total_steps=10, power=0.5)
    found = []
    for _ in range(13):
        found.append(lrs(optimizer))
        schedule.step()
    for step, (a, b) in enumerate(found):
        wanted = 0.1 * math.sqrt(max(0, 10 - step) / 10)
        assert a == pytest.approx(wanted) and b == pytest.approx(10 * wanted)


def test_step():
    optimizer = sgd()
    schedule = optim.StepLR(optimizer, step_size=3, gamma=0.5)
    found = []
    for _ in range(7):
        found.append(lrs(optimizer)[0])
        schedule.step()
    assert found == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025])


def test_cosine():
    optimizer = sgd()
    schedule = optim.CosineAnnealingLR(optimizer, T_max=4, eta_min=0.02)
    found = []
    for _ in range(5):
        found.append(lrs(optimizer)[0])
        schedule.step()
    half = math.sqrt(0.5)
    assert found == pytest.approx(
        [0.1, 0.06 + 0.04 * half, 0.06, 0.06 - 0.04 * half, 0.02], rel=1e-12
    )


def test_warmup():
    optimizer = sgd()
    schedule = optim.LinearWarmup(optim.StepLR(optimizer, step_size=5), steps=4)
    found = []
    for _ in range(6):
        found.append(lrs(optimizer)[0])
        schedule.step()
    assert found == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.01])


MAKE = {
    "poly": lambda o: optim.PolyLR(o, total_steps=20),
    "step": lambda o: optim.StepLR(o, step_size=3),
    "cosine": lambda o: optim.CosineAnnealingLR(o, T_max=20),
    "warmup": lambda o: optim.LinearWarmup(optim.PolyLR(o, total_steps=20), steps=5),
}


@pytest.mark.parametrize("name", MAKE)
@given(steps=st.integers(0, 25))
def test_only_the_number_counts(name, steps):
    """Step by step, at one go, or after resuming: the same learning rates, to the bit."""
    walked, jumped = sgd(), sgd()
    schedule = MAKE[name](walked)
    for _ in range(steps):
        schedule.step()
    assert schedule.last_step == steps
    MAKE[name](jumped).step(steps)
    assert lrs(jumped) == lrs(walked)

    resumed = sgd()
    resumed.load_state_dict(walked.state_dict())  # holds the lr of that step, not the first
    MAKE[name](resumed).step(steps)
    assert lrs(resumed) == lrs(walked)


def test_lr_mult_is_kept_apart():
    optimizer = sgd()
    optimizer.param_groups[0]["lr_mult"] = 2.0
    optim.StepLR(optimizer, step_size=1, gamma=0.5).step()
    p = optimizer.param_groups[0]["params"][0]
    p.grad = Tensor(np.ones(1))
    optimizer.step()
    assert p.item() == pytest.approx(-0.1 * 0.5 * 2)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda o: optim.PolyLR(o, 0), "total_steps is 0"),
        (lambda o: optim.StepLR(o, -1), "step_size is -1"),
        (lambda o: optim.CosineAnnealingLR(o, 0), "T_max is 0"),
        (lambda o: optim.LinearWarmup(optim.StepLR(o, 1), 0), "steps is 0"),
        (lambda o: optim.StepLR(o, 1).step(-1), "step is -1"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(InputError, match=message):
        make(sgd())
