"""Checkpoints: what goes in comes out, and nothing else is ever taken for one."""

import errno
import os
import pickle

import numpy as np
import pytest
from safetensors.numpy import save_file

from minifcn.errors import InputError
from minifcn.training import files
from minifcn.training.checkpoint import KEY, Checkpoint


def a_checkpoint(value: float = 1.0) -> Checkpoint:
    model = {
        "conv.weight": np.full((2, 3, 1, 1), value, np.float32),
        "bn.num": np.array(7, np.int64),
        "turned": np.arange(6.0).reshape(2, 3).T,
        "empty": np.zeros((0, 4), np.float32),
    }
    return Checkpoint(model, {"step": 3, "big": 2**100, "ö": [1.5, None]}, {"running": np.eye(2)})


def test_round_trip(tmp_path):
    before = a_checkpoint()
    before.save(tmp_path / "c.safetensors")
    after = Checkpoint.load(tmp_path / "c.safetensors")
    assert after.about == before.about
    assert list(after.model) == sorted(before.model)
    for name, array in before.model.items():
        assert after.model[name].dtype == array.dtype and after.model[name].shape == array.shape
        np.testing.assert_array_equal(after.model[name], array)
    np.testing.assert_array_equal(after.training["running"], np.eye(2))


def test_equal_states_are_equal_files(tmp_path):
    for name in "ab":
        a_checkpoint().save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def other_files(folder):
    good = folder / "good"
    a_checkpoint().save(good)
    whole = good.read_bytes()
    (folder / "cut").write_bytes(whole[:-5])
    (folder / "cut in the header").write_bytes(whole[:40])
    (folder / "empty").write_bytes(b"")
    (folder / "text").write_text("not a checkpoint, and long enough to have a header length")
    (folder / "pickle").write_bytes(pickle.dumps({"weight": [1.0] * 100}))
    save_file({"w": np.ones(3)}, folder / "no header")
    save_file({"w": np.ones(3)}, folder / "bad json", {KEY: "{"})
    save_file({"w": np.ones(3)}, folder / "list", {KEY: "[1]"})
    save_file({"w": np.ones(3)}, folder / "deep", {KEY: "[" * 100_000})
    save_file({"w": np.ones(3)}, folder / "other format", {KEY: '{"format": "checkpoint 99"}'})
    (folder / "folder").mkdir()
    return sorted(p for p in folder.iterdir() if p != good) + [folder / "missing"]


def test_everything_else_is_refused_in_one_sentence(tmp_path):
    for path in other_files(tmp_path):
        with pytest.raises(InputError) as caught:
            Checkpoint.load(path)
        message = str(caught.value)
        assert str(path) in message and "; " in message and "\n" not in message, path


def test_every_truncation_is_refused(tmp_path):
    a_checkpoint().save(tmp_path / "c")
    whole = (tmp_path / "c").read_bytes()
    for length in range(0, len(whole), 37):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(InputError):
            Checkpoint.load(tmp_path / "cut")


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "c"
    a_checkpoint(1.0).save(path)

    def full(number):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(InputError) as caught:
        a_checkpoint(2.0).save(path)
    assert str(path) in str(caught.value) and "No space left" in str(caught.value)
    assert "free some space" in str(caught.value)
    assert Checkpoint.load(path).model["conv.weight"].max() == 1.0
    assert [p.name for p in tmp_path.iterdir()] == ["c"]  # and no half file beside it


def test_a_crash_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "c"
    path.write_bytes(b"old")

    def crash(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_atomically(path, crash)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        a_checkpoint().save(tmp_path / "file" / "c")
