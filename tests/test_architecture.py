"""The shape of the code: who may import whom, how long things are, what an import costs."""

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import numtape

ROOT = Path(numtape.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
each_file = pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))

# What each part may import of the others; the facade `numtape` is for users, and for the top.
LAYERS = {
    "ir": set(),
    "tracer": {"ir"},
    "passes": {"ir"},
    "runtime": {"ir"},
    "inspect": {"ir", "passes", "runtime"},
    "compile": {"ir", "tracer", "passes", "runtime", "inspect"},
    "functions": {"ir", "tracer"},
    "lazy": set(),  # how to load a module late: anybody may
    "nn": {"ir", "tracer", "functions"},
    "optim": {"ir", "tracer", "functions", "nn"},
    "transformer": {"ir", "tracer", "functions", "compile", "nn", "optim"},
}
LAYERS["facade"] = {*LAYERS}
LAYERS["training"] = {*LAYERS} - {"passes", "runtime"}
LAYERS["cli"] = {*LAYERS} - {"passes", "runtime"}
MODULES = {
    **dict.fromkeys(
        ("compiler", "caching", "tape", "calls", "turns", "budget", "options", "checking"),
        "compile",
    ),
    "__init__": "facade",
    "__main__": "cli",
}


def tree(path):
    return ast.parse(path.read_text())


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("numtape", *(p for p in parts if p != "__init__")))


NAMES = {name_of(p): p for p in FILES}


def imported(path):
    """The modules of numtape that a file imports, as a reader would resolve them."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name in NAMES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if whole in NAMES:
                    yield whole
                elif node.module in NAMES:
                    yield node.module


def names_of_others(path):
    """What a file takes from other modules of numtape, by import or as `module.name`."""
    modules = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.module in NAMES:
            for alias in node.names:
                yield alias.name
                if f"{node.module}.{alias.name}" in NAMES:
                    modules.add(alias.asname or alias.name)
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", None) in modules:
            yield node.attr


@each_file
def test_private_names_stay_in_their_module(path):
    private = [n for n in names_of_others(path) if n.startswith("_") and n != "__version__"]
    assert private == []


def layer_of(name):
    part = name.split(".")[1] if "." in name else "__init__"
    return MODULES.get(part, part)


@each_file
def test_imports_go_one_way(path):
    own = layer_of(name_of(path))
    for name in imported(path):
        other = layer_of(name)
        assert other in LAYERS[own] | {own, "lazy"}, f"{own} imports {name}"


def test_there_are_no_circles():
    edges = {n: set(imported(p)) - {n} for n, p in NAMES.items()}
    done = set()
    while len(done) < len(edges):
        free = {n for n, targets in edges.items() if n not in done and targets <= done}
        assert free, f"a circle among {sorted(edges.keys() - done)}"
        done |= free


def functions(path):
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return [n for n in ast.walk(tree(path)) if isinstance(n, kinds)]


@each_file
def test_imports_stand_at_the_top(path):
    for function in functions(path):
        inner = [n for n in ast.walk(function) if isinstance(n, ast.Import | ast.ImportFrom)]
        assert not inner, f"{function.name} imports on line {inner[0].lineno}"


@each_file
def test_files_functions_and_lines_are_short(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 400
    assert [i for i, line in enumerate(lines, 1) if len(line) > 99] == []
    lengths = {f.name: f.end_lineno - f.lineno + 1 for f in functions(path)}
    assert {name: n for name, n in lengths.items() if n > 50} == {}


def test_most_functions_are_very_short():
    lengths = sorted(f.end_lineno - f.lineno + 1 for p in FILES for f in functions(p))
    assert lengths[len(lengths) * 9 // 10] <= 20


def undocumented(path):
    module = tree(path)
    if module.body and not ast.get_docstring(module):
        yield "the module"
    kinds = ast.FunctionDef | ast.ClassDef
    for node in module.body:
        is_public = isinstance(node, kinds) and not node.name.startswith("_")
        if is_public and not ast.get_docstring(node) and node.end_lineno - node.lineno > 3:
            yield node.name


@each_file
def test_what_is_public_says_what_it_does(path):
    assert list(undocumented(path)) == []


def test_public_names_have_docstrings():
    for name in numtape.__all__:
        public = getattr(numtape, name)
        if not isinstance(public, ModuleType):
            assert public.__doc__, name


HEAVY = ("matplotlib", "tokenizers", "safetensors", "tqdm", "graphviz", "sacrebleu", "hypothesis")


@pytest.mark.parametrize("module", HEAVY)
def test_import_loads_nothing_heavy(module):
    code = f"import sys, numtape; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nothing_is_said_at_import():
    command = [sys.executable, "-W", "error", "-c", "import numtape"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
