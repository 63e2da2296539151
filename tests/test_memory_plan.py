"""The memory plan: against what a process really takes, and what it leaves as it was."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from PIL import Image

import minifcn as mf
from minifcn import functional as F
from minifcn import models, nn, optim
from minifcn.cli.main import main
from minifcn.kernels import workspace
from minifcn.study import free_memory, memory_plan
from minifcn.training import Trainer
from minifcn.training.splits import open_splits
from tests.little import little_settings, voc_folder

MEASURE = """
import ctypes, gc, json, sys
import numpy as np
import minifcn as mf
from minifcn import functional as F
from minifcn.kernels import ahead, workspace

def status(key):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(s.split()[1]) * 1024 for s in lines if s.startswith(key))

def network(**settings):
    generator = np.random.default_rng(0)
    if settings.pop("trunk") == "resnet18":
        return mf.models.fcn_on("resnet18", 21, generator=generator, **settings)
    return mf.models.fcn8s(21, fc_kernel=7, generator=generator, **settings)

def train(net, size, steps):
    net.trunk.gradient_checkpointing = again
    optimizer = mf.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    x = np.zeros((batch, size, size, 3), np.float32).transpose(0, 3, 1, 2)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(net(mf.Tensor(x)), np.zeros((batch, size, size), np.int64)).backward()
        optimizer.step()

settings, batch, size, again = json.loads(sys.argv[1])
if sys.argv[2] == "plan":
    net = network(**settings)
    net.trunk.gradient_checkpointing = again
    print(mf.study.memory_plan(net, (3, size, size), batch).total)
else:  # what a little net of the kind leaves is what interpreter, libraries and kernels take
    little = {"widths": [16] * len(settings["widths"])}
    little |= {"fc_channels": 16} if "fc_channels" in settings else {}
    train(network(**{**settings, **little}), 64, 2)
    ahead.compile_late_kernels()  # those of wide layers too
    gc.collect(), workspace.clear(), ctypes.CDLL("libc.so.6").malloc_trim(0)
    base = status("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")  # VmHWM begins anew
    train(network(**settings), size, 2)
    print(status("VmHWM") - base)
