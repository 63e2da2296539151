"""Layers: their settings reach the operation, their states fit PyTorch's, their errors name values.

The operations have tests of their own; here each layer is held against PyTorch's layer of the same
name, which is given the same state.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minifcn import nn
from minifcn.errors import InputError
from minifcn.geometry import Window
from minifcn.tensor import Tensor


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def normal(*shape: int, seed: int = 1) -> np.ndarray:
    return rng(seed).standard_normal(shape).astype(np.float32)


LAYERS: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = [
    ("Conv2d", (4, 6, 3), {}, (2, 4, 7, 9)),
    ("Conv2d", (4, 6, (3, 2), (2, 1), (1, 0), (1, 2), 2, False), {}, (2, 4, 8, 7)),
    ("ConvTranspose2d", (4, 6, 3), {}, (2, 4, 5, 4)),
    ("ConvTranspose2d", (4, 6, (4, 3), (2, 3), 1, (1, 0), 2, True, (1, 2)), {}, (2, 4, 5, 4)),
    ("ConvTranspose2d", (5, 5, 4, 2, 1), {"groups": 5, "bias": False}, (1, 5, 3, 3)),
    ("BatchNorm2d", (4,), {}, (3, 4, 5, 2)),
    ("BatchNorm2d", (4, 1e-2, 0.3), {}, (3, 4, 5, 2)),
    ("BatchNorm2d", (4, 1e-5, None), {}, (3, 4, 5, 2)),
    ("BatchNorm2d", (4,), {"affine": False}, (3, 4, 5, 2)),
    ("Linear", (5, 3), {}, (4, 5)),
    ("Linear", (5, 3, False), {}, (4, 5)),
    ("MaxPool2d", (2,), {"ceil_mode": True}, (2, 3, 7, 5)),
    ("MaxPool2d", ((3, 2), (2, 1), (1, 0), 1), {}, (2, 3, 7, 5)),
    ("AvgPool2d", (3, 2, 1, True, False), {}, (2, 3, 7, 6)),
    ("AvgPool2d", (2,), {}, (2, 3, 7, 6)),
    ("AdaptiveAvgPool2d", (1,), {}, (2, 3, 7, 6)),
    ("ReLU", (), {}, (2, 3, 4)),
    ("Softmax", (1,), {}, (2, 3, 4, 5)),
    ("Flatten", (), {}, (2, 3, 4, 5)),
    ("Upsample", ((9, 5),), {"mode": "bilinear"}, (2, 3, 4, 5)),
    ("Upsample", (), {"scale_factor": 2.0, "mode": "bilinear"}, (2, 3, 4, 5)),
    ("Upsample", ((9, 5),), {"mode": "bilinear", "align_corners": True}, (2, 3, 4, 5)),
]


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "args", "kwargs", "shape"), LAYERS)
def test_layer_agrees_with_pytorch(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], shape: tuple[int, ...]
) -> None:
    torch = pytest.importorskip("torch")
    more = {"generator": rng()} if name in ("Conv2d", "ConvTranspose2d", "Linear") else {}
    ours = getattr(nn, name)(*args, **kwargs, **more)
    theirs = getattr(torch.nn, name)(*args, **kwargs)
    state = {
        key: value if value.dtype == np.int64 else value + np.float32(0.25)
        for key, value in ours.state_dict().items()
    }
    ours.load_state_dict(state)
    theirs.load_state_dict({key: torch.tensor(value) for key, value in state.items()})
    for step in range(3):  # twice in training, for the running statistics, then in evaluation
        if step == 2:
            ours.eval()
            theirs.eval()
        x = normal(*shape, seed=step)
        y, wanted = ours(Tensor(x)), theirs(torch.tensor(x))
        np.testing.assert_allclose(y.data, wanted.detach().numpy(), rtol=2e-5, atol=2e-5)
    for key, value in ours.state_dict().items():
        np.testing.assert_allclose(value, theirs.state_dict()[key].numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.oracle
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_loss_agrees_with_pytorch(reduction: str) -> None:
    torch = pytest.importorskip("torch")
    x, t = normal(2, 4, 3, 5), rng().integers(0, 4, (2, 3, 5))
    t[0, 0] = 255
    weight = np.array([1, 2, 3, 0.5], np.float32)
    ours = nn.CrossEntropyLoss(weight, ignore_index=255, reduction=reduction)
    theirs = torch.nn.CrossEntropyLoss(torch.tensor(weight), ignore_index=255, reduction=reduction)
    wanted = theirs(torch.tensor(x), torch.tensor(t)).numpy()
    np.testing.assert_allclose(ours(Tensor(x), t).data, wanted, rtol=1e-5, atol=1e-6)


def test_weights_start_as_the_docstrings_say() -> None:
    conv = nn.Conv2d(16, 64, 3, groups=2, generator=rng())
    assert conv.weight.shape == (64, 8, 3, 3) and conv.weight.dtype == np.float32
    assert conv.bias is not None and not np.any(conv.bias.data)
    assert abs(conv.weight.data.var() / (2 / 72) - 1) < 0.1
    linear = nn.Linear(200, 50, generator=rng(), dtype=np.float64)
    assert linear.weight.dtype == np.float64
    assert abs(linear.weight.data.var() / (2 / 200) - 1) < 0.1
    norm = nn.BatchNorm2d(3)
    assert norm.state_dict()["num_batches_tracked"].dtype == np.int64


def test_transposed_convolution_starts_at_the_variance_of_its_input() -> None:
    layer = nn.ConvTranspose2d(32, 16, 4, 2, 1, bias=False, generator=rng())
    y = layer(Tensor(normal(4, 32, 16, 16))).data[:, :, 2:-2, 2:-2]
    assert abs(y.var() / 2 - 1) < 0.2  # He: twice the variance, half of which a ReLU takes


def test_dropout() -> None:
    layer = nn.Dropout(0.25, generator=rng())
    x = Tensor(np.ones((10, 1000), np.float32))
    y = layer(x).data
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((y == 0).mean() - 0.25) < 0.03
    assert np.any(layer(x).data != y)  # a new mask each time
    np.testing.assert_array_equal(layer.eval()(x).data, x.data)
    with pytest.raises(InputError, match="p is 1.5"):
        nn.Dropout(1.5, generator=rng())


def test_reseed_dropout_makes_masks_depend_on_the_numbers_given() -> None:
    net = nn.Sequential(nn.Dropout(generator=rng(1)), nn.ReLU(), nn.Dropout(generator=rng(1)))
    x = Tensor(np.ones((1, 200)))
    nn.reseed_dropout(net, 5, 17)
    first, after = net[0](x).data, net[2](x).data
    assert np.any(first != after)  # no two layers share a mask
    nn.reseed_dropout(net, 5, 18)
    assert np.any(net[0](x).data != first)
    nn.reseed_dropout(net, 5, 17)
    np.testing.assert_array_equal(net[0](x).data, first)
    np.testing.assert_array_equal(net[2](x).data, after)


def test_one_seed_one_layer() -> None:
    one, two = (nn.Conv2d(3, 4, 3, generator=rng(9)) for _ in range(2))
    np.testing.assert_array_equal(one.weight.data, two.weight.data)


def test_batch_norm_counts_only_batches_that_went_through() -> None:
    norm = nn.BatchNorm2d(2)
    with pytest.raises(ValueError, match="2 or more"):
        norm(Tensor(normal(1, 2, 1, 1)))
    assert norm.num_batches_tracked == 0
    held = norm.num_batches_tracked
    norm(Tensor(normal(2, 2, 1, 1)))
    norm.eval()(Tensor(normal(2, 2, 1, 1)))
    assert held == 1 and norm.num_batches_tracked is held


def test_windows_of_layers() -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 1, (3, 5), (1, 2), (1, 0), (2, 1), generator=rng()),
        nn.ReLU(),
        nn.MaxPool2d((2, 3), ceil_mode=True),
        nn.ConvTranspose2d(1, 1, 4, 2, 1, (1, 0), generator=rng()),
    )
    assert list(nn.windows(net, 0)) == [
        Window(3, 1, 1, 2),
        Window(2, 2, pooling=True, ceil_mode=True),
        Window(4, 2, 1, transposed=True, output_padding=1),
    ]
    assert list(nn.windows(net, 1)) == [
        Window(5, 2),
        Window(3, 3, pooling=True, ceil_mode=True),
        Window(4, 2, 1, transposed=True),
    ]
    x = Tensor(normal(1, 1, 19, 23))
    for axis, n in ((0, 19), (1, 23)):
        for window in nn.windows(net, axis):
            n = window.output_size(n)
        assert net(x).shape[2 + axis] == n


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: nn.Conv2d(0, 4, 3, generator=rng()), "in_channels is 0"),
        (lambda: nn.Conv2d(4, 4.0, 3, generator=rng()), "out_channels is 4.0"),
        (lambda: nn.Conv2d(4, 4, (3, 3, 3), generator=rng()), r"kernel_size is \(3, 3, 3\)"),
        (lambda: nn.Conv2d(4, 4, 3, stride=0, generator=rng()), "stride is 0"),
        (lambda: nn.Conv2d(4, 4, 3, padding="same", generator=rng()), "padding is 'same'"),
        (lambda: nn.Conv2d(4, 6, 3, groups=4, generator=rng()), "out_channels is 6, which 4 gr"),
        (lambda: nn.Conv2d(4, 4, 3, generator=7), "generator is 7"),
        (lambda: nn.Linear(-1, 2, generator=rng()), "in_features is -1"),
        (lambda: nn.BatchNorm2d(3, eps=0), "eps is 0"),
        (lambda: nn.BatchNorm2d(3, momentum=2), "momentum is 2"),
        (lambda: nn.AdaptiveAvgPool2d(3), "output_size is 3"),
        (lambda: nn.Upsample(), "size is None and scale_factor None"),
        (lambda: nn.Upsample(2, mode="nearest"), "mode is 'nearest'"),
        (lambda: nn.CrossEntropyLoss(reduction="median"), "reduction is 'median'"),
    ],
)
def test_settings_out_of_range_are_named(make: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        make()


def test_repr_shows_what_differs_from_the_defaults() -> None:
    wanted = {
        "Conv2d(2, 4, kernel_size=(3, 3), stride=(1, 1), groups=2, bias=False)": nn.Conv2d(
            2, 4, 3, groups=2, bias=False, generator=rng()
        ),
        "ConvTranspose2d(2, 2, kernel_size=(4, 4), stride=(2, 2), padding=(1, 1))": (
            nn.ConvTranspose2d(2, 2, 4, 2, 1, generator=rng())
        ),
        "MaxPool2d(kernel_size=2, stride=2, padding=0, ceil_mode=True)": nn.MaxPool2d(
            2, ceil_mode=True
        ),
        "Linear(3, 2, bias=True)": nn.Linear(3, 2, generator=rng()),
        "Dropout(p=0.5)": nn.Dropout(generator=rng()),
    }
    assert [repr(layer) for layer in wanted.values()] == list(wanted)
