"""A user's code in strict mode: `make check` has pyright read it, and the tests run it.

`assert_type` claims what pyright infers. Each `# pyright: ignore[...]` marks a line that must be an error: one that is
none is an unnecessary ignore, which is an error too.
"""

from collections.abc import Callable
from typing import Any, assert_type

import jax
import jax.numpy as jnp
import optax
import pytest

import liftnn


class Block(liftnn.Module):
    def __init__(self, size: int, *, rngs: liftnn.Rngs):
        self.linear = liftnn.Linear(size, size, rngs=rngs)
        self.scale = liftnn.Param(jnp.ones(size))
        self.calls = liftnn.Variable(0)
        self.cache = liftnn.Cache({"last": jnp.zeros(size)})
        self.dropout = liftnn.Dropout(0.5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        self.calls += 1
        self.cache.value = {"last": x[0]}
        return self.dropout(self.linear(x)) * self.scale

    @liftnn.jit
    def encode(self, x: jax.Array, *, times: int = 1) -> jax.Array:
        return times * self(x)

    @liftnn.jit(static_argnames="times")
    def repeat(self, x: jax.Array, times: int) -> list[jax.Array]:
        return [x] * times

    def loss(self, x: jax.Array) -> jax.Array:
        return self(x).sum()


class Model(liftnn.Module):
    def __init__(self, size: int, *, rngs: liftnn.Rngs):
        self.blocks = [Block(size, rngs=rngs) for _ in range(2)]
        self.linear = liftnn.Linear(size, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for block in self.blocks:
            x = block(x)
        return self.linear(x)


def make_block() -> Block:
    return Block(2, rngs=liftnn.Rngs(0))


X = jnp.ones((3, 2))


# --- Modules and Variables


def test_attributes_have_the_types_that_init_gives_them():
    model = Model(2, rngs=liftnn.Rngs(0))
    assert_type(model.linear, liftnn.Linear)
    assert_type(model.linear.kernel, liftnn.Param)
    assert_type(model.linear.kernel.value, jax.Array)
    assert_type(model.blocks[0].scale, liftnn.Param[jax.Array])
    assert_type(model.blocks[0].calls, liftnn.Variable)
    assert_type(model.blocks[0].cache, liftnn.Cache[dict[str, jax.Array]])
    assert_type(model.blocks[0].cache.value, dict[str, jax.Array])
    assert_type(model(X), jax.Array)
    if model.linear.bias is not None:
        assert_type(model.linear.bias, liftnn.Param)


@pytest.mark.thorough
def test_a_variable_acts_as_its_array():
    kernel = make_block().linear.kernel
    assert_type(X @ kernel, jax.Array)
    assert_type(kernel @ kernel, jax.Array)
    assert_type(2 * kernel + 1, jax.Array)
    assert_type(-kernel, jax.Array)
    assert_type(kernel > 0, jax.Array)
    assert_type(kernel == 0, jax.Array)
    assert_type(kernel[...], jax.Array)
    assert_type(kernel[0], jax.Array)
    assert_type(kernel.shape, tuple[int, ...])
    assert_type(kernel.ndim, int)
    assert_type(kernel.sum(axis=0), jax.Array)
    assert_type(kernel.T, jax.Array)
    assert_type(float(kernel.sum()), float)
    assert_type(kernel.replace(X), liftnn.Param)
    kernel.value = kernel - 0.1 * kernel
    kernel.value = 0.5
    kernel[...] = X
    kernel[0] = 1.0
    kernel += 1
    assert_type(kernel, liftnn.Param)
    assert_type(kernel.get_metadata("sharding"), Any)


def refuses_unknown_attributes(model: Model) -> None:
    model.liner  # pyright: ignore[reportAttributeAccessIssue]
    model.linear.kernl  # pyright: ignore[reportAttributeAccessIssue]
    model.linear.kernel.vlaue  # pyright: ignore[reportAttributeAccessIssue]
    model.linear.kernel.value.shpe  # pyright: ignore[reportAttributeAccessIssue]
    model.lienar = model.linear  # pyright: ignore[reportAttributeAccessIssue]
    model.linear.kernel.shardin = ("x",)  # pyright: ignore[reportAttributeAccessIssue]
    del model.lnear  # pyright: ignore[reportAttributeAccessIssue]
    model.linear = 3  # pyright: ignore[reportAttributeAccessIssue]
    model.linear.kernel.value = "ones"  # pyright: ignore[reportAttributeAccessIssue]
    liftnn.relu7  # pyright: ignore[reportAttributeAccessIssue]


def refuses_foreign_names(model: Model, optimizer: liftnn.Optimizer) -> None:
    liftnn.Conv2d  # pyright: ignore[reportAttributeAccessIssue]
    liftnn.filter_jit  # pyright: ignore[reportAttributeAccessIssue]
    model.parameters()  # pyright: ignore[reportAttributeAccessIssue]
    model.to("cuda")  # pyright: ignore[reportAttributeAccessIssue]
    optimizer.zero_grad()  # pyright: ignore[reportAttributeAccessIssue]
    liftnn.Linear(2, 3, bias=False, rngs=liftnn.Rngs(0))  # pyright: ignore[reportCallIssue]


def moves_modules(model: Model, optimizer: liftnn.Optimizer) -> None:
    assert_type(liftnn.device_put((model, optimizer), jax.devices()[0]), tuple[Model, liftnn.Optimizer])


# --- jit


@liftnn.jit
def train_step(
    model: Block, optimizer: liftnn.Optimizer, x: jax.Array, *, scale: float = 1.0
) -> tuple[jax.Array, dict[str, jax.Array]]:
    def loss_fn(model: Block, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        y = model(x)
        return scale * (y**2).mean(), {"y": y}

    (loss, aux), grads = liftnn.value_and_grad(loss_fn, has_aux=True)(model, x)
    assert_type(loss, jax.Array)
    assert_type(aux, dict[str, jax.Array])
    assert_type(grads, liftnn.State)
    optimizer.update(model, grads)
    return loss, aux


@liftnn.jit(static_argnames=("times",), donate_written=True, max_traces=3)
def repeated(model: Block, x: jax.Array, times: int = 2) -> jax.Array:
    for _ in range(times):
        x = model(x)
    return x


@pytest.mark.thorough
def test_jit_keeps_the_signature():
    block = make_block()
    optimizer = liftnn.Optimizer(block, optax.sgd(0.1))
    assert_type(optimizer.step, liftnn.OptState)
    loss, aux = train_step(block, optimizer, X, scale=2.0)
    assert_type(loss, jax.Array)
    assert_type(aux, dict[str, jax.Array])
    assert_type(repeated(block, X, times=3), jax.Array)
    assert_type(train_step.n_traces, int)
    assert train_step.n_traces == 1


def test_stages_are_typed():
    block = make_block()
    compiled = repeated.lower(block, jax.ShapeDtypeStruct((3, 2), jnp.float32)).compile()
    assert_type(compiled(block, X), jax.Array)
    assert isinstance(repeated.lower(block, X).as_text(), str)


@pytest.mark.thorough
def test_methods_are_bound():
    block = make_block()
    assert_type(block.encode(X), jax.Array)
    assert_type(block.encode(X, times=2), jax.Array)
    assert_type(block.repeat(X, 2), list[jax.Array])
    assert_type(Block.encode(block, X), jax.Array)
    assert_type(liftnn.jit(block.loss)(X), jax.Array)
    assert_type(liftnn.jit(block)(X), jax.Array)


def refuses_wrong_calls(block: Block, optimizer: liftnn.Optimizer) -> None:
    train_step(block, optimizer, "x")  # pyright: ignore[reportArgumentType]
    train_step(block, X, X)  # pyright: ignore[reportArgumentType]
    train_step(block, optimizer)  # pyright: ignore[reportCallIssue]
    train_step(block, optimizer, X, sclae=2.0)  # pyright: ignore[reportCallIssue]
    train_step.n_trace  # pyright: ignore[reportAttributeAccessIssue]
    block.encode(X, 3)  # pyright: ignore[reportCallIssue]
    block.encode("x")  # pyright: ignore[reportArgumentType]
    block.repeat(X)  # pyright: ignore[reportCallIssue]
    liftnn.jit(block)("x")  # pyright: ignore[reportArgumentType]
    liftnn.jit(block.loss)("x")  # pyright: ignore[reportArgumentType]


def refuses_unknown_options(f: Callable[[Block, jax.Array], jax.Array]) -> None:
    liftnn.jit(f, static_argname="x")  # pyright: ignore[reportCallIssue]
    liftnn.jit(static_argname="x")  # pyright: ignore[reportCallIssue]
    liftnn.jit(f, max_traces="many")  # pyright: ignore[reportArgumentType]
    liftnn.grad(f, argnum=1)  # pyright: ignore[reportCallIssue]
    liftnn.value_and_grad(f, aux=True)  # pyright: ignore[reportCallIssue]
    liftnn.vmap(f, axes=0)  # pyright: ignore[reportCallIssue]
    liftnn.scan(f, steps=3)  # pyright: ignore[reportCallIssue]
    liftnn.remat(f, polcy=None)  # pyright: ignore[reportCallIssue]
    liftnn.shard_map(f, out_spec=jax.P())  # pyright: ignore[reportCallIssue]
    liftnn.jit(3)  # pyright: ignore[reportArgumentType]


# --- Derivatives


def loss_fn(model: Block, x: jax.Array) -> jax.Array:
    return model.linear(x).sum()


def loss_of_x(x: jax.Array, model: Block) -> jax.Array:
    return model.linear(x).sum()


def loss_with_aux(model: Block, x: jax.Array) -> tuple[jax.Array, list[int]]:
    return model.linear(x).sum(), [1]


@pytest.mark.thorough
def test_the_gradient_of_a_module_is_a_state_and_of_an_array_an_array():
    block = make_block()
    assert_type(liftnn.grad(loss_fn)(block, X), liftnn.State)
    assert_type(liftnn.grad(loss_of_x)(X, block), jax.Array)
    assert_type(liftnn.grad(loss_with_aux, has_aux=True)(block, X), tuple[liftnn.State, list[int]])
    assert_type(liftnn.value_and_grad(loss_fn)(block, X), tuple[jax.Array, liftnn.State])
    assert_type(liftnn.value_and_grad(loss_of_x)(X, block), tuple[jax.Array, jax.Array])
    assert_type(liftnn.value_and_grad(loss_fn, argnums=(0, 1))(block, X), tuple[jax.Array, tuple[Any, ...]])
    assert_type(liftnn.grad(loss_fn, argnums=(0, 1))(block, X), tuple[Any, ...])
    assert_type(liftnn.grad(loss_fn, argnums=1)(block, X), Any)
    assert_type(liftnn.grad(block.loss)(X), Any)
    assert_type(liftnn.jit(liftnn.grad(loss_fn))(block, X), liftnn.State)


def test_the_gradient_of_a_variable_is_one():
    def square(scale: liftnn.Param, x: jax.Array) -> jax.Array:
        return (scale * x).sum() ** 2

    scale = make_block().scale
    grads = liftnn.grad(square)(scale, X)
    assert_type(grads, liftnn.Param)
    assert type(grads) is liftnn.Param
    assert_type(liftnn.value_and_grad(square)(scale, X), tuple[jax.Array, liftnn.Param])


def test_an_untyped_function_has_a_gradient_of_any_type():
    x = jnp.ones(3)
    grads = liftnn.grad(lambda x: (x**2).sum())(x)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    assert_type(grads, Any)
    assert isinstance(grads, jax.Array)


@liftnn.value_and_grad(has_aux=True)
def decorated_loss(model: Block, x: jax.Array) -> tuple[jax.Array, int]:
    return model.linear(x).sum(), 1


@liftnn.grad
def decorated_gradient(model: Block, x: jax.Array) -> jax.Array:
    return model.linear(x).sum()


def test_decorated_losses_are_typed():
    block = make_block()
    assert_type(decorated_loss(block, X), tuple[tuple[jax.Array, int], liftnn.State])
    assert_type(decorated_gradient(block, X), liftnn.State)


def test_further_derivatives_are_typed():
    block = make_block()

    def output(model: Block, x: jax.Array) -> jax.Array:
        return model.linear(x)

    out, pull_back = liftnn.vjp(output, block, X)
    assert_type(out, jax.Array)
    assert_type(pull_back(X), tuple[Any, ...])
    out, tangent = liftnn.jvp(output, (block, X), (None, X))
    assert_type(out, jax.Array)
    assert isinstance(tangent, jax.Array)


def knows_the_arguments_of_jacobians(block: Block) -> None:
    assert_type(liftnn.jacrev(loss_fn)(block, X), Any)
    assert_type(liftnn.hessian(loss_of_x)(X, block), Any)
    liftnn.hessian(loss_of_x)(X)  # pyright: ignore[reportCallIssue]


def refuses_wrong_arguments_of_gradients(block: Block) -> None:
    liftnn.grad(loss_fn)(block)  # pyright: ignore[reportCallIssue]
    liftnn.grad(loss_fn)(X, block)  # pyright: ignore[reportCallIssue, reportArgumentType]
    liftnn.value_and_grad(loss_fn)(block, "x")  # pyright: ignore[reportCallIssue, reportArgumentType]
    liftnn.grad(loss_fn)(block, X)["w"].value.wrong  # what a State holds is known when the program runs
    liftnn.grad(loss_fn)(block, X).kernel  # pyright: ignore[reportAttributeAccessIssue]


# --- Maps, loops, branches


def test_vmap_and_remat_keep_the_signature():
    def predict(model: Block, x: jax.Array) -> jax.Array:
        return model.linear(x)

    block = make_block()
    mapped = liftnn.vmap(predict, in_axes=(None, 0))
    assert_type(mapped(block, X), jax.Array)
    assert_type(liftnn.remat(predict)(block, X), jax.Array)
    keys = jax.random.split(jax.random.key(0), 2)

    @liftnn.vmap(axis_size=2)
    def make(key: jax.Array) -> liftnn.Linear:
        return liftnn.Linear(2, 2, rngs=liftnn.Rngs(key))

    assert_type(make(keys), liftnn.Linear)
    assert_type(make(keys).kernel, liftnn.Param)


def test_loops_hand_on_what_they_are_given():
    def step(carry: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return carry + x, carry

    total, parts = liftnn.scan(step)(jnp.zeros(2), X)
    assert_type(total, jax.Array)
    assert_type(parts, jax.Array)

    def double(count: liftnn.Variable) -> liftnn.Variable:
        count *= 2
        return count

    count = liftnn.Variable(jnp.array(1))
    assert_type(liftnn.while_loop(lambda count: count < 8, double, count), liftnn.Variable)
    assert_type(liftnn.fori_loop(0, 3, lambda i, x: jnp.add(x, i), jnp.array(0)), jax.Array)
    assert_type(liftnn.map(lambda x: (x, 2 * x), X), tuple[jax.Array, jax.Array])


def test_branches_return_what_their_functions_return():
    def yes(x: jax.Array, count: liftnn.Variable) -> jax.Array:
        count += 1
        return x

    def no(x: jax.Array, count: liftnn.Variable) -> jax.Array:
        return 2 * x

    count = liftnn.Variable(jnp.array(0))
    assert_type(liftnn.cond(True, yes, no, X, count), jax.Array)
    assert_type(liftnn.switch(0, [yes, no], X, count), jax.Array)
    assert_type(liftnn.cond(True, lambda x: x + 1, lambda x: x, X), jax.Array)


def refuses_operands_that_do_not_fit(count: liftnn.Variable) -> None:
    def f(x: jax.Array, count: liftnn.Variable) -> jax.Array:
        return x

    liftnn.cond(True, f, f, X)  # pyright: ignore[reportArgumentType]
    liftnn.cond(True, f, f, count, X)  # pyright: ignore[reportArgumentType]


def test_eval_shape_describes_what_is_returned():
    assert_type(liftnn.eval_shape(make_block), Block)
    assert_type(liftnn.eval_shape(loss_fn, make_block(), X), jax.ShapeDtypeStruct)


# --- Rules of one's own


@liftnn.custom_jvp
def scaled(model: Block, x: jax.Array) -> jax.Array:
    return model.scale * x


@scaled.defjvp
def scaled_rule(primals: tuple[Block, jax.Array], tangents: tuple[Any, Any]) -> tuple[jax.Array, jax.Array]:
    return scaled(*primals), primals[0].scale * tangents[1]


def test_a_function_with_a_rule_keeps_its_signature():
    assert_type(scaled(make_block(), X), jax.Array)


# --- Split and merge, state, random keys, metrics


def test_merge_gives_back_what_was_split():
    block = make_block()
    state, graphdef = block.split()
    assert_type(state, liftnn.State)
    assert_type(liftnn.merge(graphdef, state), Block)
    params, rest, graphdef = liftnn.split(block, liftnn.Param, ...)
    assert_type(params, liftnn.State)
    assert_type(rest, liftnn.State)
    assert_type(graphdef, liftnn.GraphDef[Block])
    assert_type(liftnn.merge(graphdef, params, rest), Block)
    assert_type(liftnn.clone(block), Block)
    assert_type(liftnn.state(block, liftnn.Param), liftnn.State)
    assert_type(liftnn.state(block, liftnn.Param, ...), tuple[liftnn.State, ...])
    assert_type(params.filter(lambda path, variable: "scale" in path), liftnn.State)
    assert_type(params | rest, liftnn.State)
    block.update(params)


def takes_filters_of_every_kind(model: Model) -> None:
    def is_head(path: tuple[Any, ...], variable: liftnn.Variable) -> bool:
        return "head" in path and variable.ndim == 2

    several = [liftnn.Param, "head", liftnn.Not(liftnn.BatchStat)]
    assert_type(liftnn.state(model, several), liftnn.State)
    assert_type(liftnn.state(model, is_head, *several), tuple[liftnn.State, ...])
    axes = {liftnn.Param: 0, ...: None}
    liftnn.vmap(model, in_axes=(liftnn.StateAxes(axes),), reduce_writes={liftnn.BatchStat: jnp.mean})
    liftnn.grad(model, wrt=(liftnn.Param, is_head))


def refuses_what_is_no_filter(block: Block) -> None:
    block.state(3)  # pyright: ignore[reportArgumentType]
    liftnn.Optimizer(block, optax.sgd(0.1), wrt=3)  # pyright: ignore[reportArgumentType]
    liftnn.merge(block)  # pyright: ignore[reportArgumentType]


def test_streams_give_keys():
    rngs = liftnn.Rngs(0, dropout=1)
    assert_type(rngs.dropout(), jax.Array)
    assert_type(rngs(), jax.Array)
    assert_type(rngs["dropout"], liftnn.RngStream)
    assert_type(rngs.fork(), liftnn.Rngs)
    assert_type(rngs.split(3), liftnn.Rngs)
    assert_type(rngs.dropout.key, liftnn.RngKey)


def test_metrics_are_typed():
    metrics = liftnn.MultiMetric(loss=liftnn.Average("loss"), accuracy=liftnn.Accuracy())
    metrics.update(loss=jnp.ones(3), logits=jnp.ones((3, 2)), labels=jnp.zeros(3, int))
    assert_type(metrics.compute(), dict[str, Any])
    assert_type(metrics.loss, liftnn.Metric)
    average = liftnn.Average()
    average.update(values=X)
    assert_type(average.compute(), jax.Array)
