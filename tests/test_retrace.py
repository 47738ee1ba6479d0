"""What retraces a jitted function, and what does not: equal structure never does, a change of it always."""

from __future__ import annotations

import collections
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import liftnn
from tests.user_modules import Affine, Holder


def twice(x):
    return x * 2


@dataclasses.dataclass(frozen=True)
class Config:
    """A frozen dataclass of static values."""

    rate: float = 0.5
    sizes: tuple = (1, 2)


Point = collections.namedtuple("Point", "x y")


def make_model():
    """A model with everything that can be equal without being the same."""
    model = Holder(layers=[Affine(), Affine()])
    model.tx = optax.adam(1e-3)
    model.schedule = optax.cosine_decay_schedule(0.1, 100)
    model.options = {"sizes": [1, 2], "names": {"a", "b"}, "nested": {"rate": 0.5}}
    model.activation = lambda x: twice(x)
    model.partial = functools.partial(twice, 1)
    model.config, model.point = Config(), Point(1, (2, "a"))
    model.dtype, model.number = jnp.float32, np.float32(3)
    model.norm = liftnn.Dropout(0.5, rngs=liftnn.Rngs(0))
    model.initializer = jax.nn.initializers.lecun_normal()
    return model


def count_traces(function, *calls):
    call = liftnn.jit(function)
    for args in calls:
        call(*args)
    return call.n_traces


def test_fresh_equal_models_are_traced_once():
    assert count_traces(lambda m, x: m.layers[0](x), *((make_model(), float(i)) for i in range(4))) == 1


def test_a_fresh_optimizer_of_fresh_adam_is_traced_once():
    def train(model, optimizer, x):
        grads = liftnn.grad(lambda m: m.loss(x))(model)
        optimizer.update(model, grads)

    call = liftnn.jit(train)
    for _ in range(3):
        model = Affine()
        optimizer = liftnn.Optimizer(model, optax.adam(1e-3))
        for _ in range(2):
            call(model, optimizer, 1.0)
    assert call.n_traces == 1


TRANSFORMATIONS = {
    "adamw": lambda: optax.adamw(1e-3, weight_decay=0.1),
    "schedule": lambda: optax.sgd(optax.cosine_decay_schedule(0.1, 100)),
    "chain": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.lion(1e-3)),
    "masked": lambda: optax.masked(optax.adam(1e-3), lambda p: jax.tree.map(lambda _: True, p)),
}


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_equal_optax_transformations_are_equal(name):
    models = [Holder(w=liftnn.Param(jnp.ones(2)), tx=TRANSFORMATIONS[name]()) for _ in range(3)]
    assert count_traces(lambda m: m.w * 2, *((m,) for m in models)) == 1


def test_other_hyperparameters_are_traced_anew():
    models = [Holder(w=liftnn.Param(jnp.ones(2)), tx=optax.adam(rate)) for rate in (1e-3, 1e-2, 1e-3)]
    assert count_traces(lambda m: m.w * 2, *((m,) for m in models)) == 2


def test_train_and_eval_flipped_back_and_forth_compile_twice_ever():
    model = Holder(
        linear=liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)),
        norm=liftnn.BatchNorm(3, rngs=liftnn.Rngs(0)),
        drop=liftnn.Dropout(0.5, rngs=liftnn.Rngs(0)),
    )
    call = liftnn.jit(lambda m, x: m.drop(m.norm(m.linear(x))))
    for _ in range(4):
        model.train()
        call(model, jnp.ones((4, 2)))
        model.eval()
        call(model, jnp.ones((4, 2)))
    assert call.n_traces == 2


def edit(path, change):
    """A change of one part of a model."""

    def apply(model):
        part = functools.reduce(
            lambda x, k: x[k] if isinstance(x, (dict, list)) else getattr(x, k), path, model
        )
        change(part)

    return apply


