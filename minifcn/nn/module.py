"""Module: a function with parameters, made of smaller ones.

A Module is an ordinary object. Its parameters are those of its attributes that are Parameters, its
children those that are Modules, in the order in which they were assigned; nothing is registered
behind the scenes but the names of buffers (arrays that are saved but not learned). A Parameter or
a Module that is reached under two names counts once, under the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self

import numpy as np

from minifcn import device
from minifcn.errors import InputError
from minifcn.nn.parameter import Parameter
from minifcn.recording import no_grad
from minifcn.tensor import Tensor

Hook = Callable[["Module", tuple[Any, ...], Any], Any]


class RemovableHandle:
    """What `Module.register_forward_hook` gives back; ``remove()`` takes the hook off again.

    It is a context manager too, that removes the hook at the end of the block.
    """

    def __init__(self, module: Module, hook: Hook) -> None:
        self.module = module
        self.hook = hook

    def remove(self) -> None:
        """Take the hook off its module; a second call does nothing."""
        self.module._hooks = tuple(h for h in self.module._hooks if h is not self)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


class LoadResult(NamedTuple):
    """What `Module.load_state_dict` passed over; both lists are empty if ``strict``."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """Base class of layers and networks: a subclass assigns its parts and defines ``forward``."""

    #: True while training: dropout drops, batch normalisation uses the batch's own statistics.
    training: bool = True

    # Tuples that are replaced, never changed, so that no subclass must call ``super().__init__()``.
    _buffer_names: tuple[str, ...] = ()
    _hooks: tuple[RemovableHandle, ...] = ()

    def forward(self, *inputs: Any) -> Any:
        """Compute the output; every subclass defines it."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def __call__(self, *inputs: Any) -> Any:
        """Run ``forward``, then the forward hooks in the order of their registration."""
        output = self.forward(*inputs)
        for handle in self._hooks:
            replaced = handle.hook(self, inputs, output)
            if replaced is not None:
                output = replaced
        return output

    def register_forward_hook(self, hook: Hook) -> RemovableHandle:
        """Call ``hook(module, inputs, output)`` after every forward; ``inputs`` is a tuple.

        If the hook returns something other than None, it takes the place of the output.
        """
        handle = RemovableHandle(self, hook)
        self._hooks = (*self._hooks, handle)
        return handle

    # -- parts -------------------------------------------------------------------------------------

    def add_module(self, name: str, module: Module) -> None:
        """Assign a child under a name made at run time; InputError if the name is taken."""
        if not isinstance(module, Module):
            raise InputError(
                f"child {name!r} of {type(self).__name__} is a {type(module).__name__}; "
                "give an instance of Module"
            )
        if not name or "." in name or hasattr(self, name):
            raise InputError(
                f"{name!r} cannot name a child of {type(self).__name__}; "
                "choose a name that is not empty, has no dot and is not taken"
            )
        setattr(self, name, module)

    def register_buffer(self, name: str, array: np.ndarray) -> None:
        """Assign an array that is saved with the parameters but not learned.

        Whoever changes it does so in place, so that every holder of the array sees the change.
        """
        if not (isinstance(array, np.ndarray) or device.is_gpu(array)):
            raise InputError(
                f"buffer {name!r} of {type(self).__name__} is a {type(array).__name__}; "
                "give a NumPy array"
            )
        setattr(self, name, array)
        if name not in self._buffer_names:
            self._buffer_names = (*self._buffer_names, name)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly below this one, with their attribute names."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value

    def children(self) -> Iterator[Module]:
        """The modules directly below this one."""
        for _, child in self.named_children():
            yield child

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module (named "", or ``prefix``) and all below it, as "stage1.conv1", each once."""
        seen: set[int] = set()
        stack: list[tuple[str, Module]] = [(prefix, self)]
        while stack:
            name, module = stack.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            yield name, module
            below = [(f"{name}.{n}" if name else n, m) for n, m in module.named_children()]
            stack.extend(reversed(below))

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        for _, module in self.named_modules():
            yield module

    def get_submodule(self, target: str) -> Module:
        """The module with this dotted name, as `named_modules` gives it; "" is the module itself.

        Raises InputError, with the names that exist there, if there is none.
        """
        module: Module = self
        path: list[str] = []
        for part in target.split(".") if target else []:
            known = dict(module.named_children())
            if part not in known:
                where = ".".join(path) or type(self).__name__
                raise InputError(
                    f"there is no module {target!r}: {where} has no {part!r}; "
                    f"choose among {', '.join(known) or 'no children at all'}"
                )
            module = known[part]
            path.append(part)
        return module

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """The parameters of this module and all below it, as "conv1.weight", each once."""
        seen: set[int] = set()
        for path, module in self.named_modules(prefix):
            for name, value in vars(module).items():
                if isinstance(value, Parameter) and id(value) not in seen:
                    seen.add(id(value))
                    yield f"{path}.{name}" if path else name, value

    def parameters(self) -> Iterator[Parameter]:
        """The parameters of this module and all below it, each once."""
        for _, parameter in self.named_parameters():
            yield parameter

    def named_buffers(self, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
        """The buffers of this module and all below it, as "norm1.running_mean"."""
        for path, module in self.named_modules(prefix):
            for name in module._buffer_names:
                yield f"{path}.{name}" if path else name, getattr(module, name)

    def buffers(self) -> Iterator[np.ndarray]:
        """The buffers of this module and all below it."""
        for _, buffer in self.named_buffers():
            yield buffer

    # -- state -------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Switch this module and all below it to training, or out of it; gives the module back."""
        if not isinstance(mode, bool):
            raise InputError(f"train's mode is {mode!r}; give True or False")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Switch to evaluation: the same as ``train(False)``."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freeze (False) or thaw (True) every parameter below; gives the module back."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def zero_grad(self) -> None:
        """Forget every gradient: ``grad`` becomes None."""
        for parameter in self.parameters():
            parameter.grad = None

    def to(self, name: str) -> Self:
        """Move every parameter and buffer below to a device, in place; gives the module back.

        Gradients go along. An optimiser made before goes on with the same parameters, but its own
        arrays stay behind: move the module first. A buffer that is one whole number, a count, stays
        on the host, which counts without starting a kernel.

        Raises:
            InputError: if there is no such device, or it cannot be used here.
        """
        xp = device.module(name)
        for parameter in self.parameters():
            if device.array_module(parameter.data) is xp:
                continue
            parameter.data = device.move(parameter.data, name)
            parameter._version += 1  # graphs that kept the old value must notice
            if parameter.grad is not None:
                parameter.grad = Tensor(device.move(parameter.grad.data, name))
        for module in self.modules():
            for buffer in module._buffer_names:
                array = getattr(module, buffer)
                if array.ndim or np.issubdtype(array.dtype, np.floating):
                    setattr(module, buffer, device.move(array, name))
        return self

    def apply(self, function: Callable[[Module], Any]) -> Self:
        """Call ``function`` on this module and all below it, parents first."""
        for module in self.modules():
            function(module)
        return self

    def _state(self) -> dict[str, Parameter | np.ndarray]:
        state: dict[str, Parameter | np.ndarray] = dict(self.named_parameters())
        state.update(self.named_buffers())
        return state

    def state_dict(self) -> dict[str, np.ndarray]:
        """Every parameter, then every buffer, by name, as contiguous *copies* on the host.

        (PyTorch gives views, which later steps of an optimiser overwrite.)
        """
        return {
            name: np.array(device.move(_raw(value), "cpu"), order="C")
            for name, value in self._state().items()
        }

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> LoadResult:
        """Copy the arrays into the parameters and buffers of the same names, all or none.

        Args:
            state_dict: arrays by name, as `state_dict` gives them.
            strict: whether the names must be exactly this module's. If False, names that only one
                side has are passed over; shapes and dtypes must agree all the same.

        Returns:
            The names that were passed over.

        Raises:
            InputError: naming every difference. Then nothing was written.
        """
        own = self._state()
        given = {name: Tensor(value).data for name, value in state_dict.items()}
        missing = [name for name in own if name not in given]
        unexpected = [name for name in given if name not in own]
        faults = []
        if strict and missing:
            faults.append(f"missing: {', '.join(missing)}")
        if strict and unexpected:
            faults.append(f"unexpected: {', '.join(unexpected)}")
        for name, target in own.items():
            if name not in given:
                continue
            found = given[name]
            if found.shape != target.shape or found.dtype != target.dtype:
                faults.append(
                    f"{name} is {found.dtype} {found.shape}, wanted {target.dtype} {target.shape}"
                )
        if faults:
            raise InputError(
                f"the state does not fit {type(self).__name__} ({'. '.join(faults)}); build the "
                "module with the settings that the state was saved from"
                + (", or pass strict=False to load only the names that both have" * strict)
            )
        with no_grad():
            for name, target in own.items():
                if name not in given:
                    continue
                if isinstance(target, Parameter):
                    target.copy_(given[name])
                else:
                    target[...] = device.move(given[name], device.name_of(target))
        return LoadResult(missing, unexpected)

    # -- display -----------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """The settings to show between the brackets of ``repr``."""
        return ""

    def __repr__(self) -> str:
        lines = []
        for name, child in self.named_children():
            lines.append(f"  ({name}): " + repr(child).replace("\n", "\n  "))
        extra = self.extra_repr()
        if not lines:
            return f"{type(self).__name__}({extra})"
        return "\n".join([f"{type(self).__name__}({extra}", *lines, ")"])


def parameter_count(module: Module, trainable: bool = False) -> int:
    """Number of learned values in a module; with ``trainable``, without the frozen ones."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


def _raw(value: Any) -> Any:
    return value.data if isinstance(value, Tensor) else value
