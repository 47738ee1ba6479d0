"""`jit` selects static and donated arguments as `jax.jit`, for each combination of positions and names.

The oracle of calls on arrays is `jax.jit` itself. With a module as first argument it is `jax.jit` of the function
without the module, whose positions are one lower.
"""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from tests.raising import caught

NUMS = [None, (), 0, (0,), (1, 0), np.int64(0), np.array([0, 1]), [np.int32(1)]]
NAMES = [None, (), "x", ("x",), ("y", "x"), [], "k"]
CALLS = {
    "positions": lambda x, y: ((x, y), {}),
    "position and name": lambda x, y: ((x,), {"y": y}),
    "names": lambda x, y: ((), {"x": x, "y": y}),
}
BOTH = list(itertools.product(range(len(NUMS)), NAMES))


class Scale(liftnn.Module):
    def __init__(self):
        self.factor = liftnn.Param(jnp.array(2.0))


def is_array(x):
    return isinstance(x, jax.Array)


def selecting(what, nums, names):
    return {f"{what}_{key}": x for key, x in (("argnums", nums), ("argnames", names)) if x is not None}


def shift(nums):
    """Positions behind a further first argument; negative ones count from the end."""
    move = np.vectorize(lambda n: n + 1 if n >= 0 else n, otypes=[int])
    return nums if nums is None or (isinstance(nums, tuple) and not nums) else move(nums)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("at, names", BOTH)
@pytest.mark.part(2)
@pytest.mark.sample(16)
def test_the_same_arguments_are_static_as_under_jax_jit(at, names, call):
    nums, seen = NUMS[at], []

    def f(x, y, *, k=1):
        seen.append((is_array(x), is_array(y)))
        return 1.0

    def with_module(scale, x, y, *, k=1):
        scale.factor.value = scale.factor * 2
        return f(x, y, k=k)

    args, kwargs = CALLS[call](3, 4)
    jax.jit(f, **selecting("static", nums, names))(*args, **kwargs)
    liftnn.jit(f, **selecting("static", nums, names))(*args, **kwargs)
    scale = Scale()
    liftnn.jit(with_module, **selecting("static", shift(nums), names))(scale, *args, **kwargs)
    expected, *ours = seen
    assert ours == [expected, expected]
    assert float(scale.factor.value) == 4.0


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("at, names", BOTH)
@pytest.mark.part(2)
@pytest.mark.sample(32)
def test_the_same_buffers_are_donated_as_under_jax_jit(at, names, call):
    nums = NUMS[at]

    def f(x, y, *, k=1):
        return x + y, x - y

    def with_module(scale, x, y, *, k=1):
        scale.factor.value = scale.factor * 2
        return f(x, y, k=k)

    def deleted(jitted, *first):
        x, y = jnp.arange(3.0), jnp.ones(3)
        args, kwargs = CALLS[call](x, y)
        jitted(*first, *args, **kwargs)
        return x.is_deleted(), y.is_deleted()

    expected = deleted(jax.jit(f, **selecting("donate", nums, names)))
    scale = Scale()
    assert deleted(liftnn.jit(f, **selecting("donate", nums, names))) == expected
    assert deleted(liftnn.jit(with_module, **selecting("donate", shift(nums), names)), scale) == expected
    assert float(scale.factor.value) == 4.0


class Unsigned:
    """A callable without a signature."""

    @property
    def __signature__(self):
        raise TypeError

    def __call__(self, x):
        return x + 1


@pytest.mark.parametrize(
    "make",
    [
        lambda jit: jit(lambda *x: x, static_argnames="x"),
        lambda jit: jit(lambda a, *x, **others: x, donate_argnames=("x", "a")),
        lambda jit: jit(Unsigned(), donate_argnames="x"),
        lambda jit: jit(lambda x: x, static_argnums=np.int64(1)),
        lambda jit: jit(lambda x: x, static_argnums=np.array([0.0])),
        lambda jit: jit(lambda x: x, static_argnums=1.0),
        lambda jit: jit(lambda x: x, donate_argnums="x"),
    ],
)
def test_a_wrong_selection_is_refused_when_jax_refuses_it(make):
    theirs, ours = caught(make, jax.jit), caught(make, liftnn.jit)
    assert isinstance(ours, type(theirs))


@pytest.mark.parametrize("jit", [jax.jit, liftnn.jit])
def test_positions_names_and_options_are_read_when_a_function_is_wrapped(jit):
    names, donated, options = ["n"], [0], {"xla_cpu_enable_fast_math": False}
    by_iterator = jit(lambda x, *, n, k: x * [n, k][0], static_argnames=iter(("n", "k")))
    by_list = jit(lambda x, n: x * range(n)[-1], static_argnames=names, compiler_options=options)
    donating = jit(lambda x, y: x + y, donate_argnums=donated)
    names[0], donated[0] = "x", 1
    options["no such option"] = True
    assert float(by_iterator(3.0, n=2, k=1)) == 6.0
    assert float(by_list(3.0, n=4)) == 9.0
    x, y = jnp.ones(2), jnp.ones(2)
    donating(x, y)
    assert (x.is_deleted(), y.is_deleted()) == (True, False)


