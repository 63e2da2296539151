"""Weights under torchvision's names: what goes where, what is refused, and that it comes back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minifcn import functional as F
from minifcn import models
from minifcn.errors import InputError
from minifcn.models import FCN, ResNetFCN, weights
from minifcn.models.torchvision_names import network_of
from minifcn.recording import no_grad
from minifcn.tensor import Tensor

# Where the convolutions stand in torchvision's ``features``, by stage: read off its listings.
VGG16 = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
VGG16_BN = ((0, 3), (7, 10), (14, 17, 20), (24, 27, 30), (34, 37, 40))
WIDTHS = (2, 3, 4, 5, 6)
FC = 7


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def vgg16(seed: int = 0, batch_norm: bool = False) -> dict[str, np.ndarray]:
    """Random weights of a narrow vgg16 (or vgg16_bn), laid out from torchvision's listing."""
    draw = rng(seed)
    arrays: dict[str, np.ndarray] = {}
    before = 3
    for width, numbers in zip(WIDTHS, VGG16_BN if batch_norm else VGG16, strict=True):
        for n in numbers:
            arrays[f"features.{n}.weight"] = draw.standard_normal((width, before, 3, 3))
            arrays[f"features.{n}.bias"] = draw.standard_normal(width)
            if batch_norm:
                for name in ("weight", "bias", "running_mean"):
                    arrays[f"features.{n + 1}.{name}"] = draw.standard_normal(width)
                arrays[f"features.{n + 1}.running_var"] = draw.uniform(0.5, 2, width)
                arrays[f"features.{n + 1}.num_batches_tracked"] = np.array(5)
            before = width
    for n, k, c in ((0, FC, before * 49), (3, FC, FC), (6, 1000, FC)):
        arrays[f"classifier.{n}.weight"] = draw.standard_normal((k, c))
        arrays[f"classifier.{n}.bias"] = draw.standard_normal(k)
    return {n: a if a.ndim == 0 else a.astype(np.float32) for n, a in arrays.items()}


def net(batch_norm: bool = False, **settings: Any) -> FCN:
    trunk = "vgg16_bn" if batch_norm else "vgg16"
    settings = {"widths": WIDTHS, "fc_channels": FC, **settings}
    return models.fcn_on(trunk, 2, generator=rng(9), **settings).eval()


def resnet(trunk: str = "resnet18", **settings: Any) -> ResNetFCN:
    settings = {"widths": (2, 3, 4, 5), **settings}
    return models.fcn_on(trunk, 2, generator=rng(9), **settings).eval()  # type: ignore[return-value]


# -- what goes where -------------------------------------------------------------------------------


def test_every_convolution_of_vgg16_finds_its_place() -> None:
    arrays, model = vgg16(), net()
    assert weights.load(model, arrays) == ([], [])
    state = model.state_dict()
    for i, numbers in enumerate(VGG16, 1):
        for j, n in enumerate(numbers, 1):
            for part in ("weight", "bias"):
                found = state[f"trunk.stage{i}.conv{j}.{part}"]
                np.testing.assert_array_equal(found, arrays[f"features.{n}.{part}"])


def fc_error(given: dict[str, np.ndarray], arrays: dict[str, np.ndarray]) -> float:
    """fc6 and fc7 of a net that was ``given`` weights, against the classifier with ``arrays``."""
    model = net()
    weights.load(model, given)
    x = rng(1).standard_normal((3, WIDTHS[-1], 7, 7)).astype(np.float32)
    w6, w7 = arrays["classifier.0.weight"], arrays["classifier.3.weight"]
    h = np.maximum(x.reshape(3, -1) @ w6.T + arrays["classifier.0.bias"], 0)
    wanted = np.maximum(h @ w7.T + arrays["classifier.3.bias"], 0)
    with no_grad():
        found = model.fc7(model.fc6(Tensor(x))).data[:, :, 3, 3]  # the window that nothing pads
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def test_fc6_and_fc7_see_a_window_as_the_classifier_sees_its_features() -> None:
    """Flattened in the order c, h, w, a 7×7 window gives the same through either."""
    assert fc_error(vgg16(), vgg16()) < 1e-5


