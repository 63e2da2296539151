"""The table of layers: sizes against a real forward, counts against hand and paper."""

import numpy as np
import pytest

import minifcn as mf
from minifcn import models, nn
from minifcn.errors import ShapeError
from minifcn.study import summary


def generator():
    return np.random.default_rng(0)


def small(**settings):
    settings = {"widths": (2, 3, 4, 5, 6), "fc_channels": 7, **settings}
    return models.fcn8s(3, generator=generator(), **settings)


def by_name(result):
    return {layer.name: layer for layer in result.layers}


def real_shapes(model, size):
    """What forward hooks see of a forward that computes."""
    shapes, handles = [], []
    for name, module in model.named_modules():
        if not list(module.children()):
            hook = lambda m, i, o, name=name: shapes.append((name, o.shape[1:], o.data.nbytes))  # noqa: E731
            handles.append(module.register_forward_hook(hook))
    model.eval()  # one pixel has no variance of its own
    with mf.no_grad():
        model(mf.zeros(1, *size))
    for handle in handles:
        handle.remove()
    return shapes


@pytest.mark.parametrize("size", [(3, 1, 1), (3, 45, 70), (3, 96, 64)])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_output_sizes_are_those_of_a_real_forward(size, batch_norm):
    model = small(batch_norm=batch_norm)
    found = [(layer.name, layer.output, layer.memory) for layer in summary(model, size).layers]
    assert found == real_shapes(model, size)


def test_the_model_is_left_as_it_was():
    model = small()
    x = mf.randn(1, 3, 40, 40, generator=generator())
    model.eval()
    before, state = model(x).numpy(), model.state_dict()
    model.train()
    summary(model, (3, 50, 50))
    assert model.training and not any("forward" in vars(m) or m._hooks for m in model.modules())
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, state[name])
    np.testing.assert_array_equal(model.eval()(x).numpy(), before)


def test_the_model_is_left_as_it_was_after_an_error():
    model = small()
    with pytest.raises(ShapeError):
        summary(model, (4, 50, 50))
    assert not any("forward" in vars(m) or m._hooks for m in model.modules())


def test_multiplications_by_hand():
    made = {"generator": generator()}
    model = nn.Sequential(
        {
            "conv": nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, **made),
            "relu": nn.ReLU(),
            "up": nn.ConvTranspose2d(6, 6, 4, stride=2, padding=1, groups=6, bias=False, **made),
            "pool": nn.MaxPool2d(2),
            "flat": nn.Flatten(),
            "linear": nn.Linear(6 * 5 * 6, 9, **made),
        }
    )
    result = summary(model, (4, 10, 12))
    layers = by_name(result)
    assert {name: layer.output for name, layer in layers.items()} == {
        "conv": (6, 5, 6),
        "relu": (6, 5, 6),
        "up": (6, 10, 12),
        "pool": (6, 5, 6),
        "flat": (180,),
        "linear": (9,),
    }
    assert layers["conv"].multiplications == (5 * 6) * 6 * (2 * 3 * 3)  # places, filters, taps
    assert layers["up"].multiplications == (5 * 6) * 6 * (4 * 4)  # each input spreads 4 × 4
    assert layers["linear"].multiplications == 180 * 9
    assert layers["relu"].multiplications == layers["pool"].multiplications == 0
    assert result.multiplications == 3240 + 2880 + 1620
    assert layers["conv"].parameters == 6 * 2 * 9 + 6
    assert layers["up"].algorithm == "depthwise" and layers["pool"].algorithm == ""
    assert layers["conv"].memory == 4 * 6 * 5 * 6
    assert result.memory == 4 * (180 + 180 + 720 + 180 + 180 + 9)


class Zeros(np.random.Generator):
    """Draws nothing: 134 million normal numbers take seconds."""

    def standard_normal(self, size=None):
        return np.zeros(size)


def test_vgg16_without_computing_it():
    """Parameters layer by layer from the paper's table; 134 M as the literature says."""
    model = models.fcn8s(
        21, widths=models.VGG16_WIDTHS, convs=models.VGG16_CONVS, fc_channels=4096, fc_kernel=7,
        batch_norm=False, generator=Zeros(np.random.PCG64(0)),
    )  # fmt: skip
    result = summary(model, (3, 500, 500))
    pairs = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256),
             (256, 512), *[(512, 512)] * 5]  # fmt: skip
    trunk = sum(9 * c * k + k for c, k in pairs)
    assert trunk == 14_714_688
    fc = 49 * 512 * 4096 + 4096 + 4096 * 4096 + 4096
    score = (4096 + 1) * 21 + (512 + 1) * 21 + (256 + 1) * 21
    up = 21 * (4 * 4 + 4 * 4 + 16 * 16)
    assert result.parameters == trunk + fc + score + up == 134_368_799
    assert sum(layer.parameters for layer in result.layers) == result.parameters
    layers = by_name(result)
    assert layers["trunk.stage1.conv2"].multiplications == 500 * 500 * 64 * 64 * 9
    assert layers["trunk.stage4.pool"].output == (512, 32, 32)
    assert layers["fc6.conv"].multiplications == 16 * 16 * 512 * 4096 * 49
    assert layers["fc7.conv"].algorithm == "direct"


def test_a_layer_that_runs_twice_has_its_parameters_once():
    class Twice(nn.Module):
        def __init__(self):
            self.conv = nn.Conv2d(2, 2, 3, padding=1, generator=generator())

        def forward(self, x):
            return self.conv(self.conv(x))

    result = summary(Twice(), (2, 4, 4))
    assert [layer.parameters for layer in result.layers] == [38, 0]
    assert result.parameters == 38 and result.multiplications == 2 * 16 * 36


def test_a_layer_of_ones_own_runs_as_it_is():
    class Half(nn.Module):
        def forward(self, x):
            return x[:, :, ::2, ::2]

    result = summary(nn.Sequential(nn.ReLU(), Half()), (2, 6, 8))
    assert [layer.output for layer in result.layers] == [(2, 6, 8), (2, 3, 4)]


def test_bad_sizes():
    with pytest.raises(ShapeError, match=r"the size is \(3, 0, 5\).*such as \(3, 360, 480\)"):
        summary(small(), (3, 0, 5))
    chain = nn.Sequential(nn.Conv2d(3, 4, 3, generator=generator()))
    with pytest.raises(ShapeError, match="a Conv2d for 3 channels gets 2"):
        summary(chain, (2, 8, 8))
