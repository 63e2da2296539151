"""The walk back through the graph: each node once, gradients added where paths meet.

Reverse-mode differentiation: start with dL/d(output), visit every Function after all Functions that
used its result, and let its ``backward`` pass the gradient on to its inputs.

Source: Griewank and Walther, "Evaluating Derivatives", 2nd ed. 2008, chapter 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minifcn import device
from minifcn.conversion import Cast
from minifcn.errors import GraphError, ShapeError
from minifcn.function import Function
from minifcn.kernels import workspace
from minifcn.kernels.elementwise import add
from minifcn.ownership import is_alone
from minifcn.recording import set_grad_enabled
from minifcn.tensor import Tensor

Node = Function | Tensor  # a leaf stands for itself


def backward(
    output: Tensor,
    gradient: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
) -> None:
    """Add d(output)/d(leaf) · gradient to ``leaf.grad`` for every leaf that wants it.

    Args:
        gradient: of the same shape as output; may be left out where output has one element.
        retain_graph: keep the graph for another `backward` (default: as ``create_graph``).
        create_graph: record the derivative itself, so that it can be differentiated.

    Raises:
        GraphError: if output is not a scalar and no gradient is given, if nothing here wants a
            gradient, or if the graph was freed by an earlier `backward`.
    """
    gradients = _walk([output], [gradient], None, retain_graph, create_graph)
    while gradients:
        tensor, gradient = gradients.pop()
        if tensor.grad is None and not create_graph and is_alone(gradient):
            gradient._owned = True
            tensor.grad = gradient
        else:
            tensor.grad = _added(tensor.grad, gradient, create_graph)


def _ordered(roots: Sequence[Node]) -> list[Function]:
    """Every Function that the roots depend on, each before the Functions that it depends on."""
    order: list[Function] = []
    seen: set[int] = set()
    for root in roots:
        stack: list[tuple[Node, bool]] = [(root, False)]
        while stack:
            node, done = stack.pop()
            if done:
                order.append(node)  # type: ignore[arg-type]
            elif isinstance(node, Function) and id(node) not in seen:
                seen.add(id(node))
                if node.freed:
                    raise GraphError(
                        f"backward: the graph through {node.name} was freed by an earlier "
                        "backward; pass retain_graph=True to that call, or compute the result again"
                    )
                stack.append((node, True))
                stack.extend((parent, False) for parent in node.nodes if parent is not None)
    return order[::-1]


def _seed(output: Tensor, gradient: Any, call: str) -> Tensor:
    """The gradient to start from at ``output``."""
    if not output.requires_grad:
        raise GraphError(
            f"{call}: this Tensor depends on nothing that wants a gradient; set requires_grad=True "
            "on an input or parameter, and compute it outside no_grad"
        )
    if gradient is None:
        if output.data.size != 1:
            raise GraphError(
                f"{call}: the output has shape {output.shape}, not one element; reduce it to a "
                "scalar (.sum(), .mean()) or pass gradient= of that shape"
            )
        return Tensor(np.ones_like(output.data))
    gradient = gradient if isinstance(gradient, Tensor) else Tensor(gradient)
    if gradient.shape != output.shape:
        raise ShapeError(
            f"{call}: gradient has shape {gradient.shape}, wanted the output's {output.shape}"
        )
    device.together(call, output.data, gradient.data)
    return gradient


def _added(total: Tensor | None, gradient: Tensor, create_graph: bool) -> Tensor:
    """total + gradient; in place if the total's memory is this gradient's alone."""
    if create_graph:
        return gradient if total is None else total + gradient
    if total is not None and total._owned:
        add(total.data, gradient.data, out=total.data)
        total._version += 1
        return total
    # the gradient may be shared with other nodes or be a read-only broadcast: keep our own memory
    data = workspace.copy(gradient.data) if total is None else add(total.data, gradient.data)
    result = Tensor(data)
    result._owned = True
    return result


def _walk(
    outputs: Sequence[Tensor],
    gradients: Sequence[Any],
    wanted: Sequence[Tensor] | None,
    retain_graph: bool | None,
    create_graph: bool,
    call: str = "backward",
) -> list[tuple[Tensor, Tensor]]:
    """Walk the graph, each node once; give (tensor, gradient) for leaves or for ``wanted``."""
    retain = create_graph if retain_graph is None else retain_graph
    pending: dict[int, Tensor] = {}  # gradient that has arrived at a node so far
    leaves: dict[int, Tensor] = {}
    found: dict[int, tuple[Tensor, Tensor]] = {}
    targets = None if wanted is None else {id(x.node): x for x in wanted}

    def arrive(node: Node, gradient: Tensor) -> None:
        key = id(node)
        if gradient.data.dtype != node.dtype:
            gradient = Cast(node.dtype)(gradient)
        if isinstance(node, Tensor) and (targets is None or key in targets):
            leaves[key] = node
        before = pending.pop(key, None)
        if before is None:
            pending[key] = gradient
        elif create_graph:
            pending[key] = before + gradient
        elif is_alone(before):
            add(before.data, gradient.data, out=before.data)
            before._gated = before._gated and gradient._gated
            pending[key] = before
        else:
            pending[key] = Tensor(add(before.data, gradient.data))

    for x in wanted or ():
        if isinstance(x.node, Function):
            x.node.gates = False  # its gradient is given out as it is
    order = _ordered([x.node for x in outputs])
    with set_grad_enabled(create_graph):
        for output, gradient in zip(outputs, gradients, strict=True):
            arrive(output.node, _seed(output, gradient, call))
        for node in order:
            gradient = pending.pop(id(node), None)
            if gradient is None:  # reached only through inputs that want no gradient
                continue
            if targets is not None and id(node) in targets:
                found[id(node)] = (targets[id(node)], gradient)
            if node.result is not None and targets is None:
                found[id(node)] = (node.result, gradient)
            parts = node.remembered().backward(gradient)
            if len(parts) != len(node.nodes):
                raise ShapeError(
                    f"{node.name}.backward gave {len(parts)} gradients, wanted one for each of its "
                    f"{len(node.nodes)} inputs (None for none)"
                )
            for i, (parent, part) in enumerate(zip(node.nodes, parts, strict=True)):
                if parent is None or part is None:
                    continue
                if part.data.shape != parent.shape:
                    raise ShapeError(
                        f"{node.name}.backward gave input {i} a gradient of shape {part.shape}, "
                        f"wanted the input's own {parent.shape}"
                    )
                arrive(parent, part)
            if not retain:
                node.free()
    return [*found.values(), *((leaf, pending[key]) for key, leaf in leaves.items())]


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of ``outputs`` with respect to ``inputs``, without touching any ``.grad``.

    Args:
        outputs: one Tensor or several, whose gradients are summed.
        inputs: leaves or results of operations.
        grad_outputs: a gradient for each output; may be left out for outputs of one element.
        retain_graph: keep the graph for another walk (default: as ``create_graph``).
        create_graph: record the derivative, so that it can be differentiated again.
        allow_unused: give None for an input that the outputs do not depend on, instead of an error.

    Returns:
        One gradient an input, of its shape.
    """
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if grad_outputs is None:
        grad_outputs = [None] * len(outputs)
    elif isinstance(grad_outputs, Tensor | np.ndarray) or device.is_gpu(grad_outputs):
        grad_outputs = [grad_outputs]
    if len(grad_outputs) != len(outputs):
        raise ShapeError(
            f"grad: {len(grad_outputs)} grad_outputs for {len(outputs)} outputs, wanted one each"
        )
    pairs = _walk(outputs, grad_outputs, inputs, retain_graph, create_graph, "grad")
    found = {id(tensor): gradient for tensor, gradient in pairs}
    results = []
    for i, x in enumerate(inputs):
        if id(x) not in found and not allow_unused:
            raise GraphError(
                f"grad: the outputs do not depend on input {i}, of shape {x.shape}; "
                "pass allow_unused=True to get None for it"
            )
        results.append(found.get(id(x)))
    return tuple(results)
