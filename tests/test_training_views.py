"""Averaging over views, against positions worked out by hand."""

import numpy as np
import pytest

from minifcn.cli.main import main
from minifcn.training.views import VIEWS, averaged
from tests.little import voc_folder

HEIGHT, WIDTH = 4, 7


def by_column(images):
    """A stand-in for a network: the value times the number of the column that it stands in."""
    values = images[..., 0].astype(np.float32) * np.arange(images.shape[2], dtype=np.float32)
    return np.stack([values, -values], axis=1)


@pytest.mark.parametrize(
    ("views", "column"),
    [
        ("one", np.broadcast_to(np.arange(WIDTH), (HEIGHT, WIDTH))),
        ("mirrored", np.full((HEIGHT, WIDTH), (WIDTH - 1) / 2)),
        # Of eight views, two each show a pixel as far from the left, right, top and bottom edge.
        ("turned", np.full((HEIGHT, WIDTH), (WIDTH - 1 + HEIGHT - 1) / 4)),
    ],
)
def test_the_mean_of_the_answers_lies_over_the_picture(views, column):
    images = np.random.default_rng(0).integers(0, 256, (2, HEIGHT, WIDTH, 3), np.uint8)
    seen = []

    def probabilities(views_of_them):
        assert views_of_them.flags.c_contiguous
        seen.append(views_of_them.tobytes())
        return by_column(views_of_them)

    got = averaged(probabilities, images, views)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got[:, 0], images[..., 0] * column, rtol=1e-6)
    np.testing.assert_array_equal(got[:, 1], -got[:, 0])
    assert len(set(seen)) == len(seen) == VIEWS[views]


def test_train_and_evaluate_say_that_they_averaged(tmp_path, capsys):
    data = voc_folder(tmp_path / "voc")
    options = "--widths 4,4,4,4,4 --steps 2 --batch-size 2 --crop 32 --views turned".split()
    where = ["--data", str(data), "--out", str(tmp_path), "--name", "r"]
    assert main(["train", *where, *options]) == 0
    assert "mean of 8 views" in capsys.readouterr().out
    assert main(["evaluate", str(tmp_path / "r"), "--views", "mirrored"]) == 0
    assert "mean of 2 views" in capsys.readouterr().out
    assert main(["evaluate", str(tmp_path / "r")]) == 0
    assert "views" not in capsys.readouterr().out
