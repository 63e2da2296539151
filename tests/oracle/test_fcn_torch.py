"""A whole FCN-8s against the same net written in torch.nn.functional, weights copied over."""

import numpy as np
import pytest

import minifcn as mf
import minifcn.functional as F
from minifcn.models import FCN
from tests.oracle.compare import error, torch

TF = torch.nn.functional
pytestmark = pytest.mark.oracle

K, WIDTHS, CONVS = 5, (4, 6, 8, 10, 12), (2, 2, 2, 2, 2)


def net(dtype, batch_norm, head="fcn8s"):
    """An FCN whose score layers are random too: at zero, nothing would reach the trunk."""
    rng = np.random.default_rng(0)
    model = FCN(
        K, head=head, widths=WIDTHS, convs=CONVS, fc_channels=16, batch_norm=batch_norm,
        dropout=0.0, generator=rng, dtype=dtype,
    )  # fmt: skip
    with mf.no_grad():
        for name, p in model.named_parameters():
            if name.startswith("score") or ".norm" in name or name.endswith("bias"):
                p.copy_(0.5 * rng.standard_normal(p.shape) + (".norm" in name))
    return model


def torch_fcn(p, x, head, batch_norm, training):
    """The forward pass from the published description; p: parameters and buffers by name."""
    running = {}

    def block(x, prefix, suffix, padding):
        w, b = p[f"{prefix}.conv{suffix}.weight"], p.get(f"{prefix}.conv{suffix}.bias")
        x = TF.conv2d(x, w, b, padding=padding)
        if batch_norm:
            norm = f"{prefix}.norm{suffix}"
            mean, var = (p[f"{norm}.running_{s}"].clone() for s in ("mean", "var"))
            x = TF.batch_norm(x, mean, var, p[f"{norm}.weight"], p[f"{norm}.bias"], training)
            running[f"{norm}.running_mean"], running[f"{norm}.running_var"] = mean, var
        return TF.relu(x)

    def score(x, name):
        return TF.conv2d(x, p[f"score.{name}.weight"], p[f"score.{name}.bias"])

    def up(x, name, factor, like):
        w = p[f"upscore.{name}.weight"]
        x = TF.conv_transpose2d(x, w, stride=factor, padding=factor // 2, groups=K)
        return x[:, :, : like.shape[2], : like.shape[3]]

    picture, pools = x, {}
    for i, count in enumerate(CONVS, 1):
        for j in range(1, count + 1):
            x = block(x, f"trunk.stage{i}", j, 1)
        x = pools[i] = TF.max_pool2d(x, 2, ceil_mode=True)
    x = block(block(x, "fc6", "", 1), "fc7", "", 0)
    x, stride = score(x, "fc7"), 32
    for i in (4, 3, 2, 1):
        if 2**i < head:
            break
        skip = score(pools[i], f"pool{i}")
        x, stride = up(x, f"pool{i}", 2, skip) + skip, 2**i
    return up(x, f"input_x{stride}", stride, picture), running


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize(
    "head, size", [(8, (75, 58)), (8, (64, 64)), (32, (41, 70)), (16, (33, 31)), (2, (47, 50))]
)
def test_value_and_every_gradient_in_float64(head, size, batch_norm):
    model = net(np.float64, batch_norm, f"fcn{head}s")
    rng = np.random.default_rng(1)
    x, target = rng.standard_normal((2, 3, *size)), rng.integers(0, K, (2, *size))
    target[:, :5] = 255
    p = {name: torch.tensor(a.copy()) for name, a in model.state_dict().items()}
    for name, _ in model.named_parameters():
        p[name].requires_grad_()
    t = torch.tensor(x, requires_grad=True)
    their, running = torch_fcn(p, t, head, batch_norm, training=True)
    their_loss = TF.cross_entropy(their, torch.tensor(target), ignore_index=255)
    their_loss.backward()

    x = mf.Tensor(x, requires_grad=True)
    ours = model(x)
    loss = F.cross_entropy(ours, target, ignore_index=255)
    loss.backward()

    errors = {"scores": error(ours.numpy(), their.detach().numpy())}
    errors["loss"] = error(loss.numpy(), their_loss.detach().numpy())
    errors["picture"] = error(x.grad.numpy(), t.grad.numpy())
    grads = {name: q.grad.numpy() for name, q in p.items() if q.requires_grad}
    scale = max(float(np.abs(g).max()) for g in grads.values())
    for name, q in model.named_parameters():
        # the bias before a normalisation has gradient 0 but for rounding: an absolute floor
        if np.abs(grads[name]).max() > 1e-12 * scale:
            errors[name] = error(q.grad.numpy(), grads[name])
    found = model.state_dict()
    for name, value in running.items():
        errors[name] = error(found[name], value.numpy())
    worst = max(errors, key=errors.get)
    print(f"fcn{head}s {size} batch_norm={batch_norm}: worst {errors[worst]:.1e} in {worst}")
    assert errors[worst] < 1e-9, (worst, errors[worst])


@pytest.mark.parametrize("batch_norm", [True, False])
def test_value_in_float32(batch_norm):
    model = net(np.float32, batch_norm).eval()
    x = np.random.default_rng(2).standard_normal((1, 3, 100, 130)).astype(np.float32)
    p = {name: torch.tensor(a.copy()) for name, a in model.state_dict().items()}
    with torch.no_grad(), mf.no_grad():
        wanted = torch_fcn(p, torch.tensor(x), 8, batch_norm, training=False)[0].numpy()
        found = model(mf.Tensor(x)).numpy()
    assert found.dtype == np.float32
    print(f"float32, batch_norm={batch_norm}: {error(found, wanted):.1e}")
    assert error(found, wanted) < 1e-5