"""

VGG = {"trunk": "vgg", "widths": [32, 64, 128, 256, 256], "fc_channels": 256}
CASES = {
    "vgg": [{**VGG, "batch_norm": True}, 2, 128, False],
    "resnet18, gradient checkpointing": [
        {"trunk": "resnet18", "widths": [32, 64, 128, 256]},
        4,
        160,
        True,
    ],
}


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the peak")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_agrees_with_the_peak_of_a_process(case):
    def answer(what):
        command = [sys.executable, "-c", textwrap.dedent(MEASURE), json.dumps(case), what]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    answer("peak")  # compiles, if need be
    peak, plan = answer("peak"), answer("plan")
    assert peak > 50 << 20
    assert abs(plan / peak - 1) < 0.15, (plan, peak)


def little_net(**settings):
    settings = {"widths": (16, 16, 16, 16, 16), "fc_channels": 16, **settings}
    return models.fcn8s(3, generator=np.random.default_rng(0), **settings)


def state(net):
    draws = [m.generator.bit_generator.state for m in net.modules() if hasattr(m, "generator")]
    grads = [p.grad for p in net.parameters()]
    versions = [p._version for p in net.parameters()]
    return {n: a.tobytes() for n, a in net.state_dict().items()}, draws, grads, versions


def test_nothing_is_changed_and_nothing_is_held():
    net = little_net().eval()
    free = list(workspace._starts), list(workspace._sizes)
    before = state(net)
    memory_plan(net, (3, 64, 64), 2, optimizer=optim.AdamW)
    assert state(net) == before
    assert not any(module.training for module in net.modules())
    assert (workspace._starts, workspace._sizes) == free
    x = mf.randn(1, 3, 64, 64, generator=np.random.default_rng(1), requires_grad=True)
    loss = F.cross_entropy(net.train()(x), np.zeros((1, 64, 64), np.int64))
    loss.backward()  # the kernels are back
    assert abs(loss.item() - np.log(3)) < 1e-5 and net.score["pool3"].weight.grad.numpy().any()


def test_the_parts_follow_from_the_shapes():
    net = little_net(batch_norm=False, dropout=0.0, upsample="frozen")
    weights = 4 * models.parameter_count(net)
    learned = 4 * models.parameter_count(net, trainable=True)
    plan = memory_plan(net, (3, 64, 64), 2, averaged=True)
    assert learned < weights == plan.weights == plan.averaged
    assert plan.gradients == plan.state == learned
    assert memory_plan(net, (3, 64, 64), 2, optimizer=optim.AdamW).state == 2 * learned
    layers = {layer.name: layer for layer in plan.layers}
    # a convolution with its ReLU keeps its result; a pool with its ReLU its result and a byte for
    # each of it, in place of the convolution's result before it
    first, second, pool = (layers[f"trunk.stage1.{name}"] for name in ("conv1", "conv2", "pool"))
    pixels = 2 * 16 * 64 * 64
    assert first.kept == pytest.approx(4 * pixels, abs=9000)
    assert second.kept + pool.kept == pytest.approx(5 * pixels / 4, abs=9000)
    assert first.weights == 4 * (16 * 3 * 9 + 16)
    assert max(layer.backward for layer in plan.layers) == plan.highest <= plan.total
    assert {"FCN", "loss"} < set(layers)


def test_relu_alone_keeps_a_bit_an_element():
    """Behind it a pool needs its winners only, so the memory of the result is free again."""
    rng = np.random.default_rng(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, generator=rng), nn.Dropout(0.5, generator=rng), nn.ReLU(),
        nn.MaxPool2d(2, 2), nn.Conv2d(16, 3, 1, generator=rng), nn.Upsample(scale_factor=2),
    )  # fmt: skip
    layers = {layer.name: layer for layer in memory_plan(net, (3, 64, 64), 2).layers}
    elements = 2 * 16 * 64 * 64
    relu, pool = layers["2"], layers["3"]
    assert relu.kinds == ("ReLU",) and pool.kinds == ("MaxPool2d",)
    # its result takes the place of dropout's, which nobody reads; the pool frees it in turn
    assert relu.kept == pytest.approx(elements / 8, abs=9000)
    assert pool.kept == pytest.approx(elements / 4 * 5 - 4 * elements, abs=9000)


def test_gradient_checkpointing_keeps_less():
    """A first stage so slim that it is not the one which alone takes the most."""
    net = little_net(widths=(4, 16, 32, 64, 64))
    plain = memory_plan(net, (3, 256, 256), 4)
    net.trunk.gradient_checkpointing = True
    with mf.no_grad():  # which is the caller's matter: a step records
        again = memory_plan(net, (3, 256, 256), 4)
    assert again.kept < 0.35 * plain.kept
    assert again.highest < 0.7 * plain.highest


def test_what_a_machine_leaves(tmp_path):
    assert free_memory(root=tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    5000 kB\n")
    assert free_memory(root=tmp_path) == 5000 << 10
    group = tmp_path / "sys/fs/cgroup"
    (group / "memory").mkdir(parents=True)
    for name, text in {"max": "max", "current": "70000", "stat": "inactive_file 20000\n"}.items():
        (group / f"memory.{name}").write_text(text)
    assert free_memory(root=tmp_path) == 5000 << 10
    (group / "memory.max").write_text("100000\n")
    assert free_memory(root=tmp_path) == 50000
    (group / "memory.max").unlink()
    (group / "memory/memory.limit_in_bytes").write_text("300000")
    (group / "memory/memory.usage_in_bytes").write_text("100000")
    assert free_memory(root=tmp_path) == 200000


def test_train_says_it_before_the_run(tmp_path, monkeypatch, capsys):
    data = voc_folder(tmp_path / "voc")
    options = ["train", "--data", str(data), "--steps", "1", "--batch-size", "2", "--crop", "32",
               "--widths", "4,4,4,4,4", "--out", str(tmp_path / "runs")]  # fmt: skip
    assert main(options) == 0
    out = capsys.readouterr().out
    assert "a training step on 2 × 32×32 will take about" in out and "warning" not in out
    monkeypatch.setattr("minifcn.cli.memory.free_memory", lambda name: 1000)
    assert main([*options, "--gradient-checkpointing", "on"]) == 0
    out = capsys.readouterr().out
    assert "warning: that may not fit: give a smaller --crop or --batch-size" in out


def test_whole_pictures_are_planned_for_at_the_largest_height_and_width(tmp_path, capsys):
    """A batch of pictures upright and on their side is padded to both."""
    data = voc_folder(tmp_path / "voc", size=(40, 32))
    for folder, ending in (("JPEGImages", "png"), ("SegmentationClass", "png")):
        path = data / folder / f"train1.{ending}"
        with Image.open(path) as picture:
            turned = picture.transpose(Image.Transpose.ROTATE_90)
        turned.save(path)
    options = ["train", "--data", str(data), "--steps", "1", "--batch-size", "2", "--crop", "none",
               "--widths", "4,4,4,4,4", "--out", str(tmp_path / "runs")]  # fmt: skip
    assert main(options) == 0
    assert "a training step on 2 × 40×40 will take about" in capsys.readouterr().out


def test_a_trainers_plan_has_both_sets_of_weights(tmp_path):
    settings = little_settings(folder=str(voc_folder(tmp_path)), iou_loss=0.5)
    trainer = Trainer(settings, open_splits(settings).train)
    before = state(trainer.model)
    plan = trainer.memory_plan((32, 32))
    assert plan.averaged == plan.weights and plan.state == 2 * plan.gradients  # Adam's
    assert state(trainer.model) == before and not trainer.optimizer.state


def test_summary_train(capsys):
    options = ["--input", "3x90x120", "--widths", "4,4,8,8,8", "--classes", "5"]
    assert main(["summary", "fcn16s", *options, "--train", "--batch", "3"]) == 0
    out = capsys.readouterr().out
    rows = [line for line in out.splitlines() if "trunk.stage1.conv1" in line]
    assert len(rows) == 1 and "Conv2d" in rows[0]
    assert "a training step on 3 × 120×90 will take about" in out
    assert main(["summary", "fcn16s", "--train", "--batch", "0"]) == 2
    assert "'0' is no number; write 1 or more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--batch", "4"], "--batch goes with --train"),
        (["--gradient-checkpointing", "on"], "--gradient-checkpointing goes with --train"),
        (["--train", "--input", "3x16x16"], "no training step on 1×3×16×16 (batch_norm_relu"),
    ],
)
def test_what_summary_refuses(capsys, options, says):
    assert main(["summary", "fcn8s", "--widths", "4,4,4,4,4", *options]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
