"""A whole small FCN-8s on the simulated GPU: the CPU's losses and weights, within rounding.

And what a step costs: launches and bytes, held under a stored budget, beside the launches that
PyTorch's operators would make by count on paper.
"""

from contextlib import contextmanager

import numpy as np
import pytest

import minifcn as mf
import minifcn.functional as F
from minifcn import launch, nn, optim, simulator
from minifcn.models import FCN
from minifcn.training import Checkpoint, Segmenter, Settings, Trainer
from tests.little import voc_folder
from tests.simulated import needs_compiler

pytestmark = needs_compiler
SIM, VOID, CLASSES = "cuda-sim", 255, 3


class Problem:
    """A net with two convolutions in a stage, live scores, a batch of odd size with some void."""

    def __init__(self, name, batch_norm=True):
        generator = np.random.default_rng(0)
        self.model = FCN(
            CLASSES, widths=(4, 5, 6, 7, 8), convs=(1, 2, 1, 1, 1), fc_channels=9,
            batch_norm=batch_norm, dropout=0.25, generator=generator,
        )  # fmt: skip
        with mf.no_grad():
            for path, p in self.model.named_parameters():
                if path.startswith("score"):
                    p.copy_(0.3 * generator.standard_normal(p.shape))
        self.model.to(name)
        x = generator.standard_normal((2, 37, 41, 3)).astype(np.float32)
        target = generator.integers(0, CLASSES, (2, 37, 41))
        target[:, :3] = VOID
        self.x = mf.Tensor(x.transpose(0, 3, 1, 2)).to(name)
        self.target = mf.Tensor(target).to(name)
        self.optimizer = optim.SGD(
            self.model.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4
        )

    def loss(self):
        return F.cross_entropy(self.model(self.x), self.target, ignore_index=VOID)

    def step(self):
        self.optimizer.zero_grad()
        loss = self.loss()
        loss.backward()
        self.optimizer.step()
        return loss


@pytest.mark.parametrize("batch_norm", [True, False])
def test_forward_and_backward_are_the_cpus(batch_norm):
    here, there = Problem("cpu", batch_norm), Problem(SIM, batch_norm)
    losses = []
    for problem in (here, there):
        loss = problem.loss()
        loss.backward()
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    pairs = zip(here.model.named_parameters(), there.model.parameters(), strict=True)
    largest = max(float(np.abs(p.grad.numpy()).max()) for p in here.model.parameters())
    for (path, ours), theirs in pairs:
        assert theirs.grad.device == SIM
        wanted, found = ours.grad.numpy(), theirs.grad.numpy()
        assert np.abs(found - wanted).max() <= 2e-5 * max(np.abs(wanted).max(), largest), path


def test_ten_steps_are_the_cpus_and_each_run_has_equal_bits():
    here, there, again = Problem("cpu"), Problem(SIM), Problem(SIM)
    for _ in range(10):
        wanted, found, repeated = (p.step().item() for p in (here, there, again))
        assert found == pytest.approx(wanted, rel=2e-5)
        assert found == repeated
    states = [p.model.state_dict() for p in (here, there, again)]
    for name, wanted in states[0].items():
        np.testing.assert_allclose(states[1][name], wanted, rtol=1e-3, atol=2e-5, err_msg=name)
        assert states[1][name].tobytes() == states[2][name].tobytes(), name


def test_the_comparison_can_fail():
    """A learning rate that is off by one in a thousand is seen after ten steps."""
    here, there = Problem("cpu"), Problem(SIM)
    there.optimizer.param_groups[0]["lr"] *= 1.001
    for _ in range(10):
        wanted, found = here.step().item(), there.step().item()
    assert found != pytest.approx(wanted, rel=2e-5)


# -- the main job on the device --------------------------------------------------------------------


def test_training_checkpoints_and_prediction_go_from_device_to_device(tmp_path):
    folder = str(voc_folder(tmp_path / "data"))
    settings = dict(
        layout="voc", folder=folder, classes=("background", "square", "stripe"), head="fcn8s",
        widths=(3, 4, 4, 5, 5), convs=(1, 1, 1, 1, 1), fc_channels=6, steps=4, batch_size=2,
        crop=(24, 24), iou_loss=0.5, class_weights="balanced", eval_every=4,
    )  # fmt: skip
    from minifcn.training.splits import open_splits

    trained, saved = {}, {}
    for name in ("cpu", SIM):
        chosen = Settings(**settings, device=name)
        trainer = Trainer(chosen, open_splits(chosen).train)
        steps = trainer.steps()
        trained[name] = [next(steps).loss for _ in range(2)]
        steps.close()
        path = tmp_path / f"{name}.safetensors"
        trainer.checkpoint({}).save(path)
        saved[name] = path
    np.testing.assert_allclose(trained[SIM], trained["cpu"], rtol=1e-4)
    for name, other in (("cpu", SIM), (SIM, "cpu")):  # each goes on with the other's state
        chosen = Settings(**settings, device=other)
        trainer = Trainer(chosen, open_splits(chosen).train)
        trainer.restore(Checkpoint.load(saved[name]))
        steps = trainer.steps()
        trained[name].append(next(steps).loss)
        steps.close()
    np.testing.assert_allclose(trained[SIM], trained["cpu"], rtol=1e-4)
    picture = np.random.default_rng(0).integers(0, 255, (1, 29, 31, 3), dtype=np.uint8)
    labels = []
    for name in ("cpu", SIM):
        segmenter = Segmenter.load(saved["cpu"])
        segmenter.model.to(name)
        labels.append(segmenter.probabilities(picture))
    np.testing.assert_allclose(labels[1], labels[0], rtol=1e-4, atol=1e-6)


