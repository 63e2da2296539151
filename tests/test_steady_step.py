"""A training step, after the first few, asks the system for no fresh memory."""

import resource
import sys

import numpy as np
import pytest

import minifcn as mf


@pytest.mark.skipif(sys.platform != "linux", reason="counts page faults as Linux does")
@pytest.mark.parametrize("batch_norm", [True, False])
def test_a_steady_step_touches_no_fresh_page(batch_norm):
    """One fresh activation of the first stage alone would be 512 pages of 4 KiB."""
    rng = np.random.default_rng(0)
    net = mf.models.fcn8s(
        5, widths=(32, 32, 32, 32, 32), fc_channels=64, batch_norm=batch_norm, generator=rng
    )
    optimizer = mf.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
    x = mf.randn(1, 3, 128, 128, generator=rng)
    target = rng.integers(0, 5, (1, 128, 128))

    def step():
        optimizer.zero_grad()
        mf.functional.cross_entropy(net(x), target).backward()
        optimizer.step()

    for _ in range(4):
        step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        step()
    faults = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 5
    assert faults < 200
