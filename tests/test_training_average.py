"""The moving average of the weights, against a loop in float64, and its place in a run."""

import numpy as np
import pytest

from minifcn import device
from minifcn.nn import BatchNorm2d
from minifcn.training import Checkpoint, Trainer
from minifcn.training.average import follow
from minifcn.training.splits import open_splits
from tests.little import little_settings, voc_folder
from tests.simulated import needs_compiler


def filled(values):
    """A layer with two parameters, two float buffers and an integer one, all of this value."""
    layer = BatchNorm2d(2)
    for array in (*(p.data for p in layer.parameters()), *layer.buffers()):
        array[...] = values
    return layer


@pytest.mark.parametrize("name", ["cpu", pytest.param("cuda-sim", marks=needs_compiler)])
def test_each_array_follows_the_formula(name):
    average, expected = filled(100).to(name), 100.0
    for step, value in enumerate((3, 7, -2, 5), 1):
        follow(average, filled(value).to(name), 0.3, step)
        decay = min(0.3, step / (step + 9))
        expected = decay * expected + (1 - decay) * value
        for array in (*(p.data for p in average.parameters()), *average.buffers()):
            wanted = value if array.dtype == np.int64 else expected
            np.testing.assert_allclose(device.move(array, "cpu"), wanted, rtol=1e-6)
    assert decay == 0.3  # the ramp was passed on the way


def test_the_first_weights_are_soon_forgotten():
    average = filled(1)
    for step in range(1, 11):
        follow(average, filled(0), 0.999, step)
    assert abs(average.running_mean).max() < 1e-4  # 0.999¹⁰ would leave 0.99 of it


@pytest.mark.parametrize("name", ["cpu", pytest.param("cuda-sim", marks=needs_compiler)])
def test_with_decay_0_the_average_is_the_model(name):
    average, model = filled(3).to(name), filled(np.float32(0.1)).to(name)
    follow(average, model, 0.0, 5)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(average.state_dict()[name], array)


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_a_checkpoint_holds_the_average_to_use_and_the_weights_to_go_on_from(tmp_path, decay):
    settings = little_settings(folder=str(voc_folder(tmp_path)), average=decay, dropout=0.0)
    trainer = Trainer(settings, open_splits(settings).train)
    weights = [trainer.model.state_dict() for _ in trainer.steps()]
    trainer.checkpoint({}).save(tmp_path / "c")
    saved = Checkpoint.load(tmp_path / "c")
    name = "trunk.stage3.norm1.running_var"
    np.testing.assert_array_equal(saved.training[f"model/{name}"], weights[-1][name])
    expected = np.ones(4)
    for step, state in enumerate(weights, 1):
        d = min(decay, step / (step + 9))
        expected = d * expected + (1 - d) * state[name].astype(float)
    np.testing.assert_allclose(saved.model[name], expected, rtol=1e-5)
    assert np.array_equal(saved.model[name], weights[-1][name]) == (decay == 0)
