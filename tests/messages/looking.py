"""Errors of the functions that look inside modules."""

from __future__ import annotations

import queue

import jax
import jax.numpy as jnp
import numpy as np

import liftnn
from liftnn import errors
from tests.messages.registry import message


@message(errors.ArgumentTypeError, "tabulate takes a module, not a list.", "Pass the module itself.")
def tabulate_of_a_list():
    liftnn.tabulate([liftnn.Module()])


@message(
    errors.ArgumentTypeError,
    "`method` is the name of a method of the model, not a function.",
    'Pass the name, such as method="encode".',
)
def tabulate_of_a_function_as_method():
    liftnn.tabulate(linear(), jnp.ones(2), method=lambda model, x: model(x))


class Coder(liftnn.Module):
    def encode(self, x):
        return x


@message(errors.ArgumentError, "A Coder has no method 'encod'.", "Write method='encode'.")
def tabulate_of_a_misspelled_method():
    liftnn.tabulate(Coder(), method="encod")


@message(errors.ArgumentError, "A Coder has no method 'generate'.", "Pass the name of a method of the model.")
def tabulate_of_a_missing_method():
    liftnn.tabulate(Coder(), jnp.ones(2), method="generate")


@message(errors.ArgumentError, "draw has no format 'png'.", "Pass one of 'mermaid', 'dot'.")
def draw_as_a_picture():
    liftnn.draw(liftnn.Module(), "png")


@message(
    errors.ArgumentError,
    "tabulate counts the operations of a call, but got no inputs for Linear.__call__().",
    "Pass its inputs after the module: `liftnn.tabulate(model, x, flops=True)`, where x is an array or a "
    "jax.ShapeDtypeStruct.",
)
def operations_without_inputs():
    liftnn.tabulate(linear(), flops=True)


@message(
    errors.ArgumentError,
    "tabulate counts the operations of a call, but got no inputs for Sequential.__call__().",
    "Pass its inputs after the module: `liftnn.tabulate(model, x, grad_flops=True)`, where x is an array or a "
    "jax.ShapeDtypeStruct.",
)
def operations_without_optional_inputs():
    liftnn.tabulate(liftnn.Sequential(linear()), grad_flops=True)


@message(
    errors.ArgumentTypeError,
    "count_params takes a module or a tree of modules, not an int.",
    "Pass the module itself.",
)
def count_of_a_number():
    liftnn.count_params(3)


@message(
    errors.ArgumentTypeError,
    "count_params takes a module or a tree of modules, not the class Linear.",
    "Create the module: `Linear(...)`.",
)
def count_of_a_class():
    liftnn.count_params(liftnn.Linear)


@message(
    errors.ArgumentTypeError,
    "draw takes a module or a tree of modules, not an int.",
    "Pass the module itself.",
)
def draw_of_a_number():
    liftnn.draw(3)


def linear():
    return liftnn.Linear(2, 2, rngs=liftnn.Rngs(0))


def leaked(jit):
    """A model that has left a transform past its result."""
    box = queue.SimpleQueue()  # liftnn does not look into it
    jit(lambda: box.put(liftnn.Sequential(linear())) or 0)()
    return box.get()


RETURN = (
    "Return the module from that transform, or store it in a module that was an argument of that transform. In a "
    "callback, such as one of `jax.pure_callback`, pass its State as an operand: `state, graphdef = "
    "liftnn.split(model)`, then `liftnn.merge(graphdef, state)` in the callback."
)
CREATE = (
    "Create the model without `eval_shape`, or set all its Variables first, for example by `update(model, state)`. To "
    "compute shapes, use `eval_shape`."
)


@message(
    errors.TraceContextError,
    "A Linear was called, but it has leaked: kernel is a Param whose array belongs to a transform that has "
    "returned, so it has no value here.",
    RETURN,
)
def call_of_a_leaked_model():
    model = leaked(liftnn.jit)
    model(jnp.ones((1, 2)))


@message(
    errors.TraceContextError,
    "args[0].layers[0].kernel (a Param) is an array of a transform that has returned (leaked), so liftnn.jit cannot "
    "use it.",
    RETURN,
)
def argument_that_leaked_from_raw_jax():
    liftnn.jit(lambda model, x: model(x))(leaked(jax.jit), jnp.ones((1, 2)))


@message(
    errors.TraceContextError,
    "model (a Sequential), which the function captures, was created in a transform that has returned (leaked), so "
    "liftnn.grad cannot use it.",
    RETURN,
)
def captured_model_that_leaked():
    model = leaked(liftnn.jit)
    liftnn.grad(lambda x: model(x).sum())(jnp.ones((1, 2)))


@message(
    errors.TraceContextError,
    "Cannot change the value of a Param here: it was created inside a call of liftnn.jit that has returned (leaked), "
    "and may hold tracers.",
    "Return it from that call, or store it in a module that was an argument of that call.",
)
def write_to_a_leaked_variable():
    leaked(liftnn.jit).layers[0].kernel.value = jnp.ones((2, 2))


@message(
    errors.ArgumentTypeError,
    "liftnn.eval_shape cannot return the output.names (a Variable), which is a numpy array of strings, objects or "
    "dates: arrays of JAX hold numbers.",
    "Store a tuple, which is static, as in `tuple(x.tolist())`.",
)
def array_of_text_returned():
    class Labels(liftnn.Module):
        def __init__(self):
            self.names = liftnn.Variable(np.array(["cat", "dog"]))

    liftnn.eval_shape(Labels)


@message(
    errors.ArgumentTypeError,
    "args[0].names is a numpy array of strings, objects or dates, so liftnn.jit cannot use it: arrays of JAX hold "
    "numbers.",
    "Store a tuple, which is static, as in `tuple(x.tolist())`.",
)
def array_of_text():
    model = linear()
    model.names = np.array(["cat", "dog"])
    liftnn.jit(lambda model, x: model(x))(model, jnp.ones((1, 2)))


@message(
    errors.ArgumentError,
    "args[0].data is a masked array of numpy, so liftnn.jit cannot use it.",
    "Store its data and its mask as two arrays, or `x.filled(value)`.",
)
def masked_array():
    model = linear()
    model.data = np.ma.masked_array([1.0, 2.0], [False, True])
    liftnn.jit(lambda model, x: model(x))(model, jnp.ones((1, 2)))


@message(
    errors.ArgumentTypeError,
    "args[0].kernel (a Param) is abstract: it has a shape and a dtype, but no value, so liftnn.grad cannot use it.",
    CREATE,
)
def abstract_argument():
    liftnn.grad(lambda model, x: model(x).sum())(liftnn.eval_shape(linear), jnp.ones((1, 2)))


@message(
    errors.ArgumentTypeError,
    "args[0].bias (a Param) is abstract: it has a shape and a dtype, but no value, so liftnn.jit cannot use it.",
    CREATE,
)
def abstract_argument_of_a_compiled_function():
    model, x = linear(), jnp.ones((1, 2))
    f = liftnn.jit(lambda model, x: model(x))
    f(model, x)
    f(model, x)
    model.bias.value = jax.ShapeDtypeStruct((2,), jnp.float32)
    f(model, x)
