"""Modules that hold modules: a chain, a list, a dictionary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from minifcn.errors import InputError
from minifcn.nn.convolution import Conv2d
from minifcn.nn.module import Module
from minifcn.nn.pointwise import ReLU
from minifcn.nn.pooling import MaxPool2d
from minifcn.recording import is_grad_enabled


def through(x: Any, *modules: Module) -> Any:
    """Pass ``x`` through the modules: each one's output is the next one's input.

    A layer with a ReLU behind it may offer both in one operation, as ``forward_relu(x)``; this
    then calls that instead of the two, and the picture between them is never written. Where a
    convolution's ReLU is followed by max-pooling and a gradient may be asked for, the two change
    places and are one operation: the larger of two numbers stays the larger, so that not a bit
    differs, but the ReLU has fewer pixels, and the picture before the pooling need not be kept for
    its gradient.

    Where somebody looks at such a picture (a forward hook) or changes what a layer does (a subclass
    with a ``forward`` of its own), all are called one by one.
    """
    i = 0
    while i < len(modules):
        layer, behind = modules[i], modules[i + 1 : i + 3]
        if not behind or not _joins(layer, behind[0]):
            x = layer(x)
            i += 1
        elif len(behind) == 2 and _changes_places(layer, behind[1]):
            x = behind[1].forward_relu(layer(x))  # type: ignore[attr-defined]
            i += 3
        else:
            x = layer.forward_relu(x)  # type: ignore[attr-defined]
            i += 2
    return x


class Sequential(Module):
    """A chain: each module's output is the next one's input, see `through`.

    ``Sequential(a, b)`` names its modules "0", "1"; ``Sequential({"conv": a, "relu": b})`` names
    them as the dictionary does.
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            named = list(modules[0].items())
        else:
            named = [(str(i), module) for i, module in enumerate(modules)]  # type: ignore[misc]
        for name, module in named:
            self.add_module(name, module)

    def forward(self, x: Any) -> Any:
        """Pass ``x`` through the chain."""
        return through(x, *self.children())

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def __getitem__(self, index: int) -> Module:
        return _item(self, index)


class ModuleList(Module):
    """A list of modules, named "0", "1", …; it has no ``forward`` of its own."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> ModuleList:
        """Add a module at the end; gives the list back."""
        self.add_module(str(len(self)), module)
        return self

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def __getitem__(self, index: int) -> Module:
        return _item(self, index)


class ModuleDict(Module):
    """Modules by name, in the order in which they were added; it has no ``forward`` of its own."""

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        for name, module in (modules or {}).items():
            self[name] = module

    def __setitem__(self, name: str, module: Module) -> None:
        self.add_module(name, module)

    def __getitem__(self, name: str) -> Module:
        known = dict(self.named_children())
        if name not in known:
            raise InputError(
                f"there is no module {name!r} here; choose among {', '.join(known) or 'none'}"
            )
        return known[name]

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    def __iter__(self) -> Iterator[str]:
        return self.keys()

    def __contains__(self, name: object) -> bool:
        return name in dict(self.named_children())

    def keys(self) -> Iterator[str]:
        """The names."""
        return (name for name, _ in self.named_children())

    def values(self) -> Iterator[Module]:
        """The modules."""
        return self.children()

    def items(self) -> Iterator[tuple[str, Module]]:
        """The names with their modules."""
        return self.named_children()


def _joins(layer: Module, after: Module) -> bool:
    """Whether ``layer.forward_relu(x)`` is what calling ``layer`` and then ``after`` would give."""
    if type(after) is not ReLU or after._hooks or layer._hooks:
        return False
    if any("forward" in vars(module) for module in (layer, after)):  # replaced on the instance
        return False
    for cls in type(layer).__mro__:  # whoever defines forward last must define forward_relu too
        if not {"forward", "forward_relu", "__call__"}.isdisjoint(vars(cls)):
            return {"forward", "forward_relu"} <= set(vars(cls))
    return False


def _changes_places(layer: Module, pool: Module) -> bool:
    """Whether the ReLU between a convolution and this module had better come behind it.

    A dilated window that sees nothing of the picture gives −∞, and would give 0. Where no gradient
    is wanted, or the pool leaves as many pixels, a ReLU in the convolution costs least.
    """
    if not isinstance(layer, Conv2d) or type(pool) is not MaxPool2d or pool.dilation != (1, 1):
        return False
    if not is_grad_enabled() or pool.stride == (1, 1):
        return False
    return not pool._hooks and "forward" not in vars(pool)


def _item(container: Module, index: int) -> Module:
    modules = list(container.children())
    if not -len(modules) <= index < len(modules):
        raise IndexError(f"index {index} is out of range for {len(modules)} modules")
    return modules[index]