def test_with_modules_positions_names_and_options_are_read_when_a_function_is_wrapped():
    names, donated, options = ["n"], [0], {"xla_cpu_enable_fast_math": False}
    by_iterator = liftnn.jit(lambda m, *, n, k: m.factor * [n, k][0], static_argnames=iter(("n", "k")))
    by_list = liftnn.jit(
        lambda m, n: m.factor * range(n)[-1], static_argnames=names, compiler_options=options
    )
    donating = liftnn.jit(lambda m, x: m.factor + x, donate_argnums=donated)
    names[0], donated[0] = "m", 1
    options["no such option"] = True
    model, x = Scale(), jnp.array(1.0)
    factor = model.factor.value
    assert float(by_iterator(model, n=2, k=1)) == 4.0
    assert float(by_list(model, n=4)) == 6.0
    donating(model, x)
    assert (factor.is_deleted(), x.is_deleted()) == (True, False)


@pytest.mark.parametrize("make_jaxpr", [jax.make_jaxpr, liftnn.make_jaxpr])
def test_positions_of_make_jaxpr_may_come_from_an_iterator(make_jaxpr):
    seen = []
    make_jaxpr(lambda x, n, k: seen.append((type(n), type(k))), static_argnums=iter((1, 2)))(2.0, 3, 4)
    assert seen == [(int, int)]


@pytest.mark.parametrize("name", ["make_jaxpr", "checkpoint"])
def test_with_modules_positions_of_other_transforms_are_read_when_a_function_is_wrapped(name):
    seen, positions, transform = [], [1], getattr(liftnn, name)

    def f(model, n):
        seen.append(type(n))
        return model.factor * n

    by_list, by_iterator = transform(f, static_argnums=positions), transform(f, static_argnums=iter((1,)))
    positions[0] = 0
    by_list(Scale(), 3)
    by_iterator(Scale(), 3)
    assert seen == [int, int]


@pytest.mark.parametrize("vmap", [jax.vmap, liftnn.vmap])
def test_axes_are_read_when_a_function_is_wrapped(vmap):
    axes = [0, None]
    add = vmap(lambda x, y: x + y.sum(), in_axes=axes)
    axes[1] = 0
    assert add(jnp.zeros(2), jnp.arange(2.0)).tolist() == [1.0, 1.0]


# --- a bound method of a dataclass, as a module of Flax Linen is


SEEN = []
MESH = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
WHOLE = jax.sharding.NamedSharding(MESH, jax.P())


class Power:
    def act(self, x, n):
        SEEN.append(type(n) is int)
        return {"out": self.factor * x**n}


@dataclasses.dataclass
class Mutable(Power):
    factor: float


@dataclasses.dataclass(frozen=True)
class Frozen(Power):
    factor: float


@dataclasses.dataclass
class WithModule(Power):
    scale: Scale

    @property
    def factor(self):
        return self.scale.factor.value


OWNERS = {
    "dataclass": lambda: Mutable(2.0),
    "frozen": lambda: Frozen(2.0),
    "with an array": lambda: Mutable(jnp.array(2.0)),
    "with a module": lambda: WithModule(Scale()),
}


@pytest.mark.parametrize(
    "options",
    [
        {"static_argnums": 1},
        {"static_argnums": -1},
        {"static_argnums": (1,), "donate_argnums": 0},
        {"static_argnums": 1, "in_shardings": (WHOLE,)},
        {"in_shardings": (WHOLE, None)},
        {"in_shardings": [WHOLE, WHOLE], "donate_argnums": (0,)},
        {"in_shardings": WHOLE, "out_shardings": WHOLE},
        {"static_argnames": "n", "in_shardings": (WHOLE,), "out_shardings": {"out": WHOLE}},
    ],
    ids=lambda options: "-".join(options),
)
@pytest.mark.parametrize("make", OWNERS.values(), ids=OWNERS)
def test_positions_in_options_do_not_count_the_dataclass_of_a_bound_method(make, options):
    outcomes = []
    for jit in (jax.jit, liftnn.jit):
        x = jnp.arange(4.0)
        SEEN.clear()
        out = jit(make().act, **options)(x, 3)["out"]
        outcomes.append((out.tolist(), out.sharding == WHOLE, x.is_deleted(), SEEN[-1]))
    assert outcomes[1] == outcomes[0]


@pytest.mark.parametrize("make", OWNERS.values(), ids=OWNERS)
def test_nor_do_those_of_other_transforms(make):
    for transform, x in [
        (liftnn.remat, jnp.arange(4.0)),
        (liftnn.make_jaxpr, jnp.arange(4.0)),
        (
            lambda f, static_argnums: liftnn.pmap(f, static_broadcasted_argnums=static_argnums),
            jnp.ones((1, 2)),
        ),
    ]:
        SEEN.clear()
        transform(make().act, static_argnums=1)(x, 3)
        assert set(SEEN) == {True}


def test_a_method_that_dataclasses_and_modules_share_counts_as_each_of_them():
    class Both(liftnn.Module, Power):
        def __init__(self):
            self.factor = liftnn.Param(jnp.array(2.0))

    for _ in range(2):
        for owner, position in [(Both(), 2), (Mutable(2.0), 1)]:
            assert liftnn.jit(owner.act, static_argnums=position)(3.0, 2)["out"] == 18.0
            SEEN.clear()
            liftnn.jit(owner.act, static_argnums=position)(3.0, 4)
            assert SEEN == [True]


def test_an_error_counts_positions_as_the_options_do():
    with pytest.raises(liftnn.ArgumentError, match="both static and donated: 1\\."):
        liftnn.jit(Mutable(2.0).act, static_argnums=1, donate_argnums=(0, 1))
