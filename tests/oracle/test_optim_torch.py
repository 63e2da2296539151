"""Optimisers and schedules against PyTorch's, step by step over 20 steps."""

import numpy as np
import pytest

import minifcn as mf
from minifcn import optim
from tests.oracle.compare import error, torch

pytestmark = pytest.mark.oracle

SETTINGS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("Adam", {}),
    ("Adam", {"lr": 0.1, "betas": (0.8, 0.99), "eps": 1e-4, "weight_decay": 0.1}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.1, "betas": (0.8, 0.99), "weight_decay": 0.1}),
]


@pytest.mark.parametrize("dtype, rtol", [(np.float64, 1e-13), (np.float32, 2e-6)])
@pytest.mark.parametrize("name, settings", SETTINGS, ids=str)
def test_steps(name, settings, dtype, rtol):
    rng = np.random.default_rng(0)
    start = [rng.standard_normal(s).astype(dtype) for s in ((4, 3, 3, 3), (4,))]
    ours = [mf.Tensor(a.copy(), requires_grad=True) for a in start]
    theirs = [torch.tensor(a.copy(), requires_grad=True) for a in start]
    a, b = getattr(optim, name)(ours, **settings), getattr(torch.optim, name)(theirs, **settings)
    for step in range(20):
        for p, q in zip(ours, theirs, strict=True):
            g = rng.standard_normal(p.shape).astype(dtype)
            p.grad, q.grad = mf.Tensor(g), torch.tensor(g)
        if step == 7:  # a parameter may miss a step
            ours[1].grad = theirs[1].grad = None
        a.step()
        b.step()
        for p, q in zip(ours, theirs, strict=True):
            assert error(p.numpy(), q.detach().numpy()) <= rtol, step


def test_groups():
    rng = np.random.default_rng(1)
    start = [rng.standard_normal(3) for _ in range(2)]
    ours = [mf.Tensor(a.copy(), requires_grad=True) for a in start]
    theirs = [torch.tensor(a.copy(), requires_grad=True) for a in start]
    a = optim.SGD(
        [{"params": ours[:1]}, {"params": ours[1:], "lr_mult": 2.0, "weight_decay": 0.0}],
        lr=0.1, momentum=0.9, weight_decay=0.1,
    )  # fmt: skip
    b = torch.optim.SGD(
        [{"params": theirs[:1]}, {"params": theirs[1:], "lr": 0.2, "weight_decay": 0.0}],
        lr=0.1, momentum=0.9, weight_decay=0.1,
    )  # fmt: skip
    for _ in range(20):
        for p, q in zip(ours, theirs, strict=True):
            g = rng.standard_normal(3)
            p.grad, q.grad = mf.Tensor(g), torch.tensor(g)
        a.step()
        b.step()
    for p, q in zip(ours, theirs, strict=True):
        assert error(p.numpy(), q.detach().numpy()) <= 1e-13


SCHEDULES = {
    "poly": (
        lambda o: optim.PolyLR(o, total_steps=15, power=0.9),
        lambda o: torch.optim.lr_scheduler.PolynomialLR(o, total_iters=15, power=0.9),
    ),
    "step": (
        lambda o: optim.StepLR(o, step_size=6, gamma=0.3),
        lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=6, gamma=0.3),
    ),
    "cosine": (
        lambda o: optim.CosineAnnealingLR(o, T_max=20, eta_min=0.01),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=20, eta_min=0.01),
    ),
}


@pytest.mark.filterwarnings("ignore:Detected call of")
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name):
    a = optim.SGD([mf.Tensor(np.zeros(1), requires_grad=True)], lr=0.5)
    b = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    ours, theirs = SCHEDULES[name][0](a), SCHEDULES[name][1](b)
    for step in range(20):
        found, wanted = a.param_groups[0]["lr"], b.param_groups[0]["lr"]
        assert found == pytest.approx(wanted, rel=1e-12, abs=1e-12), step
        ours.step()
        theirs.step()
