"""A function that holds modules, Variables or arrays takes part in a call as the modules themselves do."""

from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import pytest
from tests.closure_models import (
    BUILDS,
    EFFECTS,
    Counter,
    attach,
    by_default,
    close,
    counting,
    over_another,
    read,
    replace_variable,
    self_capturing,
    set_statics,
)

import liftnn
from liftnn._src.graph.graphdef import walk_tree

TRANSFORMS = {
    "jit": lambda f: liftnn.jit(f),
    "grad": lambda f: (
        lambda m, x: liftnn.grad(lambda m, x: (x * 1.0, f(m, x)), argnums=1, has_aux=True)(m, jnp.asarray(x))[
            1
        ]
    ),
    "vmap": lambda f: liftnn.vmap(f, in_axes=(None, None), out_axes=None, axis_size=2),
    "scan": lambda f: (
        lambda m, x: jax.tree.map(
            lambda y: y[0], liftnn.scan(f, in_axes=(None, None), out_axes=0, length=1)(m, x)
        )
    ),
    "cond": lambda f: lambda m, x: liftnn.cond(True, f, lambda m, x: f(m, x), m, x),
    "remat": lambda f: liftnn.remat(f),
    "donating jit": lambda f: liftnn.jit(f, donate_argnums=0),
    "jit of jit": lambda f: liftnn.jit(lambda m, x: liftnn.jit(f)(m, x)),
    "jit of grad": lambda f: liftnn.jit(
        lambda m, x: liftnn.grad(lambda m, x: (x * 1.0, f(m, x)), argnums=1, has_aux=True)(m, jnp.asarray(x))[
            1
        ]
    ),
}


def compare(build, effect, transform):
    model, plain = build(), build()
    functions = [x for x in walk_tree(model).objects if isinstance(x, types.FunctionType | types.CellType)]
    call = TRANSFORMS[transform](lambda m, x: run(m, x, effect))
    for x in (1.0, 2.0, 3.0):
        close(call(model, x), run(plain, x, effect))
        close(read(model), read(plain))
    if effect in EFFECTS:
        after = [x for x in walk_tree(model).objects if isinstance(x, types.FunctionType | types.CellType)]
        assert {id(x) for x in after} == {id(x) for x in functions}


def run(m, x, effect):
    before = m.act(x)
    effect(m)
    return before, m.act(x) + 0.0


