"""The search for captured modules skips libraries that do not use liftnn, and functions that use nothing else."""

from __future__ import annotations

import functools
import importlib
import sys
import types
import weakref
from unittest import mock

import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from liftnn._src.captures.expand import expand
from liftnn._src.captures.search import captures_nothing, find_captured
from tests.same import assert_same
from tests.user_modules import Affine

X = jnp.ones(3)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Writes a package where packages are installed, and imports it."""
    folder = tmp_path / "site-packages"

    def write(name, **sources):
        (folder / name).mkdir(parents=True)
        for module, source in sources.items():
            (folder / name / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(folder)
        return importlib.import_module(name)

    before = set(sys.modules)
    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_search_does_not_go_through_a_library_that_knows_nothing_of_liftnn(install):
    chain = "\n".join(f"def f{i}(x): return f{i + 1}(x)" for i in range(500))
    library = install(
        "a_library", __init__="from a_library.chain import f0", chain=f"{chain}\ndef f500(x): return x"
    )
    with mock.patch("liftnn._src.captures.search.expand", side_effect=expand) as seen:
        find_captured([lambda x: library.f0(x)])
    assert seen.call_count < 10


@pytest.mark.parametrize(
    "knows",
    ["import liftnn", "from liftnn import grad", "from liftnn import Param; p = Param(0.0); del Param"],
)
def test_an_installed_package_that_uses_liftnn_is_searched(install, knows):
    install(
        "a_package",
        __init__="",
        net=knows,
        held="kept = []\ndef call(x):\n  kept[0].b.value = kept[0].b + x\n  return kept[0].w * x",
    )
    importlib.import_module("a_package.net")
    held = importlib.import_module("a_package.held")
    reference = Affine(2.0)
    held.kept.append(Affine(2.0))
    assert list(find_captured([held.call]).roots.values()) == held.kept
    f = liftnn.jit(held.call)
    for _ in range(2):
        reference.b.value = reference.b + X
        assert_same(f(X), reference.w * X)
        assert_same(held.kept[0], reference)
    held.kept[0] = Affine(3.0)
    assert_same(f(X), Affine(3.0).w * X)


def test_what_a_library_holds_without_knowing_it_is_found_when_it_is_used(install):
    library = install("a_registry", __init__="held = {}\ndef call(x): return held['model'](x)")
    library.held["model"], reference = Affine(2.0), Affine(2.0)
    f = liftnn.jit(lambda x: library.call(x))
    for _ in range(2):
        assert_same(f(X), reference(X))
        assert_same(library.held["model"], reference)
    library.held["model"].w.value, reference.w.value = jnp.full(3, 5.0), jnp.full(3, 5.0)
    assert_same(f(X), reference(X))
    library.held["model"] = Affine(7.0)
    assert_same(f(X), Affine(7.0)(X))


def test_a_function_that_a_library_has_wrapped_is_searched(install):
    library = install(
        "a_decorator", __init__="def wrap(f):\n  def wrapper(*args): return f(*args)\n  return wrapper"
    )
    model, reference = Affine(2.0), Affine(2.0)
    f = liftnn.jit(library.wrap(lambda x: model(x)))
    for _ in range(2):
        assert_same(f(X), reference(X))
        assert_same(model, reference)


# --- functions that obviously capture nothing

USES = {
    "its arguments": ("", True),
    "a library": ("jnp.sin(x)", True),
    "a number": ("number", True),
    "an array": ("array", True),
    "a name that is not defined": ("absent", True),
    "a builtin": ("sum(x)", True),
    "a function of the same kind": ("helper(x)", True),
    "itself": ("f(x)", True),
    "a list": ("empty", False),
    "a module": ("model(x)", False),
    "a function that uses a module": ("uses_model(x)", False),
    "a function with a module as default": ("by_default(x)", False),
    "a function with a module as keyword default": ("by_keyword(x)", False),
    "a function with a module as attribute": ("with_attribute(x)", False),
    "a closure over a module": ("closure(x)", False),
    "a class of modules": ("liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))", False),
    "the class itself": ("Affine(2.0)", False),
    "an object that holds a module": ("holder.model(x)", False),
    "a Python module of the user's": ("users.model(x)", False),
    "a partial": ("partial(x)", False),
    "a weak reference": ("reference()(x)", False),
}


@pytest.mark.parametrize("use", USES)
def test_a_function_captures_nothing_obviously_only_if_a_search_finds_nothing(use):
    expression, obvious = USES[use]
    model = Affine(2.0)
    users = types.ModuleType("users")
    users.model = model
    scope = {
        "__name__": "user",
        "jnp": jnp,
        "liftnn": liftnn,
        "number": 3,
        "array": np.ones(2),
        "empty": [],
        "model": model,
        "Affine": Affine,
        "closure": lambda x: model(x),
        "holder": types.SimpleNamespace(model=model),
        "users": users,
        "partial": functools.partial(model),
        "reference": weakref.ref(model),
    }
    lines = [
        "def helper(x): return jnp.cos(x) + number",
        "def uses_model(x): return model(x)",
        "def by_default(x, m=model): return m(x)",
        "def by_keyword(x, *, m=model): return m(x)",
        "def with_attribute(x): return with_attribute.model(x)",
        "with_attribute.model = model",
        f"def f(x): return {expression or 'x'}",
    ]
    exec("\n".join(lines), scope)
    found = find_captured([scope["f"]])
    assert captures_nothing(scope["f"]) == obvious
    assert not obvious or not (found.roots or found.names_classes)
