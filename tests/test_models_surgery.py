"""Surgery: the same scores at the training size, each cell its window, and faults that show."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minifcn as mf
from minifcn import nn
from minifcn.errors import InputError
from minifcn.geometry import coordinate_map
from minifcn.models import small_classifier, surgery, to_fully_convolutional


def rng(seed=0):
    return np.random.default_rng(seed)


def small(dtype=np.float64, padding=0, size=11, **settings):
    """Fully connected layers of one width, so that even a transposed weight fits; biases drawn."""
    net = small_classifier(
        4, size, in_channels=2, stages=((3,), (4,)), padding=padding, fc_channels=4,
        generator=rng(), dtype=dtype, **settings,
    )  # fmt: skip
    with mf.no_grad():
        for name, p in net.named_parameters():
            if name.endswith("bias"):
                p.copy_(rng(5).standard_normal(p.shape))
    return net


def run(net, x):
    with mf.no_grad():
        return net(mf.Tensor(x)).numpy()


@pytest.mark.parametrize(("dtype", "bar"), [(np.float32, 1e-6), (np.float64, 1e-14)])
@pytest.mark.parametrize("padding", [0, 1])
def test_at_the_training_size_nothing_changes(dtype, bar, padding):
    classifier = small(dtype, padding)
    net, verdict = to_fully_convolutional(classifier, 11)
    x = rng(1).standard_normal((3, 2, 11, 11)).astype(dtype)
    found, wanted = run(net, x), run(classifier, x)
    assert found.shape == (3, 4, 1, 1) and found.dtype == dtype
    assert np.abs(found[..., 0, 0] - wanted).max() <= bar * np.abs(wanted).max()
    assert verdict.agrees and verdict.relative <= bar


@given(
    st.integers(11, 21), st.integers(11, 17), st.sampled_from([((3,), (4,)), ((2, 3), (4,))]),
    st.integers(0, 3),
)  # fmt: skip
def test_without_padding_every_cell_is_the_classifier_on_its_window(height, width, stages, seed):
    classifier = small_classifier(3, 11, stages=stages, generator=rng(seed), dtype=np.float64)
    net, verdict = to_fully_convolutional(classifier, 11)
    assert verdict.cells_agree and verdict.stride == (2, 2) and verdict.padding == ()
    x = rng(seed + 9).standard_normal((1, 3, height, width))
    heat = run(net, x)[0]
    assert heat.shape == (3, (height - 11) // 2 + 1, (width - 11) // 2 + 1)
    for p, q in np.ndindex(*heat.shape[1:]):
        window = np.ascontiguousarray(x[:, :, 2 * p : 2 * p + 11, 2 * q : 2 * q + 11])
        np.testing.assert_allclose(heat[:, p, q], run(classifier, window)[0], rtol=1e-9, atol=1e-11)


def test_padding_breaks_it_and_the_verdict_says_by_how_much():
    classifier = small(padding=1)
    net, verdict = to_fully_convolutional(classifier, 11)
    assert verdict.agrees and not verdict.cells_agree
    assert verdict.cell_relative > 0.01
    assert verdict.padding == ("features.0", "features.3")
    text = str(verdict)
    assert "the same scores" in text and "a cell is not the classifier on its window" in text
    assert "these layers pad: features.0, features.3" in text
    assert f"relative difference {verdict.cell_relative:.1e}" in text
    # by hand: the same random picture, the middle one of the 3×3 windows
    picture = rng(0).standard_normal((1, 15, 15, 2)).transpose(0, 3, 1, 2)
    heat = run(net, picture)[0, :, 1, 1]
    wanted = run(classifier, np.ascontiguousarray(picture[:, :, 2:13, 2:13]))[0]
    assert 0 < np.abs(heat - wanted).max()


def test_a_pool_that_hangs_over_the_edge_pads_too():
    g = {"generator": rng(), "dtype": np.float64}
    made = [nn.Conv2d(1, 3, 1, **g), nn.MaxPool2d(2, ceil_mode=True), nn.Flatten()]
    chain = nn.Sequential(*made, nn.Linear(3 * 3 * 3, 2, **g))
    _, verdict = to_fully_convolutional(chain, 5)
    assert verdict.agrees and not verdict.cells_agree and verdict.padding == ("1",)
    wider = nn.Sequential(*made, nn.Linear(3 * 3 * 3, 2, **g))
    _, verdict = to_fully_convolutional(wider, 6)  # here nothing hangs over
    assert verdict.cells_agree and verdict.padding == ()


def test_alexnets_layers_get_the_published_shapes():
    classifier = mf.models.alexnet(generator=rng())
    net, verdict = to_fully_convolutional(classifier, 224)
    assert verdict.layers == (
        ("classifier.1", (4096, 256, 6, 6)),
        ("classifier.4", (4096, 4096, 1, 1)),
        ("classifier.6", (1000, 4096, 1, 1)),
    )
    sizes = [f"output ({k}, 1, 1)" for k in (4096, 4096, 1000)]
    assert all(str(verdict).count(size) >= 1 for size in sizes)
    assert verdict.agrees
    assert not verdict.cells_agree and verdict.stride == (32, 32)

    # float32: fc6 sums 9,216 products, in another order as a convolution. Over all 1000 scores the
    # largest difference was 5.7e-7 to 9.9e-7 of the largest score in 35 pictures, seven for each of
    # five drawings of the weights; their medians 6.8e-7 to 7.6e-7.
    classifier.eval(), net.eval()
    apart = []
    for picture in rng(0).standard_normal((7, 1, 3, 224, 224)).astype(np.float32):
        wanted = run(classifier, picture)
        apart.append(np.abs(run(net, picture)[..., 0, 0] - wanted).max() / np.abs(wanted).max())
    assert np.median(apart) <= 1e-6


def test_names_stay_and_weights_are_copies():
    classifier = small()
    net, _ = to_fully_convolutional(classifier, 11)
    before, after = classifier.state_dict(), net.state_dict()
    assert list(before) == list(after)
    for name, array in before.items():
        np.testing.assert_array_equal(after[name].reshape(array.shape), array)
    with mf.no_grad():
        for p in net.parameters():
            p.fill_(0)
    assert all(np.any(array) for array in classifier.state_dict().values())


def test_training_mode_and_frozen_weights_stay():
    classifier = small(dropout=0.5)
    classifier.features.requires_grad_(False)
    net, verdict = to_fully_convolutional(classifier, 11)
    assert verdict.agrees  # examined without dropout
    assert all(m.training for m in classifier.modules()) and all(m.training for m in net.modules())
    assert [p.requires_grad for p in net.parameters()] == [False] * 4 + [True] * 6
    assert (
        not to_fully_convolutional(classifier.eval(), 11)[0].get_submodule("classifier.1").training
    )


def test_a_picture_that_is_not_square_and_a_mean_over_all_of_it():
    g = {"generator": rng(), "dtype": np.float64}
    chain = nn.Sequential(
        nn.Conv2d(1, 3, (2, 3), stride=(1, 2), **g), nn.BatchNorm2d(3, dtype=np.float64), nn.ReLU(),
        nn.Flatten(), nn.Linear(3 * 4 * 3, 2, bias=False, **g), nn.Softmax(-1),
    )  # fmt: skip
    net, verdict = to_fully_convolutional(chain, (5, 7))
    assert verdict.cells_agree and verdict.stride == (1, 2)
    assert run(net, rng().standard_normal((2, 1, 8, 9))).shape == (2, 2, 4, 2)
    pooled = nn.Sequential(
        nn.Conv2d(1, 3, 2, **g), nn.AdaptiveAvgPool2d(), nn.Flatten(), nn.Linear(3, 2, **g)
    )
    net, verdict = to_fully_convolutional(pooled, (4, 6))
    assert verdict.cells_agree and verdict.layers[0] == ("1", (3, 1, 3, 5))


# -- planted faults --------------------------------------------------------------------------------


def rows_before_channels(weight, channels, window):
    """Read as if pictures were flattened in the order in which they lie in memory, (H, W, C)."""
    return weight.reshape(weight.shape[0], *window, channels).transpose(0, 3, 1, 2)


def rows_for_columns(weight, channels, window):
    k = weight.shape[0]
    return weight.reshape(k, channels, *window[::-1]).transpose(0, 1, 3, 2)


def transposed(weight, channels, window):
    weight = weight.T if weight.shape[0] == weight.shape[1] else weight
    return weight.reshape(weight.shape[0], channels, *window)


@pytest.mark.parametrize("fault", [rows_before_channels, rows_for_columns, transposed])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_planted_fault_shows(monkeypatch, fault, dtype):
    classifier = small(dtype)
    monkeypatch.setattr(surgery, "window_weight", fault)
    _, verdict = to_fully_convolutional(classifier, 11)
    assert not verdict.agrees and verdict.relative > 1e-3
    assert "OTHER SCORES" in str(verdict)


def test_a_forgotten_bias_shows(monkeypatch):
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: self._through(
        lambda x, w, b, *s: mf.functional.conv2d(x, w, None if w.shape[2:] == (1, 1) else b, *s), x
    ))  # fmt: skip
    _, verdict = to_fully_convolutional(small(), 11)
    assert not verdict.agrees


# -- what it refuses -------------------------------------------------------------------------------


def test_what_cannot_be_converted_is_named():
    g = {"generator": rng()}
    cases = [
        (nn.Sequential(nn.Linear(4, 2, **g)), 2, "0 is a Linear before any Flatten"),
        (nn.Sequential(nn.Flatten(), nn.Conv2d(1, 1, 1, **g)), 2, "1 is a Conv2d behind a Flatten"),
        (nn.Sequential(nn.Upsample(size=2)), 2, "0 is a Upsample"),
        (nn.Sequential(nn.Conv2d(1, 1, 1, **g)), 2, "no fully connected layer"),
        (nn.ReLU(), 2, "no fully connected layer"),
        (nn.Sequential(nn.AdaptiveAvgPool2d()), 2, "the Sequential has no convolution"),
        (small(), 12, r"input_size is \(12, 12\), but the classifier takes pictures of \(11, 11\)"),
        (small(), 0, "input_size is 0"),
    ]
    for classifier, size, says in cases:
        with pytest.raises(InputError, match=says):
            to_fully_convolutional(classifier, size)


def test_a_transposed_convolution_whose_cells_stand_one_and_a_half_pixels_apart_is_refused():
    g = {"generator": rng()}
    chain = nn.Sequential(
        nn.Conv2d(1, 1, 3, stride=3, **g), nn.ConvTranspose2d(1, 1, 2, stride=2, **g),
        nn.Flatten(), nn.Linear(16, 2, **g),
    )  # fmt: skip
    assert coordinate_map(nn.windows(chain)).scale == Fraction(3, 2)
    with pytest.raises(InputError, match="1 is a ConvTranspose2d; give a chain of convolutions"):
        to_fully_convolutional(chain, 6)


def test_a_size_that_the_weights_do_not_fit():
    g = {"generator": rng()}
    chain = nn.Sequential(nn.Conv2d(1, 4, 1, **g), nn.Flatten(), nn.Linear(4 * 36, 2, **g))
    with pytest.raises(InputError, match="2 takes 144 values, but 4×3×3 = 36 come out"):
        to_fully_convolutional(chain, 3)
