"""Module: finding parts, saving and loading all or none, hooks, copies."""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np
import pytest

from minifcn import nn
from minifcn.errors import InputError
from minifcn.recording import no_grad
from minifcn.tensor import Tensor


class Pair(nn.Module):
    """Two layers, a frozen scale and a buffer; it does not call ``super().__init__()``."""

    def __init__(self, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self.first = nn.Conv2d(2, 3, 3, generator=generator)
        self.second = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3))
        self.scale = nn.Parameter(np.ones(1, np.float32), requires_grad=False)
        self.register_buffer("seen", np.zeros(2, np.int64))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x)) * self.scale


NAMES = [
    "scale",
    "first.weight",
    "first.bias",
    "second.1.weight",
    "second.1.bias",
    "seen",
    "second.1.running_mean",
    "second.1.running_var",
    "second.1.num_batches_tracked",
]


def picture(seed: int = 0, shape: tuple[int, ...] = (2, 2, 6, 5)) -> Tensor:
    return Tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def test_names_come_in_the_order_of_assignment_own_before_below() -> None:
    net = Pair()
    assert [name for name, _ in net.named_parameters()] == NAMES[:5]
    assert [name for name, _ in net.named_buffers()] == NAMES[5:]
    assert list(net.state_dict()) == NAMES
    assert [name for name, _ in net.named_modules()] == [
        "",
        "first",
        "second",
        "second.0",
        "second.1",
    ]
    assert [name for name, _ in net.named_children()] == ["first", "second"]
    assert len(list(net.parameters())) == 5 and len(list(net.buffers())) == 4
    assert len(list(net.modules())) == 5 and len(list(net.children())) == 2


def test_a_shared_layer_counts_once() -> None:
    layer = nn.Conv2d(2, 2, 1, generator=np.random.default_rng(0))
    net = nn.Sequential(layer, layer)
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias"]
    assert nn.parameter_count(net) == 6
    net.load_state_dict(net.state_dict())


def test_a_shared_parameter_counts_once() -> None:
    generator = np.random.default_rng(0)
    net = nn.Sequential(
        nn.Conv2d(2, 2, 1, generator=generator), nn.Conv2d(2, 2, 1, generator=generator)
    )
    net[1].weight = net[0].weight  # type: ignore[attr-defined]
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias", "1.bias"]


def test_train_and_eval_reach_every_module() -> None:
    net = Pair()
    assert all(module.training for module in net.modules())
    assert net.eval() is net
    assert not any(module.training for module in net.modules())
    net.train()
    assert all(module.training for module in net.modules())
    with pytest.raises(InputError, match="'no'"):
        net.train("no")  # type: ignore[arg-type]


def test_frozen_parameters_get_no_gradient() -> None:
    net = Pair()
    net.first.requires_grad_(False)
    net(picture()).sum().backward()
    assert net.first.weight.grad is None and net.scale.grad is None
    assert net.second[1].weight.grad is not None  # type: ignore[attr-defined]
    assert nn.parameter_count(net) == 54 + 3 + 3 + 3 + 1
    assert nn.parameter_count(net, trainable=True) == 6
    net.zero_grad()
    assert all(parameter.grad is None for parameter in net.parameters())


def test_apply_visits_parents_first() -> None:
    seen: list[str] = []
    Pair().apply(lambda module: seen.append(type(module).__name__))
    assert seen == ["Pair", "Conv2d", "Sequential", "ReLU", "BatchNorm2d"]


# -- state -----------------------------------------------------------------------------------------


def test_state_round_trip_gives_the_same_bits() -> None:
    net, other = Pair(0), Pair(1)
    net(picture())  # moves the running statistics
    net.seen[:] = 7, 8
    result = other.load_state_dict(net.state_dict())
    assert result == ([], [])
    for name, array in other.state_dict().items():
        np.testing.assert_array_equal(array, net.state_dict()[name])
    np.testing.assert_array_equal(net.eval()(picture(3)).data, other.eval()(picture(3)).data)


def test_state_is_a_copy_that_later_changes_leave_alone() -> None:
    net = Pair()
    state = net.state_dict()
    assert all(array.flags["C_CONTIGUOUS"] for array in state.values())
    before = {name: array.copy() for name, array in state.items()}
    net(picture())
    with no_grad():
        net.first.weight.add_(1.0)
    for name, array in state.items():
        np.testing.assert_array_equal(array, before[name])


def test_loading_writes_into_the_arrays_that_are_there() -> None:
    net = Pair()
    weight, mean = net.first.weight.data, net.second[1].running_mean  # type: ignore[attr-defined]
    net.load_state_dict({name: array + 1 for name, array in net.state_dict().items()})
    assert net.first.weight.data is weight and net.second[1].running_mean is mean  # type: ignore[attr-defined]
    assert mean[0] == 1


FAULTS: list[tuple[Any, str]] = [
    (lambda s: s.pop("scale"), "missing: scale"),
    (lambda s: s.update(extra=np.zeros(1)), "unexpected: extra"),
    (
        lambda s: s.update({"first.bias": np.zeros(4, np.float32)}),
        r"first\.bias is float32 \(4,\), wanted float32 \(3,\)",
    ),
    (
        lambda s: s.update({"first.bias": np.zeros(3)}),
        r"first\.bias is float64 \(3,\), wanted float32 \(3,\)",
    ),
    (lambda s: s.update({"seen": np.zeros(2, np.int32)}), "seen is int32"),
]


