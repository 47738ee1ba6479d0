"""Every transformation of optax in an Optimizer, against the plain loop of optax over nested dicts, bit for bit."""

from __future__ import annotations

import inspect
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from tests.optim_models import full
from tests.quick import quick
from tests.strategies import Node

import liftnn

X = jnp.array([[1.0, 2.0], [0.5, -1.0]])
ADAM = optax.adam(0.1)
MASK = {f"l{i}": {"w": True, "b": False} for i in range(2)}
LABELS = {f"l{i}": {"w": "fast", "b": "none"} for i in range(2)}
PARTS = {"fast": ADAM, "none": optax.set_to_zero()}


def state_like(tree):
    """The tree with a State in place of each dict, so that it matches the State of the parameters."""
    return liftnn.State(tree)


# name: the arguments of the factory, from what makes a mask or labels of nested dicts
ARGUMENTS = {
    "MultiSteps": lambda like: (ADAM, 2),
    "adaptive_grad_clip": lambda like: (0.1,),
    "add_noise": lambda like: (0.1, 0.5, 0),
    "apply_if_finite": lambda like: (ADAM, 2),
    "chain": lambda like: (optax.clip(0.1), ADAM),
    "clip": lambda like: (0.1,),
    "clip_by_block_rms": lambda like: (0.1,),
    "clip_by_global_norm": lambda like: (0.1,),
    "conditionally_mask": lambda like: (ADAM, lambda step: step % 2 == 0),
    "conditionally_transform": lambda like: (ADAM, lambda step: step % 2 == 0),
    "differentially_private_aggregate": lambda like: (1.0, 0.1, jax.random.key(0)),
    "dpsgd": lambda like: (0.1, 1.0, 0.1, 0),
    "ema": lambda like: (0.9,),
    "flatten": lambda like: (ADAM,),
    "freeze": lambda like: (like(MASK),),
    "lookahead": lambda like: None,  # takes pairs of parameters
    "masked": lambda like: (ADAM, like(MASK)),
    "measure_with_ema": lambda like: None,  # its updates are the measurement
    "mechanize": lambda like: (ADAM,),
    "multi_transform": lambda like: (PARTS, like(LABELS)),
    "named_chain": lambda like: (("clip", optax.clip(0.1)), ("adam", ADAM)),
    "noisy_sgd": lambda like: (0.1, 0.01, 0.55, 0),
    "partition": lambda like: (PARTS, lambda params: like(LABELS)),
    "sam": lambda like: (optax.sgd(0.1), optax.chain(optax.contrib.normalize(), optax.sgd(0.05))),
    "scale": lambda like: (-0.1,),
    "scale_by_backtracking_linesearch": lambda like: (5,),
    "scale_by_learning_rate": lambda like: (0.1,),
    "scale_by_muon": lambda like: None,  # has no default for its dimensions; `muon` uses it
    "scale_by_schedule": lambda like: (optax.linear_schedule(0.1, 0.0, 3),),
    "scale_by_zoom_linesearch": lambda like: (5,),
    "schedule_free": lambda like: (optax.sgd(0.1), 0.1),
    "snapshot": lambda like: ("norm", lambda updates, **_: optax.global_norm(updates)),
    "split_real_and_imaginary": lambda like: (ADAM,),
    "stateless": lambda like: (lambda updates, params: jax.tree.map(lambda u: -0.1 * u, updates),),
    "stateless_with_tree_map": lambda like: (lambda update, param: -0.1 * update,),
    "trace": lambda like: (0.9,),
    "with_extra_args_support": lambda like: (ADAM,),
}
MADE = {
    "inject_hyperparams": lambda f, like: f(optax.adam)(
        learning_rate=optax.linear_schedule(0.1, 0.0, 3), b1=0.8
    ),
    "inject_stateful_hyperparams": lambda f, like: f(optax.adam)(learning_rate=0.1, b1=0.8),
    "selective_transform": lambda f, like: f(ADAM, freeze_mask=like(MASK)),
}
"""What is made in another way than by positional arguments."""
PER_EXAMPLE = {"differentially_private_aggregate", "dpsgd"}


