"""The real CuPy has every name that the GPU path takes from it, and takes the same arguments.

CuPy can be imported without a GPU and computes nothing there. So what minifcn asks of it is
gathered twice: from the text, by each attribute of an array module (`xp.empty(…)`); and from a run
of the self-check's cases on the simulated GPU, by each method and each of NumPy's functions that an
array is given to. Every such call must fit the signature that CuPy gives.
"""

import ast
import inspect
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import minifcn
from minifcn import device, launch, optim, selfcheck, simulator
from minifcn.data.feed import feed
from minifcn.data.loader import Batch
from minifcn.tensor import Tensor
from minifcn.training.iou_loss import soft_iou_loss
from tests.simulated import needs_compiler

pytestmark = pytest.mark.oracle
cupy = pytest.importorskip("cupy", reason="CuPy is not installed (extras cuda12, cuda13)")
SIM = "cuda-sim"

ROOM = Path(minifcn.__file__).parent
FILES = [*launch.FOLDER.glob("*.py"), *ROOM.rglob("*.py")]
FILES = [file for file in FILES if "simulator" not in file.parts]

#: variables that hold an array module, and calls that give one
MODULES = ("xp", "gpu", "cupy")
MAKERS = ("device.array_module", "device.module", "array_module", "_cupy")


# -- what CuPy says of itself ----------------------------------------------------------------------


def signature(theirs):
    """A function's signature; Cython keeps its own in the first line of the docstring."""
    try:
        found = inspect.signature(theirs)
    except (TypeError, ValueError):
        found = None
    kinds = {p.kind for p in found.parameters.values()} if found else set()
    if found and inspect.Parameter.VAR_KEYWORD not in kinds:
        return found
    if isinstance(theirs, type(cupy.add)):  # its docstring gives the names, not all of them
        given = ", ".join(f"x{i}" for i in range(theirs.nin))
        return read(f"({given}, /, out=None, *, casting=None, dtype=None)")
    if inspect.isclass(theirs) and found:
        return signature(theirs.__init__)
    said = re.match(r"[\w.]+(\(.*\))(?: -> .*)?$", (theirs.__doc__ or "").strip().split("\n")[0])
    assert said, f"CuPy does not say what {theirs} takes"
    # Cython names types before the names: "Py_ssize_t axis", "str code=None"
    return read(re.sub(r"([(,]\s*)(?:\w+ )+(\w+)(?=[,=)])", r"\1\2", said[1]))


def read(text):
    """ "(a, b=1)" as a signature."""
    namespace = {}
    exec(f"def function{text}: pass", namespace)
    return inspect.signature(namespace["function"])


def fits(theirs, positional, keywords, bound=False):
    """Why so many arguments, and others of these names, do not fit; None if they do."""
    try:
        signature(theirs).bind(*[None] * (positional + bound), **dict.fromkeys(keywords))
    except TypeError as error:
        return str(error)
    return None


# -- what the text asks for ------------------------------------------------------------------------


