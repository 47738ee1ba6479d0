"""A function that holds modules, Variables or arrays takes part in a call as the modules themselves do."""

from __future__ import annotations

import dataclasses
import functools
import pickle
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.raising import raises

import liftnn
from liftnn import errors
from liftnn.graph.graphdef import walk_tree
from liftnn.graph.kinds import CELL, FUNCTION, STATIC, classify, kind_by_type


class Counter(liftnn.Module):
    """A number in a Variable and a static one."""

    def __init__(self, n=1.0, k=2):
        self.n = liftnn.Param(jnp.array(n))
        self.k = k
        self.deterministic = False


TWO = jnp.array(2.0)


@dataclasses.dataclass
class Box:
    f: Any


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


def self_capturing():
    m = Counter()
    m.act = lambda x: x * m.k * m.n + (0 if m.deterministic else 1)
    return m


def over_another():
    m, other = Counter(), Counter(3.0, 5)
    m.act = lambda x: x * other.n * other.k
    m.other = other
    return m


def in_a_list():
    m, other = Counter(), Counter(3.0, 5)
    m.layers = [lambda x: x * other.n, {"f": lambda x: x + other.k}, Box(lambda x: x - other.n)]
    m.act = lambda x: m.layers[0](x) + m.layers[1]["f"](x) + m.layers[2].f(x)
    m.other = other
    return m


def by_default():
    m, other = Counter(), Counter(3.0, 5)

    def act(x, o=other, *, factor=other.n, s=TWO):
        return x * o.k * factor * s

    m.act = act
    m.other = other
    return m


def by_attribute():
    m, other = Counter(), Counter(3.0, 5)

    def act(x):
        return x * act.other.n * act.other.k

    act.other = other
    m.act, m.other = act, other
    return m


def by_function():
    m, other = Counter(), Counter(3.0, 5)
    inner = lambda x: x * other.n  # noqa: E731
    method = types.MethodType(lambda self, x: self.n * x, other)
    partial = functools.partial(lambda o, x: o.k * x, other)
    m.act = lambda x: inner(x) + method(x) + partial(x)
    m.other = other
    return m


def recursive():
    m = Counter(3.0)

    def power(x, i):
        return m.n * x if i == 0 else power(x, i - 1) * m.k

    m.power = power
    m.act = lambda x: m.power(x, 3)
    return m


def by_hook():
    m, other = Counter(), Counter(3.0, 5)
    m.n = liftnn.Param(jnp.array(2.0), get_value_hooks=lambda v, x: x * other.n + other.k)
    m.act = lambda x: m.n * x
    m.other = other
    return m


BUILDS = (
    self_capturing, over_another, in_a_list, by_default, by_attribute, by_function, recursive, by_hook
)  # fmt: skip


def do_nothing(m):
    pass


def set_values(m):
    for x in liftnn_modules(m):
        x.n.value = x.n.raw_value + 1


def set_statics(m):
    for x in liftnn_modules(m):
        x.k = 3


def switch_mode(m):
    m.eval()
    m.deterministic = True


def add_attribute(m):
    for x in liftnn_modules(m):
        x.new = 4


def replace_variable(m):
    m.other_n = getattr(m, "other", m).n
    getattr(m, "other", m).n = liftnn.Param(jnp.array(7.0))


def attach(m):
    first = m.act
    m.act = lambda x: first(x) + m.k


EFFECTS = (do_nothing, set_values, set_statics, switch_mode, add_attribute, replace_variable)


def liftnn_modules(m):
    return [m, m.other] if hasattr(m, "other") else [m]


def read(m):
    """What can be seen of a model."""
    return [(x.k, x.deterministic, float(x.n.value), sorted(vars(x))) for x in liftnn_modules(m)], m.act(2.0)


