"""The whole net, picture to loss, by finite differences: every parameter's gradient in float64."""

import numpy as np
import pytest

import minifcn as mf
import minifcn.functional as F
from minifcn.check import gradcheck
from minifcn.models import FCN
from tests.ops.checks import one_thread, planted, scaled


def problem(batch_norm):
    """A small FCN-8s with live score layers, a picture of odd size, labels with void."""
    rng = np.random.default_rng(0)
    model = FCN(
        3, widths=(3, 4, 4, 5, 5), convs=(1, 1, 2, 1, 1), fc_channels=6, batch_norm=batch_norm,
        dropout=0.0, generator=rng, dtype=np.float64,
    )  # fmt: skip
    with mf.no_grad():
        for name, p in model.named_parameters():
            if name.startswith("score"):
                p.copy_(0.5 * rng.standard_normal(p.shape))
    x = mf.Tensor(rng.standard_normal((2, 3, 41, 37)), requires_grad=True)
    target = rng.integers(0, 3, (2, 41, 37))
    target[:, :4] = 255
    buffers = [b for _, b in model.named_buffers()]
    kept = [b.copy() for b in buffers]

    def loss(*_):
        for b, k in zip(buffers, kept, strict=True):  # training moves them; fn must not
            b[...] = k
        return F.cross_entropy(model(x), target, ignore_index=255, reduction="batch")

    return loss, model, x


@pytest.mark.parametrize("batch_norm", [True, False])
@one_thread()
def test_every_parameter(batch_norm):
    """Sampled entries of each, and directions that move all of a parameter's entries at once.

    A step of 3e-6 crosses few corners of the 5,000 ReLUs and pools; where it crosses one, the
    checker shortens it by itself.
    """
    loss, model, x = problem(batch_norm)
    names, parameters = zip(*model.named_parameters(), strict=True)
    report = gradcheck(
        loss, [*parameters, x], eps=3e-6, entries=6, names=[*names, "picture"], title="fcn8s"
    )
    print(f"\nbatch_norm={batch_norm}, worst relative error {report.error:.1e}\n{report}")
    assert report, f"\n{report}"
    assert report.error < 1e-6
    assert len(report.inputs) == len(names) + 1


@one_thread()
def test_a_fault_deep_in_the_net_is_caught():
    from minifcn.ops.pool import MaxPool2d

    loss, model, _ = problem(batch_norm=False)
    first = next(iter(model.parameters()))
    with planted(MaxPool2d, scaled(0, 1.0001)):
        report = gradcheck(loss, [first], eps=3e-6, entries=3)
    assert report.verdict == "wrong", f"\n{report}"