def test_a_transplant_in_another_order_is_caught() -> None:
    planted = vgg16()
    rows = planted["classifier.0.weight"].reshape(FC, WIDTHS[-1], 7, 7)
    planted["classifier.0.weight"] = rows.transpose(0, 2, 3, 1).reshape(FC, -1)
    assert fc_error(planted, vgg16()) > 0.1


def test_a_bias_before_a_normalisation_goes_into_its_mean() -> None:
    arrays, model = vgg16(batch_norm=True), net(batch_norm=True)
    weights.load(model, arrays)
    x = Tensor(rng(1).standard_normal((2, 3, 6, 6)).astype(np.float32))
    h = F.conv2d(x, Tensor(arrays["features.0.weight"]), Tensor(arrays["features.0.bias"]), 1, 1)
    mean, var, scale, shift = (
        arrays[f"features.1.{name}"][:, None, None]
        for name in ("running_mean", "running_var", "weight", "bias")
    )
    wanted = (h.data - mean) / np.sqrt(var + 1e-5) * scale + shift
    stage = model.trunk.stage1
    np.testing.assert_allclose(stage.norm1(stage.conv1(x)).data, wanted, rtol=1e-4, atol=1e-5)
    assert int(stage.norm1.num_batches_tracked) == 5


@pytest.mark.parametrize("trunk", ["resnet18", "resnet34"])
def test_a_resnet_keeps_its_names(trunk: str) -> None:
    model, classifier = resnet(trunk), getattr(models, trunk)(widths=(2, 3, 4, 5), generator=rng(3))
    arrays = classifier.state_dict()
    assert {"fc.weight", "layer2.0.downsample.1.running_var"} <= set(arrays)
    assert weights.load(model, arrays) == ([], [])  # fc stays behind
    x = Tensor(rng(1).standard_normal((2, 3, 40, 33)).astype(np.float32))
    ours, theirs = model.trunk(x)[-1], classifier.eval().features(x)[-1]
    np.testing.assert_array_equal(ours.data, theirs.data)
    assert weights.load(classifier, arrays) == ([], [])  # and a classifier takes all