def close(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a == b if isinstance(a, str) else np.allclose(a, b, rtol=1e-5), (actual, expected)


def compare(build, effect, transform):
    model, plain = build(), build()
    functions = [x for x in walk_tree(model)[1].objects if isinstance(x, types.FunctionType | types.CellType)]
    call = TRANSFORMS[transform](lambda m, x: run(m, x, effect))
    for x in (1.0, 2.0, 3.0):
        close(call(model, x), run(plain, x, effect))
        close(read(model), read(plain))
    if effect in EFFECTS:
        after = [x for x in walk_tree(model)[1].objects if isinstance(x, types.FunctionType | types.CellType)]
        assert {id(x) for x in after} == {id(x) for x in functions}


def run(m, x, effect):
    before = m.act(x)
    effect(m)
    return before, m.act(x) + 0.0


@pytest.mark.parametrize("effect", EFFECTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("build", BUILDS, ids=lambda f: f.__name__)
def test_a_closure_under_jit_sees_what_it_sees_in_plain_python(build, effect):
    compare(build, effect, "jit")


@pytest.mark.parametrize("transform", [t for t in TRANSFORMS if t != "jit"])
@pytest.mark.parametrize("build", [self_capturing, by_default], ids=lambda f: f.__name__)
@pytest.mark.parametrize("effect", [set_statics, replace_variable], ids=lambda f: f.__name__)
def test_a_closure_under_every_transform_sees_what_it_sees_in_plain_python(build, effect, transform):
    compare(build, effect, transform)


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


def counting(m):
    count = 0

    def tick(x):
        nonlocal count
        count += 1
        return m.n * x * count

    m.tick, m.count = tick, lambda: (count, m.k)[0]
    return m


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


@pytest.mark.parametrize("build", BUILDS, ids=lambda f: f.__name__)
def test_split_merge_and_clone_make_closures_of_their_own(build):
    model = build()
    for new in (liftnn.clone(model), liftnn.merge(*liftnn.split(model))):
        close(read(new), read(model))
        assert new.act is not model.act
        set_values(new)
        set_statics(new)
        close(read(model), read(build()))
        with pytest.raises(AssertionError):
            close(read(new), read(model))
    first, second = liftnn.split(build())[1], liftnn.split(build())[1]
    assert first == second
    assert hash(first) == hash(second)


def test_the_variables_of_a_closure_are_part_of_the_state():
    m, other = Counter(), Counter(3.0)
    m.act = lambda x: x * other.n
    assert list(liftnn.state(m).flat()) == [("n",), ("act", "other", "cell", "n")]
    paths = []
    liftnn.lift(
        lambda m: None, bind=lambda plan, pure: paths.extend(map(plan.path_of, plan.variables)) or pure
    )(m)
    assert paths == ["args[0].n", "args[0].act.other.n"]
    state = liftnn.state(m)
    other.n.value = jnp.array(8.0)
    liftnn.update(m, state)
    assert float(other.n.value) == 3.0


def test_other_functions_stay_static():
    def users(x, y=2):
        return x + y

    values = [1, 2]
    plain = (
        users,
        lambda: values,
        lambda: users,
        jax.nn.initializers.normal(1.0),
        Counter.train,
        jnp.sum,
        max,
    )
    assert all(classify(f) is STATIC for f in plain)
    m = Counter()
    m.functions = list(plain)
    assert not walk_tree(m)[1].functions
    held = [m, m.n, jnp.ones(1), np.ones(1), [m], {"a": (m,)}, Box(m), m.train, functools.partial(max, m)]
    assert all(classify(lambda x=x: x) is FUNCTION for x in held)
    assert kind_by_type(types.CellType) is CELL


def test_a_difference_of_closures_is_told_by_path():
    def build(k):
        m, other = Counter(), Counter(3.0, k)
        m.act = lambda x: x * other.k
        return m

    assert liftnn.split(build(1))[1].diff(liftnn.split(build(2))[1]) == "act.other.k: 1 -> 2"


def test_code_that_holds_modules_cannot_be_pickled():
    graphdef = liftnn.split(self_capturing())[1]
    with raises(
        errors.StructureError,
        "The function self_capturing.<locals>.<lambda> holds a module, a Variable or an array, and its code cannot be "
        "pickled.\nUse a method of a module, or a functools.partial of a function at the top level of a file.",
    ):
        pickle.dumps(graphdef)


def test_a_loop_is_not_given_what_its_functions_close_over():
    m, x = Counter(), jnp.array(2.0)
    assert float(liftnn.cond(True, lambda y: y * m.n * x, lambda y: y * x, 3.0)) == 6.0
    assert (
        float(liftnn.jit(lambda z: liftnn.cond(z > 0, lambda y: y * m.n * z, lambda y: y * z, 3.0))(2.0))
        == 6.0
    )
    total = liftnn.fori_loop(0, 3, functools.partial(lambda s, i, c: c + m.n * x * s, 2.0), 0.0)
    assert float(total) == 12.0
    m.n.value = jnp.array(5.0)
    assert float(liftnn.while_loop(lambda c: c < m.n, lambda c: c + x, 0.0)) == 6.0


def test_derivatives_by_what_a_closure_reaches():
    m, other = Counter(), Counter(3.0)
    m.act = lambda x: x * other.n**2
    grads = liftnn.grad(lambda m, x: m.act(x) * m.n)(m, 2.0)
    assert float(grads["act"]["other"]["cell"]["n"].value) == 12.0
    assert float(grads["n"].value) == 18.0


def test_each_step_of_a_scan_sees_the_last_one():
    def build():
        m = counting(Counter())
        m.act = lambda x: x * m.n + m.k
        return m

    def step(m, x):
        m.n.value = m.act(m.n) + x
        return m.n.value + 0

    model, plain = build(), build()
    out = liftnn.scan(step, in_axes=(None, 0), out_axes=0)(model, jnp.arange(3.0))
    assert out.tolist() == [float(step(plain, float(i))) for i in range(3)]
    assert float(model.act(1.0)) == float(plain.act(1.0))