def dotted(node):
    """`a.b.c` as ("a", ["b", "c"]), with the innermost node first."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return node, names[::-1]


def gives_a_module(node, names):
    if isinstance(node, ast.Name):
        return node.id in names
    if not isinstance(node, ast.Call):
        return False
    return ast.unparse(node.func) in MAKERS


def assigned(tree):
    """Names of variables that a module is assigned to, alone or among others."""
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign):
            continue
        for target in node.targets:
            alone = not isinstance(target, ast.Tuple) or not isinstance(node.value, ast.Tuple)
            pairs = [(target, node.value)] if alone else zip(target.elts, node.value.elts)
            found |= {t.id for t, v in pairs if isinstance(t, ast.Name) and gives_a_module(v, ())}
    return found


def taken_from_modules(text):
    """(line, dotted name, None or (positional arguments, keywords)) of what a text takes."""
    tree = ast.parse(text)
    names = {*MODULES, *assigned(tree)}
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    inner = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or id(node) in inner and id(node) not in calls:
            continue
        root, path = dotted(node)
        if gives_a_module(root, names):
            call = calls.get(id(node))
            starred = call and any(isinstance(a, ast.Starred) for a in call.args)
            how = (len(call.args), [k.arg for k in call.keywords]) if call and not starred else None
            yield node.lineno, ".".join(path), how


TAKEN = [
    (f"{file.name}:{line}", name, how)
    for file in FILES
    for line, name, how in taken_from_modules(file.read_text())
    if file.name != "ahead.py"
]


def find(name):
    """What CuPy has under a dotted name; of a result its class would be asked."""
    found = cupy
    for part in name.split("."):
        found = getattr(found, part)
    return found


def test_the_text_is_read():
    """An import under another name would hide what it takes."""
    assert len(TAKEN) > 50
    names = {name for _, name, _ in TAKEN}
    assert {"empty", "ascontiguousarray", "RawModule", "cuda.Stream", "concatenate"} <= names
    text = "a, b = device.array_module(x), 3\na.emptyy(3)\ny = array_module(x).full(n, fill=1)"
    assert [name for _, name, _ in taken_from_modules(text)] == ["emptyy", "full"]


@pytest.mark.parametrize("where, name, how", TAKEN, ids=[f"{w} {n}" for w, n, _ in TAKEN])
def test_every_name_that_the_text_takes(where, name, how):
    theirs = find(name)
    if how is not None and callable(theirs):
        assert fits(theirs, *how) is None, (where, name, how)


# -- what a run asks for ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def asked():
    """Of a run, every call's (method or function, name, positional, keywords); where it stands."""
    calls = {}
    patch = pytest.MonkeyPatch()

    def note(kind, name, positional, keywords, depth=2):
        frame = sys._getframe(depth)
        if not frame.f_globals["__name__"].startswith("minifcn.simulator"):
            key = kind, name, positional, tuple(sorted(keywords))
            calls.setdefault(key, f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}")

    def method(name, plain):
        def noted(self, *inputs, **settings):
            note("method", name, len(inputs), settings)
            return plain(self, *inputs, **settings)

        return noted

    def function(self, function, types, inputs, settings):
        note("function", function.__name__, len(inputs), settings)
        return plain_function(self, function, types, inputs, settings)

    def ufunc(self, ufunc, how, *inputs, **settings):
        note("function", ufunc.__name__, len(inputs), settings)
        assert how == "__call__", f"CuPy's ufuncs have no {how}"
        return plain_ufunc(self, ufunc, how, *inputs, **settings)

    plain_function = simulator.ndarray.__array_function__
    plain_ufunc = simulator.ndarray.__array_ufunc__
    for name, plain in vars(simulator.ndarray).items():
        if inspect.isfunction(plain) and not name.startswith("_"):
            patch.setattr(simulator.ndarray, name, method(name, plain))
    patch.setattr(simulator.ndarray, "__array_function__", function)
    patch.setattr(simulator.ndarray, "__array_ufunc__", ufunc)
    try:
        whole_run()
    finally:
        patch.undo()
    return calls


def whole_run():
    """The self-check's cases with their gradients, training steps, what else touches arrays."""
    for case in selfcheck.CASES:
        inputs = [
            Tensor(device.move(x.data, SIM), x.requires_grad) for x in case.inputs(np.float32)
        ]
        output = case.function(*inputs)
        if output.requires_grad:
            output.sum().backward()
    selfcheck.step(SIM)()
    x = Tensor(np.ones((2, 3, 4, 4), np.float32)).to(SIM)
    weight = Tensor(x.data, requires_grad=True)
    optimizer = optim.SGD([weight], 0.1, 0.9)
    (weight.mean((2, 3)).var(0) + weight.max(1).mean() + x[:, 1:].min(1).sum()).sum().backward()
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    soft_iou_loss(weight, device.move(np.ones((2, 4, 4), np.int64), SIM), 255).backward()
    assert x.argmax(1).shape and repr(x) and x.to(np.float64).cpu().dtype == np.float64
    pictures = np.ones((2, 3, 4, 4), np.float32)
    batch = Batch(pictures, np.ones((2, 4, 4), np.int64), ())
    assert [fed.images.shape for fed in feed([batch] * 2, SIM)] == [pictures.shape] * 2


