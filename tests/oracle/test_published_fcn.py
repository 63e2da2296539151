"""The published VGG16 FCNs, written once more with PyTorch: dense deconvolutions, crops by number.

Source of the numbers: Shelhamer, Long and Darrell, "Fully Convolutional Networks for Semantic
Segmentation" (TPAMI 2017), and the crop layers of the nets that they released.
"""

import numpy as np
import pytest

import minifcn as mf
from minifcn import models
from minifcn.training.descent import optimizer_of
from minifcn.training.recipes import settings_for
from tests.oracle.compare import error
from tests.oracle.published import torch

pytestmark = pytest.mark.oracle
CONVS = (2, 2, 3, 3, 3)
CLASSES = 5
CROPS = {"fcn32s": [19], "fcn16s": [5, 27], "fcn8s": [5, 9, 31]}
SIZES = [(1, 1), (23, 40), (64, 96), (101, 33)]


def bilinear(classes, kernel):
    """Dense: (K, K, k, k), a tent on the diagonal and zero elsewhere."""
    along = 1 - torch.abs(torch.arange(kernel, dtype=torch.float64) - (kernel - 1) / 2) / (
        kernel / 2
    )
    weight = torch.zeros(classes, classes, kernel, kernel, dtype=torch.float64)
    for k in range(classes):
        weight[k, k] = torch.outer(along, along)
    return weight


class Published(torch.nn.Module):
    """FCN-32s, 16s or 8s of any width."""

    def __init__(self, head, widths, fc_channels, scales=(1.0, 1.0), classes=CLASSES):
        super().__init__()
        self.head, self.scales = head, scales
        layers, before = [], 3
        self.pools = []
        for width, count in zip(widths, CONVS, strict=True):
            for _ in range(count):
                layers += [torch.nn.Conv2d(before, width, 3, padding=1), torch.nn.ReLU()]
                before = width
            self.pools.append(len(layers))
            layers.append(torch.nn.MaxPool2d(2, ceil_mode=True))
        layers[0].padding = (100, 100)
        self.features = torch.nn.Sequential(*layers)
        self.fc6 = torch.nn.Conv2d(before, fc_channels, 7)
        self.fc7 = torch.nn.Conv2d(fc_channels, fc_channels, 1)
        skips = [widths[3], widths[2]][: len(CROPS[head]) - 1]
        self.scores = torch.nn.ModuleList(
            torch.nn.Conv2d(c, classes, 1) for c in (fc_channels, *skips)
        )
        self.up = torch.nn.ParameterList(
            bilinear(classes, k) for k in (4,) * len(skips) + (2 * int(head[3:-1]),)
        )

    def forward(self, x):
        height, width = x.shape[2:]
        pools = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.pools:
                pools.append(x)
        x = torch.relu(self.fc7(torch.relu(self.fc6(x))))
        x = self.scores[0](x)
        *joints, last = CROPS[self.head]
        for i, crop in enumerate(joints):
            x = torch.nn.functional.conv_transpose2d(x, self.up[i], stride=2)
            skip = self.scores[i + 1](pools[3 - i] * self.scales[i])
            x = x + skip[:, :, crop : crop + x.shape[2], crop : crop + x.shape[3]]
        x = torch.nn.functional.conv_transpose2d(x, self.up[-1], stride=int(self.head[3:-1]))
        assert x.shape[2] >= last + height and x.shape[3] >= last + width
        return x[:, :, last : last + height, last : last + width]


def pair(head, at_once=False):
    """Ours, and PyTorch's with the same random weights, in float64."""
    widths, fc_channels = (4, 6, 8, 10, 12), 16
    ours = models.fcn_on(
        "vgg16",
        CLASSES,
        head=head,
        widths=widths,
        fc_channels=fc_channels,
        padding=100,
        at_once=at_once,
        upsample="frozen",
        generator=np.random.default_rng(0),
        dtype=np.float64,
    ).eval()
    scales = (0.01, 0.0001) if at_once else (1.0, 1.0)
    theirs = Published(head, widths, fc_channels, scales).double().eval()
    convs = [m for m in theirs.features if isinstance(m, torch.nn.Conv2d)]
    convs += [theirs.fc6, theirs.fc7, *theirs.scores]
    mine = [m for m in ours.modules() if isinstance(m, mf.nn.Conv2d)]
    generator = np.random.default_rng(1)
    with torch.no_grad(), mf.no_grad():
        for a, b in zip(mine, convs, strict=True):
            assert a.weight.shape == tuple(b.weight.shape)
            large = np.sqrt(2 / np.prod(a.weight.shape[1:]))
            for p, q in ((a.weight, b.weight), (a.bias, b.bias)):
                values = generator.standard_normal(p.shape) * (large if p.ndim == 4 else 0.3)
                p.copy_(values)
                q.copy_(torch.tensor(values))
        if at_once:  # or the skips would hardly be seen beside the rest
            for i, name in enumerate(list(ours.score)[1:]):
                ours.score[name].weight.mul_(1 / scales[i])
                theirs.scores[i + 1].weight.mul_(1 / scales[i])
    return ours, theirs