@pytest.mark.parametrize(("spoil", "says"), FAULTS)
def test_a_state_that_does_not_fit_changes_nothing(spoil: Any, says: str) -> None:
    net = Pair(0)
    before = net.state_dict()
    state = Pair(1).state_dict()
    spoil(state)
    with pytest.raises(InputError, match=says):
        net.load_state_dict(state)
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_every_difference_is_named_at_once() -> None:
    state = Pair().state_dict()
    for spoil, _ in FAULTS[:3]:
        spoil(state)
    with pytest.raises(InputError) as error:
        Pair().load_state_dict(state)
    for _, says in FAULTS[:3]:
        assert re.search(says, str(error.value))


def test_not_strict_passes_over_names_but_not_over_shapes() -> None:
    net = Pair(0)
    state = Pair(1).state_dict()
    wanted = state["first.weight"]
    del state["scale"]
    state["extra"] = np.zeros(1)
    result = net.load_state_dict(state, strict=False)
    assert result.missing_keys == ["scale"] and result.unexpected_keys == ["extra"]
    np.testing.assert_array_equal(net.first.weight.data, wanted)
    with pytest.raises(InputError, match="first.bias"):
        net.load_state_dict({"first.bias": np.zeros(4, np.float32)}, strict=False)


# -- hooks -----------------------------------------------------------------------------------------


def test_hooks_see_inputs_and_output_in_order_until_removed() -> None:
    net = Pair()
    calls: list[Any] = []
    one = net.first.register_forward_hook(lambda m, i, o: calls.append((1, m, i, o)))
    net.first.register_forward_hook(lambda m, i, o: calls.append((2, m, i, o)))
    x = picture()
    net(x)
    assert [call[0] for call in calls] == [1, 2]
    _, module, inputs, output = calls[0]
    assert module is net.first and len(inputs) == 1 and inputs[0] is x
    assert output.shape == (2, 3, 4, 3)
    one.remove()
    one.remove()
    net(x)
    assert [call[0] for call in calls] == [1, 2, 2]


def test_a_hook_may_replace_the_output_and_lasts_for_a_block() -> None:
    relu = nn.ReLU()
    x = Tensor(np.array([-1.0, 2.0]))
    with relu.register_forward_hook(lambda m, i, o: o * 10):
        np.testing.assert_array_equal(relu(x).data, [0, 20])
    np.testing.assert_array_equal(relu(x).data, [0, 2])


def test_a_hook_may_remove_itself() -> None:
    relu, calls = nn.ReLU(), []

    def once(module: nn.Module, inputs: Any, output: Any) -> None:
        calls.append(1)
        handle.remove()

    handle = relu.register_forward_hook(once)
    relu(Tensor(np.zeros(1)))
    relu(Tensor(np.zeros(1)))
    assert calls == [1]


# -- copies, names, display ------------------------------------------------------------------------


def test_a_deep_copy_shares_nothing() -> None:
    net = Pair()
    net(picture()).sum().backward()
    twin = copy.deepcopy(net)
    assert twin.first.weight.grad is None and not twin.scale.requires_grad
    with no_grad():
        twin.first.weight.zero_()
    twin.second[1].running_mean[:] = 9  # type: ignore[attr-defined]
    assert np.any(net.first.weight.data) and not np.any(net.second[1].running_mean == 9)  # type: ignore[attr-defined]


def test_a_deep_copy_keeps_shared_parameters_shared() -> None:
    net = Pair()
    net.again = net.scale  # type: ignore[attr-defined]
    twin = copy.deepcopy(net)
    assert twin.again is twin.scale and twin.scale is not net.scale  # type: ignore[attr-defined]


def test_get_submodule_names_what_exists() -> None:
    net = Pair()
    assert net.get_submodule("") is net
    assert net.get_submodule("second.0") is net.second[0]
    with pytest.raises(InputError, match=r"'second\.7': second has no '7'; choose among 0, 1"):
        net.get_submodule("second.7")


def test_names_that_would_hide_something_are_refused() -> None:
    net = nn.Sequential()
    for name in ("forward", "training", "a.b", ""):
        with pytest.raises(InputError, match="cannot name a child"):
            net.add_module(name, nn.ReLU())
    with pytest.raises(InputError, match="instance of Module"):
        net.add_module("a", 3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="NumPy array"):
        net.register_buffer("b", [1, 2])  # type: ignore[arg-type]


def test_containers() -> None:
    a, b = nn.ReLU(), nn.Flatten()
    chain = nn.Sequential({"a": a, "b": b})
    assert list(chain) == [a, b] and len(chain) == 2 and chain[-1] is b
    assert [name for name, _ in chain.named_children()] == ["a", "b"]
    assert chain(picture()).shape == (2, 60)
    many = nn.ModuleList([a]).append(b)
    assert list(many) == [a, b] and many[1] is b
    with pytest.raises(IndexError, match="index 2"):
        many[2]
    named = nn.ModuleDict({"x": a})
    named["y"] = b
    assert list(named) == ["x", "y"] and "y" in named and "z" not in named and len(named) == 2
    assert list(named.values()) == [a, b] and dict(named.items()) == {"x": a, "y": b}
    with pytest.raises(InputError, match="'z' here; choose among x, y"):
        named["z"]
    with pytest.raises(NotImplementedError, match="ModuleList"):
        many(picture())


def test_repr_reads_like_pytorch() -> None:
    assert repr(Pair()) == (
        "Pair(\n"
        "  (first): Conv2d(2, 3, kernel_size=(3, 3), stride=(1, 1))\n"
        "  (second): Sequential(\n"
        "    (0): ReLU()\n"
        "    (1): BatchNorm2d(3, eps=1e-05, momentum=0.1, affine=True)\n"
        "  )\n"
        ")"
    )
