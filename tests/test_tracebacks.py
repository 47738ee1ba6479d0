"""Tracebacks end in the user's line: liftnn's frames are hidden where JAX hides its own, by JAX's setting."""

from __future__ import annotations

import builtins
import contextlib
import pickle
import sys
import traceback

import jax
import jax.numpy as jnp
import pytest

import liftnn
from liftnn._src.tracebacks import UnfilteredTraceback
from tests.effects import Model
from tests.raising import JAX, OURS, caught, entries, has
from tests.transform_table import TRANSFORMS
from tests.user_modules import Affine, Holder

X = jnp.linspace(-1.0, 1.0, 3)


@contextlib.contextmanager
def filtering(mode):
    """Sets JAX's mode of filtering for a while."""
    before = jax.config.jax_traceback_filtering
    jax.config.update("jax_traceback_filtering", mode)
    try:
        yield
    finally:
        jax.config.update("jax_traceback_filtering", before)


def fails(model, x):
    model.first.b.value = model.first.b + x
    raise KeyError("half way")


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_an_error_of_the_users_ends_in_the_users_line_with_no_other_frames(name):
    error = caught(TRANSFORMS[name](fails), Model(), X)
    assert entries(error)[-1] == (__file__, "fails")
    assert not has(error, OURS)
    assert not has(error, JAX)
    assert type(error) is KeyError
    assert OURS not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize("name", ["jit", "vmap", "cond"])
def test_with_filtering_off_all_frames_are_there(name):
    with filtering("off"):
        error = caught(TRANSFORMS[name](fails), Model(), X)
    assert has(error, OURS)
    assert has(error, JAX)
    assert entries(error)[-1] == (__file__, "fails")


def write(model, x):
    model.calls.value = x


def add_to(model, x):
    model.calls += x


def set_item(model, x):
    model.w[...] = x


def set_attribute(model, x):
    model.mode = "eval"


def delete_attribute(model, x):
    del model.mode


def set_metadata(model, x):
    model.w.axis = "rows"


def sow(model, x):
    model.sow(liftnn.Intermediate, "y", x)


def pop(model, x):
    liftnn.pop(model, liftnn.Param)


def update(model, x):
    model.update(liftnn.state(model))


def switch(model, x):
    model.set_attributes(mode="eval")


def tie(model, x):
    model.variables.b = model.w


WRITES = [
    write,
    add_to,
    set_item,
    set_attribute,
    delete_attribute,
    set_metadata,
    sow,
    pop,
    update,
    switch,
    tie,
]


@pytest.mark.parametrize("change", WRITES)
def test_a_write_under_a_raw_transform_raises_at_its_line(change):
    model = Affine()
    error = caught(jax.eval_shape, lambda x: change(model, x), X)
    assert type(error) is liftnn.TraceContextError
    assert entries(error)[-1] == (__file__, change.__name__)
    assert not has(error, OURS)


def test_a_write_that_cannot_be_carried_raises_at_its_line():
    model = Affine()
    error = caught(liftnn.jit(lambda x: set_attribute(model, x)), X)
    assert entries(error)[-1] == (__file__, "set_attribute")
    assert not has(error, OURS)


def unfit(model):
    model.layers.append(model.first)


CALLS = {
    "an option": lambda: liftnn.jit(Affine(), static_argnums=7),
    "an option of a decorator": lambda: liftnn.jit(static_argnums=7)(Affine()),
    "no function": lambda: liftnn.lift(bind=lambda plan, pure: pure),
    "an argument": lambda: liftnn.jit(Affine())("text"),
    "axes": lambda: liftnn.vmap(Affine(), in_axes=(None, 0, 0))(X),
    "a structure": lambda: liftnn.fori_loop(0, 3, lambda i, m: unfit(m) or m, Model()),
    "a loop": lambda: liftnn.while_loop(lambda x: x, lambda x: x, X),
    "a cotangent": lambda: liftnn.vjp(lambda m, x: x, Affine(), X)[1]("text"),
    "a compiled stage": lambda: liftnn.jit(Affine()).lower(X).compile()(Holder()),
    "a filter": lambda: liftnn.split(Affine(), liftnn.Param),
    "a State": lambda: liftnn.state(Affine())["kernel"]["w"],
    "a GraphDef": lambda: liftnn.split(Affine())[-1].merge(liftnn.State({})),
    "a Variable": lambda: liftnn.Param(Affine()),
    "an attribute of a Variable": lambda: Affine().w.shpae,
    "a stream": lambda: liftnn.Rngs(params=0).dropout(),
    "a layer": lambda: liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))(X),
    "an operation of JAX in a layer": lambda: liftnn.Embed(3, 4, rngs=liftnn.Rngs(0))(X),
    "sharding": lambda: liftnn.get_named_sharding(Affine(), None),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_error_of_liftnns_ends_in_the_line_that_called_it(name):
    error = caught(CALLS[name])
    assert entries(error)[-1] == (__file__, "<lambda>")
    assert not has(error, OURS)


def test_what_jax_says_about_flat_lists_is_shown_with_filtering_off_only():
    error = caught(CALLS["axes"])
    assert type(error.__context__) is ValueError
    assert len(traceback.format_exception(error)) == len(entries(error)) + 2
    with filtering("off"):
        assert type(caught(CALLS["axes"]).__cause__) is ValueError


