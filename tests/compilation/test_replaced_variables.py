"""A compiled function replaces a Variable that other objects hold as well: each of them is read as in plain Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import liftnn
from tests.user_modules import Holder


def tied() -> Any:
    """Two modules with one Variable, one that holds the first, and a module beside them."""
    one, other = Holder(w=liftnn.Param(jnp.ones(2))), Holder(w=liftnn.Param(jnp.ones(2)))
    return Holder(one=one, other=other, around=Holder(inner=one, w=liftnn.Param(jnp.ones(2))))


def replace(model: Any) -> Any:
    model.w = liftnn.Param(model.w * 2)
    return model.w.value


def replace_inner(model: Any) -> Any:
    model.inner.w = liftnn.Param(model.inner.w * 3)


def replace_both(one: Any, other: Any) -> None:
    one.w, other.w = liftnn.Param(one.w + 1), liftnn.Param(other.w + 5)


REPLACE: dict[str, tuple[Callable[..., Any], Callable[[Any], tuple[Any, ...]]]] = {
    "one": (replace, lambda world: (world.one,)),
    "other": (replace, lambda world: (world.other,)),
    "one, through another module": (replace_inner, lambda world: (world.around,)),
    "both": (replace_both, lambda world: (world.one, world.other)),
}
"""Functions that replace a Variable, and their arguments."""


def total(tree: Any) -> Any:
    leaves = jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, (liftnn.Module, liftnn.Variable)))
    found = [x for leaf in leaves for _, x in liftnn.iter_graph(leaf) if isinstance(x, liftnn.Variable)]
    return sum((i + 1) * x.value.sum() for i, x in enumerate(found))


READ: dict[str, Callable[[Any], Any]] = {
    "the module": lambda world: world.one,
    "another module with the Variable": lambda world: world.other,
    "a module that holds the module": lambda world: world.around,
    "modules in a list": lambda world: [world.other, world.one],
    "the Variable": lambda world: world.other.w,
    "everything": lambda world: world,
}
"""What another compiled function reads."""


def tie(world: Any) -> None:
    world.one.w = world.other.w


def tie_back(world: Any) -> None:
    world.other.w = world.one.w


def tie_around(world: Any) -> None:
    world.around.w = world.one.w


def values_of(
    compiled: bool, name: str, read: str, change: Callable[[Any], None], captures: bool
) -> list[Any]:
    """What a program reads that replaces Variables in every second step, and holds them in other places in between."""
    wrap: Any = liftnn.jit if compiled else lambda f: f
    function, chosen = REPLACE[name]
    world = tied()
    replacing = wrap(function)
    reading = wrap(lambda: total(READ[read](world))) if captures else wrap(total)
    values: list[Any] = []
    for step in range(12):
        values.append(float(reading() if captures else reading(READ[read](world))))
        if step in (3, 7):
            change(world)
        if step % 2:
            replacing(*chosen(world))
        values += [x.value.tolist() for _, x in liftnn.iter_graph(world) if isinstance(x, liftnn.Variable)]
    return values


@pytest.mark.parametrize("captures", [False, True])
@pytest.mark.parametrize("change", [tie, tie_back, tie_around])
@pytest.mark.parametrize("read", READ)
@pytest.mark.parametrize("name", REPLACE)
def test_a_replaced_variable_stays_where_it_was_not_replaced(
    name: str, read: str, change: Callable[[Any], None], captures: bool
) -> None:
    expected = values_of(False, name, read, change, captures)
    assert values_of(True, name, read, change, captures) == expected


def keep_error(reading: Callable[..., Any], world: Any) -> Exception:
    try:
        reading(world, jnp.ones((2, 2)))
    except ValueError as error:
        return error
    raise AssertionError


def read_with(world: Any, x: Any) -> Any:
    if x.ndim > 1:
        raise ValueError
    return (total(world) * x).sum()


@pytest.mark.parametrize("more", [0, 60])
@pytest.mark.parametrize("name", REPLACE)
def test_a_function_whose_error_is_kept_reads_the_new_variable(name: str, more: int) -> None:
    """Notebooks keep the last error, and with it the frames of the call that raised it."""

    def values(wrap: Callable[..., Any]) -> list[float]:
        function, chosen = REPLACE[name]
        world = tied()
        for i in range(more):
            setattr(world.one, f"a{i}", i)
        replacing, reading = wrap(function), wrap(read_with)
        for _ in range(3):  # from the second call on, it replaces on the fast path
            replacing(*chosen(world))
        before = [float(reading(world, jnp.ones(1))) for _ in range(3)]
        error = keep_error(reading, world)
        after: list[float] = []
        for _ in range(3):
            replacing(*chosen(world))
            after.append(float(reading(world, jnp.ones(1))))
        assert error.__traceback__ is not None
        return before + after

    assert values(liftnn.jit) == values(lambda f: f)


PUT_BACK: dict[str, Callable[[Any, Any], None]] = {
    "vars": lambda module, w: vars(module).update(w=w),
    "setattr": lambda module, w: setattr(module, "w", w),
    "object.__setattr__": lambda module, w: object.__setattr__(module, "w", w),
}


@pytest.mark.parametrize("put_back", PUT_BACK)
@pytest.mark.parametrize("exposed", [False, True])
@pytest.mark.parametrize("name", REPLACE)
def test_the_first_variable_is_put_back_after_it_was_replaced(
    name: str, exposed: bool, put_back: str
) -> None:
    def values(wrap: Callable[..., Any]) -> list[float]:
        function, chosen = REPLACE[name]
        world = tied()
        modules = world.one, world.other
        if exposed:
            [vars(module) for module in modules]
        first = [module.w for module in modules]
        replacing, reading = wrap(function), wrap(total)
        found: list[float] = []
        for _ in range(2):
            for _ in range(4):
                replacing(*chosen(world))
                found.append(float(reading(world)))
            for module, w in zip(modules, first, strict=True):
                PUT_BACK[put_back](module, w)
        return found

    assert values(liftnn.jit) == values(lambda f: f)
