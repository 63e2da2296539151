"""Every test of an operation runs on both CPU devices."""

import pytest

from minifcn import device


@pytest.fixture(params=["reference", "cpu"], autouse=True)
def on_device(request):
    """The name of the device that is current while the test runs."""
    with device.use(request.param):
        yield request.param
