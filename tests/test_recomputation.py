"""Gradient checkpointing: the same bits as without, with less held; and what it refuses."""

import gc
import weakref

import numpy as np
import pytest

import minifcn as mf
from minifcn import device, models, nn, recomputation
from minifcn import functional as F
from minifcn.errors import GraphError
from minifcn.kernels import workspace


def leaf(*shape, seed=0, dtype=np.float64):
    generator = np.random.default_rng(seed)
    return mf.randn(*shape, generator=generator, dtype=dtype, requires_grad=True)


def stage(seed=0, channels=3, dtype=np.float32, p=0.5):
    """Convolution, normalisation with ReLU, dropout and pool: all that has a state."""
    generator = np.random.default_rng(seed)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1, generator=generator, dtype=dtype),
        nn.BatchNorm2d(4, dtype=dtype),
        nn.ReLU(),
        nn.Dropout(p, generator=generator.spawn(1)[0]),
        nn.MaxPool2d(2, ceil_mode=True),
    )


class Plain(nn.Module):
    """Two stages and a sum, with a checkpoint about each or without."""

    def __init__(self, how):
        self.first, self.second = stage(0), stage(1, channels=4)
        self.how = how

    def forward(self, x):
        return self.how(self.second, self.how(self.first, x)).sum()


def direct(function, *inputs):
    return function(*inputs)


def around(function, *inputs):
    """A checkpoint within a checkpoint within a checkpoint."""
    return mf.checkpoint(lambda *x: mf.checkpoint(mf.checkpoint, function, *x), *inputs)


def trained(how, where="cpu", steps=3, change=lambda net: None):
    """Loss, weights, buffers and gradients after some steps, as bytes."""
    with device.use(where):
        net = Plain(how).to(where)
        change(net)
        optimizer = mf.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        pictures = mf.randn(2, 3, 7, 6, generator=np.random.default_rng(9))
        found = []
        for _ in range(steps):
            optimizer.zero_grad()
            loss = net(pictures)
            loss.backward()
            found += [p.grad.numpy().tobytes() for p in net.parameters() if p.requires_grad]
            optimizer.step()
            found.append(loss.numpy().tobytes())
        return found + [a.tobytes() for a in net.state_dict().values()]


@pytest.mark.parametrize("where", ["cpu", "reference", "cuda-sim"])
@pytest.mark.parametrize("how", [mf.checkpoint, around])
def test_training_gives_the_same_bits(where, how):
    if device.why_not(where):
        pytest.skip(device.why_not(where))
    steps = 1 if where == "cuda-sim" else 3
    assert trained(how, where, steps) == trained(direct, where, steps)


def test_frozen_parameters_get_none_and_change_nothing():
    def freeze(net):
        net.first.requires_grad_(False)

    assert trained(mf.checkpoint, change=freeze) == trained(direct, change=freeze)


def test_without_dropouts_generator_the_bits_would_differ(monkeypatch):
    """A planted fault: draw anew in the recomputation."""
    monkeypatch.setattr("minifcn.ops.pointwise.drawing", lambda generator: generator)
    assert trained(mf.checkpoint) != trained(direct)


@pytest.mark.parametrize("place", ["minifcn.ops.batch_norm", "minifcn.nn.normalization"])
def test_statistics_that_move_twice_would_be_seen(monkeypatch, place):
    """A planted fault: update the running statistics, or their count, in the recomputation."""
    monkeypatch.setattr(f"{place}.recomputing", lambda: False)
    assert trained(mf.checkpoint) != trained(direct)


def test_running_statistics_move_once():
    norm = nn.BatchNorm2d(3)
    x = mf.randn(2, 3, 4, 4, generator=np.random.default_rng(0))
    mf.checkpoint(norm, x).sum().backward()
    np.testing.assert_allclose(norm.running_mean, 0.1 * x.numpy().mean((0, 2, 3)), rtol=1e-5)
    assert int(norm.num_batches_tracked) == 1


@pytest.mark.parametrize("trunk", ["vgg", "resnet18"])
def test_a_net_trains_to_the_same_bits(trunk):
    def bits(on):
        settings = {"generator": np.random.default_rng(0), "head": "fcn8s"}
        if trunk == "vgg":
            settings |= {"convs": (1, 2, 1, 1, 1), "fc_channels": 8}
            net = models.FCN(3, widths=(4, 4, 8, 8, 8), **settings)
        else:
            net = models.fcn_on(trunk, 3, widths=(4, 4, 8, 8), **settings)
        net.trunk.gradient_checkpointing = on
        optimizer = mf.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        rng = np.random.default_rng(1)
        for _ in range(3):
            optimizer.zero_grad()
            scores = net(mf.randn(2, 3, 33, 45, generator=rng))
            F.cross_entropy(scores, rng.integers(0, 3, (2, 33, 45))).backward()
            optimizer.step()
        return [a.tobytes() for a in net.state_dict().values()]

    assert bits(True) == bits(False)


def test_gradients_and_their_gradients_are_right():
    weight = leaf(4, 3, 3, 3, seed=1)

    def inside(x):
        return F.max_pool2d(F.softmax(F.conv2d(x, weight, padding=1), 1), 2)

    x = leaf(2, 3, 5, 4)
    assert mf.check.gradcheck(lambda x, w: mf.checkpoint(inside, x), [x, weight]).ok
    assert mf.check.gradgradcheck(lambda x, w: mf.checkpoint(inside, x), [x, weight]).ok


