"""A GPU's parameters move together: a launch a group, the values as one by one on the CPU."""

import numpy as np
import pytest

from minifcn import Tensor, launch, optim
from tests.simulated import needs_compiler

pytestmark = needs_compiler
KINDS = {
    "SGD": lambda p: optim.SGD(p, 0.1, momentum=0.9, dampening=0.1, weight_decay=0.01),
    "Nesterov": lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    "AdamW": lambda p: optim.AdamW(p, 0.01),
}


def parameters(name):
    generator = np.random.default_rng(0)
    shapes = [(3, 3, 5, 7), (7,), (), (0, 2), (4, 5)]
    arrays = [np.asarray(generator.standard_normal(s), np.float32) for s in shapes]
    arrays[0] = arrays[0].transpose(3, 2, 0, 1)  # a filter, as convolutions keep theirs
    return [Tensor(Tensor(a).to(name).data, requires_grad=True) for a in arrays]


def give_gradients(own, number, but=()):
    generator = np.random.default_rng(number)
    for i, p in enumerate(own):
        gradient = np.asarray(generator.standard_normal(p.shape), np.float32)
        p.grad = None if i in but else Tensor(gradient).to(p.device)


@pytest.mark.parametrize("kind", KINDS)
def test_together_as_one_by_one(kind):
    """Also where a parameter sits a step out, and after the state came from a file."""
    here, there = parameters("cpu"), parameters("cuda-sim")
    one_by_one, together = KINDS[kind](here), KINDS[kind](there)
    for number, but in enumerate([(), (), (1,), (), ()]):
        if number == 4:
            fresh = KINDS[kind](there)
            fresh.load_state_dict(together.state_dict())
            together = fresh
        for own, optimizer in ((here, one_by_one), (there, together)):
            give_gradients(own, number, but)
            optimizer.step()
        for a, b in zip(here, there, strict=True):
            assert a.data.strides == b.data.strides or not a.numel() or a.ndim == 0
            np.testing.assert_allclose(b.numpy(), a.numpy(), rtol=2e-5, atol=1e-6)
    states = one_by_one.state_dict(), together.state_dict()
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        np.testing.assert_allclose(states[1][key], value, rtol=2e-5, atol=1e-6)


def test_a_step_is_one_launch():
    own = parameters("cuda-sim")
    optimizer = optim.SGD(own, 0.1, momentum=0.9)
    for number in range(3):
        give_gradients(own, number)
        with launch.counted() as launches:
            optimizer.step()
        assert [one.name for one in launches] == ["sgd"]


def test_what_was_given_another_array_is_joined_anew():
    own = parameters("cuda-sim")
    optimizer = optim.SGD(own, 0.5)
    give_gradients(own, 0)
    optimizer.step()
    own[1].data = Tensor(np.zeros(7, np.float32)).to("cuda-sim").data
    give_gradients(own, 1)
    gradient = own[1].grad.numpy()
    optimizer.step()
    np.testing.assert_allclose(own[1].numpy(), -0.5 * gradient, rtol=1e-6)


def test_parameters_that_moved_alone_and_then_together_again():
    """Adam's correction goes by the number of steps, and that is each parameter's own."""
    states = []
    for name in ("cpu", "cuda-sim"):
        a, b = parameters(name)[:2]
        optimizer = optim.AdamW([a, b], 0.01)
        for number, but in enumerate([(), (), (1,), (1,), (0,), (0,), ()]):
            give_gradients([a, b], number, but)
            optimizer.step()
        states.append((optimizer.state_dict(), a.numpy()))
    (here, a), (there, b) = states
    assert int(here["state.0.step"]) == int(there["state.0.step"]) == 5
    np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-7)


def test_an_optimiser_follows_its_parameters_to_another_device():
    here, moved = parameters("cpu"), parameters("cpu")
    optimizers = [KINDS["SGD"](own) for own in (here, moved)]
    for number in range(2):
        for own, optimizer in zip((here, moved), optimizers):
            if number == 1 and own is moved:
                for p in own:
                    p.data = p.to("cuda-sim").data
            give_gradients(own, number)
            optimizer.step()
    for p, q in zip(here, moved):
        assert q.device == "cuda-sim"
        np.testing.assert_allclose(q.numpy(), p.numpy(), rtol=1e-5, atol=1e-7)
