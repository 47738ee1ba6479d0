"""The layers of the package: who may import whom, how, and how long a file may be."""

from __future__ import annotations

import ast
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parent.parent / "src" / "liftnn"
FILES = sorted(p.relative_to(ROOT).as_posix() for p in ROOT.rglob("*.py"))

LAYERS = (
    ("errors.py", "_src/__init__.py", "_src/annotations.py", "_src/publish.py"),
    (
        "_src/trees.py",
        "_src/lazy.py",
        "_src/tracebacks.py",
        "_src/printing.py",
        "_src/type_variables.py",
        "_src/garbage_collection.py",
        "_src/stack_room.py",
        "_src/instances.py",
        "_src/files.py",
        "_src/foreign_names/",
    ),
    ("_src/filters.py", "_src/static_values/"),
    ("_src/variables/",),
    ("_src/graph/",),
    ("_src/modules/",),
    ("_src/captures/",),
    ("_src/lifting/",),
    ("_src/prefixes/",),
    ("_src/compilation/",),
    ("_src/autodiff/",),
    ("_src/mapping/",),
    ("_src/control_flow/",),
    (
        "_src/samplers.py",
        "_src/rngs.py",
        "_src/split_rngs.py",
        "_src/reseed.py",
        "_src/optim/",
        "_src/metrics.py",
        "_src/multi_metric.py",
        "_src/sharding/",
        "_src/intermediates.py",
        "_src/nn/",
        "_src/checkpoints/",
    ),
    ("_src/weights/", "_src/summary/"),
    ("_src/compat/",),
    ("_pickled.py", "_roles.py", "initializers.py"),
    ("__init__.py", "nn/"),
    ("compat/",),
)


def layer_of(file: str) -> int:
    """The number of the layer that a file belongs to."""
    return next(i for i, layer in enumerate(LAYERS) if any(file == x or file.startswith(x) for x in layer))


def tree_of(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text())


def file_of(module: str) -> str | None:
    """The file of a module of the package, None for others."""
    if module != "liftnn" and not module.startswith("liftnn."):
        return None
    path = module.replace("liftnn", "", 1).lstrip(".").replace(".", "/")
    for candidate in (f"{path}.py", f"{path}/__init__.py" if path else "__init__.py"):
        if candidate in FILES:
            return candidate
    return None


def start_of(text: ast.expr, constants: dict[str, str]) -> str:
    """The beginning of a text in the code, as far as it is known: that of an f-string before what is filled in."""
    match text:
        case ast.Constant(value=str(value)):
            return value
        case ast.JoinedStr(values=[first, *_]):
            return start_of(first, constants)
        case ast.Name(id=name):
            return constants.get(name, "")
        case _:
            return ""


def imports_by_name_of(file: str) -> Iterator[str]:
    """The files that a file imports by `import_module`, and the folder of those whose name it puts together."""
    tree = tree_of(file)
    constants = {
        x.targets[0].id: x.value.value
        for x in tree.body
        if isinstance(x, ast.Assign)
        and isinstance(x.targets[0], ast.Name)
        and isinstance(x.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            name = start_of(node.args[0], constants)
            folder = file_of(name.rpartition(".")[0]) if name.endswith(".") else None
            yield from filter(None, (folder or file_of(name),))


def imports_of(file: str) -> Iterator[str]:
    """The files of the package that a file imports."""
    yield from imports_by_name_of(file)
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if file_of(name) else node.module for name in names]
        else:
            continue
        yield from filter(None, map(file_of, names))


def test_every_file_belongs_to_a_layer() -> None:
    assert [f for f in FILES if not any(f == x or f.startswith(x) for layer in LAYERS for x in layer)] == []


@pytest.mark.parametrize("file", FILES)
def test_imports_point_down_the_layers(file: str) -> None:
    assert [x for x in imports_of(file) if layer_of(x) > layer_of(file)] == []


IMPORT_THE_PACKAGE = ("__init__.py", "_src/__init__.py", "compat/nnx/__init__.py")  # a stand-in has all names


@pytest.mark.parametrize("file", [f for f in FILES if f not in IMPORT_THE_PACKAGE])
def test_nobody_imports_the_package_itself(file: str) -> None:
    assert "__init__.py" not in imports_of(file)


@pytest.mark.thorough
def test_no_files_import_each_other_in_a_circle() -> None:
    graph = {file: set(imports_of(file)) - {file} for file in FILES}
    while graph:
        free = [file for file, imports in graph.items() if not imports & graph.keys()]
        assert free, f"a circle among {sorted(graph)}"
        for file in free:
            del graph[file]


@pytest.mark.parametrize("file", FILES)
def test_imports_are_absolute_and_at_the_top(file: str) -> None:
    tree = tree_of(file)
    imports = [n for n in ast.walk(tree) if isinstance(n, (ast.Import, ast.ImportFrom))]
    for_type_checkers = [
        n
        for x in tree.body
        if isinstance(x, ast.If) and ast.unparse(x.test) == "TYPE_CHECKING"
        for n in x.body
    ]
    assert [ast.unparse(n) for n in imports if n not in (*tree.body, *for_type_checkers)] == []
    assert [ast.unparse(n) for n in imports if isinstance(n, ast.ImportFrom) and n.level] == []


LOADED_WHEN_USED = {"_src/compilation/checkify.py": "jax.experimental"}  # the only home that JAX gives it


@pytest.mark.parametrize("file", FILES)
def test_only_public_jax_is_used(file: str) -> None:
    text = (ROOT / file).read_text()
    names = ("jax._src", "jax.experimental", "jax.core", "jax.interpreters")
    assert [name for name in names if name in text and name != LOADED_WHEN_USED.get(file)] == []


@pytest.mark.thorough
def test_nothing_experimental_is_loaded_by_the_import() -> None:
    code = "import sys, jax, optax; before = {*sys.modules}; import liftnn; "
    code += "[getattr(liftnn, name) for name in dir(liftnn)]; print([*{*sys.modules} - before])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "liftnn._src.compilation.checkify" in loaded
    assert "jax.experimental.checkify" not in loaded


FOLDERS = [
    f for f in FILES if f.startswith("_src/") and f.endswith("/__init__.py") and f != "_src/__init__.py"
]


@pytest.mark.parametrize("file", [f for f in FOLDERS if f != "_src/nn/__init__.py"])
def test_a_folder_says_what_each_of_its_files_does(file: str) -> None:
    named = set(re.findall(r"`(\w+\.py)`", ast.get_docstring(tree_of(file)) or ""))
    assert named == {p.name for p in (ROOT / file).parent.glob("*.py")} - {"__init__.py"}


@pytest.mark.parametrize("file", FILES)
def test_a_file_has_at_most_400_lines_and_says_first_what_it_is(file: str) -> None:
    assert len((ROOT / file).read_text().splitlines()) <= 400
    assert ast.get_docstring(tree_of(file))
