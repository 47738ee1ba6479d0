"""Each public name is exported in plain sight, documented as its signature says, and stands in the API reference."""

import ast
import builtins
import importlib.util
import inspect
import pathlib
import re
import subprocess
import sys
import types
import typing
from collections import Counter

import pytest

import liftnn
from liftnn import errors
from liftnn._src import filters
from liftnn._src.variables import variable_types

ROOT = pathlib.Path(__file__).parents[1]
PUBLIC = {
    n: getattr(liftnn, n) for n in liftnn.__all__ if not isinstance(getattr(liftnn, n), types.ModuleType)
}
OURS = {name: x for name, x in PUBLIC.items() if getattr(x, "__module__", "").startswith("liftnn")}
CLASSES = {name: x for name, x in OURS.items() if isinstance(x, type)}
FUNCTIONS = {name: x for name, x in OURS.items() if inspect.isfunction(x)}
METHODS = {
    f"{name}.{key}": inspect.unwrap(getattr(cls, key))
    for name, cls in CLASSES.items()
    for key, x in vars(cls).items()
    if isinstance(x, (types.FunctionType, classmethod, staticmethod))
    and (key == "__call__" or not key.startswith("_"))
}
SECTIONS = ("Args", "Returns", "Raises", "Example", "References")
REFERENCE = "\n".join(
    page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs" / "api").glob("*.md"))
)


def each(objects):
    """A parameter for each of some objects by name."""
    return pytest.mark.parametrize("x", [pytest.param(x, id=name) for name, x in objects.items()])


def sections_of(x):
    """The sections of a docstring in Google's style by title: the lines of each, without the indentation."""
    sections = {}
    lines = []
    for line in inspect.cleandoc(x.__doc__ or "").splitlines():
        title = re.fullmatch(r"([A-Z]\w+):", line)
        if title is not None:
            lines = sections.setdefault(title[1], [])
        elif line and not line.startswith(" "):
            lines = []
        else:
            lines.append(line[2:])
    return sections


def entries_of(lines):
    """The names that the entries of a section start with."""
    return [line.partition(":")[0].replace("\\", "") for line in lines if line and not line.startswith(" ")]


def parameters_of(function):
    """The parameters of a function as a docstring names them."""
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    parameters = inspect.signature(function).parameters.values()
    return [stars.get(p.kind, "") + p.name for p in parameters if p.name not in ("self", "cls")]


def returns_something(function):
    """Whether the annotation of a function says that it returns something."""
    return inspect.signature(function).return_annotation not in (None, "None", inspect.Parameter.empty)


def exported(module):
    """The public classes and functions that a module defines."""
    return {
        name
        for name, x in vars(module).items()
        if not name.startswith("_") and getattr(x, "__module__", None) in (module.__name__, "liftnn")
    }


def test_the_package_imports_each_name_in_plain_sight():
    tree = ast.parse((ROOT / "src" / "liftnn" / "__init__.py").read_text(encoding="utf-8"))
    _, *body = tree.body
    for node in body:
        if isinstance(node, ast.ImportFrom) and node.module != "typing":
            assert all(alias.asname is None for alias in node.names), ast.unparse(node)
            assert node.level == 0
            assert node.module.partition(".")[0] == "liftnn"
    for_type_checkers = next(node.body for node in body if isinstance(node, ast.If))
    imports = [node for node in (*body, *for_type_checkers) if isinstance(node, ast.ImportFrom)]
    imported = {a.name for node in imports for a in node.names}
    assert imported - {"_pickled", "_roles", "TYPE_CHECKING"} == {*liftnn.__all__}


