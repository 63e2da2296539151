"""Files of weights: what is written comes back, whatever its order in memory; bad files."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save as library_save

from minifcn import models
from minifcn.data.normalisation import Normalisation
from minifcn.errors import InputError
from minifcn.training import safetensors_file
from minifcn.training.weight_files import read_normalisation, read_weights, write_weights


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


def test_a_pytorch_that_ran_code_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*given: object, **settings: object) -> None:
        raise AssertionError("the file was opened")

    path = tmp_path / "w.pth"
    path.write_bytes(b"whatever")
    for version in ("2.5.1+cpu", "1.13.1"):
        old = SimpleNamespace(__version__=version, load=load)
        monkeypatch.setitem(sys.modules, "torch", old)
        with pytest.raises(InputError, match="CVE-2025-32434.*give the weights as .safetensors"):
            read_weights(path)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        (
            {"a": np.zeros(2, np.complex128)},
            "cannot hold a, which is complex128; give floating numbers",
        ),
        ({"a": np.array(["text"])}, "cannot hold a, which is <U4"),
        ({"__metadata__": np.zeros(2)}, "an array is named __metadata__"),
    ],
)
def test_what_the_format_cannot_hold(
    tmp_path: Path, arrays: dict[str, np.ndarray], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        write_weights(arrays, tmp_path / "w.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_the_librarys_own_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        f"{kind}/{shape}": np.asarray(9 * rng.standard_normal(shape)).astype(kind)
        for kind in safetensors_file.KINDS
        for shape in ((3, 4), (), (0, 2), (7,))
    }
    arrays['ä "x"'] = np.ones(3, np.float32)
    header: dict[str, str] | None
    for header in (None, {"about": '{"é": 1, "b": "\\n"}'}):
        safetensors_file.write(tmp_path / "w.safetensors", arrays, header)
        assert (tmp_path / "w.safetensors").read_bytes() == library_save(arrays, header)


def test_a_file_without_arrays(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(library_save({}))
    with pytest.raises(InputError, match="holds no arrays; give the state_dict"):
        read_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    "seen", [Normalisation((0.1 + 0.2, 0.5, 0.6), (0.2, 1 / 3, 1 / 255)), Normalisation(None, None)]
)
def test_the_header_says_what_the_weights_were_shown(tmp_path: Path, seen: Normalisation) -> None:
    path = tmp_path / "w.safetensors"
    write_weights({"a": np.ones(3)}, path)
    assert read_normalisation(path) is None
    write_weights({"a": np.ones(3)}, path, seen)
    assert read_normalisation(path) == seen
    np.testing.assert_array_equal(read_weights(path)["a"], 1)


@pytest.mark.parametrize(
    "about",
    [
        {"format": "weights 2", "channels": "rgb", "mean": None, "std": None},
        {"format": "weights 1", "channels": "bgr", "mean": None, "std": None},
        {"format": "weights 1", "channels": "rgb", "mean": ["x"], "std": [1]},
        {"format": "weights 1", "channels": "rgb", "mean": None, "std": [1]},
        {"format": "weights 1"},
    ],
)
def test_a_header_that_is_not_understood(tmp_path: Path, about: dict[str, object]) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(library_save({"a": np.ones(3)}, {"minifcn weights": json.dumps(about)}))
    with pytest.raises(InputError, match="use the minifcn that wrote it"):
        read_normalisation(path)


@pytest.mark.parametrize("text", ["no JSON", "[1]", "[" * 100_000])
def test_a_header_of_others_says_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(library_save({"a": np.ones(3)}, {"minifcn weights": text}))
    assert read_normalisation(path) is None and set(read_weights(path)) == {"a"}