def test_a_tuple_comes_back_and_each_part_may_be_used():
    def both(x, y, scale):
        return x * y, (x * x).exp() * scale, "as it is"

    def grads(how):
        x, y = leaf(3, 4), leaf(3, 4, seed=1)
        a, b, text = how(both, x, y, scale=2.0)
        assert text == "as it is"
        (a.sum() + (b * a).sum()).backward()
        return x.grad.numpy(), y.grad.numpy()

    wanted = grads(lambda f, *x, **k: f(*x, **k))
    for found, right in zip(grads(mf.checkpoint), wanted, strict=True):
        np.testing.assert_array_equal(found, right)


def test_grad_asks_for_a_parameter_used_inside_alone():
    x, weight = leaf(3), leaf(3, seed=1)
    (found,) = mf.grad(mf.checkpoint(lambda x: (x * weight).sum(), x), weight)
    np.testing.assert_array_equal(found.numpy(), x.numpy())
    assert x.grad is None and weight.grad is None


def test_the_graph_may_be_kept_and_walked_twice():
    x = leaf(4)
    y = mf.checkpoint(lambda x: (x * x * x).sum(), x)
    y.backward(retain_graph=True)
    y.backward()
    np.testing.assert_allclose(x.grad.numpy(), 6 * x.numpy() ** 2, rtol=1e-12)
    with pytest.raises(GraphError, match="freed"):
        y.backward()


def test_under_no_grad_it_is_the_function_itself():
    with mf.no_grad():
        y = mf.checkpoint(lambda x: x * x, leaf(3))
    assert y.is_leaf and not y.requires_grad


def test_nothing_but_the_inputs_is_held_and_all_of_it_is_given_back():
    held = []

    def inside(x):
        for _ in range(4):
            x = F.relu(x * x)
            held.append(weakref.ref(x.data.base if x.data.base is not None else x.data))
        return x.sum()

    x = leaf(4, 64, 64)
    inside(x).backward()  # a kernel that is loaded holds its arguments for a while
    gc.collect()
    held.clear()
    gc.disable()  # so that a cycle of references would be seen
    try:
        y = mf.checkpoint(inside, x)
        assert not any(one() is not None for one in held)
        y.backward()
        del y
        assert len(held) == 8 and not any(one() is not None for one in held)
    finally:
        gc.enable()


def highest(on):
    """Bytes of the workspace that a training step of a net of eight stages needs."""
    rng = np.random.default_rng(0)
    parts = [nn.Sequential(*(m for _ in range(3) for m in (
        nn.Conv2d(16, 16, 3, padding=1, generator=rng), nn.ReLU()))) for _ in range(8)]  # fmt: skip
    most, taken, real = 0, 0, workspace.lease

    def lease(size):
        nonlocal most, taken
        array = real(size)
        taken += size
        weakref.finalize(array, give_back, size)
        most = max(most, taken)
        return array

    def give_back(size):
        nonlocal taken
        taken -= size

    workspace.lease = lease
    try:
        x = mf.randn(1, 16, 64, 64, generator=rng)
        for part in parts:
            x = mf.checkpoint(part, x) if on else part(x)
        x.sum().backward()
    finally:
        workspace.lease = real
    return most


def test_it_takes_less_memory():
    """24 activations of 256 KiB; with it, 8 of them, 3 of a stage, and the gradients between."""
    without, with_it = highest(False), highest(True)
    assert with_it < 0.65 * without, (with_it, without)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (lambda x: x * x * x, r"more operations \(Mul\)"),
        (lambda x: x, "0 operations"),
        (lambda x: x + x, "Add of shape"),
        (lambda x: F.dropout(x, 0.5, generator=np.random.default_rng(0)), "more draws"),
        (lambda x: x[7:9, 1] * x, "failed when backward ran it again, with ShapeError"),
    ],
)
def test_a_function_that_does_something_else_is_told(second, message):
    calls = iter([lambda x: x * x, second])
    y = mf.checkpoint(lambda x: next(calls)(x), leaf(3)).sum()
    with pytest.raises(GraphError, match=message):
        y.backward()
    assert recomputation.segment() is None and mf.is_grad_enabled()


@pytest.mark.parametrize("which", ["input", "parameter"])
def test_what_was_changed_in_place_is_noticed(which):
    x, weight = leaf(3), leaf(3, seed=1)
    y = mf.checkpoint(lambda x: (x * weight).exp(), x).sum()
    with mf.no_grad():
        (x if which == "input" else weight).mul_(2.0)
    with pytest.raises(GraphError, match="was changed in place"):
        y.backward()


def test_too_little_memory_the_second_time_is_told_as_such():
    parts = iter([lambda x: x * x, lambda x: np.empty(1 << 50)])
    y = mf.checkpoint(lambda x: next(parts)(x), leaf(3)).sum()
    with pytest.raises(MemoryError):
        y.backward()
    assert recomputation.segment() is None and mf.is_grad_enabled()


def test_an_error_the_first_time_is_the_functions_own():
    with pytest.raises(ZeroDivisionError):
        mf.checkpoint(lambda x: 1 / 0, leaf(3))
    assert recomputation.segment() is None
