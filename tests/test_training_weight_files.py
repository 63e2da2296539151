"""Files of weights: what is written comes back, whatever its order in memory; bad files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save as library_save

from minifcn import models
from minifcn.errors import InputError
from minifcn.training.weight_files import read_weights, write_weights


def arrays_in_any_order() -> dict[str, np.ndarray]:
    """A net's own weights as they lie, and other views whose strides are not C's."""
    net = models.ResNetFCN(2, widths=(2, 3, 4, 5), generator=np.random.default_rng(0))
    arrays = {name: p.data for name, p in net.named_parameters()}
    grid = np.arange(24, dtype=np.float32).reshape(4, 6)
    return arrays | {
        "fortran": np.asfortranarray(grid),
        "backwards": grid[:, ::-1],
        "every second": grid[::2, 1::2],
        "repeated": np.broadcast_to(grid[0], (3, 6)),
        "big end first": grid.astype(">f4"),
        "scalar": np.array(7),
        "empty": np.zeros((0, 3), np.float32),
    }


def survives(write: Callable[[Mapping[str, np.ndarray], Path], object], path: Path) -> list[str]:
    """The names of the arrays that do not come back as they were."""
    arrays = arrays_in_any_order()
    write(arrays, path)
    back = read_weights(path)
    assert set(back) == set(arrays)
    return [
        name
        for name, array in arrays.items()
        if back[name].shape != array.shape or not np.array_equal(back[name], array)
    ]


def test_arrays_in_any_order_come_back(tmp_path: Path) -> None:
    assert not arrays_in_any_order()["trunk.conv1.weight"].flags.c_contiguous
    assert survives(write_weights, tmp_path / "w.safetensors") == []


def test_writing_memory_as_it_lies_is_caught(tmp_path: Path) -> None:
    def as_it_lies(arrays: Mapping[str, np.ndarray], path: Path) -> None:
        flat = {n: np.ravel(a, "K").reshape(a.shape) for n, a in arrays.items()}
        path.write_bytes(library_save(flat))

    lost = survives(as_it_lies, tmp_path / "w.safetensors")
    assert {"trunk.conv1.weight", "trunk.layer2.0.conv1.weight", "fortran"} <= set(lost)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_weights({"a": np.ones(3)}, path)
    with pytest.raises(InputError, match="cannot be written"):
        write_weights({"a": np.zeros(3)}, path / "inside.safetensors")
    np.testing.assert_array_equal(read_weights(path)["a"], 1)
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]
    with pytest.raises(InputError, match="ends in .npz; write to a .safetensors file"):
        write_weights({}, tmp_path / "w.npz")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("w.safetensors", b"", "cannot be read"),
        ("w.safetensors", b"hello, this is no such file", "cannot be read"),
        ("w.safetensors", library_save({"a": np.ones(99)})[:-1], "cut short"),
        ("w.npz", b"", "ends in .npz; give weights that end in .safetensors, .pth or .pt"),
        ("w", b"", "ends in nothing"),
        ("none.safetensors", None, "is not a file"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        read_weights(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


def test_without_pytorch_a_pth_stays_shut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(b"whatever")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match="PyTorch, which is not installed; `pip install torch`"):
        read_weights(path)
