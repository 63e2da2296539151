"""MATLAB files written by SciPy, read by minifcn."""

import numpy as np
import pytest

from minifcn.data import sbd
from minifcn.data.matlab import read_struct
from minifcn.errors import InputError

pytestmark = pytest.mark.oracle
io = pytest.importorskip("scipy.io", reason="SciPy is not installed (extra `oracle`)")
sparse = pytest.importorskip("scipy.sparse", reason="SciPy is not installed (extra `oracle`)")


@pytest.mark.parametrize("compressed", [True, False])
def test_the_published_struct(tmp_path, compressed):
    """Boundaries in a cell of sparse matrices, segmentation, categories, as in SBD."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 21, (37, 50), np.uint8)
    boundaries = np.empty((20, 1), object)
    for k in range(20):
        boundaries[k, 0] = sparse.csc_matrix(rng.random((37, 50)) > 0.9)
    struct = {"Boundaries": boundaries, "Segmentation": drawn, "CategoriesPresent": [[3], [15]]}
    path = tmp_path / "2008_000001.mat"
    io.savemat(path, {"before": np.arange(4), "GTcls": struct}, do_compression=compressed)
    assert (sbd.read(path) == drawn).all()
    fields = read_struct(path, "GTcls")
    assert set(fields) == {"Segmentation", "CategoriesPresent"}
    assert fields["CategoriesPresent"].tolist() == [[3], [15]]


@pytest.mark.parametrize("name", "f8 f4 i1 u1 i2 u2 i4 u4 i8 u8".split())
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (3, 0), (2, 3, 4)])
def test_every_type_and_shape(tmp_path, name, shape):
    array = (np.random.default_rng(0).random(shape) * 100).astype(name)
    io.savemat(tmp_path / "a.mat", {"s": {"first": array, "a": array.T}})
    fields = read_struct(tmp_path / "a.mat", "s")
    np.testing.assert_array_equal(fields["first"], array)
    np.testing.assert_array_equal(fields["a"], array.T)
    assert fields["a"].dtype == array.dtype


def test_other_levels_and_things_are_refused_or_left_out(tmp_path):
    path = tmp_path / "a.mat"
    io.savemat(path, {"a": np.ones((2, 2))}, format="4")
    with pytest.raises(InputError, match="level 5"):
        read_struct(path, "a")
    io.savemat(path, {"a": np.ones((2, 2)), "s": {"c": np.ones(2) * 1j, "t": "text", "n": 7}})
    with pytest.raises(InputError, match="no struct a"):
        read_struct(path, "a")
    assert {k: v.tolist() for k, v in read_struct(path, "s").items()} == {"n": [[7]]}
