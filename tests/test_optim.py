"""Optimisers against their rules written out for one number, groups, state, refusals."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minifcn import Tensor, optim
from minifcn.errors import GraphError, InputError


def parameter(*shape, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return Tensor(rng.standard_normal(shape).astype(dtype), requires_grad=True)


def gradients(shape, steps, seed=1):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for _ in range(steps)]


def run(optimizer, p, grads):
    for g in grads:
        p.grad = Tensor(g)
        optimizer.step()


def sgd_by_hand(p, grads, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    """One number through the rule of torch.optim.SGD's documentation."""
    buffer = None
    for g in grads:
        g = g + weight_decay * p
        if momentum != 0:
            buffer = g if buffer is None else momentum * buffer + (1 - dampening) * g
            g = g + momentum * buffer if nesterov else buffer
        p = p - lr * g
    return p


def adam_by_hand(p, grads, lr, betas, eps, weight_decay, decoupled):
    """One number through algorithm 1 of Kingma and Ba (2015), with PyTorch's two weight decays."""
    m = v = 0.0
    for t, g in enumerate(grads, 1):
        if decoupled:
            p = p - lr * weight_decay * p
        else:
            g = g + weight_decay * p
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        m_hat, v_hat = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
        p = p - lr * m_hat / (math.sqrt(v_hat) + eps)
    return p


@given(
    lr=st.floats(0, 1),
    momentum=st.sampled_from([0.0, 0.5, 0.99]),
    dampening=st.sampled_from([0.0, 0.3]),
    weight_decay=st.sampled_from([0.0, 0.01]),
    nesterov=st.booleans(),
)
def test_sgd(lr, momentum, dampening, weight_decay, nesterov):
    nesterov = nesterov and momentum > 0
    dampening = 0.0 if nesterov else dampening
    settings = (lr, momentum, dampening, weight_decay, nesterov)
    p, grads = parameter(2, 3), gradients((2, 3), 6)
    start = p.numpy().copy()
    run(optim.SGD([p], *settings), p, grads)
    for i in np.ndindex(2, 3):
        wanted = sgd_by_hand(float(start[i]), [float(g[i]) for g in grads], *settings)
        assert p.numpy()[i] == pytest.approx(wanted, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("kind", [optim.Adam, optim.AdamW])
@given(
    lr=st.floats(0, 1),
    betas=st.sampled_from([(0.9, 0.999), (0.0, 0.5), (0.5, 0.0)]),
    eps=st.sampled_from([1e-8, 0.1]),
    weight_decay=st.sampled_from([0.0, 0.01]),
)
def test_adam(kind, lr, betas, eps, weight_decay):
    p, grads = parameter(2, 3), gradients((2, 3), 6)
    start = p.numpy().copy()
    run(kind([p], lr, betas, eps, weight_decay), p, grads)
    for i in np.ndindex(2, 3):
        wanted = adam_by_hand(
            float(start[i]),
            [float(g[i]) for g in grads],
            lr,
            betas,
            eps,
            weight_decay,
            kind is optim.AdamW,
        )
        assert p.numpy()[i] == pytest.approx(wanted, rel=1e-12, abs=1e-12)


def test_adam_does_not_see_the_scale_of_the_gradient():
    """The published property: a constant gradient of any size moves p by lr each step."""
    for size in (1e-3, 1.0, 1e6):
        p = Tensor(np.zeros(1), requires_grad=True)
        run(optim.Adam([p], lr=0.1, eps=0.0), p, [np.full(1, size)] * 5)
        assert p.item() == pytest.approx(-0.5, rel=1e-12)


KINDS = {
    "SGD": lambda p, **k: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True, **k),
    "SGD dampened": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.1),
    "SGD plain": lambda p: optim.SGD(p, lr=0.1),
    "Adam": lambda p: optim.Adam(p, lr=0.1, weight_decay=0.01),
    "AdamW": lambda p: optim.AdamW(p, lr=0.1),
}


