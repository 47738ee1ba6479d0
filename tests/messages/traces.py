"""Errors of random streams, of the optimizer, and of objects that are used in a trace they do not belong to."""

from __future__ import annotations

import dataclasses
import functools
import queue

import jax
import jax.numpy as jnp
import optax

import liftnn
from liftnn import errors
from tests.messages.registry import message
from tests.user_modules import Affine, Holder


@dataclasses.dataclass(frozen=True)
class Link:
    """A frozen dataclass."""

    other: object


# --- random streams


@message(
    errors.ArgumentError,
    "The stream 'dropout' of an Rngs needs an int or a PRNG key, not 'seed'.",
    "Pass an int such as 0, or jax.random.key(0).",
)
def stream_of_a_string():
    liftnn.Rngs(dropout="seed")


@message(
    errors.ArgumentError,
    "The stream 'default' holds keys of shape (3,), one for each batch element of a vmap.",
    "Draw from it inside the vmap, with the Rngs mapped over axis 0.",
)
def stream_of_several_keys():
    liftnn.Rngs(0).split(3)()


@message(
    errors.AttributeNameError,
    "This Rngs has no stream 'dropout' and no default stream; it has: params, noise.",
    "Create the Rngs with this stream, Rngs(dropout=seed), or with a default stream, Rngs(seed).",
)
def unknown_stream():
    liftnn.Rngs(params=0, noise=1).dropout()


@message(
    errors.ArgumentError,
    "This Rngs has no stream 'lanes'; it has: default.",
    "Pass the names of existing streams.",
)
def fork_of_an_unknown_stream():
    liftnn.Rngs(0).fork(lanes=3)


@message(
    errors.ArgumentError,
    "No random stream in the tree is named 'dropout', 'noise'; it has: none.",
    "Pass the names of existing streams.",
)
def reseed_of_unknown_streams():
    liftnn.reseed(Affine(), noise=1, dropout=2)


@message(
    errors.ArgumentError,
    "The stream at default holds keys of shape (3,), one for each batch element of a vmap, but reseed makes one key.",
    'Pass policy="match_shape", which splits the new key into this shape.',
)
def reseed_of_a_split_stream():
    liftnn.reseed(liftnn.Rngs(0).split(3), default=1)


@message(
    errors.ArgumentError,
    '`policy` must be "scalars_only", "match_shape" or a function, not \'match\'.',
    "A function takes path, key and shape, and returns keys of that shape.",
)
def reseed_with_an_unknown_policy():
    liftnn.reseed(liftnn.Rngs(0), policy="match", default=1)


@message(
    errors.TraceContextError,
    "Cannot change the value of an RngCount here: it was created under a raw JAX transform (jax.jit, jax.grad, "
    "jax.vmap, jax.lax.scan ...) that has returned (leaked), and may hold tracers.",
    "Use the liftnn transform of the same name and return the object, or return its arrays.",
)
def leaked_stream():
    leaked = []
    jax.jit(lambda: leaked.append(liftnn.Rngs(1)) or 0)()
    leaked[0].params()


@message(
    errors.ArgumentError,
    "`split` must be a number of keys or a shape, not 2.5.",
    "Pass the number of keys, such as 8, or their shape, such as (2, 4).",
)
def fork_into_no_shape():
    liftnn.Rngs(0).fork(split=2.5)


# --- the optimizer


@message(
    errors.FilterError,
    "Nothing to optimize: no Variable of the model matches OfType(BatchStat).",
    "Pass a filter as `wrt` that matches Variables of the model, such as liftnn.Param.",
)
def optimizer_of_nothing():
    liftnn.Optimizer(Affine(), optax.sgd(0.1), wrt=liftnn.BatchStat)


def optimize(grads):
    """One step of a fresh optimizer with these gradients."""
    model = Affine()
    liftnn.Optimizer(model, optax.sgd(0.1)).update(model, grads)