EDITS = {
    "list grown": edit(["options", "sizes"], lambda x: x.append(3)),
    "list element": edit(["options", "sizes"], lambda x: x.__setitem__(0, 7)),
    "list element of another type": edit(["options", "sizes"], lambda x: x.__setitem__(0, True)),
    "list shrunk": edit(["options", "sizes"], lambda x: x.pop()),
    "list reversed": edit(["options", "sizes"], lambda x: x.reverse()),
    "dict grown": edit(["options"], lambda x: x.update(new=1)),
    "dict entry": edit(["options", "nested"], lambda x: x.update(rate=0.25)),
    "dict order": edit(["options"], lambda x: x.update(sizes=x.pop("sizes"))),
    "set grown": edit(["options", "names"], lambda x: x.add("c")),
    "static attribute": edit(["layers", 0], lambda x: setattr(x, "mode", "eval")),
    "static attribute added": edit(["layers", 0], lambda x: setattr(x, "extra", 1)),
    "static attribute deleted": edit(["layers", 0], lambda x: delattr(x, "mode")),
    "attribute order": edit(["layers", 0], lambda x: (w := x.w, delattr(x, "w"), setattr(x, "w", w))),
    "function": edit([], lambda x: setattr(x, "activation", lambda y: y * 3)),
    "partial": edit([], lambda x: setattr(x, "partial", functools.partial(twice, 2))),
    "frozen dataclass": edit([], lambda x: setattr(x, "config", Config(0.25))),
    "namedtuple": edit([], lambda x: setattr(x, "point", Point(1, (2, "b")))),
    "zero of another sign": edit(["options", "nested"], lambda x: x.update(rate=-0.0)),
    "metadata": edit(["layers", 0, "w"], lambda x: x.set_metadata(axis="rows")),
    "metadata that can change": edit(["layers", 0, "w"], lambda x: x.set_metadata(axis=["rows"])),
    "type of variable": edit(["layers", 0], lambda x: setattr(x, "w", liftnn.BatchStat(x.w.value))),
    "sharing": edit(["layers"], lambda x: setattr(x[1], "w", x[0].w)),
    "sharing of modules": edit(["layers"], lambda x: x.__setitem__(1, x[0])),
    "dtype": edit(["layers", 0, "w"], lambda x: setattr(x, "value", x.value.astype(jnp.bfloat16))),
    "shape": edit(["layers", 0, "w"], lambda x: setattr(x, "value", jnp.ones((2, 3)))),
    "class": edit([], lambda x: setattr(x, "layers", [type("Other", (Affine,), {})(), x.layers[1]])),
}


def describe(model, x):
    """A result that depends on everything in the model that is static."""
    parts = [
        model.options["sizes"],
        list(model.options),
        sorted(map(str, model.options["names"])),
        model.options["nested"],
        [[(k, v) for k, v in vars(m).items() if not isinstance(v, liftnn.Variable)] for m in model.layers],
        [list(vars(m)) for m in model.layers],
        [type(m).__name__ for m in model.layers],
        [(type(m.w).__name__, m.w.get_metadata(), m.w.dtype, m.w.shape) for m in model.layers],
        model.layers[0] is model.layers[1],
        model.layers[0].w is model.layers[1].w,
        model.activation(1.0),
        model.partial.args,
        model.config,
        model.point,
    ]
    return repr(parts), x * 2


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.sample(4)
def test_a_change_in_place_is_seen_by_the_next_call(name):
    model, call = make_model(), liftnn.jit(describe)
    for _ in range(2):
        assert call(model, 1.0)[0] == describe(model, 1.0)[0]
    assert call.n_traces == 1
    before = describe(model, 1.0)[0]
    EDITS[name](model)
    for _ in range(2):
        text, _ = call(model, 1.0)
        assert text == describe(model, 1.0)[0] != before
    assert call.n_traces == 2


def test_a_change_taken_back_is_found_in_the_cache():
    model, call = make_model(), liftnn.jit(describe)
    for _ in range(3):
        call(model, 1.0)
        model.options["sizes"].append(3)
        call(model, 1.0)
        model.options["sizes"].pop()
    assert call.n_traces == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda m: setattr(m.layers[0].w, "value", jnp.zeros(3)),
        lambda m: m.layers.__setitem__(0, Affine(5.0)),
        lambda m: setattr(m.layers[0], "w", liftnn.Param(jnp.zeros(3))),
        lambda m: setattr(m, "options", {"sizes": [1, 2], "names": {"b", "a"}, "nested": {"rate": 0.5}}),
        lambda m: setattr(m, "tx", optax.adam(1e-3)),
    ],
    ids=["value", "module", "variable", "containers", "transformation"],
)
def test_a_change_to_something_equal_does_not_retrace(change):
    model, call = make_model(), liftnn.jit(lambda m, x: m.layers[0](x))
    call(model, 1.0)
    change(model)
    plain = model.layers[0].w * 2.0 + model.layers[0].b
    assert call(model, 2.0).tolist() == plain.tolist()
    assert call.n_traces == 1


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    "arguments, traces",
    [
        ([1.0, 2.0, 3.0], 1),
        ([1, 2], 1),
        ([1, 1.0], 2),
        ([jnp.float32(1), np.float32(2), np.ones((), np.float32)], 1),
        ([jnp.ones(2), jnp.ones(3), jnp.ones(2)], 2),
        ([[1.0], (1.0,)], 2),
        ([{"a": 1.0, "b": 2.0}, {"b": 2.0, "a": 1.0}], 1),
        ([None, 1.0], 2),
    ],
)
def test_arguments_retrace_as_under_jax_jit(arguments, traces):
    counted = []
    theirs = jax.jit(lambda x: counted.append(1) or x)
    for x in arguments:
        theirs(x)
    assert count_traces(lambda x: x, *((x,) for x in arguments)) == len(counted) == traces


def test_a_closure_over_something_mutable_is_compared_by_identity():
    def make():
        rates = [0.5]
        return Holder(w=liftnn.Param(jnp.ones(1)), f=lambda: rates[0])

    one, two = make(), make()
    assert count_traces(lambda m: m.w * m.f(), (one,), (two,), (one,)) == 2