@pytest.mark.parametrize("name", KINDS)
class TestEveryKind:
    def test_defaults_find_a_minimum(self, name):
        p = Tensor(np.array([3.0, -2.0]), requires_grad=True)
        optimizer = KINDS[name]([p])
        for _ in range(300):
            optimizer.zero_grad()
            ((p - 1.0) ** 2).sum().backward()
            optimizer.step()
        assert np.abs(p.numpy() - 1).max() < 0.02

    def test_gradient_is_left_alone_and_dtype_kept(self, name):
        p = parameter(3, 2, dtype=np.float32)
        g = np.ones((3, 2), np.float32)
        run(KINDS[name]([p]), p, [g, g])
        assert p.dtype == np.float32 and np.all(g == 1)

    def test_memory_order_does_not_matter(self, name):
        """A channels-last gradient meets a parameter in C order, and the other way round."""
        found = []
        for order_p, order_g in [("C", "C"), ("C", "L"), ("L", "C"), ("L", "L")]:
            p, grads = parameter(2, 3, 4, 5), gradients((2, 3, 4, 5), 3)
            last = lambda a: np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)  # noqa: E731
            if order_p == "L":
                p = Tensor(last(p.numpy()), requires_grad=True)
            if order_g == "L":
                grads = [last(g) for g in grads]
            run(KINDS[name]([p]), p, grads)
            found.append(p.numpy().copy())
        for other in found[1:]:
            np.testing.assert_array_equal(other, found[0])

    def test_parameters_without_a_gradient_stand_still(self, name):
        p, frozen, unused = parameter(2), parameter(2, seed=5), parameter(2, seed=6)
        frozen.requires_grad = False
        frozen.grad = Tensor(np.ones(2))
        before = frozen.numpy().copy(), unused.numpy().copy()
        run(KINDS[name]([p, frozen, unused]), p, gradients((2,), 2))
        np.testing.assert_array_equal(frozen.numpy(), before[0])
        np.testing.assert_array_equal(unused.numpy(), before[1])

    def test_a_late_parameter_starts_its_own_count(self, name):
        """Adam's bias correction counts each parameter's own steps, as PyTorch does."""
        a, b = parameter(2), parameter(2)
        optimizer = KINDS[name]([a, b])
        grads = gradients((2,), 2)
        run(optimizer, a, grads)
        a.grad = None
        run(optimizer, b, grads)
        np.testing.assert_array_equal(a.numpy(), b.numpy())

    def test_a_resumed_run_gives_the_same_bits(self, name):
        grads = gradients((3, 4), 6)
        straight = parameter(3, 4, dtype=np.float32)
        grads = [g.astype(np.float32) for g in grads]
        run(KINDS[name]([straight]), straight, grads)

        p = parameter(3, 4, dtype=np.float32)
        first = KINDS[name]([p])
        run(first, p, grads[:3])
        saved = {key: value.copy() for key, value in first.state_dict().items()}
        assert all(type(value) is np.ndarray for value in saved.values())
        q = Tensor(p.numpy().copy(), requires_grad=True)
        run(first, p, grads[3:])  # what is saved must not move with the optimiser
        second = KINDS[name]([q])
        second.load_state_dict(saved)
        run(second, q, grads[3:])
        assert q.numpy().tobytes() == straight.numpy().tobytes()

    def test_state_survives_a_file(self, name, tmp_path):
        from safetensors.numpy import load_file, save_file

        p = parameter(2, 3)
        optimizer = KINDS[name]([p])
        run(optimizer, p, gradients((2, 3), 2))
        save_file(optimizer.state_dict(), tmp_path / "state.safetensors")
        other = KINDS[name]([parameter(2, 3)])
        other.load_state_dict(load_file(tmp_path / "state.safetensors"))
        for key, value in optimizer.state_dict().items():
            found = other.state_dict()[key]
            assert found.dtype == value.dtype and np.array_equal(found, value), key

    def test_an_overwritten_parameter_is_noticed_by_an_old_graph(self, name):
        p = parameter(3)
        y = (p * p).sum()
        run(KINDS[name]([p]), p, gradients((3,), 1))
        with pytest.raises(GraphError, match="changed in place"):
            y.backward()

    def test_scalars_and_empty_parameters(self, name):
        p, empty = Tensor(np.array(1.0), requires_grad=True), parameter(0, 3)
        empty.grad = Tensor(np.zeros((0, 3)))
        run(KINDS[name]([p, empty]), p, [np.array(1.0)] * 2)
        assert p.item() != 1.0 and p.shape == ()