@message(
    errors.ArgumentError,
    "The transformation of optax has a dict, such as a mask or labels, where the parameters are a State.",
    "Pass liftnn.State(...) of the dict, or a function of the parameters, as in "
    "`mask=lambda params: params.map(lambda path, x: path[-1] == 'kernel')`.",
)
def dict_as_mask():
    liftnn.Optimizer(Affine(), optax.adamw(0.1, mask={"w": True, "b": False}))


@message(
    errors.StructureError,
    "The gradients must be a State, not a float.",
    "Pass the gradient that liftnn.grad returns for the model.",
)
def gradients_of_another_type():
    optimize(1.0)


@message(
    errors.StructureError,
    "The gradients do not cover the Variables that the optimizer updates:",
    "missing:",
    "  w",
    "Compare the paths above with those of the module: both sides must have the same Variables.",
)
def gradients_of_a_subset():
    optimize(liftnn.grad(functools.partial(Affine.loss, x=1.0), wrt=liftnn.PathContains("b"))(Affine()))


class Owner(liftnn.Module):
    def __init__(self):
        self.net = Affine()

    def loss(self, net):
        return (net.w * self.net.w).sum()


@message(
    errors.StructureError,
    "The gradients do not cover the Variables that the optimizer updates:",
    "missing:",
    "  w",
    "  b",
    "unexpected:",
    "  net.w",
    "  net.b",
    "These are the gradients of an object with the model at net. If it is the `self` of a bound method, it is "
    "argument 0 of the derivative: pass `argnums=1` for the first of the call.",
)
def gradients_of_the_owner_of_a_method():
    owner = Owner()
    grads = liftnn.grad(owner.loss)(owner.net)
    liftnn.Optimizer(owner.net, optax.sgd(0.1)).update(owner.net, grads)


@message(
    errors.ArgumentTypeError,
    "The rate of a Dropout must be a number, but it is an array that is being traced, which has no value yet.",
    "Set it to a Python number, such as 0.1: another number is another trace. For a rate that varies without a new "
    "trace, draw the mask with `jax.random.bernoulli`.",
)
def dropout_with_a_traced_rate():
    liftnn.jit(lambda rate: liftnn.Dropout(rate))(0.1)


@message(
    errors.ArgumentTypeError,
    "The transformation of optax needs value, grad and value_fn in addition to the gradients.",
    "Write `optimizer.update(model, grads, value=loss, grad=grads, value_fn=value_fn)`; value_fn maps a State of "
    "parameters to the loss.",
)
def update_without_the_arguments_of_a_line_search():
    model = Affine()
    liftnn.Optimizer(model, optax.lbfgs()).update(model, liftnn.state(model))


@message(
    errors.ArgumentTypeError,
    "An Optimizer cannot update integers, whose gradients have dtype float0:\n  w",
    "Keep integers in Variables that `wrt` does not select, such as a `liftnn.Variable`.",
)
def update_of_integers():
    model = Holder(w=liftnn.Param(jnp.arange(3)), x=liftnn.Param(jnp.ones(3)))
    grads = liftnn.grad(lambda m: m.x.sum(), allow_int=True)(model)
    liftnn.Optimizer(model, optax.sgd(0.1)).update(model, grads)


@message(
    errors.ArgumentTypeError,
    "Optimizer.update got the gradients first.",
    "Write optimizer.update(model, grads).",
)
def gradients_before_the_model():
    model = Affine()
    liftnn.Optimizer(model, optax.sgd(0.1)).update(liftnn.state(model), model)


@message(
    errors.ArgumentTypeError,
    "tx must be a gradient transformation of optax, not a float.",
    "Pass one, such as Optimizer(model, optax.adam(0.1)).",
)
def optimizer_of_a_learning_rate():
    liftnn.Optimizer(Affine(), 0.1)


@message(
    errors.ArgumentTypeError,
    "tx is the function adam, which returns a transformation when it is called.",
    "Call it: Optimizer(model, optax.adam(1e-3)).",
)
def optimizer_of_a_factory():
    liftnn.Optimizer(Affine(), optax.adam)


