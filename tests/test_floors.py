"""The house's floors: a file imports only from floors below its own, and nothing unpickles."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import minifcn

FLOORS = [
    {"errors"},
    {"geometry", "device", "simulator"},
    {"launch"},
    {"kernels"},
    {"recording"},
    {"recomputation"},
    {"tensor", "metrics"},
    {"function"},
    {"conversion", "ownership", "graph"},
    {"data", "creation"},
    {"ops"},
    {"functional"},
    {"nn", "check", "optim"},
    {"models"},
    {"training", "study", "bench", "selfcheck"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
#: rooms on one floor that may still look at each other, one way
BESIDE = {
    ("device", "simulator"),
    ("graph", "ownership"),
    ("graph", "conversion"),
    ("training", "study"),
    ("bench", "study"),
    ("selfcheck", "bench"),
    ("selfcheck", "study"),
}


def installed_files():
    package = Path(minifcn.__file__).parent
    roots = [package, Path(minifcn.kernels.__file__).parent]
    return sorted({file for root in roots for file in root.rglob("*.py")})


def room_of(file):
    kernels = Path(minifcn.kernels.__file__).parent
    if file.is_relative_to(kernels):
        return "kernels"
    return file.relative_to(Path(minifcn.__file__).parent).parts[0].removesuffix(".py")


def imported_rooms(source):
    """The rooms that a file's import statements name, wherever in the file they stand."""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute, so that a reader sees where they lead"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            if parts[0] == "minifcn" and len(parts) > 1 and parts[1] in FLOOR:
                yield parts[1]


def wrong_imports(room, source):
    return [
        other
        for other in set(imported_rooms(source))
        if other != room and (room, other) not in BESIDE and FLOOR[other] >= FLOOR[room]
    ]


@pytest.mark.parametrize("file", installed_files(), ids=lambda file: f"{room_of(file)}/{file.name}")
def test_a_file_imports_only_from_floors_below(file):
    room = room_of(file)
    if room == "__init__":  # the front door names every room, and opens it when it is asked for
        return
    assert room in FLOOR, f"{file.name} stands on no floor: add it to FLOORS"
    assert not wrong_imports(room, file.read_text())


def test_an_upward_import_is_caught():
    assert wrong_imports("ops", "def f():\n    from minifcn.nn import Module") == ["nn"]
    assert wrong_imports("tensor", "from minifcn import ops") == ["ops"]
    assert wrong_imports("ops", "from minifcn.kernels.taps import Taps") == []


@pytest.mark.parametrize("file", installed_files(), ids=lambda file: f"{room_of(file)}/{file.name}")
def test_nothing_is_pickled(file):
    assert not runs_code_from_files(file.read_text())


def runs_code_from_files(source):
    """The ways in which a Python file could run what is in a data file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [a.name for a in node.names] + [getattr(node, "module", None) or ""]
            found += [
                m for m in modules if m.split(".")[0] in {"pickle", "shelve", "marshal", "dill"}
            ]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found += [node.func.id] if node.func.id in {"eval", "exec", "compile"} else []
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            found += [] if ast.unparse(node.value) == "False" else ["allow_pickle"]
    return found


def test_a_pickle_is_caught():
    assert runs_code_from_files("from pickle import loads") == ["pickle"]
    assert runs_code_from_files("np.load(f, allow_pickle=True)") == ["allow_pickle"]
    assert runs_code_from_files("eval(text)") == ["eval"]
    assert runs_code_from_files("np.load(f, allow_pickle=False); model.eval()") == []


def test_import_is_quick():
    """``import minifcn`` loads neither Numba nor Matplotlib: they are imported where used."""
    code = "import sys, minifcn; print(sorted({'numba', 'matplotlib', 'PIL'} & set(sys.modules)))"
    call = [sys.executable, "-c", code]
    result = subprocess.run(call, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