def test_what_is_loaded_at_first_use_is_what_type_checkers_import():
    tree = ast.parse((ROOT / "src" / "liftnn" / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imported = {
        alias.name: node.module.removeprefix("liftnn._src.") for node in block.body for alias in node.names
    }
    assert imported.pop("initializers") == "liftnn"
    assert imported.keys() == liftnn._HOMES.keys()
    assert all(
        file == home or file.startswith(f"{home}.")
        for name, file in imported.items()
        for home in [liftnn._HOMES[name]]
    )


LOADED = """
import sys, jax, jax.numpy as jnp
before = {{*sys.modules}}
import liftnn
assert not [m for m in sys.modules if m.startswith("liftnn._src.nn.")], "layers are loaded at first use"
assert "optax" not in sys.modules, "optax is loaded with Optimizer"
assert "jax.extend" not in {{*sys.modules}} - before, "jax.extend is loaded with the first class of layers"
{0}
"""


@pytest.mark.thorough
@pytest.mark.parametrize(
    "program",
    [
        "names = [getattr(liftnn, name) for name in dir(liftnn)]",
        "from liftnn import *",
        "from liftnn import Linear, scan, initializers",
        "assert liftnn.initializers.zeros(jax.random.key(0), (2,)).shape == (2,)",
        "with jax.check_tracer_leaks(): jax.jit(lambda x: [getattr(liftnn, n) for n in liftnn.__all__] and x)(1)",
        "liftnn.jit(lambda x: liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))(x))(jnp.ones((1, 2)))",
        "import pickle; pickle.loads(b'cliftnn\\nLinear\\n.')(2, 3, rngs=liftnn.Rngs(0))",
        "import pickle; assert pickle.loads(b'cliftnn._pickled\\nCarry\\n.') is liftnn.Carry",
        "import threading; [threading.Thread(target=lambda: liftnn.Linear).start() for _ in range(8)]",
    ],
)
@pytest.mark.sample(10)
def test_names_are_loaded_at_first_use_in_a_new_process(program):
    done = subprocess.run([sys.executable, "-c", LOADED.format(program)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_name_that_does_not_exist_raises_as_in_any_module():
    with pytest.raises(AttributeError, match="module 'liftnn' has no attribute 'Liner'"):
        liftnn.Liner  # noqa: B018


def test_dir_shows_what_is_public_and_nothing_else():
    assert {name for name in dir(liftnn) if not name.startswith("_")} == {*liftnn.__all__}
    modules = {name for name in dir(liftnn) if isinstance(getattr(liftnn, name), types.ModuleType)}
    assert modules == {"errors", "initializers"}


@pytest.mark.parametrize(
    "name", ["variables", "graph", "lifting", "compilation", "mapping", "trees", "filters"]
)
def test_internal_packages_do_not_answer(name):
    assert not hasattr(liftnn, name)
    assert importlib.util.find_spec(f"liftnn.{name}") is None


@each({**CLASSES, **FUNCTIONS})
def test_what_is_public_lives_in_liftnn(x):
    assert x.__module__ == "liftnn"


INTERNAL = re.compile(r"call_otherwise|stand_in|open_|close_|plans?$|carried|leading|stored|output_of|purify")


@pytest.mark.parametrize(
    "make",
    [
        lambda: liftnn.Linear(1, 1, rngs=liftnn.Rngs(0)),
        lambda: liftnn.jit(lambda x: x),
        lambda: liftnn.vmap(lambda x: x),
        lambda: liftnn.grad(lambda x: x),
        lambda: liftnn.remat(lambda x: x),
        lambda: liftnn.custom_vjp(lambda x: x),
        lambda: liftnn.vjp(lambda v: v.value, liftnn.Param(1.0))[1],
    ],
)
def test_users_see_no_internal_methods(make):
    assert [n for n in dir(make()) if not n.startswith("_") and INTERNAL.search(n)] == []


@pytest.mark.parametrize("module", [errors, variable_types], ids=lambda module: module.__name__)
def test_every_error_and_every_kind_of_variable_is_exported(module):
    missing = {name for name in exported(module) if getattr(liftnn, name, None) is not getattr(module, name)}
    assert missing == set()


def test_every_filter_is_exported():
    classes = {name for name in exported(filters) if isinstance(getattr(filters, name), type)}
    assert classes == {
        "All",
        "Any",
        "Not",
        "OfType",
        "PathContains",
        "WithTag",
    }  # the rest stands for `...` and None


@pytest.mark.parametrize(
    "base", [liftnn.Module, liftnn.Variable, liftnn.LiftError], ids=lambda base: base.__name__
)
def test_every_subclass_that_the_package_defines_is_exported(base):
    found, todo = set(), [base]
    while todo:
        cls = todo.pop()
        todo += cls.__subclasses__()
        is_own = cls.__module__.partition(".")[0] == "liftnn" and not cls.__name__.startswith("_")
        is_own &= not cls.__module__.startswith("liftnn.compat.")
        is_double = cls.__qualname__ in [x.__qualname__ for x in cls.__bases__]
        if (
            is_own and not is_double
        ):  # an error of two classes, or the class of an object whose calls are recorded
            found.add(cls)
    assert found <= set(CLASSES.values())


@each(OURS)
def test_it_has_a_docstring_that_starts_with_one_sentence(x):
    if x is liftnn.Empty:
        return  # a constant
    first, _, rest = inspect.cleandoc(x.__doc__ or "").partition("\n")
    assert first.endswith(".")
    assert not rest.strip() or rest.startswith("\n")


@each({**FUNCTIONS, **METHODS})
def test_args_are_the_parameters_in_order(x):
    documented = entries_of(sections_of(x).get("Args", []))
    if x.__name__ == "__call__" and not documented:
        return  # a call that says in one line what it does
    assert documented == parameters_of(x)


@each(CLASSES)
def test_args_of_a_class_are_those_of_its_constructor(x):
    documented = entries_of(sections_of(x).get("Args", []))
    constructor = next((c for c in x.__mro__ if "__init__" in vars(c) or hasattr(c, "_fields")), object)
    inherited = constructor is not x  # then they are documented there
    assert (inherited and not documented) or documented == parameters_of(x)


@each(FUNCTIONS)
def test_returns_is_there_where_something_is_returned(x):
    assert ("Returns" in sections_of(x)) == returns_something(x)


@each({**OURS, **METHODS})
def test_raises_names_errors_of_the_package_and_builtins(x):
    raised = entries_of(sections_of(x).get("Raises", []))
    assert [name for name in raised if not hasattr(errors, name) and not hasattr(builtins, name)] == []


@each({**OURS, **METHODS})
def test_sections_are_known_and_in_order(x):
    found = list(sections_of(x))
    assert found == [title for title in SECTIONS if title in found]


@each({name: x for name, x in {**FUNCTIONS, **CLASSES}.items() if x not in vars(errors).values()})
def test_it_has_an_example(x):
    assert any(line.startswith(">>> ") for line in sections_of(x).get("Example", []))


@each({name: x for name, x in CLASSES.items() if issubclass(x, liftnn.LiftError)})
def test_an_error_has_its_examples_on_the_page_of_errors(x):
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    assert f"\n## {x.__name__}\n" in page


RETURNED = {"CustomJvp", "CustomVjp", "Jitted", "SplitStreams"}
"""Classes of return values, which the reference shows beside the public names."""


def test_each_name_stands_once_in_the_reference():
    directives = Counter(re.findall(r"^::: liftnn\.(\w+)$", REFERENCE, re.MULTILINE))
    constants = re.findall(r"^## `liftnn\.(\w+)` \{ #liftnn\.\1 \}$", REFERENCE, re.MULTILINE)
    borrowed = re.findall(r"^\| `liftnn\.(\w+)`\[\]\(\)\{ #liftnn\.\1 \} \|", REFERENCE, re.MULTILINE)
    assert directives + Counter(constants + borrowed) == Counter([*PUBLIC, *RETURNED])
    assert set(borrowed) == PUBLIC.keys() - OURS.keys()


@each(CLASSES)
def test_the_annotations_of_a_class_resolve_to_types(x):
    hints = typing.get_type_hints(x)
    assert not any(isinstance(hint, str) or hint is liftnn.Any for hint in hints.values())
    assert [name for name in hints if name.startswith("_")] == []


@pytest.mark.parametrize("base", [liftnn.Module, liftnn.Linear, liftnn.Metric])
def test_the_annotations_of_a_module_of_a_user_resolve_beside_those_of_its_base(base):
    class Own(base):
        size: int
        names: "typing.Any"

    assert typing.get_type_hints(Own) == {
        **typing.get_type_hints(base),
        "size": int,
        "names": typing.Any,
    }
