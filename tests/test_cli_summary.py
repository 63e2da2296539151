"""`minifcn summary`: models by name and from a run, and what it refuses."""

import numpy as np
import pytest

from minifcn import models
from minifcn.cli.main import main
from minifcn.training import Checkpoint, Segmenter


def test_a_model_by_name(capsys):
    options = ["--input", "3x90x120", "--widths", "4,4,8,8,8", "--classes", "5"]
    assert main(["summary", "fcn16s", *options]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert "4×90×120" in lines["trunk.stage1.conv1"]
    # the last step gives the picture's size or more, for 5 classes
    assert "5×96×128" in lines["upscore.input_x16"] and "depthwise" in lines["upscore.input_x16"]
    net = models.fcn16s(5, widths=(4, 4, 8, 8, 8), generator=np.random.default_rng(0))
    assert f"{models.parameter_count(net):,}" in lines["all"]


def test_a_trained_model(tmp_path, capsys):
    net = models.fcn2s(2, widths=(2, 2, 2, 2, 2), fc_channels=4, generator=np.random.default_rng(0))
    segmenter = Segmenter(net, ("a", "b"), np.zeros((2, 3), np.uint8), None, None)
    path = tmp_path / "best.safetensors"
    Checkpoint(net.state_dict(), segmenter.about()).save(path)
    for name in (tmp_path, path):
        assert main(["summary", str(name)]) == 0
        out = capsys.readouterr().out
        assert "2×256×256" in out and "upscore.input_x2" in out
    for option, value in (("classes", "3"), ("widths", "2,2,2,2,2"), ("padding", "100")):
        assert main(["summary", str(tmp_path), f"--{option}", value]) == 2
        assert f"leave --{option} out" in capsys.readouterr().err


def test_padding_as_published(capsys):
    options = ["--input", "3x90x120", "--widths", "4,4,8,8,8", "--padding", "100"]
    assert main(["summary", "fcn8s", *options]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert "4×288×318" in lines["trunk.stage1.conv1"]
    # 288 and 318 halved five times are 9 and 10, a kernel of 7 leaves 3 and 4
    assert "512×3×4" in lines["fc6.conv"] and "21×8×10" in lines["upscore.pool4"]


def test_no_number_is_cut_short(capsys):
    """The widest table that the README asks for, in the 110 columns of a pipe."""
    assert main(["summary", "vgg16-fcn8s", "--input", "3x500x500", "--padding", "100"]) == 0
    out = capsys.readouterr().out
    (line,) = (line for line in out.splitlines() if line.split()[:1] == ["all"])
    assert "134,368,799" in line and "…" not in out


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["nothing"], "nothing is neither a model (fcn32s, "),
        (["fcn8s", "--input", "1x30x40"], "fcn8s takes 3 channels; write 3×30×40"),
        (["fcn8s", "--input", "30x40"], "'30x40' is no input; write CHANNELSxHEIGHTxWIDTH"),
        (["fcn8s", "--input", "3x0x40"], "'3x0x40' holds a length below 1"),
        (["fcn8s", "--classes", "0"], "num_classes is 0"),
        (["fcn8s", "--widths", "1,2,3"], "widths is (1, 2, 3)"),
        (["fcn8s", "--padding", "99"], "'99' is neither same nor 100"),
        (["resnet18-fcn8s", "--padding", "100"], "the trunk is resnet18; leave it out"),
    ],
)
def test_bad_arguments(arguments, words, capsys):
    assert main(["summary", *arguments]) == 2
    assert words in capsys.readouterr().err
