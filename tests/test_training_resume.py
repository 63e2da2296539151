"""A run that was broken off and went on is, byte by byte, one that never stopped."""

import itertools
import math

import numpy as np
import pytest

from minifcn.errors import InputError
from minifcn.training import Checkpoint, Run, Segmenter, Trainer
from minifcn.training.splits import open_splits
from minifcn.training.trainer import NotFiniteError
from tests.little import little_settings, voc_folder


class Quiet:
    """An observer that keeps what it was told."""

    def __init__(self):
        self.steps, self.validations = [], []

    def on_step(self, step):
        self.steps.append(step)

    def on_validation(self, step, evaluation, best):
        self.validations.append((step, evaluation.matrix.mean_iou, best))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return voc_folder(tmp_path_factory.mktemp("voc"))


def new_run(folder, data, **changes):
    settings = little_settings(folder=str(data), **changes)
    splits = open_splits(settings)
    return Run(folder, Trainer(settings, splits.train), splits.val, splits.describe())


def resumed(folder, data, **changes):
    run = new_run(folder, data, **changes)
    run.resume(Checkpoint.load(run.latest_path))
    return run


def stop_after(number):
    counter = itertools.count(1)
    return lambda: next(counter) == number


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    "changes",
    [
        {"dropout": 0.5, "augment": True},
        {"optimizer": "sgd", "schedule": "cosine", "class_weights": "balanced"},
        {"average": 0.0, "iou_loss": 0.5},
        {"resize": (24, 40), "crop": None, "schedule": "constant", "normalise": "picture"},
    ],
)
@pytest.mark.parametrize("broken_after", [2, 3])
def test_the_same_bytes_after_a_break(tmp_path, data, changes, broken_after):
    assert new_run(tmp_path / "whole", data, **changes).fit(Quiet())
    assert not new_run(tmp_path / "broken", data, **changes).fit(Quiet(), stop_after(broken_after))
    between = contents(tmp_path / "broken")
    run = resumed(tmp_path / "broken", data, **changes)
    assert run.trainer.step_number == broken_after
    assert run.fit(Quiet())
    whole, broken = contents(tmp_path / "whole"), contents(tmp_path / "broken")
    assert set(whole) == {"checkpoint.safetensors", "best.safetensors", "log.csv"}
    for name, content in whole.items():
        assert broken[name] == content, name
    assert between["checkpoint.safetensors"] != whole["checkpoint.safetensors"]


def test_a_crash_after_the_last_save_costs_steps_but_no_bits(tmp_path, data):
    """Steps logged and lost, as after a power cut, are done again and logged once."""
    assert new_run(tmp_path / "whole", data).fit(Quiet())

    class Cut(Exception):
        pass

    class Cutting(Quiet):
        def on_step(self, step):
            if step.number == 5:  # saved at step 3, logged to step 4
                raise Cut

    with pytest.raises(Cut):
        new_run(tmp_path / "broken", data).fit(Cutting())
    assert (tmp_path / "broken/log.csv").read_text().count("\n") == 1 + 4
    assert resumed(tmp_path / "broken", data).fit(Quiet())
    assert contents(tmp_path / "whole") == contents(tmp_path / "broken")


def test_what_must_come_back_for_equal_bits(tmp_path, data):
    """Forgetting any one part of the state changes the outcome: the test above can fail."""
    new_run(tmp_path / "whole", data).fit(Quiet())
    new_run(tmp_path / "broken", data).fit(Quiet(), stop_after(3))
    whole = contents(tmp_path / "whole")["checkpoint.safetensors"]

    def finish(forget):
        run = resumed(tmp_path / "broken", data)
        forget(run.trainer)
        for _ in run.trainer.steps():
            pass
        run._checkpoint().save(tmp_path / "after")
        after, wanted = Checkpoint.load(tmp_path / "after"), Checkpoint.load(run_path)
        return all(np.array_equal(after.model[name], array) for name, array in wanted.model.items())

    run_path = tmp_path / "copy"
    run_path.write_bytes(whole)

    def forget_moments(trainer):
        trainer.optimizer.state.clear()

    def forget_generators(trainer):
        for generator in trainer._generators():
            generator.bit_generator.state = np.random.default_rng(9).bit_generator.state

    def forget_buffers(trainer):
        for array in trainer.model.buffers():
            array[...] = 1

    def forget_average(trainer):
        trainer.segmenter.model.load_state_dict(trainer.model.state_dict())

    def forget_schedule(trainer):
        trainer.schedule.step(0)

    assert finish(lambda trainer: None)
    forgets = (forget_moments, forget_generators, forget_buffers, forget_average, forget_schedule)
    for forget in forgets:
        assert not finish(forget), forget.__name__


