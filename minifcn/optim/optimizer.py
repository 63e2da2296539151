"""What all optimisers share: groups of parameters, flat state for resuming, the loop of a step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from minifcn import device
from minifcn.errors import InputError
from minifcn.optim.arena import Arena
from minifcn.tensor import Tensor


class Optimizer:
    """Base of the optimisers: subclasses give `update` and the names of their buffers.

    Args:
        params: the parameters (an iterable of Tensors), or a list of groups. A group is a dict
            with "params" and any of the optimiser's settings, which then hold for that group
            alone, and "lr_mult": the group's step length is lr · lr_mult (FCN: 2 for biases).
        defaults: the settings of a group that does not set its own. Must hold "lr".

    Attributes:
        param_groups: the groups, each with every setting filled in and "base_lr", the lr it was
            made with, from which a schedule computes lr.

    Raises:
        InputError: no parameters, something that is not a Tensor, a parameter in two groups, an
            unknown setting, or a negative number where none can be.
    """

    buffers: tuple[str, ...] = ()
    """Names of the arrays kept for each parameter, of the parameter's shape and dtype."""

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        name = type(self).__name__
        given = list(params)
        if not given:
            raise InputError(f"{name}: params is empty; pass model.parameters()")
        if not isinstance(given[0], Mapping):
            given = [{"params": given}]
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[int, dict[str, Any]] = {}
        """By position of the parameter over all groups; filled at its first update."""
        self._arenas: dict[int, Arena] = {}
        seen: set[int] = set()
        settings = {**defaults, "lr_mult": 1.0}
        for index, raw in enumerate(given):
            if not isinstance(raw, Mapping) or "params" not in raw:
                raise InputError(
                    f'{name}: group {index} is not a dict with "params"; '
                    "pass parameters alone or groups alone, not a mixture"
                )
            unknown = sorted(set(raw) - set(settings) - {"params"})
            if unknown:
                raise InputError(
                    f"{name}: group {index} has the unknown setting {unknown[0]!r}, known are "
                    f"{', '.join(sorted(settings))}; correct its name"
                )
            members = raw["params"]
            group = {**settings, **raw}
            group["params"] = [members] if isinstance(members, Tensor) else list(members)
            for p in group["params"]:
                if not isinstance(p, Tensor):
                    raise InputError(
                        f"{name}: group {index} holds a {type(p).__name__}, wanted Tensors; "
                        "pass model.parameters()"
                    )
                if id(p) in seen:
                    raise InputError(
                        f"{name}: a parameter of shape {tuple(p.shape)} stands in the groups "
                        "twice; name it once, or it takes two steps at a time"
                    )
                seen.add(id(p))
            for setting in ("lr", "lr_mult", "weight_decay"):
                if not group[setting] >= 0:
                    raise InputError(
                        f"{name}: group {index} has {setting} {group[setting]}, wanted 0 or more; "
                        "turn its sign"
                    )
            self.check(index, group)
            group["base_lr"] = group["lr"]
            self.param_groups.append(group)

    def check(self, index: int, group: dict[str, Any]) -> None:
        """Refuse settings of a group that make no sense for this optimiser."""

    def update(
        self, p: np.ndarray, g: np.ndarray, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        """Move one parameter's array in place; `g` is its gradient and must not be changed."""
        raise NotImplementedError

    def zero_grad(self) -> None:
        """Forget every parameter's gradient (it is set to None, as PyTorch does)."""
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    def step(self) -> None:
        """Move every parameter that wants a gradient and has one; pass over the others.

        A group's parameters on a GPU move together, see `minifcn.optim.arena`.
        """
        index = 0
        for number, group in enumerate(self.param_groups):
            moving, states = [], []
            for p in group["params"]:
                if p.requires_grad and p.grad is not None:
                    moving.append(p)
                    states.append(self.state.setdefault(index, {}))
                index += 1
            for p, state in zip(moving, states, strict=True):
                _follow(p, state)
            if len(moving) > 1 and Arena.can_hold(moving, states):
                self._update_together(number, moving, states)
            else:
                self._arenas.pop(number, None)  # its count of steps would fall behind
                for p, state in zip(moving, states, strict=True):
                    self.update(p.data, p.grad.data, state, group)
            for p in moving:
                p._version += 1  # graphs that kept the old value must notice

    def _update_together(
        self, number: int, moving: list[Tensor], states: list[dict[str, Any]]
    ) -> None:
        arena = self._arenas.get(number)
        if arena is None or not arena.holds(moving, states):
            arena = self._arenas[number] = Arena(moving, states)
        gradients = [p.grad.data for p in moving if p.grad is not None]
        self.update(arena.values, arena.joined(gradients), arena.state, self.param_groups[number])
        arena.handed_out()

    def state_dict(self) -> dict[str, np.ndarray]:
        """Give everything a resumed run needs as flat arrays, copied to the host.

        Keys: "group.I.SETTING" (0-d, betas (2,)) and "state.J.NAME", J counting the parameters
        over all groups: "step" (0-d int64) or a buffer of the parameter's shape.
        """
        flat: dict[str, np.ndarray] = {}
        for i, group in enumerate(self.param_groups):
            for setting, value in group.items():
                if setting != "params":
                    flat[f"group.{i}.{setting}"] = np.array(value)
        for j, state in self.state.items():
            for key, value in state.items():
                if device.is_gpu(value):
                    value = device.move(value, "cpu")
                flat[f"state.{j}.{key}"] = np.array(value, order="C")
        return flat

    def load_state_dict(self, state_dict: Mapping[str, np.ndarray]) -> None:
        """Take over a `state_dict` of an optimiser of the same kind with the same groups.

        Everything is checked before anything is written.

        Raises:
            InputError: settings are missing or left over, or a buffer's shape or dtype does not
                fit its parameter.
        """
        name = type(self).__name__
        parameters = [p for group in self.param_groups for p in group["params"]]
        wanted = {
            f"group.{i}.{setting}"
            for i, group in enumerate(self.param_groups)
            for setting in group
            if setting != "params"
        }
        found = {key for key in state_dict if key.startswith("group.")}
        if found != wanted:
            differing = sorted(found ^ wanted)[0]
            where = "is missing" if differing in wanted else "fits nothing here"
            raise InputError(
                f"{name}: {differing!r} {where} in the state that was read; make the optimiser as "
                "it was when the state was saved"
            )
        state: dict[int, dict[str, Any]] = {}
        for key, value in state_dict.items():
            if key in found:
                continue
            head, _, rest = key.partition(".")
            number, _, buffer = rest.partition(".")
            if head != "state" or not number.isdigit() or buffer not in (*self.buffers, "step"):
                raise InputError(
                    f"{name}: {key!r} in the state that was read fits nothing here; "
                    "make the optimiser as it was when the state was saved"
                )
            j = int(number)
            p = parameters[j].data if j < len(parameters) else None
            shape, dtype = ((), np.dtype(np.int64)) if buffer == "step" else (None, None)
            if p is not None and buffer != "step":
                shape, dtype = p.shape, p.dtype
            if p is None or value.shape != shape or value.dtype != dtype:
                raise InputError(
                    f"{name}: {key!r} is {value.dtype} of shape {value.shape} in the state that "
                    f"was read, wanted {dtype} of shape {shape}; make the optimiser over the same "
                    "parameters in the same order"
                )
            if buffer == "step":
                state.setdefault(j, {})[buffer] = int(value)
            else:
                kept = np.empty_like(p)  # the parameter's own axis order in memory, and its device
                kept[...] = device.move(value, device.name_of(p))
                state.setdefault(j, {})[buffer] = kept
        for key in wanted:
            _, i, setting = key.split(".")
            value = state_dict[key]
            self.param_groups[int(i)][setting] = (
                tuple(value.tolist()) if value.ndim else value.item()
            )
        self.state = state


def _follow(p: Tensor, state: dict[str, Any]) -> None:
    """Move a parameter's own arrays to where it lives now, if it has moved since the last step."""
    here = isinstance(p.data, np.ndarray)
    for name, value in state.items():
        if here and isinstance(value, np.ndarray):
            continue
        is_array = isinstance(value, np.ndarray) or device.is_gpu(value)
        if is_array and device.name_of(value) != p.device:
            state[name] = device.move(value, p.device)


def zeros_beside(p: np.ndarray) -> np.ndarray:
    """Zeros of p's shape, its axes in the same order in memory, on its device.

    `numpy.zeros_like` writes them; `numpy.zeros` leaves that to the system, at the first use.
    """
    axes = sorted(range(p.ndim), key=lambda axis: -abs(p.strides[axis]))
    rows = device.array_module(p).zeros([p.shape[axis] for axis in axes], p.dtype)
    return rows.transpose([axes.index(axis) for axis in range(p.ndim)]) if axes else rows
