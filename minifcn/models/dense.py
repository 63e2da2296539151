"""À trous: a net that gives a cell every s pixels gives one for every pixel, with the same weights.

A layer of stride s throws away all places but every s-th. Let it keep them all (stride 1): then the
values that the next layer wants to meet lie s apart, and its window opens by holes, dilation s. So
along the chain: what the strides have been so far becomes the dilation, and all strides become 1.
Each cell of the first net is found among the new ones, every s-th; between them stand the answers
for the windows that it passed over. They are exact where no layer pads: see `to_dense`.

Source: Holschneider et al., "A real-time algorithm for signal analysis with the help of the wavelet
transform" (1989); "filter rarefaction" in Long, Shelhamer and Darrell (2015), section 3.2.
"""

from __future__ import annotations

from copy import deepcopy

from minifcn import nn
from minifcn.errors import InputError


def to_dense(net: nn.Sequential) -> nn.Sequential:
    """The same net at stride 1: (N, C, H, W) → (N, K, H - h + 1, W - w + 1) for a window of h×w.

    Args:
        net: a chain of convolutions, pools and point-wise layers without padding, as
            `to_fully_convolutional` gives it. It stays as it is; weights are copied.

    Raises:
        InputError: if a layer pads, hangs over the edge (``ceil_mode``), or cannot be dilated.
    """
    return _chain(net, "", [1, 1])


def _chain(net: nn.Sequential, name: str, apart: list[int]) -> nn.Sequential:
    """A chain with holes; ``apart`` says how far apart its input's values lie, and is kept."""
    made: dict[str, nn.Module] = {}
    for part, module in net.named_children():
        full = f"{name}.{part}" if name else part
        if type(module) is nn.Sequential:
            made[part] = _chain(module, full, apart)
        elif isinstance(module, nn.Windowed):
            made[part] = _with_holes(module, full, apart)
        elif isinstance(module, nn.ReLU | nn.Dropout | nn.BatchNorm2d | nn.Softmax):
            made[part] = deepcopy(module)
        else:
            raise InputError(
                f"to_dense: {full} is a {type(module).__name__}; give a chain of convolutions, "
                "max pools and point-wise layers (to_fully_convolutional makes one)"
            )
    return nn.Sequential(made)


def _with_holes(layer: nn.Windowed, name: str, apart: list[int]) -> nn.Windowed:
    holes = apart != [1, 1]
    if layer.padding != (0, 0) or getattr(layer, "ceil_mode", False):
        raise InputError(
            f"to_dense: {name} pads, or hangs over the edge (ceil_mode); a window inside a picture "
            "is then not the window cut out. Use a net without padding, and pad the picture"
        )
    if not isinstance(layer, nn.Conv2d | nn.MaxPool2d) and (holes or layer.stride != (1, 1)):
        raise InputError(
            f"to_dense: {name} is a {type(layer).__name__}, which takes no dilation; use Conv2d "
            "and MaxPool2d from the first stride on"
        )
    layer = deepcopy(layer)
    stride = layer.stride
    layer.stride = (1, 1)
    layer.dilation = tuple(  # type: ignore[assignment]
        1 if k == 1 else d * a for k, d, a in zip(layer.kernel_size, layer.dilation, apart)
    )
    apart[:] = apart[0] * stride[0], apart[1] * stride[1]
    return layer