@message(
    errors.StructureError,
    "rate cannot be added to learning_rate: the entries of this tree of Variables are fixed.",
    "Set values only, or assign a whole new tree, such as `optimizer.opt_state = tree`.",
)
def hyperparameter_that_does_not_exist():
    tx = optax.inject_hyperparams(optax.sgd)(learning_rate=0.1)
    liftnn.Optimizer(Affine(), tx).opt_state.hyperparams["rate"] = 0.2


@message(
    errors.FilterError,
    "Nothing to average: no Variable with floating-point values matches OfType(BatchStat).",
    "Pass a filter as `only` that matches Variables of the model, such as liftnn.Param.",
)
def average_of_nothing():
    liftnn.EMA(Affine(), 0.9, only=liftnn.BatchStat)


@message(
    errors.ArgumentTypeError,
    "`decay` must be a number, or a Variable that holds one, not a function.",
    "Pass a number such as 0.999. If it changes with the steps, pass a Variable, and set its value.",
)
def schedule_as_decay():
    liftnn.EMA(Affine(), optax.constant_schedule(0.9))


@message(
    errors.ArgumentTypeError,
    "w is abstract: it has a shape and a dtype, but no value, so an EMA cannot average it.",
    "Create the model without `eval_shape`, or set all its Variables first, for example by `update(model, state)`.",
)
def average_of_an_abstract_model():
    liftnn.EMA(liftnn.eval_shape(Affine), 0.9, only=liftnn.Param)


# --- traces


@message(
    errors.TraceContextError,
    "Cannot change the value of a Variable here: it comes from plain Python, and this code runs under a raw JAX "
    "transform (jax.jit, jax.grad, jax.vmap, jax.lax.scan ...), which would lose the change or leak a tracer.",
    "Use the liftnn transform of the same name instead.",
)
def value_written_under_raw_jit():
    jax.jit(Affine())(1.0)


@message(
    errors.TraceContextError,
    "Cannot change the attribute 'mode' of an Affine here: it comes from plain Python, and this code runs under a raw "
    "JAX transform (jax.jit, jax.grad, jax.vmap, jax.lax.scan ...), which would lose the change or leak a tracer.",
    "Use the liftnn transform of the same name instead.",
)
def attribute_set_under_raw_grad():
    model = Affine()
    jax.grad(lambda x: setattr(model, "mode", "eval") or x)(1.0)


@message(
    errors.TraceContextError,
    "Cannot change the value of a Variable here: it comes from liftnn.jit, and this code runs under a raw JAX "
    "transform (jax.jit, jax.grad, jax.vmap, jax.lax.scan ...), which would lose the change or leak a tracer.",
    "Use the liftnn transform of the same name instead.",
)
def value_written_under_raw_grad_inside_jit():
    liftnn.jit(lambda model, x: jax.grad(lambda y: model(y).sum())(x))(Affine(), 1.0)


@message(
    errors.TraceContextError,
    "Cannot change the attribute 'mode' of model.layers[0] (an Affine) here: it comes from plain Python and reached "
    "liftnn.grad through a closure, where only values of Variables can be changed.",
    "Pass the object as an argument of the function given to liftnn.grad.",
)
def captured_attribute_set_in_grad():
    model = Holder(layers=[Affine()])
    liftnn.grad(lambda x: setattr(model.layers[0], "mode", "eval") or x)(1.0)


@message(
    errors.TraceContextError,
    "Cannot change the state of model (an Affine) here: it comes from plain Python and reached liftnn.jit through a "
    "closure, where only values of Variables can be changed.",
    "Pass the object as an argument of the function given to liftnn.jit.",
)
def captured_state_set_in_jit():
    model = Affine()
    liftnn.jit(lambda x: model.__setstate__({"mode": "eval"}) or x)(1.0)


