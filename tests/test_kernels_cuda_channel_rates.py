"""What batch normalisation computes once a channel: the .cu against the definition."""

import numpy as np
import pytest

from minifcn.kernels import channel_rates
from tests.simulated import agree, needs_compiler, on_gpu, planted, running

pytestmark = needs_compiler


def draws(c, dtype):
    generator = np.random.default_rng(c)
    one, two, mean = generator.standard_normal((3, c))
    weight, bias = generator.standard_normal((2, c)).astype(dtype)
    return one, two, mean, np.abs(one), weight, bias


def results(arrays, place):
    """All three functions, one after the other, on the arrays where ``place`` puts them."""
    one, two, mean, variance, weight, bias = map(place, arrays)
    rate, scale, shift = channel_rates.rates(mean, variance, weight, bias, 1e-5)
    running_mean = place(np.ones_like(arrays[4]))
    channel_rates.follow(running_mean, mean, 0.1, 1.5)
    slopes = channel_rates.slopes(one, two, mean, rate, weight, 7)
    return [rate, scale, shift, running_mean, *slopes]


def both_readings(c, dtype):
    arrays = draws(c, dtype)
    wanted = results(arrays, lambda a: a)
    found = [a.get() for a in results(arrays, on_gpu)]
    # what passes over pixels read, the definition rounds there
    return found, [w.astype(f.dtype) for w, f in zip(wanted, found, strict=True)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("c", [0, 1, 5, 127, 128, 129, 300])
def test_values(c, dtype):
    with running(check=True):
        agree(*both_readings(c, dtype))


@pytest.mark.parametrize(
    "right, wrong",
    [("variance[i] + eps", "variance[i]"), ("* factor", ""), ("- s * mean[i]", "")],
)
def test_a_planted_mistake_is_caught(monkeypatch, right, wrong):
    with planted(monkeypatch, "channel_rates.cu", right, wrong), pytest.raises(AssertionError):
        agree(*both_readings(5, np.float64))