def test_groups():
    """The biases of FCN: twice the learning rate, no weight decay."""
    weight, bias = parameter(2), parameter(2, seed=2)
    optimizer = optim.SGD(
        [{"params": [weight]}, {"params": [bias], "lr_mult": 2.0, "weight_decay": 0.0, "lr": 0.5}],
        lr=0.1,
        weight_decay=0.3,
    )
    w, b = weight.numpy().copy(), bias.numpy().copy()
    weight.grad = bias.grad = Tensor(np.ones(2))
    optimizer.step()
    np.testing.assert_allclose(weight.numpy(), w - 0.1 * (1 + 0.3 * w), rtol=1e-14)
    np.testing.assert_allclose(bias.numpy(), b - 0.5 * 2.0, rtol=1e-14)


def test_a_generator_of_parameters_is_read_once():
    ps = [parameter(2), parameter(2)]
    optimizer = optim.SGD((p for p in ps), lr=1.0)
    assert len(optimizer.param_groups[0]["params"]) == 2
    optimizer = optim.Adam([{"params": (p for p in ps)}])
    for p in ps:
        p.grad = Tensor(np.ones(2))
    optimizer.zero_grad()
    assert all(p.grad is None for p in ps)


def test_no_fresh_memory_for_each_step():
    """After the first step, a step on a large parameter allocates next to nothing."""
    import tracemalloc

    for name, make in KINDS.items():
        p = Tensor(np.zeros(1_000_000), requires_grad=True)
        p.grad = Tensor(np.ones(1_000_000))
        optimizer = make([p])
        optimizer.step()
        tracemalloc.start()
        optimizer.step()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 100_000, name


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda p: optim.SGD([], lr=1), "params is empty"),
        (lambda p: optim.SGD([p, p], lr=1), "twice"),
        (lambda p: optim.SGD([{"params": [p]}, {"params": [p]}], lr=1), "twice"),
        (lambda p: optim.SGD([np.ones(2)], lr=1), "ndarray"),
        (lambda p: optim.SGD([{"params": [p]}, p], lr=1), "group 1 is not a dict"),
        (
            lambda p: optim.SGD([{"params": [p], "learning_rate": 1}], lr=1),
            "learning_rate.*lr_mult",
        ),
        (lambda p: optim.SGD([p], lr=-1), "lr -1"),
        (lambda p: optim.SGD([p], lr=float("nan")), "lr nan"),
        (lambda p: optim.SGD([p], lr=1, momentum=-0.9), "momentum -0.9"),
        (lambda p: optim.SGD([p], lr=1, weight_decay=-1), "weight_decay -1"),
        (lambda p: optim.SGD([p], lr=1, nesterov=True), "nesterov"),
        (lambda p: optim.SGD([p], lr=1, momentum=0.9, dampening=0.1, nesterov=True), "nesterov"),
        (lambda p: optim.Adam([p], betas=(0.9, 1.0)), "betas"),
        (lambda p: optim.Adam([p], eps=-1), "eps -1"),
        (lambda p: optim.AdamW([{"params": [p], "momentum": 0.9}]), "AdamW.*momentum"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(InputError, match=message):
        make(parameter(2))


class TestLoading:
    def state(self, make=KINDS["SGD"]):
        p = parameter(2, 3)
        optimizer = make([p])
        run(optimizer, p, gradients((2, 3), 2))
        return optimizer.state_dict()

    def refused(self, state, message):
        p = parameter(2, 3, seed=9)
        optimizer = KINDS["SGD"]([p])
        run(optimizer, p, gradients((2, 3), 1))
        before = optimizer.state_dict()
        with pytest.raises(InputError, match=message):
            optimizer.load_state_dict(state)
        after = optimizer.state_dict()
        assert before.keys() == after.keys()
        assert all(np.array_equal(before[key], after[key]) for key in before)

    def test_another_kind(self):
        self.refused(self.state(KINDS["Adam"]), "SGD: 'group.0.")

    def test_a_missing_setting(self):
        state = self.state()
        del state["group.0.momentum"]
        self.refused(state, "'group.0.momentum' is missing")

    def test_another_shape_or_dtype(self):
        state = self.state()
        key = "state.0.momentum_buffer"
        self.refused({**state, key: state[key].T}, r"\(3, 2\).*wanted.*\(2, 3\)")
        self.refused({**state, key: state[key].astype(np.float32)}, "float32.*wanted float64")

    def test_too_many_parameters(self):
        state = self.state()
        self.refused({**state, "state.1.momentum_buffer": np.zeros(2)}, r"state.1.momentum_buffer")

    def test_a_strange_key(self):
        self.refused({**self.state(), "state.0.what": np.zeros(2)}, "'state.0.what'")
        self.refused({**self.state(), "other": np.zeros(2)}, "'other'")