@message(
    errors.TraceContextError,
    "Cannot change the metadata of model.w (a Param) here: it comes from liftnn.jit and reached liftnn.vmap through a "
    "closure, where only values of Variables can be changed.",
    "Pass the object as an argument of the function given to liftnn.vmap.",
)
def captured_metadata_set_in_vmap_inside_jit():
    def f(model, x):
        return liftnn.vmap(lambda y: model.w.set_metadata(axis="rows") or y)(x)

    liftnn.jit(f)(Affine(), jnp.ones(2))


@message(
    errors.TraceContextError,
    "Cannot change the value of counter.calls (a Variable) here: it comes from plain Python, and this code runs under "
    "a raw JAX transform (jax.jit, jax.grad, jax.vmap, jax.lax.scan ...), which would lose the change or leak a "
    "tracer.",
    "Use the liftnn transform of the same name instead.",
)
def captured_value_written_under_raw_scan_inside_jit():
    counter = Affine()
    liftnn.jit(lambda xs: jax.lax.map(lambda x: counter(x), xs))(jnp.ones(2))


@message(
    errors.TraceContextError,
    "Cannot change the state of args[0].calls (a Variable) here: it comes from plain Python, and this code runs under "
    "a raw JAX transform (jax.jit, jax.grad, jax.vmap, jax.lax.scan ...), which would lose the change or leak a "
    "tracer.",
    "Use the liftnn transform of the same name instead.",
)
def captured_module_written_by_our_jit_under_raw_jit():
    model = Affine()
    jax.jit(lambda x: liftnn.jit(model)(x))(1.0)


@message(
    errors.TraceContextError,
    "Cannot change the value of a Param here: it is a copy that a raw JAX transform made of its argument, and the "
    "change would be lost.",
    "Use the liftnn transform of the same name instead.",
)
def variable_passed_to_raw_jit_and_written():
    def double(w):
        w.value = w * 2

    jax.jit(double)(liftnn.Param(1.0))


@message(
    errors.TraceContextError,
    "model.layers (a list) was changed in liftnn.jit. The function captures it, and only the values of captured "
    "Variables can be changed.",
    "Make it an attribute of a module if it is not one, and pass that module as an argument to the function given to "
    "liftnn.jit.",
)
def captured_list_grown_in_jit():
    model = Holder(layers=[Affine()])
    liftnn.jit(lambda x: model.layers.append(Affine()))(1.0)


@message(
    errors.StructureError,
    "args[0].kept: An Affine that was created in a transform that has returned (leaked) was stored here or "
    "returned.",
    "Return it from that transform, or store it in a module that was an argument of that transform.",
)
def module_of_a_call_that_is_over_attached():
    leaked = queue.SimpleQueue()  # liftnn does not look into it
    liftnn.jit(lambda x: leaked.put(Affine()) or x)(1.0)
    liftnn.jit(lambda model: setattr(model, "kept", leaked.get()))(Affine())


@message(
    errors.StructureError,
    "args[0].link: A Link was changed in place, but it is immutable.",
    "Assign a new object to the attribute instead.",
)
def frozen_object_changed_in_place():
    def change(model):
        object.__setattr__(model.link, "other", model.w)

    liftnn.jit(change)(Holder(link=Link([1]), w=liftnn.Param(1.0)))


@message(
    errors.ArgumentTypeError,
    "An Affine was passed to a JAX function, or returned from a function that JAX transforms. JAX handles "
    "arrays and pytrees of arrays; changes to a Module would be lost.",
    "Use the liftnn transform of the same name (liftnn.jit for jax.jit, liftnn.grad for jax.grad ...), or "
    "pass the State from liftnn.split to JAX and merge it inside. Functions of jax.tree accept Modules as "
    "leaves with is_leaf=lambda x: isinstance(x, liftnn.Module).",
)
def module_handed_to_jax():
    jax.jit(lambda model: model(1.0))(Affine())
