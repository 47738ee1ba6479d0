"""Errors of the transforms: arguments, static and donated ones, axes, gradients, compiled stages."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax

import liftnn
from liftnn import errors
from tests.messages.registry import message
from tests.user_modules import Affine, Holder, step

STATIC = (
    "Pass the value through `static_argnums` or `static_argnames`, or store it as an attribute of a module."
)
SHARED = (
    "Map the Variable as well (an axis in `in_axes`, or `StateAxes`), reduce the value over the axis "
    "before writing it (for example with `jax.lax.pmean` and an `axis_name`), or specify in "
    "`reduce_writes` how to reduce it."
)
ALIASED = "Use the same prefix for both, or pass `liftnn.clone(module)` for one of them."
EVERYTHING = (
    "Add `...` as the last filter to match the remaining Variables, or change a filter to match them."
)
LANES = jnp.arange(2.0)


def mapped():
    """An ensemble of two."""
    return liftnn.vmap(Affine)(jnp.arange(1.0, 3.0))


# --- every transform


@message(errors.ArgumentError, "liftnn.remat needs a function.", "Pass a callable.")
def no_function():
    liftnn.lift(bind=lambda plan, pure: pure, name="remat")


@message(errors.ArgumentTypeError, "liftnn.jit needs a function, not a Param.", "Pass a callable.")
def function_that_cannot_be_called():
    liftnn.jit(liftnn.Param(1.0))


@message(
    errors.ArgumentTypeError,
    "liftnn.grad needs a function, not a classmethod.",
    "Put @classmethod above the transform.",
)
def class_method_below_the_transform():
    liftnn.grad(classmethod(step))


@message(
    errors.ArgumentTypeError,
    "args[1].names[0] of liftnn.jit is a str, not an array or a module: 'first'.",
    STATIC,
)
def text_as_argument():
    liftnn.jit(lambda model, x: model.w)(Affine(), {"names": ["first"]})


@message(
    errors.StructureError,
    "A list, dict or other container that was passed as an argument was changed inside the function. The function gets "
    "a copy of the container, as in JAX, so the change would be lost.",
    "Return the container, change a copy of it (`batch = dict(batch)`), or make it an attribute of a module and pass "
    "that module.",
)
def list_of_modules_grown():
    liftnn.jit(lambda models: models.append(Affine()))([Affine()])


@message(
    errors.StructureError,
    "args[0].layers[0].note: the value of this Variable contains an Affine. A Variable holds arrays, not modules or "
    "Variables.",
    "Store the Affine as an attribute of a Module instead.",
)
def module_in_the_value_of_a_variable():
    model = Holder(layers=[Holder(note=liftnn.Variable({"a": jnp.ones(2)}))])

    def change(model):
        model.layers[0].note.value = {"a": [Affine()]}

    liftnn.jit(change)(model)


class Trainer:
    """An object that holds a module, with a compiled method."""

    def __init__(self):
        self.model = Affine()

    def __repr__(self):
        return "<a Trainer of an Affine, and of many things besides it, such as a plan>"

    @liftnn.jit
    def step(self, x):
        return self.model(x)


@message(
    errors.ArgumentTypeError,
    "args[0] of liftnn.jit is a Trainer, not an array or a module: <a Trainer of an Affine, and of many things besides "
    "it, s...",
    "Make Trainer, which has modules as attributes, a `liftnn.Module` or a dataclass. Or transform its bound method, "
    "as in `liftnn.jit(object.method)`.",
)
def compiled_method_of_a_plain_object():
    Trainer().step(1.0)


class Settings:
    """An object that holds a dataclass, as that of a configuration library does, and no module."""

    def __init__(self):
        self.origin = dataclasses.make_dataclass("Origin", [])()

    def __repr__(self):
        return "Settings()"


@message(
    errors.ArgumentTypeError,
    "args[1] of liftnn.jit is a Settings, not an array or a module: Settings().",
    STATIC,
)
def settings_as_argument():
    liftnn.jit(lambda model, settings: model.w)(Affine(), Settings())


class Tensor:
    """An array of another library, as a tensor of PyTorch or a column of pandas."""

    def __array__(self, dtype=None, copy=None):
        return np.ones(2)

    def __repr__(self):
        return "tensor([1., 1.])"


@message(
    errors.ArgumentTypeError,
    "args[1].x of liftnn.jit is a Tensor, not an array or a module: tensor([1., 1.]).",
    "Pass it as an array, as in `numpy.asarray(x)`.",
)
def array_of_another_library():
    liftnn.jit(lambda model, batch: model(batch["x"]))(Affine(), {"x": Tensor()})


class Box:
    """An object that liftnn does not know."""

    def __init__(self, content):
        self.content = content


@message(
    errors.StructureError,
    "args[0].layers[1].scale is a Box that holds an array computed inside the function. The array would leak as a "
    "tracer, because liftnn treats this Box as static.",
    "Store the array in an attribute, a Variable, or a list, dict or dataclass of them.",
)
def object_with_a_traced_array():
    def attach(model, x):
        model.layers.append(Holder(scale=Box(x)))

    liftnn.jit(attach)(Holder(layers=[Affine()]), 2.0)


class Model:
    """A configuration that is compared by content, as a model of pydantic."""

    def __init__(self, scale):
        self.scale = scale

    def __eq__(self, other):
        return vars(self) == vars(other)


@message(
    errors.StructureError,
    "args[0].layers[1].config: A static value of type Model holds an array computed inside the function. The array "
    "would leak as a tracer.",
    "Store the array in an attribute, a Variable, or a list, dict or dataclass of them.",
)
def unhashable_object_with_a_traced_array():
    def attach(model, x):
        model.layers.append(Holder(config=Model(x)))

    liftnn.jit(attach)(Holder(layers=[Affine()]), 2.0)


@message(
    errors.StructureError,
    "the output.tx.init is a function that holds an array computed inside the function. The array would leak as a "
    "tracer, because liftnn treats this function as static.",
    "Create the transformation of optax outside, as in `tx = optax.inject_hyperparams(optax.adam)(learning_rate=0.0)`, "
    "and set the number inside: `optimizer.opt_state.hyperparams['learning_rate'] = x`.",
)
def optimizer_with_a_traced_learning_rate():
    @liftnn.vmap
    def make(rate):
        return liftnn.Optimizer(Affine(), optax.inject_hyperparams(optax.adam)(learning_rate=rate))

    make(LANES)


# --- grad


@message(
    errors.ArgumentTypeError,
    "`argnums` must be an int, a DiffState or a sequence of them, not 'model'.",
    "Pass the position of an argument, such as 0, or several, such as (0, liftnn.DiffState(1, filter)).",
)
def argnums_that_are_a_name():
    liftnn.grad(Affine.loss, argnums="model")


@message(
    errors.ArgumentTypeError,
    "argnums contains 2, but only 2 positional arguments were passed.",
    "Pass the differentiated arguments by position.",
)
def argnums_out_of_range():
    liftnn.grad(Affine.loss, argnums=2)(Affine(), 1.0)


@message(
    errors.ArgumentError,
    "argnums selects args[0] twice.",
    "Pass each position once; a filter such as `liftnn.DiffState(0, (liftnn.Param, liftnn.BatchStat))` selects "
    "Variables of several types.",
)
def argnums_that_repeat_a_position():
    liftnn.grad(Affine.loss, argnums=(0, -2))(Affine(), 1.0)


@message(
    errors.ArgumentTypeError,
    "With has_aux=True the function must return a pair (output, auxiliary), not an array.",
    "Return a tuple `(output, auxiliary)`, or leave has_aux out.",
)
def no_pair_with_has_aux():
    liftnn.grad(Affine.loss, has_aux=True)(Affine(), 1.0)


@message(
    errors.ArgumentTypeError,
    "The function to differentiate must return a scalar array.",
    "Return an array of shape (), not a Variable but its `.value`; return further outputs with has_aux=True.",
)
def pair_without_has_aux():
    liftnn.value_and_grad(lambda m: (m.loss(1.0), 1))(Affine())


@message(
    errors.ArgumentTypeError,
    "The function to differentiate must return a pair (scalar array, auxiliary).",
    "Return an array of shape (), not a Variable but its `.value`; return further outputs with has_aux=True.",
)
def module_first_with_has_aux():
    liftnn.value_and_grad(lambda m: (m, m.loss(1.0)), has_aux=True)(Affine())


@message(
    errors.ArgumentTypeError,
    "Cannot differentiate args[0].name: it is not an array.",
    "With `argnums`, select only arguments that contain nothing but arrays and modules.",
)
def gradient_of_text():
    liftnn.grad(lambda d: d["x"])({"x": 1.0, "name": "text"})


@message(
    errors.FilterError,
    "Nothing to differentiate: no Variable of args[0] matches OfType(BatchStat).",
    "Pass a filter as `wrt` that matches Variables of the module, such as liftnn.Param, or leave the argument out "
    "of `argnums`.",
)
def gradient_of_nothing():
    liftnn.grad(lambda pair: pair[0], wrt=liftnn.BatchStat)((Affine(), Affine()))


@message(
    errors.ArgumentTypeError,
    "Cannot differentiate args[0].calls: its dtype is int32.",
    "Exclude it with `wrt` or `argnums`, convert it to a floating point dtype, or pass allow_int=True.",
)
def gradient_of_integers():
    liftnn.grad(Affine.loss, wrt=...)(Affine(), 1.0)


# --- vmap


@message(
    errors.ArgumentTypeError,
    "`in_axes` contains '0', which is not an axis.",
    "An axis is an int or None (not mapped), for a module also liftnn.StateAxes, and in a scan also liftnn.Carry.",
)
def axis_that_is_text():
    liftnn.vmap(step, in_axes=(None, "0"))


@message(
    errors.ArgumentTypeError,
    "`in_axes` contains a Param, which is not an axis.",
    "An axis is an int or None (not mapped), for a module also liftnn.StateAxes, and in a scan also liftnn.Carry.",
)
def axis_that_is_a_variable():
    liftnn.vmap(step, in_axes=(None, liftnn.Param(0)))


@message(
    errors.ArgumentTypeError,
    "`in_axes` is {'x': 0}, which is neither an axis nor a tuple with an entry for each argument.",
    "Put the axes of the parts of an argument into a tuple, such as `in_axes=({'x': 0},)`.",
)
def axes_that_are_a_dict():
    liftnn.vmap(step, in_axes={"x": 0})


@message(
    errors.ArgumentError,
    "(0, 0, 0) has 3 entries, but the call has 2 positional arguments.",
    "Pass an argument for each entry: None where there is nothing, such as the slices of a `scan` with `length`.",
)
def in_axes_for_too_many_arguments():
    liftnn.vmap(step, in_axes=(0, 0, 0))(mapped(), LANES)


@message(
    errors.ArgumentError,
    "vmap has nothing to map: no argument with an axis contains an array.",
    "Set an axis in `in_axes` for an argument with arrays, or pass `axis_size`.",
)
def nothing_to_map():
    liftnn.vmap(step, in_axes=None)(Affine(), 1.0)


@message(
    errors.ArgumentError,
    "args[0].calls (a Variable) cannot be mapped over axis 0: its shape is ().",
    "Use another axis for it in `in_axes`, or None to share it between the batch elements.",
)
def scalar_variable_mapped():
    liftnn.vmap(step)(Affine(size=2), LANES)


@message(
    errors.ArgumentError,
    "The arguments of vmap have different sizes along their mapped axes:",
    "  2: axis 0 of args[0].w (a Param)",
    "  3: axis 0 of args[1]",
    "Pass arrays of the same size, or use None in `in_axes` for those that all batch elements share.",
)
def axes_of_different_sizes():
    liftnn.vmap(step)(mapped(), jnp.ones(3))


@message(
    errors.ArgumentError,
    "Cannot stack the output[1] along axis 1: its shape in each batch element is ().",
    "Use an axis from -1 to 0 in `out_axes` or, for a part of an argument, in `in_axes`.",
)
def no_room_for_the_axis_of_an_output():
    liftnn.vmap(lambda model, x: (jnp.ones(3), x), in_axes=(None, 0), out_axes=1)(Affine(), LANES)


@message(
    errors.ArgumentError,
    "`out_axes` is None for the output, but its value differs between the batch elements.",
    "Use an axis in `out_axes`, or reduce the value over the batch elements (for example with `jax.lax.pmean` and "
    "an `axis_name`).",
)
def output_that_differs_without_axis():
    liftnn.vmap(lambda model, x: x, in_axes=(None, 0), out_axes=None)(Affine(), LANES)


@message(
    errors.SharedWriteError,
    "args[0].mean (a BatchStat) is shared by all batch elements of this vmap, but they write different values to it.",
    SHARED,
)
def shared_batch_norm():
    layer = liftnn.BatchNorm(1, rngs=liftnn.Rngs(0))
    liftnn.vmap(step, in_axes=(None, 0))(layer, jnp.ones((2, 3, 1)))


@message(
    errors.SharedWriteError,
    "args[0].seen[0] (an Intermediate) was attached to a module that all batch elements of this vmap share, but its "
    "value differs between them.",
    SHARED,
)
def sow_into_a_shared_module():
    def sow(model, x):
        model.seen = [liftnn.Intermediate(x)]

    liftnn.vmap(sow, in_axes=(None, 0))(Affine(), LANES)


@message(
    errors.AliasingError,
    "args[0].w and args[1].w are the same Param, but they have different prefixes: 0 and None.",
    ALIASED,
)
def one_module_with_two_axes():
    model = mapped()
    liftnn.vmap(lambda a, b: a.w, in_axes=(0, None))(model, model)


@message(
    errors.AliasingError,
    "pair[0].w was used, but it is also args[0].w, with the prefix 0: here only args[0].w has a value.",
    "Use the argument instead, or read what you need in a local variable before the call.",
)
def mapped_variable_read_through_its_owner():
    pair = [mapped(), Affine()]
    liftnn.vmap(lambda model: model.w * pair[0].w * pair[1].w)(pair[0])


class Pair(liftnn.Module):
    def __init__(self):
        self.model = mapped()
        self.gain = liftnn.Param(jnp.float32(2))


@message(
    errors.AliasingError,
    "args[0] cannot have the prefix 0 here: a part of it is an argument of an enclosing map.",
    "Pass the part that you need, the object without an axis, or a `liftnn.clone` of it, made before the map.",
)
def owner_of_what_is_mapped_with_an_axis():
    pair = Pair()
    liftnn.vmap(lambda model: liftnn.vmap(lambda pair: pair.gain * 1)(pair))(pair.model)


@message(
    errors.AliasingError,
    "Cannot differentiate args[0] here: a part of it is an argument of an enclosing map.",
    "Select other arguments, or call the method in a lambda, which captures the object.",
)
def gradient_of_the_owner_of_what_is_mapped():
    pair = Pair()
    liftnn.vmap(lambda model: liftnn.grad(lambda pair: pair.gain * model.w.sum())(pair))(pair.model)


@message(
    errors.FilterError,
    "args[0].calls (a Variable) matches none of the filters of the StateAxes.",
    EVERYTHING,
)
def variable_without_axis():
    liftnn.vmap(step, in_axes=(liftnn.StateAxes({liftnn.Param: 0}), 0))(mapped(), LANES)


def yields(x):
    yield x


@message(
    errors.ArgumentTypeError,
    "liftnn.jit got a generator function, yields, which computes nothing when called.",
    "Return the values, in a list or stacked, instead of yielding them.",
)
def generator_function():
    liftnn.jit(yields)


@message(
    errors.ArgumentTypeError,
    "liftnn.split_rngs got a generator function, generator_with_split_streams.<locals>.keys, which computes nothing "
    "when called.",
    "Return the values, in a list or stacked, instead of yielding them.",
)
def generator_with_split_streams():
    def keys(rngs):
        yield rngs()

    liftnn.split_rngs(splits=2)(keys)


@message(
    errors.ArgumentTypeError,
    "liftnn.capture got an async function, async_function_with_records.<locals>.answer, which computes nothing when "
    "called.",
    "Define it with `def`, and call it from an async function.",
)
def async_function_with_records():
    async def answer(model, x):
        return model(x)

    liftnn.capture(answer, liftnn.Intermediate)


@message(
    errors.ArgumentTypeError,
    "liftnn.jit got an async function, async_functions.<locals>.answer, which computes nothing when called.",
    "Define it with `def`, and call it from an async function.",
)
def async_functions():
    async def answer(model):
        return model.w

    liftnn.jit(answer)


class Lazy(liftnn.Module):
    def __call__(self, x):
        yield x

    async def answer(self, x):
        return x


@message(
    errors.ArgumentTypeError,
    "liftnn.grad got a generator function, Lazy.__call__, which computes nothing when called.",
    "Return the values, in a list or stacked, instead of yielding them.",
)
def module_that_yields():
    liftnn.grad(Lazy())


@message(
    errors.ArgumentTypeError,
    "liftnn.vmap got an async function, Lazy.answer, which computes nothing when called.",
    "Define it with `def`, and call it from an async function.",
)
def async_method_of_a_module():
    liftnn.vmap(Lazy().answer)


@message(
    errors.StructureError,
    "the output: A set holds modules or Variables. A set has no order, so its elements cannot be numbered.",
    "Use a list or a dict.",
)
def returned_set_of_modules():
    liftnn.jit(lambda model: {model})(Affine())


@message(
    errors.FilterError,
    "An Affine is not a filter.",
    "A filter is a type, a tag string, a predicate (path, variable), ..., None, or a list or tuple of filters.",
)
def module_as_a_filter():
    model = Affine()
    liftnn.grad(step, wrt=model)(model, 1.0)


@message(
    errors.FilterError,
    "No Variable has the tag 'w': a string selects Variables by their metadata `tag`, not by name.",
    "Pass liftnn.PathContains('w') to select what is under the attribute of that name.",
)
def gradient_of_a_name():
    liftnn.grad(lambda model: model.w, wrt="w")(Affine())


@message(
    errors.FilterError,
    "No Variable has the tag 'w': a string selects Variables by their metadata `tag`, not by name.",
    "Pass liftnn.PathContains('w') to select what is under the attribute of that name.",
)
def optimizer_of_a_name():
    liftnn.Optimizer(Affine(), optax.sgd(0.1), wrt="w")


@message(
    errors.ArgumentError,
    "The attention mask has negative numbers, like a mask that is added to the logits. Here False or zero masks a key "
    "out, so the keys that such a mask keeps would be masked out.",
    "Pass `mask == 0`, or the mask as `bias` of dot_product_attention.",
)
def attention_with_a_mask_to_add():
    mask = jnp.where(jnp.tril(jnp.ones((4, 4), bool)), 0.0, -jnp.inf)
    liftnn.MultiHeadAttention(2, 8, rngs=liftnn.Rngs(0))(jnp.ones((2, 4, 8)), mask=mask)
