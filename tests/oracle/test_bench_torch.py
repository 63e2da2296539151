"""The benchmark compares like with like: all contenders compute the same numbers."""

from dataclasses import replace

import numpy as np
import pytest

from minifcn import device
from minifcn.bench import cases, contender_minifcn, contender_textbook
from minifcn.bench.contenders import TEXTBOOK

torch = pytest.importorskip("torch")
from minifcn.bench import contender_torch  # noqa: E402

pytestmark = pytest.mark.oracle


@pytest.fixture(autouse=True)
def keep_the_device():
    with device.use(device.current()):
        yield


def small(case):
    """The case at a size that takes no time; kernel, stride and the rest as they are."""
    if isinstance(case, cases.Operation):
        return replace(case, shape=(2, 5, 16, 16) if len(case.shape) == 4 else (99,))
    few = 4 * case.groups if case.groups in (1, 4) else case.groups
    return replace(case, size=9, batch=2, channels=min(case.channels, few), filters=few)


def arrays(results):
    return [np.asarray(r.detach()) for r in results]


@pytest.mark.parametrize("case", cases.LAYERS, ids=lambda case: case.name)
def test_layers_agree(case):
    case = small(case)
    ours = arrays(contender_minifcn.make(case, "cpu")())
    for setting in ("contiguous", "channels_last"):
        theirs = arrays(contender_torch.make(case, setting)())
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    if TEXTBOOK.takes(case):
        for a, b in zip(contender_textbook.make(case, "")(), theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


STEPS = [
    cases.TrainingStep("plain", 4, 45),
    cases.TrainingStep("with batch norm", 4, 45, batch_norm=True),
]


def the_same_net(case):
    """Both nets with minifcn's weights, but none of its score layers' zeros."""
    ours = contender_minifcn.network(case)
    theirs = contender_torch.FCN8s(case.settings)
    pairs = list(zip(ours.parameters(), theirs.parameters(), strict=True))
    generator = np.random.default_rng(3)
    for own, their in pairs:
        assert own.shape == tuple(their.shape)
        own.data[...] += 0.05 * generator.standard_normal(own.shape).astype(np.float32)
        their.data = torch.from_numpy(own.data.copy())
    return ours, theirs, pairs


@pytest.mark.parametrize("case", STEPS, ids=lambda case: case.name)
def test_training_steps_agree(case):
    ours, theirs, pairs = the_same_net(case)
    if case.batch_norm:  # dropout draws differ between the two
        ours.eval()
        theirs.eval()
    step = contender_minifcn.training_step(case, ours)
    other = contender_torch.training_step(case, theirs, theirs, torch.contiguous_format)
    for _ in range(3):
        np.testing.assert_allclose(step(), other(), rtol=1e-4)
    for own, their in pairs:
        np.testing.assert_allclose(own.data, their.detach(), rtol=1e-3, atol=1e-4)


def test_predictions_agree():
    case = cases.Prediction("small", 50, widths=(4, 4, 6, 8, 8), fc_channels=16)
    ours, theirs, _ = the_same_net(case)
    (a,) = contender_minifcn.prediction(case, ours)()
    (b,) = contender_torch.prediction(case, theirs, theirs, torch.contiguous_format)()
    assert a.shape == (1, 21, 50, 50)
    np.testing.assert_allclose(a.numpy(), b, rtol=1e-4, atol=1e-4)
