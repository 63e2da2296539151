"""SBD's labels: MATLAB files as published, written by SciPy, read by minifcn."""

import numpy as np
import pytest

from minifcn.data import sbd
from minifcn.errors import InputError

pytestmark = pytest.mark.oracle
io = pytest.importorskip("scipy.io", reason="SciPy is not installed (extra `oracle`)")
sparse = pytest.importorskip("scipy.sparse", reason="SciPy is not installed (extra `oracle`)")


def write(path, drawn, compressed=True, key="GTcls", field="Segmentation"):
    """The published struct: boundaries in a cell of sparse matrices, segmentation, categories."""
    boundaries = np.empty((20, 1), object)
    for k in range(20):
        boundaries[k, 0] = sparse.csc_matrix(np.eye(*drawn.shape) > 0.9)
    struct = {"Boundaries": boundaries, field: drawn, "CategoriesPresent": [[3], [15]]}
    io.savemat(path, {"before": np.arange(4), key: struct}, do_compression=compressed)


@pytest.mark.parametrize("compressed", [True, False])
def test_the_published_struct(tmp_path, compressed):
    drawn = np.random.default_rng(0).integers(0, 21, (37, 50), np.uint8)
    write(tmp_path / "a.mat", drawn, compressed)
    found = sbd.read(tmp_path / "a.mat")
    assert found.dtype == np.uint8 and found.flags.c_contiguous and (found == drawn).all()


def test_other_files_are_refused(tmp_path):
    path, zeros = tmp_path / "a.mat", np.zeros((6, 9), np.uint8)
    for change, drawn, words in (
        ({}, zeros + 21, ("index 21", "54 pixels", "0 to 20")),
        ({"key": "GTinst"}, zeros, ("GTcls",)),
        ({"field": "Segments"}, zeros, ("Segmentation",)),
        ({}, zeros.astype(float), ("float64", "(6, 9)")),
    ):
        write(path, drawn, **change)
        with pytest.raises(InputError) as caught:
            sbd.read(path)
        assert all(word in str(caught.value) for word in (*words, str(path)))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("compressed", [True, False])
def test_damaged_labels_are_read_or_refused(tmp_path, compressed):
    """Ends cut off, then bytes changed: never another error than the one sentence."""
    rng = np.random.default_rng(3)
    path, refused = tmp_path / "a.mat", 0
    write(path, rng.integers(0, 21, (6, 9), np.uint8), compressed)
    good = path.read_bytes()
    for number in range(100):
        path.write_bytes(good[: len(good) * number // 100])
        try:
            assert sbd.read(path).dtype == np.uint8
        except InputError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 80
