"""A Module that is handed to JAX itself is a TypeError that names liftnn's transforms, and loses nothing."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import optimistix
import pytest
from flax import nnx
from tests.user_modules import Affine

import liftnn
from liftnn._src.trees import an, at_start

X = jnp.ones(3)


class Late(Affine):
    """A class that exists only here."""


HANDED = {
    "jit": lambda m: jax.jit(lambda m, x: m(x))(m, X),
    "jit, in a tree": lambda m: jax.jit(lambda b: b["m"](X))({"m": m}),
    "jit, by name": lambda m: jax.jit(lambda x, m: m(x))(X, m=m),
    "jit, lowered": lambda m: jax.jit(lambda m: m(X)).lower(m),
    "jit, returned": lambda m: jax.jit(lambda x: m)(X),
    "grad": lambda m: jax.grad(lambda m, x: m(x).sum())(m, X),
    "value_and_grad": lambda m: jax.value_and_grad(lambda x, m: m(x).sum(), argnums=1)(X, m),
    "vjp": lambda m: jax.vjp(lambda m: m(X), m),
    "jvp": lambda m: jax.jvp(lambda m: m(X), (m,), (m,)),
    "vmap": lambda m: jax.vmap(lambda m, x: m(x), in_axes=(None, 0))(m, X[None]),
    "scan": lambda m: jax.lax.scan(lambda m, x: (m, m(x)), m, X[None]),
    "while_loop": lambda m: jax.lax.while_loop(lambda m: False, lambda m: m, m),
    "cond": lambda m: jax.lax.cond(True, lambda m: m(X), lambda m: m(X), m),
    "checkpoint": lambda m: jax.checkpoint(lambda m: m(X))(m),
    "eval_shape": lambda m: jax.eval_shape(lambda m: m(X), m),
    "tree.map": lambda m: jax.tree.map(lambda x: x, m),
}


@pytest.mark.parametrize("hand", HANDED.values(), ids=HANDED)
@pytest.mark.parametrize(
    "make", [Affine, Late, lambda: liftnn.Linear(3, 3, rngs=liftnn.Rngs(0)), lambda: liftnn.Rngs(0)]
)
def test_a_module_handed_to_jax_is_refused_with_the_name_of_what_would_do(hand, make):
    module = make()
    before = liftnn.state(module)
    with pytest.raises(
        TypeError, match=rf"(?s){at_start(an(type(module)))} was passed to.*liftnn\.jit for jax\.jit"
    ):
        hand(module)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), liftnn.state(module), before))


def test_a_predicate_may_make_modules_leaves():
    module = Affine()
    leaves = jax.tree.leaves({"a": module, "b": 1}, is_leaf=lambda x: isinstance(x, liftnn.Module))
    assert leaves == [module, 1]


def test_the_leaves_of_a_module_may_be_read():
    module = Affine()
    flat = liftnn.state(module).flat().values()
    values = sorted(id(x.value if isinstance(x, liftnn.Variable) else x) for x in flat)
    assert sorted(map(id, jax.tree.leaves({"a": module}))) == values
    assert sorted(map(id, jax.tree_util.tree_leaves([module]))) == values


def test_block_until_ready_waits_for_all_arrays_of_a_module():
    class Waited:
        """An array-like that tells that somebody waits for it."""

        waits = 0
        shape, dtype = (), jnp.dtype("float32")

        def block_until_ready(self):
            Waited.waits += 1
            return self

    module = Affine()
    module.itself = module
    module.layers = [Affine(), {"w": Affine()}]
    module.w.value = module.layers[1]["w"].b.value = Waited()
    assert jax.block_until_ready((module, X))[0] is module
    assert Waited.waits == 2


def called_by(library):
    """A function that belongs to a library, and maps over a tree."""
    scope = {"__name__": f"{library}._solve", "jax": jax}
    exec("def solve(tree): return jax.tree.map(lambda x: x, tree)", scope)
    return scope["solve"]


EQUINOX = (
    "Use liftnn's transforms in place of Equinox's (liftnn.jit for equinox.filter_jit, liftnn.grad for "
    "equinox.filter_grad ...), or pass the State from liftnn.split and merge it inside. A function that a solver calls "
    "may capture the module, under liftnn.jit."
)
FLAX = (
    "Use liftnn's function of the same name (liftnn.jit for nnx.jit, liftnn.split for nnx.split ...). A program for "
    "Flax NNX needs `from liftnn.compat import nnx` in place of `from flax import nnx`."
)
SOLVER = (
    "Let the function that {} calls capture the module, as in `lambda x: module(x)`, under liftnn.jit. Or pass the "
    "State from liftnn.split, and merge it inside."
)
REMEDIES = {
    "filter_jit": (lambda m: eqx.filter_jit(lambda m, x: m(x))(m, X), EQUINOX),
    "filter_grad": (lambda m: eqx.filter_grad(lambda m, x: m(x).sum())(m, X), EQUINOX),
    "filter_vmap": (lambda m: eqx.filter_vmap(lambda m, x: m(x), in_axes=(None, 0))(m, X), EQUINOX),
    "partition": (lambda m: eqx.partition({"a": m}, eqx.is_array), EQUINOX),
    "tree_at": (lambda m: eqx.tree_at(lambda m: m.w, m, X), EQUINOX),
    "nnx.jit": (lambda m: nnx.jit(lambda m, x: m(x))(m, X), FLAX),
    "nnx.split": (nnx.split, FLAX),
    "optimistix": (
        lambda m: optimistix.fixed_point(
            lambda z, m: m(z), optimistix.FixedPointIteration(rtol=1e-5, atol=1e-5), X, args=m
        ),
        EQUINOX,  # optimistix compiles its functions with filter_jit
    ),
    "diffrax": (called_by("diffrax"), SOLVER.format("diffrax")),
    "blackjax": (called_by("blackjax"), SOLVER.format("blackjax")),
    "chex": (called_by("chex"), "Pass `liftnn.state(module)`, which is a pytree of arrays."),
    "orbax": (
        called_by("orbax"),
        "Write `liftnn.save(folder, step, module)`, or pass `liftnn.state(module)` to Orbax.",
    ),
    "device_put": (
        lambda m: jax.device_put({"a": m}, jax.devices()[0]),
        "Write `liftnn.device_put(module, device)`, which moves a module in place.",
    ),
    "init of optax": (
        lambda m: optax.chain(optax.clip(1.0), optax.adam(1e-3)).init(m),
        "Write `liftnn.Optimizer(module, tx)`, which holds the transformation `tx` with its state.",
    ),
}


@pytest.mark.parametrize("hand, remedy", REMEDIES.values(), ids=REMEDIES)
def test_a_function_that_has_a_counterpart_of_another_name_is_answered_with_it(hand, remedy):
    with pytest.raises(liftnn.LiftError) as caught:
        hand(Affine())
    assert caught.value.remedy == remedy