def factories():
    """The public functions and classes of optax that make a transformation, by name."""
    found = {}
    for module in (optax, optax.contrib):
        for name, f in inspect.getmembers(module, callable):
            if not name.startswith("_") and makes_transformation(f):
                found[name] = f
    return found


def makes_transformation(f):
    if inspect.isclass(f):
        return hasattr(f, "gradient_transformation")
    try:
        return "GradientTransformation" in str(inspect.signature(f).return_annotation)
    except (TypeError, ValueError):
        return False


FACTORIES = {
    name: f for name, f in factories().items() if ARGUMENTS.get(name, lambda like: ())(dict) is not None
}


def make(name, like):
    """The transformation; `like` makes the masks and labels for the kind of tree."""
    f = FACTORIES[name]
    if name in MADE:
        return MADE[name](f, like)
    if name in ARGUMENTS:
        return f(*ARGUMENTS[name](like))
    first = next(iter(inspect.signature(f).parameters.values()), None)
    return f(0.1) if first is not None and first.name == "learning_rate" else f()


class Layers(Node):
    def __call__(self, x):
        return run({"l0": vars(self.l0), "l1": vars(self.l1)}, x)


def run(params, x):
    for layer in params.values():
        x = jnp.tanh(x @ layer["w"] + layer["b"])
    return x


def values():
    return {f"l{i}": {"w": full((2, 2), 0.3 * i + 0.1), "b": full(2, 0.1 * i + 0.05)} for i in range(2)}


def make_model():
    params = [Node(b=liftnn.Param(layer["b"]), w=liftnn.Param(layer["w"])) for layer in values().values()]
    return Layers(l0=params[0], l1=params[1])


def loss(params, x):
    return (run(params, x) ** 2).mean()


def derive(params, x, per_example):
    value, grads = jax.value_and_grad(loss)(params, x)
    if per_example:
        grads = jax.vmap(jax.grad(lambda p, row: loss(p, row[None])), in_axes=(None, 0))(params, x)
    return value, grads


def extra_arguments(name, x, value, grads):
    """What `update` gets besides gradients and parameters."""
    if name == "sam":
        return {}
    if name == "sophia":
        return {"obj_fn": lambda params: loss(params, x)}
    return {"value": value, "grad": grads, "value_fn": lambda params: loss(params, x)}


def plain_steps(name, n):
    """The parameters after each step, and the state at the end."""
    params, tx = values(), make(name, dict)
    tx = tx if isinstance(tx, optax.MultiSteps) else optax.with_extra_args_support(tx)
    opt_state = tx.init(params)
    steps = []
    for i in range(n):
        x = X + i
        value, grads = derive(params, x, name in PER_EXAMPLE)
        extra = extra_arguments(name, x, value, grads)
        updates, opt_state = tx.update(grads, opt_state, params, **extra)
        params = optax.apply_updates(params, updates)
        steps.append(params)
    return steps, opt_state


@pytest.mark.thorough
@pytest.mark.parametrize(
    "name", quick(sorted(FACTORIES, key=lambda n: n not in ("adam", "masked", "flatten")), 3)
)
@pytest.mark.filterwarnings("ignore")
def test_a_transformation_gives_the_steps_and_the_state_of_the_plain_loop(name):
    expected, expected_state = plain_steps(name, 2)
    model = make_model()
    optimizer = liftnn.Optimizer(model, make(name, state_like))
    for i, params in enumerate(expected):
        x = X + i
        value, grads = derive(liftnn.state(model), x, name in PER_EXAMPLE)
        optimizer.update(model, grads, **extra_arguments(name, x, value, grads))
        found = liftnn.state(model).to_pure_dict()
        assert jax.tree.structure(found) == jax.tree.structure(params)
        jax.tree.map(np.testing.assert_array_equal, found, params)
    for found, wanted in zip(
        jax.tree.leaves(optimizer.opt_state), jax.tree.leaves(expected_state), strict=True
    ):
        if jnp.issubdtype(found.dtype, jax.dtypes.prng_key):
            found, wanted = jax.random.key_data(found), jax.random.key_data(wanted)
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)


def test_every_transformation_of_optax_is_in_the_table():
    assert len(FACTORIES) > 100
    for name in FACTORIES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tx = make(name, dict)
        assert all(map(callable, (tx.init, tx.update))), name
