"""torchvision's networks and ours: the same random weights, the same outputs, the same names."""

import numpy as np
import pytest

import minifcn as mf
from minifcn import nn
from minifcn.models import fcn_on, resnet18, weights
from minifcn.training.weight_files import read_weights, write_weights
from tests.oracle.compare import error
from tests.oracle.published import models, torch

pytestmark = pytest.mark.oracle
TOLERANCE = 1e-4  # float32, relative to the largest output


def arrays_of(module):
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def lively(module, seed=0):
    """In evaluation, with running statistics, scales and shifts that are not trivial."""
    generator = torch.Generator().manual_seed(seed)
    for m in module.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            for tensor in (m.weight.data, m.running_var):
                tensor.uniform_(0.5, 1.5, generator=generator)
            for tensor in (m.bias.data, m.running_mean):
                tensor.normal_(0, 0.2, generator=generator)
        elif isinstance(m, torch.nn.Conv2d) and m.bias is not None:
            m.bias.data.normal_(0, 0.1, generator=generator)
    return module.eval()


def picture(height, width):
    return np.random.default_rng(1).standard_normal((2, 3, height, width)).astype(np.float32)


def agree(ours, theirs, x):
    with torch.no_grad(), mf.no_grad():
        found, wanted = ours(mf.Tensor(x)).numpy(), theirs(torch.tensor(x)).numpy()
    assert np.abs(wanted).max() > 1e-3  # there is something to compare
    difference = error(found, wanted)
    print(f"{type(ours).__name__}: {difference:.1e}")
    assert difference < TOLERANCE


@pytest.mark.parametrize("batch_norm", [False, True])
def test_vgg16(batch_norm):
    """The trunk, at full width; sizes that 32 divides, for torchvision's pools drop the rest."""
    from torchvision.models.vgg import cfgs, make_layers

    torch.manual_seed(0)
    theirs = torch.nn.Module()
    theirs.features = lively(make_layers(cfgs["D"], batch_norm))
    trunk = "vgg16_bn" if batch_norm else "vgg16"
    settings = {"fc_channels": 1, "fc_kernel": 1, "generator": np.random.default_rng(0)}
    net = fcn_on(trunk, 2, **settings).eval()
    assert weights.load(net, arrays_of(theirs), strict=False).unexpected_keys == []
    agree(lambda x: net.trunk(x)[-1], theirs.features, picture(64, 96))


@pytest.mark.parametrize("trunk", ["resnet18", "resnet34"])
def test_resnets(trunk):
    """The trunk by itself, on a size that no stride divides."""
    torch.manual_seed(0)
    theirs = lively(getattr(models, trunk)())
    net = fcn_on(trunk, 2, generator=np.random.default_rng(0)).eval()
    assert weights.load(net, arrays_of(theirs)) == ([], [])
    layers = torch.nn.Sequential(*list(theirs.children())[:-2])  # without average and fc
    agree(lambda x: net.trunk(x)[-1], layers, picture(75, 101))


def test_resnet18_as_classifier():
    torch.manual_seed(0)
    theirs = lively(models.resnet18(num_classes=10))
    ours = resnet18(10, generator=np.random.default_rng(0)).eval()
    assert weights.load(ours, arrays_of(theirs)) == ([], [])
    agree(ours, theirs, picture(75, 101))


def test_the_comparison_catches_one_normalisation_that_is_off():
    torch.manual_seed(0)
    theirs = lively(models.resnet18(num_classes=10))
    ours = resnet18(10, generator=np.random.default_rng(0)).eval()
    arrays = arrays_of(theirs)
    arrays["layer3.1.bn2.running_mean"] = arrays["layer3.1.bn2.running_mean"] + 0.01
    weights.load(ours, arrays)
    with pytest.raises(AssertionError):
        agree(ours, theirs, picture(75, 101))


@pytest.mark.parametrize("trunk", ["vgg16", "vgg16_bn", "resnet18", "resnet34"])
def test_names_and_shapes_at_full_size(trunk, monkeypatch):
    """torchvision's on its device without memory; ours zeros that are never touched."""
    monkeypatch.setattr(nn.init, "_drawn", lambda w, draw: w)
    with torch.device("meta"):
        theirs = getattr(models, trunk)()
    wanted = {n: tuple(t.shape) for n, t in theirs.state_dict().items()}
    net = fcn_on(trunk, 21, generator=np.random.default_rng(0))
    found = {row.theirs: row.shape for row in weights.rows(net)}
    left = set(wanted) - set(found)
    assert left == {
        f"{'fc' if 'resnet' in trunk else 'classifier.6'}.{p}" for p in ("weight", "bias")
    }
    assert found == {n: shape for n, shape in wanted.items() if n not in left}


# -- files -----------------------------------------------------------------------------------------


def test_a_pth_and_the_safetensors_made_of_it(tmp_path):
    torch.manual_seed(0)
    theirs = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).eval()
    theirs[0].weight.data = theirs[0].weight.data.contiguous(memory_format=torch.channels_last)
    torch.save(
        theirs.state_dict() | {"half": torch.ones(3, dtype=torch.bfloat16)}, tmp_path / "w.pth"
    )
    arrays = read_weights(tmp_path / "w.pth")
    np.testing.assert_array_equal(arrays["0.weight"], theirs[0].weight.detach().numpy())
    assert arrays["half"].dtype == np.float32
    write_weights(arrays, tmp_path / "w.safetensors")
    from safetensors.torch import load_file

    back = load_file(tmp_path / "w.safetensors")
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(back[name], tensor), name


class Loud:
    def __reduce__(self):
        return print, ("this code must not run",)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (Loud(), "holds more than arrays"),
        ([1, 2], "not a dict of tensors"),
        ({"a": 1}, "not a dict"),
        ({}, "holds no arrays"),
        ({7: torch.ones(2)}, "not a dict of tensors by name"),
        ({"a": torch.eye(2).to_sparse()}, "a is no array to NumPy"),
        ({"a": torch.ones(2, dtype=torch.float8_e4m3fn)}, "a is no array"),
    ],
)
def test_a_pth_that_holds_more_than_arrays(tmp_path, capfd, content, says):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(mf.InputError, match=says):
        read_weights(tmp_path / "w.pth")
    assert "must not run" not in capfd.readouterr().out


def test_ours_load_in_torchvision(tmp_path):
    net = fcn_on("resnet18", 2, generator=np.random.default_rng(0)).eval()
    write_weights(weights.save(net), tmp_path / "w.safetensors")
    from safetensors.torch import load_file

    theirs = models.resnet18()
    result = theirs.load_state_dict(load_file(tmp_path / "w.safetensors"), strict=False)
    assert result.missing_keys == ["fc.weight", "fc.bias"] and not result.unexpected_keys
    layers = torch.nn.Sequential(*list(theirs.eval().children())[:-2])
    agree(lambda x: net.trunk(x)[-1], layers, picture(64, 64))
