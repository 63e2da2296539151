"""AlexNet and VGG16 against torchvision's: the same names and shapes, outputs to 1e-4."""

import numpy as np
import pytest

import minifcn as mf
from minifcn.models import alexnet, to_fully_convolutional, vgg16, vgg16_bn
from tests.oracle.compare import error, torch
from tests.oracle.published import models

pytestmark = pytest.mark.oracle
MAKERS = {"alexnet": alexnet, "vgg16": vgg16, "vgg16_bn": vgg16_bn}


@pytest.mark.parametrize("name", ["alexnet", "vgg16_bn"])
def test_the_same_weights_give_the_same_scores(name):
    ours = MAKERS[name](generator=np.random.default_rng(0)).eval()
    theirs = getattr(models, name)(weights=None).eval()
    own = ours.state_dict()
    assert set(own) == set(theirs.state_dict())
    theirs.load_state_dict({n: torch.tensor(a) for n, a in own.items()})
    x = np.random.default_rng(1).standard_normal((2, 3, 224, 224)).astype(np.float32)
    with torch.no_grad(), mf.no_grad():
        wanted = theirs(torch.tensor(x)).numpy()
        found = ours(mf.Tensor(x)).numpy()
    assert error(found, wanted) < 1e-4
    if name == "alexnet":
        net, _ = to_fully_convolutional(ours, 224)
        with mf.no_grad():
            assert error(net(mf.Tensor(x)).numpy()[..., 0, 0], wanted) < 1e-4


def test_vgg16_has_torchvisions_shapes():
    with torch.device("meta"):
        state = models.vgg16(weights=None).state_dict()
    ours = vgg16(generator=np.random.default_rng(0))
    assert {n: p.shape for n, p in ours.named_parameters()} == {
        n: tuple(a.shape) for n, a in state.items()
    }