def test_the_users_own_causes_and_notes_are_kept():
    def f(model, x):
        try:
            model.first.nothing  # noqa: B018
        except AttributeError as error:
            raised = KeyError("mine")
            raised.add_note("a note")
            raise raised from error

    error = caught(liftnn.jit(f), Model(), X)
    assert type(error.__cause__) is AttributeError
    assert error.__notes__[0] == "a note"
    assert entries(error.__cause__)[-1] == (__file__, "f")


def test_a_users_function_between_two_transforms_is_shown():
    def outer(model, x):
        return liftnn.grad(lambda m: fails(m, x))(model)

    error = caught(liftnn.jit(outer), Model(), X)
    assert [name for _, name in entries(error)] == ["caught", "outer", "<lambda>", "fails"]


def test_an_error_that_is_caught_inside_ends_in_the_users_line():
    errors = []

    def outer(model, x):
        errors.append(caught(liftnn.cond, True, fails, fails, model, x))
        return x

    liftnn.jit(outer)(Model(), X)
    assert [name for _, name in entries(errors[0])] == ["caught", "fails"]


def test_the_second_call_ends_in_the_users_line_too():
    model = Affine()

    def f(model, x):
        if x.shape != (3,):
            raise KeyError("shape")
        return model(x)

    call = liftnn.jit(f)
    call(model, X)
    call(model, X)
    error = caught(call, model, X[:2])
    assert [name for _, name in entries(error)] == ["caught", "f"]


@pytest.mark.parametrize("arguments", [lambda m: (m, "text"), lambda m: (m, ["text"])])
def test_an_error_of_a_fast_call_is_that_of_the_first_one_alone(arguments):
    model = Affine()
    call = liftnn.jit(lambda model, x: model(jax.tree.leaves(x)[0]))
    x = arguments(None)[1]
    call(model, X if x == "text" else [X])
    call(model, X if x == "text" else [X])
    error = caught(call, *arguments(model))
    assert type(error) is liftnn.ArgumentTypeError
    assert error.__context__ is None


def test_an_error_of_a_fast_call_with_too_few_arguments_stands_alone():
    call = liftnn.jit(lambda x, model: model(x))
    model = Affine()
    call(X, model)
    call(X, model)
    error = caught(call, X)
    assert type(error) is TypeError  # numpy's, about the missing argument
    assert error.__context__ is None


def test_a_note_says_how_to_see_frames_where_an_error_that_is_not_ours_came_from_inside():
    error = caught(lambda: liftnn.Linear(2, 3, param_dtype="text", rngs=liftnn.Rngs(0)))
    assert type(error) is TypeError  # Python's
    assert entries(error)[-1] == (__file__, "<lambda>")
    assert error.__notes__ == [
        "liftnn has removed its frames from this traceback; JAX_TRACEBACK_FILTERING=off shows them."
    ]


@pytest.mark.parametrize("name", ["a layer", "a State", "an attribute of a Variable"])
def test_an_error_that_says_all_gets_no_note(name):
    assert not hasattr(caught(CALLS[name]), "__notes__")


def test_an_error_of_a_hook_of_the_users_gets_no_note():
    variable = liftnn.Variable(1.0, set_value_hooks=lambda v, x: 1 / 0)
    error = caught(setattr, variable, "value", 2.0)
    assert [name for _, name in entries(error)] == ["caught", "<lambda>"]
    assert not hasattr(error, "__notes__")


def test_frames_are_marked_for_ipython_and_pytest():
    with filtering("tracebackhide"):
        error = caught(liftnn.jit(fails), Model(), X)
    marked = [
        (frame.f_code.co_filename.startswith((OURS, JAX)), "__tracebackhide__" in frame.f_locals)
        for frame, _ in traceback.walk_tb(error.__traceback__)
    ]
    assert all(internal == hidden for internal, hidden in marked)
    assert any(internal for internal, _ in marked)


def test_in_ipython_frames_are_marked_and_not_removed(monkeypatch):
    monkeypatch.setattr(builtins, "get_ipython", lambda: None, raising=False)
    monkeypatch.setitem(sys.modules, "IPython", type("IPython", (), {"version_info": (9, 0)}))
    error = caught(liftnn.split, Affine(), liftnn.Param)
    assert has(error, OURS)
    assert all(
        "__tracebackhide__" in frame.f_locals
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename.startswith(OURS)
    )


@pytest.mark.parametrize("f", [lambda: liftnn.jit(fails)(Model(), X), CALLS["a filter"]])
def test_remove_frames_puts_all_of_them_before_the_error(f):
    with filtering("remove_frames"):
        error = caught(f)
    assert not has(error, OURS)
    assert has(error.__cause__, OURS)
    assert error.__cause__.__cause__ is None


def test_what_holds_all_frames_says_so():
    with filtering("remove_frames"):
        error = caught(CALLS["a filter"])
    assert type(error.__cause__) is UnfilteredTraceback
    assert str(error.__cause__) == "This traceback has all frames; the next one has only those of your code."


def test_a_public_function_keeps_its_name_signature_and_pickles():
    assert liftnn.split.__name__ == "split"
    assert pickle.loads(pickle.dumps(liftnn.split)) is liftnn.split
