"""Which functions Python may call: one without code for that crashes the interpreter."""

import ast
import re
from pathlib import Path

from minifcn.kernels import compiled

KERNELS = Path(compiled.__file__).parent
COMPILED = {"serial", "kernel", "parallel", "njit", "intrinsic"}


def called_from_python(text: str, serial: set[str]) -> list[str]:
    """Those of some functions that are called where the code is not compiled."""
    found: list[str] = []
    by_address = set(re.findall(r"machine_code\((\w+)", text))

    def look(node: ast.AST) -> None:
        if isinstance(node, ast.FunctionDef):
            names = {getattr(getattr(d, "func", d), "id", "") for d in node.decorator_list}
            if names & COMPILED or node.name in by_address:
                return
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in serial:
            found.append(node.func.id)
        for child in ast.iter_child_nodes(node):
            look(child)

    look(ast.parse(text))
    return found


def serial_functions(text: str) -> set[str]:
    tree = ast.parse(text).body
    functions = (node for node in tree if isinstance(node, ast.FunctionDef))
    return {f.name for f in functions if "serial" in map(ast.unparse, f.decorator_list)}


def test_no_function_for_compiled_ones_is_called_from_python() -> None:
    texts = {path.name: path.read_text() for path in KERNELS.glob("*.py")}
    everywhere = set().union(*map(serial_functions, texts.values()))
    assert {"_some_tiles", "filters_of", "add_rows", "taken"} <= everywhere
    for name, text in texts.items():
        imported = {
            alias.asname or alias.name
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
            if alias.name in everywhere
        }
        reached = serial_functions(text) | imported
        assert called_from_python(text, reached) == [], name


def test_such_a_call_is_found() -> None:
    text = "@serial\ndef f(): pass\n@kernel\ndef g(): f()\ndef h(): f()\n"
    assert serial_functions(text) == {"f"} and called_from_python(text, {"f"}) == ["f"]
