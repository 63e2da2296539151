"""Scores over a dataset, against counting by hand; and the model is left as it was."""

from types import SimpleNamespace

import numpy as np
import pytest

from minifcn.data.sample import Sample
from minifcn.models import FCN
from minifcn.recording import no_grad
from minifcn.tensor import Tensor
from minifcn.training import Checkpoint, Segmenter, evaluate

SIZES = [(3, 4), (3, 4), (3, 4), (5, 1), (3, 4), (1, 1)]


class Set:
    classes, palette, void = ("a", "b", "c"), np.zeros((3, 3), np.uint8), 255

    def __init__(self):
        rng = np.random.default_rng(0)
        self.samples = [
            Sample(f"s{i}", rng.integers(0, 256, (*size, 3), np.uint8), self.label(rng, size))
            for i, size in enumerate(SIZES)
        ]
        self.samples[5].label[...] = 255

    @staticmethod
    def label(rng, size):
        return rng.choice(np.array([0, 1, 2, 255], np.uint8), size)

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, i):
        return self.samples[i]


def by_red(images):
    """A stand-in for a model: the class is read from the red channel."""
    assert len({image.shape for image in images}) == 1
    return images[..., 0] // 86, np.ones(images.shape[:3], np.float32)


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_against_counting_pixel_by_pixel(batch_size):
    data, done = Set(), []
    stand_in = SimpleNamespace(classes=data.classes, label=by_red)
    result = evaluate(stand_in, data, batch_size, done.append)
    counts = np.zeros((3, 3), int)
    for sample in data.samples:
        for y, x in np.ndindex(sample.label.shape):
            if sample.label[y, x] != 255:
                counts[sample.label[y, x], sample.image[y, x, 0] // 86] += 1
    np.testing.assert_array_equal(result.matrix.counts, counts)
    assert result.names == [f"s{i}" for i in range(6)]
    assert np.isnan(result.scores[5]) and done[-1] == 6
    ranking = result.ranking()
    assert sorted(ranking) == [0, 1, 2, 3, 4]
    assert [result.scores[i] for i in ranking] == sorted(result.scores[:5], reverse=True)


def a_segmenter(**changes) -> Segmenter:
    model = FCN(
        3,
        head="fcn8s",
        widths=(4,) * 5,
        convs=(1,) * 5,
        fc_channels=4,
        generator=np.random.default_rng(0),
    )
    rng = np.random.default_rng(1)
    for parameter in model.parameters():  # scores start at zero: make them speak
        parameter.data[...] = rng.normal(0, 0.3, parameter.shape)
    values = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25), **changes}
    return Segmenter(model, ("a", "b", "c"), np.zeros((3, 3), np.uint8), **values)


def test_probabilities_are_the_softmax_of_the_model_in_evaluation_mode():
    segmenter = a_segmenter()
    segmenter.model.train()
    images = np.random.default_rng(2).integers(0, 256, (2, 33, 20, 3), np.uint8)
    before = [array.copy() for array in segmenter.model.buffers()]
    got = segmenter.probabilities(images)
    assert segmenter.model.training
    for array, kept in zip(segmenter.model.buffers(), before, strict=True):
        np.testing.assert_array_equal(array, kept)
    x = (images / 255 - np.array([0.4, 0.5, 0.6])) / np.array([0.2, 0.3, 0.25])
    segmenter.model.eval()
    with no_grad():
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2), np.float32)
        scores = segmenter.model(Tensor(x)).numpy().astype(float)
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(got, expected, atol=2e-5)
    labels, confidence = segmenter.label(images)
    np.testing.assert_array_equal(labels, expected.argmax(axis=1))
    np.testing.assert_allclose(confidence, expected.max(axis=1), atol=2e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (17, 3), (40, 64)])
@pytest.mark.parametrize("resize", [None, (32, 16)])
def test_every_size_is_answered_in_its_own_size(size, resize):
    segmenter = a_segmenter(resize=resize, mean=None, std=None)
    probabilities = segmenter.probabilities(np.full((1, *size, 3), 99, np.uint8))
    assert probabilities.shape == (1, 3, *size)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_a_picture_of_the_models_size_is_not_touched_by_resize():
    image = np.random.default_rng(3).integers(0, 256, (1, 32, 16, 3), np.uint8)
    plain, sized = a_segmenter(), a_segmenter(resize=(32, 16))
    np.testing.assert_array_equal(plain.probabilities(image), sized.probabilities(image))


def test_through_a_file_and_back(tmp_path):
    segmenter = a_segmenter(resize=(8, 9))
    Checkpoint(segmenter.model.state_dict(), segmenter.about()).save(tmp_path / "best.safetensors")
    loaded = Segmenter.load(tmp_path)
    image = np.random.default_rng(3).integers(0, 256, (1, 11, 10, 3), np.uint8)
    np.testing.assert_array_equal(loaded.probabilities(image), segmenter.probabilities(image))
    assert (loaded.classes, loaded.mean, loaded.resize) == (
        ("a", "b", "c"),
        (0.4, 0.5, 0.6),
        (8, 9),
    )


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"num_classes": 3, "widths": "no"}},
        {"model": {"num_classes": 3, "depth": 3}},
        {"model": {}},
        {"model": 3},
        {"mean": [1.0]},
        {"palette": [["red"]]},
        {"resize": [3]},
        {"classes": None},
    ],
)
def test_a_damaged_description_is_one_sentence(tmp_path, change):
    from minifcn.errors import InputError

    segmenter = a_segmenter()
    about = {**segmenter.about(), **change}
    Checkpoint(segmenter.model.state_dict(), about).save(tmp_path / "c")
    with pytest.raises(InputError) as caught:
        Segmenter.load(tmp_path / "c")
    assert str(tmp_path / "c") in str(caught.value) and "\n" not in str(caught.value)


def test_weights_of_another_model_are_refused(tmp_path):
    from minifcn.errors import InputError

    segmenter = a_segmenter()
    state = segmenter.model.state_dict()
    name = next(iter(state))
    for bad in ({**state, name: state[name][:1]}, {k: v for k, v in state.items() if k != name}):
        Checkpoint(bad, segmenter.about()).save(tmp_path / "c")
        with pytest.raises(InputError, match="another model"):
            Segmenter.load(tmp_path / "c")