# -- what a step costs -----------------------------------------------------------------------------


@contextmanager
def expressions(monkeypatch):
    """Count what CuPy would start besides our kernels: each function, reduction, filling and copy
    on the device once. (Copies from and to the host are no launches.)"""
    started, inside = [], []

    def counting(owner, name):
        plain = getattr(owner, name)

        def counted(*inputs, **settings):
            inside.append(name)
            result = plain(*inputs, **settings)
            inside.pop()
            made = isinstance(result, simulator.ndarray) and result is not inputs[0]
            works = made and result.base is None  # not a view, nor the array itself
            if not inside and (works or name in ("fill", "__setitem__", "__array_ufunc__")):
                started.append(name)
            return result

        return counted

    with monkeypatch.context() as patch:
        for (
            name
        ) in "__array_ufunc__ __array_function__ _reduce astype copy fill __setitem__".split():
            patch.setattr(simulator.ndarray, name, counting(simulator.ndarray, name))
        patch.setattr(simulator, "concatenate", counting(simulator, "concatenate"))
        yield started


def test_expressions_are_counted(monkeypatch):
    x = simulator.zeros((2, 3))
    with expressions(monkeypatch) as started:
        y = np.ones_like(x + 1)  # two
        y[0] = x.sum(axis=0)  # two
        simulator.concatenate([x, y])  # one
        simulator.full((3,), 2.0)
        y += 1  # one
        assert x[1:].transpose().shape == (3, 1)  # views start nothing
    assert sorted(started) == sorted(
        ["__array_ufunc__", "__array_function__", "_reduce", "__setitem__", "concatenate", "fill"]
        + ["__array_ufunc__"]
    )


def paper(model):
    """Launches of PyTorch's operators for one step of this model, counted layer by layer.

    A convolution: itself, its input's and its weight's gradient; a bias and its gradient. Batch
    normalisation: one each way, and the count of its batches. ReLU, pooling, dropout, a sum: one
    each way; a crop is a view, its gradient clears and copies. Loss: log-softmax and the choice of
    the class, each way, and a clearing. The optimiser's four operations on all parameters are fused
    over lists of them.
    """
    each = {nn.Conv2d: 3, nn.ConvTranspose2d: 3, nn.BatchNorm2d: 3, nn.ReLU: 2, nn.MaxPool2d: 2}
    each |= {nn.Dropout: 2}
    layers = sum(each.get(type(layer), 0) for layer in model.modules())
    convolutions = (nn.Conv2d, nn.ConvTranspose2d)
    layers += sum(2 for m in model.modules() if isinstance(m, convolutions) and m.bias is not None)
    skips, crops = len(model.upscore) - 1, len(model.upscore)
    return layers - 1 + 2 * skips + 2 * crops + 5 + 4  # the first layer needs no input gradient


#: launches of our kernels, of CuPy's expressions, bytes of the arrays that our kernels were given,
#: most bytes of device memory at once; of a step of `Problem` after the first
BUDGET = dict(kernels=87, expressions=33, bytes=1_690_000, peak=265_000)
ON_PAPER = 120


def test_launches_and_bytes_of_a_step(monkeypatch):
    problem = Problem(SIM)
    problem.step()  # momentum's arrays are made, the parameters joined
    with (
        launch.counted() as launches,
        expressions(monkeypatch) as started,
        simulator.counting() as counts,
    ):
        problem.step()
    found = dict(
        kernels=len(launches),
        expressions=len(started),
        bytes=sum(one.bytes for one in launches),
        peak=counts.bytes_peak - counts.bytes_before,
    )
    assert all(found[name] <= BUDGET[name] for name in BUDGET), found
    assert found["kernels"] + found["expressions"] <= paper(problem.model) == ON_PAPER


def test_launches_of_a_step_of_the_training_loop(tmp_path, monkeypatch):
    """What `minifcn train` adds: the moving average, one launch an array, and the scores."""
    folder = str(voc_folder(tmp_path))
    chosen = Settings(
        layout="voc", folder=folder, classes=("background", "square", "stripe"), head="fcn8s",
        widths=(3, 4, 4, 5, 5), convs=(1, 1, 1, 1, 1), fc_channels=6, steps=4, batch_size=2,
        crop=(24, 24), device=SIM,
    )  # fmt: skip
    from minifcn.training.splits import open_splits

    trainer = Trainer(chosen, open_splits(chosen).train)
    steps = trainer.steps()
    next(steps)
    with launch.counted() as launches, expressions(monkeypatch) as started:
        next(steps)
    steps.close()
    arrays = len(list(trainer.model.parameters())) + len(list(trainer.model.buffers()))
    assert arrays == 51 and len(launches) <= 122 and len(started) <= 28, (launches, started)


def test_a_count_stays_on_the_host():
    """Where it is read, and where counting starts no kernel."""
    norm = nn.BatchNorm2d(3).to(SIM)
    norm(mf.Tensor(np.ones((1, 3, 2, 2), np.float32)).to(SIM))
    assert type(norm.num_batches_tracked) is np.ndarray and norm.num_batches_tracked == 1
    assert type(norm.running_mean) is simulator.ndarray
    there = nn.BatchNorm2d(3).to(SIM)
    there.load_state_dict(norm.state_dict())
    assert there.num_batches_tracked == 1
