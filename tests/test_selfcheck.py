"""The self-check's cases: every kernel that there is runs in one of them, and agrees."""

import re

import numpy as np
import pytest

from minifcn import launch, selfcheck
from minifcn.check import parity
from minifcn.selfcheck.values import RTOL
from tests.simulated import needs_compiler

SIM = "cuda-sim"
#: of the textbook's convolution, which makes the column matrix: no other case starts them
STUDY = {("im2col.cu", "im2col"), ("im2col.cu", "col2im")}


def declared():
    """(file, kernel) of every kernel, by the word that makes one; not by the launcher's reading."""
    texts = {path.name: path.read_text() for path in launch.FOLDER.glob("*.cu")}
    found = {
        (file, re.match(r"\s*(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\(", rest)[1])
        for file, text in texts.items()
        for rest in text.split("__global__ void")[1:]
    }
    assert len(found) == sum(text.count("__global__") for text in texts.values()) > 40
    return found


@pytest.fixture(scope="module")
def started():
    """The kernels that each case starts, in float32 and in float64; and those of a training step.

    Along the way each case is held against the reference: what runs, agrees.
    """
    kernels = {}
    for case in selfcheck.CASES:
        with launch.counted() as launches:
            for dtype in (np.float32, np.float64):
                found = parity(
                    case.function,
                    case.inputs(dtype),
                    devices=("reference", SIM),
                    rtol=RTOL[dtype],
                    title=case.name,
                )
                assert found, str(found)
        kernels[case.name] = {(one.file, one.name) for one in launches}
    with launch.counted() as launches:
        selfcheck.step(SIM)()
    return kernels | {"a training step": {(one.file, one.name) for one in launches}}


@needs_compiler
def test_every_kernel_is_started(started):
    assert declared() == set().union(*started.values())


@needs_compiler
def test_the_study_versions_have_a_case_of_their_own(started):
    textbook = [case for case, kernels in started.items() if kernels & STUDY]
    assert [case for case in textbook if "im2col" not in case] == [] != textbook


@needs_compiler
def test_second_derivatives_are_checked_by_differences():
    smooth = [c for c in selfcheck.CASES if c.smooth and "derivative" in c.name]
    found = [finding for finding in selfcheck.findings(SIM, tuple(smooth)) if not finding.ok]
    assert len(smooth) == 2 and found == []


def test_names_of_cases_are_theirs_alone():
    names = [case.name for case in selfcheck.CASES]
    assert len(set(names)) == len(names)
