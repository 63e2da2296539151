"""`minifcn doctor` and `minifcn selfcheck`: readable, with a mend a line, and able to say no."""

import json

import numpy as np
import pytest

from minifcn import device, selfcheck
from minifcn.cli import doctor
from minifcn.cli.main import main
from minifcn.selfcheck import Case, values
from tests.simulated import needs_compiler


def test_the_doctor_looks_at_everything_and_ends_in_zero(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for what in ("device cpu", "BLAS", "threads", "device cuda", "driver", "CuPy", "NVRTC", "g++"):
        assert what in out


def test_what_is_missing_has_a_mend(monkeypatch):
    monkeypatch.setattr(device, "driver_version", lambda: None)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.setattr(doctor, "_version", lambda package: doctor.ABSENT)
    device.why_not.cache_clear()
    try:
        found = {finding.what: finding for finding in doctor.findings()}
    finally:
        device.why_not.cache_clear()
    assert found["device cuda"].found.startswith("no GPU") and found["device cuda"].mend
    assert "minifcn[cuda12]" in found["CuPy"].mend
    assert "apt install g++" in found["g++"].mend and "g++" in found["device cuda-sim"].mend
    monkeypatch.setattr(device, "driver_version", lambda: 13010)
    assert "minifcn[cuda13]" in doctor._package("CuPy", "cupy-cuda12x").mend


FEW = tuple(case for case in selfcheck.CASES if case.name in ("relu", "add", "cross_entropy small"))


@needs_compiler
def test_the_selfcheck_agrees_and_writes_what_it_found(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(selfcheck, "findings", lambda name: values.findings(name, FEW))
    target = tmp_path / "found.json"
    assert main(["selfcheck", "--device", "cuda-sim", "--json", str(target)]) == 0
    out = capsys.readouterr().out
    assert "all agrees" in out and "times mean nothing" in out
    report = json.loads(target.read_text())
    assert report["ok"] and report["device"] == "cuda-sim" and report["training"]["equal_bits"]
    assert {check["case"] for check in report["checks"]} == {case.name for case in FEW}


@pytest.mark.parametrize("fault", ["value", "bits", "crash"])
def test_a_device_that_is_wrong_is_found_out(fault, monkeypatch, tmp_path, capsys):
    calls = []

    def function(x):
        calls.append(1)
        if device.current() == "reference":
            return x * 2.0
        if fault == "crash":
            raise RuntimeError("cudaErrorIllegalAddress\nand more")
        return x * (2.0 + (1e-3 if fault == "value" or len(calls) % 7 == 0 else 0.0))

    case = Case("doubled", function, ((3, 5),))
    monkeypatch.setattr(selfcheck, "findings", lambda name: values.findings(name, (case,)))
    target = tmp_path / "found.json"
    assert main(["selfcheck", "--device", "cpu", "--json", str(target)]) == 1
    out = capsys.readouterr().out
    assert "✗ doubled" in out and "something differs" in out
    assert not json.loads(target.read_text())["ok"]
    if fault == "crash":
        assert "cudaErrorIllegalAddress" in out and "and more" not in out


def test_the_cases_reach_every_shape_that_is_awkward():
    inputs = {case.name: case.inputs(np.float32) for case in selfcheck.CASES}
    assert len(inputs) == len(selfcheck.CASES)  # no name twice
    assert any(0 in x.shape for tensors in inputs.values() for x in tensors)
    assert any(np.isnan(x.numpy()).any() for tensors in inputs.values() for x in tensors)