def test_counts_of_batches_may_be_missing_and_any_precision_fits() -> None:
    arrays = {
        name: array.astype(np.float64 if array.ndim == 1 else np.float16)
        for name, array in resnet().trunk.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    model = resnet()
    assert weights.load(model, arrays) == ([], [])
    assert model.trunk.conv1.weight.dtype == np.float32
    np.testing.assert_array_equal(model.trunk.conv1.weight.data, arrays["conv1.weight"])


def test_an_fcn_with_its_own_fc6_takes_the_trunk_alone() -> None:
    model = net(batch_norm=True, fc_batch_norm=True)
    before = model.fc6[0].weight.data.copy()
    assert weights.load(model, vgg16(batch_norm=True)) == ([], [])
    np.testing.assert_array_equal(model.fc6[0].weight.data, before)


def test_red_first_shows_the_same_picture() -> None:
    blue_first = rng(1).standard_normal((1, 3, 9, 8)).astype(np.float32)
    for model, arrays in (
        (net(), vgg16()),
        (resnet(), resnet().trunk.state_dict()),
    ):
        weights.load(model, arrays)
        with no_grad():
            wanted = next(iter(model.features(Tensor(blue_first)).values())).data
            weights.load(model, weights.red_first(arrays))
            found = next(iter(model.features(Tensor(blue_first[:, ::-1].copy())).values())).data
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


# -- out again -------------------------------------------------------------------------------------


def test_vgg16_comes_back_bit_by_bit() -> None:
    arrays, model = vgg16(), net()
    weights.load(model, arrays)
    back = weights.save(model)
    assert set(arrays) - set(back) == {"classifier.6.weight", "classifier.6.bias"}
    for name, array in back.items():
        np.testing.assert_array_equal(array, arrays[name])
        assert array.flags.c_contiguous and array.shape == arrays[name].shape


def test_vgg16_bn_comes_back_with_its_biases_in_the_means() -> None:
    arrays, model = vgg16(batch_norm=True), net(batch_norm=True)
    weights.load(model, arrays)
    back = weights.save(model)
    assert not back["features.0.bias"].any()
    np.testing.assert_array_equal(
        back["features.1.running_mean"],
        arrays["features.1.running_mean"] - arrays["features.0.bias"],
    )
    again = net(batch_norm=True)
    weights.load(again, back)
    for name, array in again.state_dict().items():
        if not name.startswith(("score", "upscore")):
            np.testing.assert_array_equal(array, model.state_dict()[name])


# -- what is refused -------------------------------------------------------------------------------


def refused(model: Any, arrays: dict[str, np.ndarray], **settings: Any) -> str:
    """The message; fails if anything was written."""
    before = model.state_dict()
    with pytest.raises(InputError) as caught:
        weights.load(model, arrays, **settings)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    return str(caught.value)


def test_differences_are_counted_and_named() -> None:
    arrays = vgg16()
    del arrays["features.0.weight"]
    arrays["features.99.weight"] = arrays["head.bias"] = np.zeros(3, np.float32)
    arrays["features.2.weight"] = np.zeros((2, 2, 5, 5), np.float32)
    said = refused(net(), arrays)
    assert "do not fit this FCN" in said
    assert "1 name is missing (features.0.weight)" in said
    assert "2 names are too many (features.99.weight, head.bias)" in said
    assert "1 shape differs (features.2.weight is (2, 2, 5, 5), wanted (2, 2, 3, 3))" in said
    missing, too_many = ["features.0.weight"], ["features.99.weight", "head.bias"]
    arrays["features.2.weight"] = vgg16()["features.2.weight"]
    assert weights.load(net(), arrays, strict=False) == (missing, too_many)


def test_a_shape_that_differs_is_refused_even_if_not_strict() -> None:
    arrays = vgg16() | {"classifier.3.bias": np.zeros(FC + 1, np.float32)}
    assert "classifier.3.bias is (8,), wanted (7,)" in refused(net(), arrays, strict=False)


def test_another_network_is_recognised() -> None:
    said = refused(resnet("resnet34"), resnet("resnet18").trunk.state_dict())
    assert "they look like resnet18's" in said and "and 77 more" in said
    assert "they look like vgg16's" in refused(resnet(), vgg16())
    assert "they look like vgg16_bn's" in refused(net(), vgg16(batch_norm=True))
    assert "look like" not in refused(net(), {})


@pytest.mark.parametrize("strict", [True, False])
def test_numbers_of_another_kind_are_refused(strict: bool) -> None:
    arrays = resnet().trunk.state_dict()
    assert arrays["bn1.num_batches_tracked"].dtype == np.int64  # and that one may count
    for dtype in (np.int64, np.complex64, np.bool_):
        other = arrays | {"conv1.weight": arrays["conv1.weight"].astype(dtype)}
        said = refused(resnet(), other, strict=strict)
        assert f"1 array is not of floating numbers (conv1.weight is {np.dtype(dtype)})" in said
    biased = vgg16(batch_norm=True)
    biased["features.0.bias"] = biased["features.0.bias"].astype(np.int32)  # it goes into a mean
    assert "(features.0.bias is int32)" in refused(net(batch_norm=True), biased, strict=strict)


@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e300])
def test_values_that_are_not_finite_here_are_refused(value: float) -> None:
    arrays = resnet().trunk.state_dict()
    arrays["layer2.0.bn1.running_var"] = np.array([1.0, value, 1.0])
    said = refused(resnet(), arrays)
    assert "1 array is not finite (layer2.0.bn1.running_var) in float32" in said


def test_a_part_of_the_names_proves_no_network() -> None:
    for trunk in models.TRUNKS:
        narrow = net(trunk == "vgg16_bn") if "vgg" in trunk else resnet(trunk)
        assert network_of(weights.save(narrow)) == trunk
    alexnet = (0, 3, 6, 8, 10)
    names = [f"features.{n}.{part}" for n in alexnet for part in ("weight", "bias")]
    assert network_of([*names, "classifier.1.weight"]) == "alexnet"
    fcn2s = models.fcn2s(2, widths=WIDTHS, fc_channels=FC, generator=rng())
    assert network_of(weights.save(fcn2s)) == ""
    vgg19 = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
    assert network_of(f"features.{n}.{part}" for n in vgg19 for part in ("weight", "bias")) == ""
    resnet34 = [*resnet("resnet34").trunk.state_dict()]
    resnet50 = [name.replace("conv2", "conv3") for name in resnet34 if ".conv2" in name]
    assert network_of(resnet34 + resnet50) == ""  # three convolutions a block