def test_best_is_the_highest_on_validation_and_can_predict(tmp_path, data):
    quiet = Quiet()
    new_run(tmp_path / "run", data, steps=8, eval_every=2, lr=0.01).fit(quiet)
    assert [step for step, _, _ in quiet.validations] == [2, 4, 6, 8]
    highest = max(quiet.validations, key=lambda v: v[1])
    best = Checkpoint.load(tmp_path / "run/best.safetensors")
    assert best.about["best"] == {"step": best.about["step"], "val_mean_iou": highest[1]}
    assert best.training == {}  # a model to use, not a state to resume
    segmenter = Segmenter.load(tmp_path / "run")
    labels, confidence = segmenter.label(np.zeros((2, 7, 5, 3), np.uint8))
    assert labels.shape == confidence.shape == (2, 7, 5)
    assert (confidence >= 1 / 3 - 1e-6).all() and (confidence <= 1 + 1e-6).all()
    with pytest.raises(InputError, match="model alone"):
        new_run(tmp_path / "other", data).resume(best)


def test_changed_data_are_refused(tmp_path, data):
    new_run(tmp_path / "run", data).fit(Quiet(), stop_after(2))
    other = voc_folder(tmp_path / "voc", train=5)
    with pytest.raises(InputError, match=r"train split of 6 pictures.*5"):
        resumed(tmp_path / "run", other)


def test_a_checkpoint_of_another_model_is_refused(tmp_path, data):
    new_run(tmp_path / "run", data).fit(Quiet(), stop_after(1))
    with pytest.raises(InputError) as caught:
        resumed(tmp_path / "run", data, widths=(4, 4, 4, 4, 8))
    assert str(tmp_path / "run/checkpoint.safetensors") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nan_stops_with_the_step_and_keeps_the_last_good_checkpoint(tmp_path, data):
    run = new_run(tmp_path / "run", data, steps=50, eval_every=2)

    class Poison(Quiet):
        def on_validation(self, step, evaluation, best):
            if step == 4:
                next(iter(run.trainer.model.parameters())).data[...] = np.nan

    with pytest.raises(InputError) as caught:
        run.fit(Poison())
    message = str(caught.value)
    assert "at step 5" in message and "of step 4" in message and "--lr" in message
    kept = Checkpoint.load(run.latest_path)
    assert kept.about["step"] == 4
    assert all(np.isfinite(array).all() for array in kept.model.values())
    assert (tmp_path / "run/log.csv").read_text().count("\n") == 1 + 4


def test_a_weight_that_is_not_finite_is_never_saved(tmp_path, data):
    run = new_run(tmp_path / "run", data)
    next(iter(run.trainer.model.parameters())).data[...] = math.inf
    with pytest.raises(NotFiniteError, match="NaN or infinite"):
        run.trainer.checkpoint({})


@pytest.mark.parametrize(
    "scores, chosen",
    [
        ([0.81, 0.80, 0.79], 0),
        ([0.80, 0.81, 0.809], 1),
        ([0.8104, 0.80, 0.8099], 2),  # 0.810 both: the later weights are the average of more steps
        ([float("nan"), 0.1, float("nan")], 1),
    ],
)
def test_which_validation_is_the_best(tmp_path, data, scores, chosen):
    run = new_run(tmp_path / "run", data)
    taken = None
    for i, score in enumerate(scores):
        if run._is_best(score):
            run.best, taken = {"step": i, "val_mean_iou": score}, i
    assert taken == chosen


def test_gradient_checkpointing_gives_the_same_bits(data):
    def steps(on):
        settings = little_settings(folder=str(data), steps=3, gradient_checkpointing=on)
        trainer = Trainer(settings, open_splits(settings).train)
        assert trainer.model.trunk.gradient_checkpointing is on
        losses = [step.loss for step in trainer.steps()]
        return losses, [a.tobytes() for a in trainer.model.state_dict().values()]

    assert steps(True) == steps(False)