def difference(ours, theirs, size):
    x = np.random.default_rng(2).standard_normal((2, 3, *size))
    with torch.no_grad(), mf.no_grad():
        found, wanted = ours(mf.Tensor(x)).numpy(), theirs(torch.tensor(x)).numpy()
    assert found.shape == wanted.shape == (2, CLASSES, *size)
    assert np.abs(wanted).max() > 0.1
    return error(found, wanted)


@pytest.mark.parametrize(
    ("head", "at_once"),
    [("fcn32s", False), ("fcn16s", False), ("fcn16s", True), ("fcn8s", False), ("fcn8s", True)],
)
def test_scores(head, at_once):
    ours, theirs = pair(head, at_once)
    for size in SIZES:
        assert difference(ours, theirs, size) < 1e-9, size


def test_the_comparison_catches_a_crop_and_a_scale_that_are_off():
    ours, theirs = pair("fcn8s", at_once=True)
    for name, wrong in (("pool4", 6), ("pool3", 8), ("input_x8", 30)):
        right, ours.crops[name] = ours.crops[name], wrong
        assert difference(ours, theirs, (64, 96)) > 1e-3, name
        ours.crops[name] = right
    ours.scales["pool3"] = 0.01
    assert difference(ours, theirs, (64, 96)) > 1e-3


def changes(make_step, parameters, steps=3):
    """How far each parameter has moved after some steps."""
    before = [np.array(p) for p in parameters()]
    for _ in range(steps):
        make_step()
    return [np.array(p) - q for p, q in zip(parameters(), before, strict=True)]


def steps_apart(**changed):
    """The largest difference after three steps of the recipe, relative to each parameter's move."""
    settings = settings_for("voc", {"recipe": "heavy", "head": "fcn8s", "lr": 1e-6, **changed})
    ours, theirs = pair("fcn8s")
    theirs.up.requires_grad_(False)
    generator = np.random.default_rng(4)
    x, labels = generator.standard_normal((1, 3, 40, 33)), generator.integers(0, 5, (1, 40, 33))
    labels[0, :7] = 255
    optimizer = optimizer_of(settings, ours)

    def our_step():
        optimizer.zero_grad()
        loss = mf.functional.cross_entropy(
            ours(mf.Tensor(x)), labels, ignore_index=255, reduction=settings.loss_reduction
        )
        loss.backward()
        optimizer.step()

    biases = [p for n, p in theirs.named_parameters() if n.endswith("bias")]
    others = [p for n, p in theirs.named_parameters() if n.endswith("weight")]
    reference = torch.optim.SGD(
        [{"params": others, "weight_decay": 5e-4}, {"params": biases, "lr": 2e-6}],
        lr=1e-6,
        momentum=0.99,
    )

    def their_step():
        reference.zero_grad()
        scores = theirs(torch.tensor(x))
        torch.nn.functional.cross_entropy(
            scores, torch.tensor(labels), ignore_index=255, reduction="sum"
        ).backward()
        reference.step()

    mine = [m for m in ours.modules() if isinstance(m, mf.nn.Conv2d)]
    convs = [m for m in theirs.features if isinstance(m, torch.nn.Conv2d)]
    convs += [theirs.fc6, theirs.fc7, *theirs.scores]
    found = changes(our_step, lambda: [p.numpy() for m in mine for p in (m.weight, m.bias)])
    wanted = changes(
        their_step, lambda: [p.detach().numpy() for m in convs for p in (m.weight, m.bias)]
    )
    assert all(np.abs(b).max() > 1e-6 for b in wanted)
    return max(error(a, b) for a, b in zip(found, wanted, strict=True))


def test_steps_of_the_heavy_recipe():
    """Summed loss with void, momentum 0.99, biases at twice the rate and without decay."""
    assert steps_apart() < 1e-8
    for changed in ({"bias_decay": True}, {"bias_lr": 1.0}, {"momentum": 0.9}):
        assert steps_apart(**changed) > 1e-7, changed


def test_parameters_with_dense_deconvolutions_and_with_one_filter_a_class(monkeypatch):
    """134.35 M learn; the dense bilinear filters, all but the diagonal zero, come on top."""
    monkeypatch.setattr(mf.nn.init, "_drawn", lambda w, draw: w)  # the memory is never touched
    counts = {}
    for head in CROPS:
        with torch.device("meta"):
            theirs = Published(head, models.VGG16_WIDTHS, 4096, classes=21)
        learned = sum(p.numel() for n, p in theirs.named_parameters() if not n.startswith("up."))
        ours = models.fcn_on(
            "vgg16", 21, head=head, padding=100, upsample="frozen",
            generator=np.random.default_rng(0),
        )  # fmt: skip
        assert models.parameter_count(ours, trainable=True) == learned
        counts[head] = (learned, models.parameter_count(ours), sum(
            p.numel() for p in theirs.parameters()
        ))  # fmt: skip
    assert counts == {
        "fcn32s": (134_346_581, 134_432_597, 136_152_917),
        "fcn16s": (134_357_354, 134_379_194, 134_815_994),
        "fcn8s": (134_362_751, 134_368_799, 134_489_759),
    }