@pytest.mark.sample(8)
@pytest.mark.parametrize("effect", EFFECTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("build", BUILDS, ids=lambda f: f.__name__)
def test_a_closure_under_jit_sees_what_it_sees_in_plain_python(build, effect):
    compare(build, effect, "jit")


@pytest.mark.parametrize("transform", [t for t in TRANSFORMS if t != "jit"])
@pytest.mark.parametrize("build", [self_capturing, by_default], ids=lambda f: f.__name__)
@pytest.mark.parametrize("effect", [set_statics, replace_variable], ids=lambda f: f.__name__)
@pytest.mark.sample(12)
def test_a_closure_under_every_transform_sees_what_it_sees_in_plain_python(build, effect, transform):
    compare(build, effect, transform)


@pytest.mark.sample(2)
@pytest.mark.parametrize("transform", ["jit", "grad", "jit of grad", "jit of jit"])
@pytest.mark.parametrize("build", [self_capturing, over_another], ids=lambda f: f.__name__)
def test_a_closure_made_inside_and_attached_is_over_the_originals(build, transform):
    compare(build, attach, transform)


def test_a_closure_made_inside_and_returned_is_over_the_originals():
    m = Counter(2.0)
    f, g = liftnn.jit(lambda m, x: (lambda y: m.n * y, [lambda y, z=x * 2: y * z]))(m, 3.0)
    assert (float(f(2.0)), float(g[0](1.0))) == (4.0, 6.0)
    m.n.value = jnp.array(5.0)
    assert float(f(2.0)) == 10.0


@pytest.mark.parametrize("new", [Counter(9.0, 4), Counter(9.0, 2)])
def test_a_cell_bound_anew_between_calls_is_seen(new):
    def build():
        other, scale, array = Counter(), 2.0, jnp.array(1.0)
        m = Counter()

        def put(**kwargs):
            nonlocal other, scale, array
            other, scale = kwargs.get("other", other), kwargs.get("scale", scale)
            array = kwargs.get("array", array)

        m.act = lambda x: x * other.n * other.k * scale + array
        return m, put

    (model, put), (plain, put_plain) = build(), build()
    call = liftnn.jit(lambda m, x: m.act(x))
    for change in (
        {},
        {},
        {"other": new},
        {"scale": 4.0},
        {"array": jnp.array(8.0)},
        {},
        {"array": jnp.ones(2)},
    ):
        put(**change), put_plain(**change)
        for _ in range(3):
            close(call(model, 2.0), plain.act(2.0))


def test_another_array_in_a_cell_is_no_retrace():
    array, m = jnp.array(1.0), Counter()
    m.act = lambda x: x + array
    call = liftnn.jit(lambda m, x: m.act(x))
    for i in range(5):
        array = jnp.array(float(i))
        assert float(call(m, 1.0)) == i + 1.0
    assert call.n_traces == 1


@pytest.mark.sample(2)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_functions_that_share_a_cell_share_it_inside_and_outside(transform):
    model, plain = counting(Counter()), counting(Counter())
    f = lambda m, x: (m.tick(x), m.count(), m.tick(x))  # noqa: E731
    for x in (1.0, 2.0, 3.0):
        close(TRANSFORMS[transform](f)(model, x), f(plain, x))
        assert model.count() == plain.count()


def test_a_cell_stays_empty_or_is_filled():
    def build():
        m = Counter()

        def get():
            return later * m.k

        def put(x):
            nonlocal later
            later = x

        m.get, m.put = get, put
        m.put_module = lambda: m
        if False:
            later = 0
        return m

    model = build()
    liftnn.jit(lambda m: m.n * 1)(model)
    with pytest.raises(NameError):
        model.get()
    with pytest.raises(NameError):
        liftnn.jit(lambda m: m.get())(model)
    liftnn.jit(lambda m: m.put(5))(model)
    assert liftnn.jit(lambda m: m.get() + m.n)(model) == 11.0


def test_attributes_of_a_function_are_written_inside():
    m = Counter()

    def act(x):
        act.calls += 1
        return x * m.n

    act.calls = 0
    m.act = act
    call = liftnn.jit(lambda m, x: (m.act(x), m.act(x)))
    for i in range(3):
        call(m, 1.0)
        assert act.calls == 2 * i + 2
    assert m.act is act


def test_code_defaults_and_attributes_replaced_are_seen():
    m = Counter()

    def make(f):
        m.act = f

    def act(x, y=m, *, z=1.0):
        return x * y.n + z

    make(act)
    call = liftnn.jit(lambda m, x: m.act(x))
    for change in (
        lambda: setattr(act, "__defaults__", (Counter(5.0),)),
        lambda: setattr(act, "__kwdefaults__", {"z": 3.0}),
        lambda: setattr(act, "__kwdefaults__", {"z": jnp.array(4.0)}),
        lambda: act.__kwdefaults__.update(z=jnp.array(6.0)),
        lambda: setattr(act, "__code__", (lambda x, y, *, z: x - y.n - z).__code__),
    ):
        for _ in range(2):
            assert float(call(m, 2.0)) == float(m.act(2.0))
        change()
        for _ in range(2):
            assert float(call(m, 2.0)) == float(m.act(2.0))


def test_a_new_closure_shares_the_variables_of_the_function_that_made_it():
    def run(transform):
        scale, m = 2, Counter()

        def f(m):
            m.act = lambda x: x * m.n * scale

        transform(f)(m)
        first = float(m.act(1.0))
        scale = 5
        return first, float(m.act(1.0))

    assert run(liftnn.jit) == run(lambda f: f) == (2.0, 5.0)


def test_a_function_of_outside_that_is_attached_stays_itself():
    other = Counter()

    def act(x):
        return other.n * x

    m = Counter()
    for transform in (liftnn.jit, liftnn.remat):

        def attach(m, x):
            m.act = act
            return m.act(x)

        assert [float(transform(attach)(m, x)) for x in (1.0, 2.0)] == [1.0, 2.0]
        assert m.act is act


def test_an_exception_leaves_all_as_it_was():
    model = counting(self_capturing())
    before = read(model), model.count(), model.act, model.tick

    def fails(m):
        m.tick(1.0)
        m.k, m.act, m.n.value = 8, lambda x: m, m.n + 1
        raise KeyError

    for transform in (liftnn.jit, liftnn.remat):
        with pytest.raises(KeyError):
            transform(fails)(model)
        close((read(model), model.count()), before[:2])
        assert (model.act, model.tick) == before[2:]