@needs_compiler
def test_every_call_of_a_run_fits(asked):
    assert len(asked) > 40
    wrong = {}
    for (kind, name, positional, keywords), where in asked.items():
        owner = cupy.ndarray if kind == "method" else cupy
        theirs = getattr(owner, name, None)
        why = "missing" if theirs is None else fits(theirs, positional, keywords, kind == "method")
        if why:
            wrong[where, name] = why
    assert not wrong


def test_a_call_that_does_not_fit_is_seen():
    assert fits(cupy.ndarray.sum, 0, ["axis", "keepdims"], bound=True) is None
    assert "keepdim" in fits(cupy.ndarray.sum, 0, ["keepdim"], bound=True)
    assert "where" in fits(cupy.add, 2, ["where"])
    assert fits(cupy.concatenate, 5, []) and fits(cupy.cuda.Event, 0, ["timing"])


def test_the_command_for_the_sanitizer_is_one():
    """It is only printed; so what it says to Python is read here."""
    from minifcn.cli.main import main
    from minifcn.cli.selfcheck import SANITIZER

    said = re.search(r'-c "(.*)"', SANITIZER)[1]
    names = {ast.unparse(node.func) for node in ast.walk(ast.parse(said)) if hasattr(node, "func")}
    assert names == {"cupy.cuda.set_allocator", "main"} and callable(main)
    assert fits(cupy.cuda.set_allocator, 1, []) is None


# -- what the stand-in offers ----------------------------------------------------------------------


def test_the_stand_in_offers_nothing_that_cupy_lacks():
    pairs = {
        simulator.ndarray: cupy.ndarray,
        simulator.RawModule: cupy.RawModule,
        simulator.RawKernel: cupy.RawKernel,
        simulator.cuda.Device: cupy.cuda.Device,
        simulator.cuda.Event: cupy.cuda.Event,
        type(simulator.zeros(1).flags): find("_core.flags.Flags"),
    }
    missing = [name for name in simulator.CUPY_NAMES if not hasattr(cupy, name)]
    for ours, theirs in pairs.items():
        names = [name for name in vars(ours) if not name.startswith("_")]
        missing += [f"{ours.__name__}.{name}" for name in names if not hasattr(theirs, name)]
    assert set(missing) <= {"RawModule.machine"}, "which the simulator's own code asks for"


OFFERED = [
    (f"{prefix}{name}", function, getattr(theirs, name))
    for prefix, ours, theirs in (
        ("", simulator.creation, cupy),
        ("ndarray.", simulator.ndarray, cupy.ndarray),
        ("cuda.", simulator.cuda, cupy.cuda),
        ("Stream.", simulator.cuda.Stream, cupy.cuda.Stream),
        ("Event.", simulator.cuda.Event, cupy.cuda.Event),
        ("RawModule.", simulator.RawModule, cupy.RawModule),
    )
    for name, function in vars(ours).items()
    if inspect.isfunction(function) and not name.startswith("_") and hasattr(theirs, name)
]


@pytest.mark.parametrize("name, ours, theirs", OFFERED, ids=[name for name, *_ in OFFERED])
def test_arguments_of_the_stand_in_stand_in_cupys_order(name, ours, theirs):
    wanted = list(signature(theirs).parameters)
    parameters = inspect.signature(ours).parameters.values()
    given = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "self"]
    by_name = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    wanted = [name for name in wanted if name != "self"]
    assert wanted[: len(given)] == given and by_name <= set(wanted)
