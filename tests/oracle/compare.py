"""One call, two libraries: the same values and the same gradients."""

import numpy as np
import pytest

import minifcn as mf

torch = pytest.importorskip("torch")
torch.set_num_threads(1)


def error(found, wanted):
    """Largest difference relative to the largest entry wanted; NaN and ±∞ must stand alike."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(found[~finite], wanted[~finite])
    if not finite.any():
        return 0.0
    found, wanted = found[finite], wanted[finite]
    return float(np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-300))


def compare(fn, torch_fn, *arrays, rtol=1e-9, seed=99):
    """Assert that fn on Tensors and torch_fn on torch tensors agree in value and gradients."""
    ours = [mf.Tensor(a.copy(), requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a.copy(), requires_grad=True) for a in arrays]
    y, t = fn(*ours), torch_fn(*theirs)
    assert str(y.dtype) == str(t.dtype).removeprefix("torch.")
    errors = {"value": error(y.numpy(), t.detach().numpy())}
    upstream = np.random.default_rng(seed).standard_normal(y.shape).astype(y.dtype)
    y.backward(upstream)
    t.backward(torch.tensor(upstream))
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        errors[f"gradient {i}"] = error(a.grad.numpy(), b.grad.numpy())
    assert max(errors.values()) <= rtol, errors
