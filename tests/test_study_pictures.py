"""Pictures of labels and charts of runs: what is drawn is what was measured."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minifcn import study
from minifcn.data import Sample
from minifcn.study.curves import smooth
from minifcn.study.overlay import _flow
from minifcn.study.pictures import CONFUSED, FALSE_ALARM, MISSED, VOID_COLOUR, edges, visible

PALETTE = np.array([(10, 20, 30), (200, 100, 50), (0, 250, 120)], np.uint8)
NAMES = ("background", "one", "two")


def picture(height, width, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    return image, rng.integers(0, classes, (height, width)).astype(np.uint8)


def test_colour_looks_up_and_void_is_pale():
    labels = np.array([[0, 1], [2, 255]], np.uint8)
    np.testing.assert_array_equal(
        study.colour(labels, PALETTE),
        [[(10, 20, 30), (200, 100, 50)], [(0, 250, 120), VOID_COLOUR]],
    )


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_edges_against_neighbours(height, width, seed):
    _, labels = picture(height, width, 2, seed)
    got = edges(labels)
    for y, x in np.ndindex(height, width):
        below = y + 1 < height and labels[y + 1, x] != labels[y, x]
        beside = x + 1 < width and labels[y, x + 1] != labels[y, x]
        assert got[y, x] == (below or beside)


def test_blend_leaves_background_clear_tints_the_rest_and_marks_the_rim():
    image, _ = picture(4, 6)
    labels = np.zeros((4, 6), np.uint8)
    labels[:, 3:] = 1
    labels[:, 4] = 1
    got = study.blend(image, labels, PALETTE, NAMES, strength=0.5)
    np.testing.assert_array_equal(got[:, :3], image[:, :3])
    expected = np.rint(0.5 * image[:, 3:] + 0.5 * PALETTE[1])
    assert np.abs(got[:, 3:] - expected).max() <= 1
    labels[2:, 4:] = 2  # a rim between two classes that are no background
    got = study.blend(image, labels, PALETTE, NAMES, strength=0.5)
    np.testing.assert_array_equal(got[1, 5], PALETTE[1])
    # A class 0 with another name is a thing like any other.
    got = study.blend(image, np.zeros((4, 6), np.uint8), PALETTE, ("sky", "one", "two"), 1.0)
    np.testing.assert_array_equal(got, np.broadcast_to(PALETTE[0], image.shape))


@pytest.mark.parametrize("names", [NAMES, ("sky", "one", "two")])
def test_error_map_pixel_by_pixel(names):
    image, truth = picture(9, 7)
    _, prediction = picture(9, 7, seed=1)
    truth[0] = 255
    got = study.error_map(image, truth, prediction, names)
    for y, x in np.ndindex(9, 7):
        t, p = truth[y, x], prediction[y, x]
        pixel = tuple(int(v) for v in got[y, x])
        if t == 255:
            assert pixel == VOID_COLOUR
        elif t == p:
            assert pixel[0] == pixel[1] == pixel[2] and 150 <= pixel[0] <= 240
        elif names is NAMES and p == 0:
            assert pixel == MISSED
        elif names is NAMES and t == 0:
            assert pixel == FALSE_ALARM
        else:
            assert pixel == CONFUSED


def test_only_dark_pictures_are_brightened():
    dark = np.full((10, 10, 3), 2, np.uint8)
    dark[4:6, 4:6] = 20
    shown, brightened = visible(dark)
    assert brightened and shown.max() == 235 and shown.min() == 23
    light = np.full((10, 10, 3), 120, np.uint8)
    shown, brightened = visible(light)
    assert not brightened and shown is light
    assert visible(np.zeros((3, 3, 3), np.uint8))[0].max() == 0


@given(st.lists(st.integers(1, 40), min_size=1, max_size=20), st.integers(40, 120))
def test_legend_rows_hold_every_entry_and_never_stick_out(spans, width):
    rows = _flow(spans, width, 6)
    assert [index for row in rows for index, _ in row] == list(range(len(spans)))
    for row in rows:
        for (index, left), (_, following) in zip(row, row[1:], strict=False):
            assert left + spans[index] + 6 <= following
        index, left = row[-1]
        assert left + spans[index] <= width


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (50, 9), (64, 64)])
def test_overlay_has_the_picture_above_and_the_legend_below(size):
    image, labels = picture(*size)
    labels[0, 0] = 1
    drawn = np.asarray(study.draw_overlay(image, labels, PALETTE, NAMES))
    height, width = size
    np.testing.assert_array_equal(
        drawn[:height, :width], study.blend(image, labels, PALETTE, NAMES)
    )
    legend = drawn[height:]
    assert (legend == PALETTE[1]).all(axis=2).any()  # its colour box
    assert (legend == 255).all(axis=2)[:, -1].all()  # nothing runs out at the right


def test_confusion_csv():
    counts = np.array([[5, 1], [2**40, 0]])
    assert study.confusion_csv(counts, ("a", "b, c")) == (
        'truth \\ prediction,a,"b, c"\na,5,1\n"b, c",1099511627776,0\n'
    )


def test_confusion_picture_shows_shares_of_the_true_class():
    counts = np.array([[98, 2, 0], [0, 0, 0], [1, 1998, 1]])
    axes = study.draw_confusion(counts, ("a", "b", "c")).axes[0]
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert texts == {
        (0, 0): "98",
        (1, 0): "2.0",
        (2, 0): "0.0",
        (0, 2): "<0.1",
        (1, 2): "100",
        (2, 2): "<0.1",
    }
    assert axes.get_xlabel() == "prediction" and axes.get_ylabel() == "truth"


@given(st.lists(st.floats(0, 9), min_size=1, max_size=30), st.integers(1, 12))
def test_smooth_against_means(values, window):
    got = smooth(np.array(values), window)
    reach = window // 2
    for i in range(len(values)):
        inside = values[max(0, i - reach) : i + reach + 1]
        assert got[i] == pytest.approx(sum(inside) / len(inside), abs=1e-9)


def test_curves_draw_the_log():
    nan = float("nan")
    log = {
        "step": [1, 2, 3],
        "loss": [0.9, 0.5, 0.4],
        "lr": [0.1, 0.05, 0.0],
        "pixel_accuracy": [0.5, 0.6, 0.7],
        "mean_iou": [0.3, 0.4, 0.5],
        "val_pixel_accuracy": [nan, 0.6, 0.8],
        "val_mean_iou": [nan, 0.35, 0.55],
    }
    left, right, rate = study.draw_curves(log, "a run").axes
    np.testing.assert_array_equal(left.lines[0].get_ydata(), log["loss"])
    np.testing.assert_array_equal(rate.lines[0].get_ydata(), log["lr"])
    by_label = {line.get_label(): line for line in right.lines}
    line = by_label["mean IoU, validation"]
    np.testing.assert_array_equal(line.get_xydata(), [(2, 0.35), (3, 0.55)])
    np.testing.assert_array_equal(by_label["pixel accuracy, training"].get_ydata(), [0.5, 0.6, 0.7])


def test_the_sheet_of_labels_shows_each_picture_plain_and_tinted():
    samples = []
    for i, size in enumerate(((20, 30), (31, 17), (9, 9))):
        image, label = picture(*size, seed=i)
        image[0] = 255  # bright enough to be shown as it is
        label[0] = 255 if i == 1 else 0
        samples.append(Sample(f"n{i}", image, label))
    figure = study.draw_labelled(samples, PALETTE, NAMES, "three")
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]
    assert len(shown) == 6 and sum(not axes.axison for axes in figure.axes) == 2
    for sample, plain, tinted in zip(samples, shown[::2], shown[1::2], strict=True):
        np.testing.assert_array_equal(plain, sample.image)
        np.testing.assert_array_equal(
            tinted, study.blend(sample.image, sample.label, PALETTE, NAMES)
        )
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [*NAMES, "void, not counted"]
    handle = legend.legend_handles[1].get_facecolor()[:3]
    np.testing.assert_allclose(np.array(handle) * 255, PALETTE[1])


def test_panel_has_five_pictures_a_row_and_a_legend_of_what_occurs():
    examples = []
    for i, size in enumerate(((20, 30), (31, 17))):
        image, truth = picture(*size, classes=2)
        truth[0] = 255
        prediction = np.zeros_like(truth)
        confidence = np.full(size, 0.75, np.float32)
        examples.append(study.Example(f"n{i}", "best", image, truth, prediction, confidence))
    figure = study.draw_panel(examples, PALETTE, NAMES)
    pictures = [axes for axes in figure.axes if axes.images]
    assert len(pictures) >= 10
    wrong = (examples[0].truth == 1).sum() / (examples[0].truth != 255).sum()
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert f"errors: {100 * wrong:.1f} %" in titles
    assert "confidence: 0.75 mean" in titles
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[:3] == ["background", "one", "void, not counted"] and "two" not in legend
    np.testing.assert_array_equal(
        np.asarray(pictures[1].images[0].get_array()), study.colour(examples[0].truth, PALETTE)
    )
