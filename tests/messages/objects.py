"""Errors of modules, Variables, States and filters."""

from __future__ import annotations

import collections
import dataclasses
import functools
import typing

import jax
import jax.numpy as jnp

import liftnn
from liftnn import errors
from liftnn._src.graph.value_sharing import check_unshared
from liftnn._src.tracebacks import boundary
from tests.messages.registry import message
from tests.user_modules import Affine, Holder, Pair

FILTER = "A filter is a type, a tag string, a predicate (path, variable), ..., None, or a list or tuple of filters."


class Names(list):
    """A container that can have attributes."""


class Unequal:
    """Unhashable, and a copy is not equal."""

    __hash__: typing.ClassVar[None] = None  # type: ignore[assignment]

    def __eq__(self, other):
        return self is other


class Vague(Unequal):
    """Unhashable, and `==` answers something else than True or False."""

    def __eq__(self, other):
        return "perhaps"


class Uncopied(Unequal):
    """Unhashable, and it cannot be copied."""

    def __deepcopy__(self, memo):
        raise RuntimeError("no copies")


def attribute(value):
    """Splits a module that has this value somewhere."""
    return liftnn.split(Holder(layers=[Affine(), {"inner": Holder(x=value)}]))


# --- what a module can hold


@message(
    errors.StructureError,
    "v[7].value and v[3].value.k are the same list. Each Variable has its own list inside a transform, so "
    "a change through one would not be visible through the other.",
    "Share the Variable instead of the list, or copy the list for one of them.",
)
def list_in_two_variables():
    shared = [1]
    boundary(check_unshared)({3: {"k": shared}, 7: shared}, "v[{}]".format)


@message(
    errors.StructureError,
    "layers[1].inner.x: A set holds modules or Variables. A set has no order, so its elements cannot be "
    "numbered.",
    "Use a list or a dict.",
)
def set_of_modules():
    attribute({liftnn.Param(1.0)})


@message(
    errors.StructureError,
    "layers[1].inner.x: A Names is a container with extra attributes (note), which would be lost.",
    "Use a plain list, dict or tuple, or a Module that holds the container and the attributes.",
)
def container_with_attributes():
    names = Names([1])
    names.note = "mine"
    attribute(names)


@message(
    errors.StructureError,
    "layers[1].inner.x: A dict has an Affine as a key, but keys must be static.",
    "Store it as a value, under a string key.",
)
def module_as_key():
    attribute({Affine(): 1})


@jax.tree_util.register_pytree_node_class
class Distribution:
    """As in distrax: the class flattens all that an object holds."""

    def __init__(self, network):
        self.network = network

    def tree_flatten(self):
        return jax.tree.flatten(vars(self))

    @classmethod
    def tree_unflatten(cls, treedef, leaves):
        raise AssertionError


@message(
    errors.StructureError,
    "layers[1].inner.x: A Distribution is a pytree whose class flattens what it holds with JAX, and it holds a module.",
    "Store the module in an attribute of a Module, and create the Distribution in the method that uses it.",
)
def pytree_that_flattens_the_module_in_it():
    attribute(Distribution(Affine()))


@message(
    errors.StructureError,
    "layers[1].inner.x: A static value of type Uncopied is not hashable and cannot be copied and compared "
    "(RuntimeError), so liftnn cannot detect changes to it.",
    "Make it hashable, or store it outside the module.",
)
def static_value_that_cannot_be_copied():
    attribute(Uncopied())


@message(
    errors.StructureError,
    "layers[1].inner.x: A static value of type UserDict is not hashable, so liftnn copies it, but it holds an Affine, "
    "whose copy would not see later changes.",
    "Make it hashable, a Module or a dataclass, or store the Affine in a list, a dict or an attribute of a Module.",
)
def static_value_that_cannot_be_copied_with_the_module_in_it():
    attribute(collections.UserDict(model=Affine()))


@message(
    errors.StructureError,
    "layers[1].inner.x: A static value of type Vague is not hashable, and comparing it with == does not "
    "return True or False, so liftnn cannot detect changes to it.",
    "Make it hashable, or store the arrays in it as attributes or Variables.",
)
def static_value_that_cannot_be_compared():
    attribute(Vague())


@message(
    errors.StructureError,
    "args[0].w: A static value of type Vague is not hashable, and comparing it with == does not return True or "
    "False, so liftnn cannot detect changes to it.",
    "Make it hashable, or store the arrays in it as attributes or Variables.",
)
def value_of_a_variable_that_cannot_be_compared():
    liftnn.jit(lambda m: setattr(m.w, "value", Vague()))(Affine())


@message(
    errors.StructureError,
    "the output.a[1]: A static value of type Vague is not hashable, and comparing it with == does not return True or "
    "False, so liftnn cannot detect changes to it.",
    "Make it hashable, or store the arrays in it as attributes or Variables.",
)
def output_that_cannot_be_compared():
    liftnn.jit(lambda m: {"a": (m.w * 2, Vague())})(Affine())


@message(
    errors.StructureError,
    "partial[0][0]: A static value of type Vague is not hashable, and comparing it with == does not return True or "
    "False, so liftnn cannot detect changes to it.",
    "Make it hashable, or store the arrays in it as attributes or Variables.",
)
def argument_of_a_partial_that_cannot_be_compared():
    liftnn.jit(functools.partial(lambda x, m: m.w * 2, Vague()))(Affine())


@message(
    errors.StructureError,
    "layers[1].inner.x: A static value of type Unequal is not hashable, and a copy of it does not compare "
    "equal to it, so it would seem changed in every call.",
    "Make it hashable, or define an __eq__ that compares content. Store modules in a list, a dict or an "
    "attribute of a Module, where liftnn finds them.",
)
def static_value_whose_copy_is_another():
    attribute(Unequal())


@dataclasses.dataclass(frozen=True)
class Link:
    """A frozen dataclass that can be made to hold itself."""

    other: object


@message(
    errors.StructureError,
    "layers[1].inner.x.other: A tuple is part of a cycle of immutable objects, which a transform cannot "
    "rebuild.",
    "Put a list, a dict or a Module into the cycle.",
)
def frozen_cycle():
    one = Link(None)
    object.__setattr__(one, "other", (one, liftnn.Param(1.0)))
    attribute(one)


# --- Variables


@message(
    errors.ArgumentError,
    "A Param cannot copy the contents of a BatchStat.",
    "Use update_from_state for a Variable of another type, or assign to `value`.",
)
def copy_from_another_type():
    liftnn.Param(1.0).copy_from(liftnn.BatchStat(1.0))


@message(
    errors.ArgumentTypeError,
    "update_from_state takes a Variable, not a list.",
    "Assign to `value` to set the value only.",
)
def update_from_a_list():
    liftnn.Param(1.0).update_from_state([1.0])


@message(
    errors.ArgumentError,
    "A Variable holds arrays, not an Affine.",
    "Assign it to an attribute of a Module instead.",
)
def variable_of_a_module():
    liftnn.Variable(Affine())


@message(
    errors.AttributeNameError,
    "A Param has no attribute 'shpae': it is neither a metadata entry nor an attribute of the value (array).",
    "Check the spelling; a Variable forwards unknown names to its metadata and then to its value.",
)
def unknown_attribute_of_a_variable():
    liftnn.Param(jnp.ones(2)).shpae  # noqa: B018


@message(
    errors.AttributeNameError,
    "A Param has no metadata 'axis'.",
    "Check the spelling; a Variable forwards unknown names to its metadata and then to its value.",
)
def unknown_metadata():
    del liftnn.Param(1.0).axis


@message(
    errors.ArgumentError,
    "set_value_hooks must be a callable or a sequence of callables, not 3.",
    "Pass set_value_hooks=f, or set_value_hooks=(f, g) to call f first and then g.",
)
def hook_that_cannot_be_called():
    liftnn.Param(1.0, set_value_hooks=3)


# --- modules


class Misspelled(liftnn.Module):
    """A class with a slip of the pen."""

    def __int__(self, n):
        self.n = n


class Argumentless(liftnn.Module):
    """A class without `__init__`."""


@message(
    errors.ArgumentTypeError,
    "Misspelled takes no arguments: it has no `__init__`.",
    "Rename its method `__int__` to `__init__`.",
)
def arguments_of_a_class_with_a_misspelled_init():
    Misspelled(1, 2, n=3)


@message(
    errors.ArgumentTypeError,
    "Argumentless takes no arguments: it has no `__init__`.",
    "Define `__init__`, or pass no arguments.",
)
def arguments_of_a_class_without_init():
    Argumentless(n=3)


@message(
    errors.ArgumentError,
    "view: no matching module has an attribute named decode or mdoe.",
    "Check the spelling, or pass raise_if_not_found=False. liftnn.view_info lists what view can set; with_attributes "
    "sets any attribute.",
)
def view_of_what_no_module_has():
    liftnn.view(liftnn.Sequential(liftnn.Dropout(0.5)), mdoe="eval", decode=True, deterministic=True)


@message(
    errors.StructureError,
    "pair is a tuple, which is immutable, but an object above it, to which it refers, was replaced.",
    "Return the object itself from the function, after changing its attributes.",
)
def replacement_above_a_tuple():
    holder = Holder(pair=())
    holder.pair = (holder, 1)
    liftnn.recursive_map(lambda path, x: x if path else Affine(), holder)


@message(
    errors.ArgumentTypeError,
    "capture takes a module, a method or a function of a module, not a State.",
    "Pass the module, as in capture(model, liftnn.Intermediate)(x).",
)
def capture_of_a_state():
    liftnn.capture(liftnn.state(Affine()), liftnn.Intermediate)


@message(
    errors.ArgumentTypeError,
    "The initial values of capture are Variables, but layer.h is an ArrayImpl.",
    "Pass a State that capture has returned, or put the value in a Variable of the type to record.",
)
def capture_with_an_initial_array():
    liftnn.capture(Affine(), liftnn.Perturbation, init={"layer": {"h": jnp.ones(2)}})


@message(
    errors.ArgumentError,
    "No module gets these initial values of capture:\n  head.h",
    "Pass a State that capture has returned for this module; the values of a shared module are under its first path.",
)
def capture_with_an_initial_value_of_another_model():
    init = {"head": {"h": liftnn.Perturbation(jnp.ones(2))}}
    liftnn.capture(Affine(), liftnn.Perturbation, init=init)(jnp.ones(2))


@message(
    errors.ArgumentTypeError,
    "The first argument of a function given to capture is a float, not a module.",
    "Pass the module whose values are to be recorded by position, before all other arguments.",
)
def capture_without_a_module():
    liftnn.capture(lambda x: x, liftnn.Intermediate)(1.0)


@message(
    errors.ArgumentTypeError,
    "with_metadata takes an initializer or a class of Variables, not a float.",
    "Pass a function (key, shape, dtype) that returns an array.",
)
def metadata_of_a_number():
    liftnn.with_metadata(1.0, tag="a")


@message(
    errors.ArgumentTypeError,
    "iter_children takes a module or a container, not a float.",
    "Pass the module that holds it.",
)
def children_of_a_number():
    liftnn.iter_children(1.0)


@message(
    errors.ArgumentError,
    "No matching module of this Affine has an attribute named deterministc or mdoe.",
    "Check the spelling, or pass raise_if_not_found=False.",
)
def attributes_that_no_module_has():
    Affine().set_attributes(mdoe="eval", deterministc=True)


@message(
    errors.ArgumentTypeError,
    "A Linear was called, but it is abstract: kernel is a Param with a shape and a dtype, and without a value.",
    "Create the model without `eval_shape`, or set all its Variables first, for example by `update(model, state)`. To "
    "compute shapes, call it under `eval_shape`.",
)
def call_of_an_abstract_module():
    liftnn.eval_shape(lambda: liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)))(jnp.ones((1, 2)))


@message(
    errors.ArgumentTypeError,
    "Stack got the class or function that creates a layer as its first argument.",
    "Write `Stack(n, make, rngs=rngs)`: the number of layers comes first.",
)
def stack_with_the_number_last():
    liftnn.Stack(Affine, 3)  # pyright: ignore[reportArgumentType]


@message(
    errors.ArgumentTypeError,
    "Stack takes a function that creates a layer, not an Affine.",
    "Pass the class of the layer, or a function such as lambda rngs: Block(64, rngs=rngs); `Stack.from_list(layers)` "
    "stacks existing layers.",
)
def stack_of_a_layer():
    liftnn.Stack(3, Affine())  # pyright: ignore[reportArgumentType]


@message(
    errors.ArgumentTypeError,
    "The number of layers of a Stack must be an int, not a list.",
    "Write `Stack.from_list(layers)` to stack existing layers.",
)
def stack_of_a_list():
    liftnn.Stack([Affine(), Affine()], Affine)  # pyright: ignore[reportArgumentType]


@message(
    errors.ArgumentTypeError,
    "An initializer must be a function `(key, shape, dtype) -> array`, not a str: 'zeros'.",
    "Pass one of `liftnn.initializers`, such as `zeros_init()` or `constant(0.5)`.",
)
def initializer_by_name():
    liftnn.Linear(2, 3, kernel_init="zeros", rngs=liftnn.Rngs(0))  # pyright: ignore[reportArgumentType]


@message(
    errors.ArgumentTypeError,
    "activation_fn of GRUCell must be a function, not a str: 'tanh'.",
    "Pass a function of arrays, such as `liftnn.tanh`.",
)
def activation_by_name():
    liftnn.GRUCell(2, 3, activation_fn="tanh", rngs=liftnn.Rngs(0))  # pyright: ignore[reportArgumentType]


@message(
    errors.ArgumentError,
    "RNN applies a recurrent cell, but cell is the class GRUCell.",
    "Create the cell: `GRUCell(...)` in place of `GRUCell`.",
)
def class_of_a_cell():
    liftnn.RNN(liftnn.GRUCell)  # pyright: ignore[reportArgumentType]


@message(
    errors.ArgumentError,
    "Bidirectional applies recurrent layers, but forward_rnn is the class RNN.",
    "Create the layer: `RNN(...)` in place of `RNN`.",
)
def class_of_a_recurrent_layer():
    liftnn.Bidirectional(liftnn.RNN, liftnn.RNN)


@message(
    errors.ArgumentTypeError,
    "Affine is a class, not a module.",
    "Create the module: `Affine(...)`.",
)
def state_of_a_class():
    liftnn.state(Affine)


@message(
    errors.ArgumentTypeError,
    "args[0] of liftnn.jit is the class Affine, not an array or a module.",
    "Create the module: `Affine(...)`.",
)
def class_passed_to_jit():
    liftnn.jit(lambda model: model.w)(Affine)


@message(
    errors.ArgumentTypeError,
    "A Linear was called, but a value in it was popped: kernel is a Param without a value.",
    "Set the value again with `update(model, state)`, where `state` is what `pop` returned, or pop other Variables, "
    "such as `pop(model, liftnn.Intermediate)`.",
)
def call_of_a_module_with_popped_weights():
    layer = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
    liftnn.pop(layer, liftnn.Param)
    layer(jnp.ones((1, 2)))


@message(errors.AttributeNameError, "An Affine has no Variable 'kernel'.", "Its Variables: w, b, calls.")
def unknown_variable_of_a_module():
    Affine().variables.kernel  # noqa: B018


@message(
    errors.ArgumentError,
    "`variables.w` takes a Variable, not a float.",
    "To set the value, write `module.w.value = ...`.",
)
def variable_set_to_a_number():
    Affine().variables.w = 1.0


@message(
    errors.ArgumentError,
    "The attribute 'w' of an Affine is a Param, not an Intermediate.",
    "Pass a name that no other attribute has, or one that holds an Intermediate.",
)
def sow_over_a_param():
    Affine().sow(liftnn.Intermediate, "w", 1.0)


@message(
    errors.ArgumentError,
    "sow appends to a tuple, but the attribute 'w' of an Affine holds something else.",
    "Pass a name that no other attribute has, or a reduce_fn that combines the old value with the new one.",
)
def sow_into_an_array():
    Affine().sow(liftnn.Param, "w", 1.0)


# --- filters


@message(errors.FilterError, "3 is not a filter.", FILTER)
def filter_that_is_none():
    liftnn.state(Affine(), 3)


@message(
    errors.FilterError, "Filter 0 of 2 matches everything, so later filters never match.", "Put `...` last."
)
def filter_after_everything():
    liftnn.split(Affine(), ..., liftnn.Param)


@message(
    errors.FilterError,
    "These Variables match none of the filters:",
    "  layers[0].w",
    "  layers[0].b",
    "  layers[1].w",
    "  layers[1].b",
    "  layers[2].w",
    "  layers[2].b",
    "  layers[3].w",
    "  layers[3].b",
    "  ... and 2 more",
    "Add `...` as the last filter to match the remaining Variables, or change a filter to match them.",
)
def split_that_leaves_something_over():
    liftnn.split(
        Holder(layers=[Affine() for _ in range(5)]), (liftnn.BatchStat, liftnn.PathContains("calls"))
    )


@message(
    errors.FilterError,
    "These Variables match none of the filters:",
    "  calls",
    "Add `...` as the last filter to match the remaining Variables, or change a filter to match them.",
)
def state_split_that_leaves_something_over():
    liftnn.state(Affine()).split(liftnn.Param)


@message(
    errors.FilterError,
    "No Variable has the tag 'w': a string selects Variables by their metadata `tag`, not by name.",
    "Pass liftnn.PathContains('w') to select what is under the attribute of that name.",
)
def name_as_a_filter():
    liftnn.state(Affine(), "w")


@message(
    errors.FilterError, "pop needs at least one filter.", "Pass one, such as pop(model, liftnn.Intermediate)."
)
def pop_without_filter():
    liftnn.pop(Affine())


# --- split and merge


@message(
    errors.ArgumentTypeError,
    "merge takes a GraphDef as its first argument, not a State.",
    "Write `*states, graphdef = split(model)` and `merge(graphdef, *states)`: `split` returns the GraphDef "
    "last.",
)
def merge_in_the_order_of_flax():
    graphdef, state = liftnn.split(Affine())
    liftnn.merge(graphdef, state)


_STATES = (
    "Write `*states, graphdef = split(model)`: `split` returns the GraphDef last, and `merge(graphdef, "
    "*states)` takes it first. `State.from_flat` creates a State from values by path."
)


@message(
    errors.StructureError,
    "layers[0] cannot be a leaf of a State: other paths lead through it.",
    "Give each value a path that does not begin with the path of another one.",
)
def state_with_a_leaf_above_another():
    liftnn.State.from_flat({("layers", 0): jnp.ones(1), ("layers", 0, "w"): jnp.ones(1)})


@message(errors.ArgumentTypeError, "merge takes States or nested dicts, not a list.", _STATES)
def merge_of_a_list():
    liftnn.merge(liftnn.split(Affine())[-1], [])


@message(errors.ArgumentTypeError, "update takes States or nested dicts, not a GraphDef.", _STATES)
def update_with_a_graphdef():
    liftnn.update(Affine(), *liftnn.split(Affine()))


@message(
    errors.ArgumentTypeError,
    "update takes States or nested dicts, not an Affine.",
    "Pass its State, `liftnn.state(model)`.",
)
def update_with_a_module():
    liftnn.update(Affine(), Affine())


@message(errors.ArgumentTypeError, "State.merge takes States or nested dicts, not a GraphDef.", _STATES)
def merge_of_a_state_and_a_graphdef():
    liftnn.State.merge(*liftnn.split(Affine()))


@message(
    errors.StructureError,
    "More than one State has a value for:",
    "  w",
    "  b",
    "Keep each path in one State only, or join the States with `|`: the last one wins.",
)
def merge_of_overlapping_states():
    params, rest, graphdef = liftnn.split(Affine(), liftnn.Param, ...)
    liftnn.merge(graphdef, params, rest, params)


@message(
    errors.StructureError,
    "The States do not fit the GraphDef:",
    "missing:",
    "  first.w",
    "  first.b",
    "  first.calls",
    "  second.b",
    "  ... and 1 more",
    "unexpected:",
    "  w",
    "  b",
    "  calls",
    "Compare the paths above with those of the module: both sides must have the same Variables.",
)
def merge_of_another_models_state():
    liftnn.merge(liftnn.split(Pair())[-1], liftnn.state(Affine()))


@message(
    errors.StructureError,
    "The State does not fit the module:",
    "unexpected:",
    "  first",
    "Compare the paths above with those of the module: both sides must have the same Variables.",
)
def update_of_an_unknown_path():
    liftnn.update(Affine(), liftnn.State({"first": liftnn.Param(1.0)}))


@message(
    errors.StructureError,
    "The State does not fit the module:",
    "  b: shape (2,) in the State, (3,) in the module",
    "  w: int32[3] in the State, float32[3] in the module",
    "Pass arrays of the shapes and dtypes in the module. To give a Variable another shape, assign to its `value`.",
)
def update_with_other_shapes_and_dtypes():
    liftnn.update(Affine(), {"b": jnp.ones(2), "w": jnp.ones(3, int)})


@message(
    errors.StructureError,
    "[1] cannot be set in place: no module, list or dict holds it.",
    "Store it as an attribute of a Module, or take the new value from the State.",
)
def update_of_an_array_in_the_tree():
    tree = (Affine(), jnp.ones(2))
    liftnn.update(tree, jax.tree.map(lambda x: 2 * x, liftnn.state(tree)))


@message(
    errors.StructureError,
    "The values do not fit the State:",
    "unexpected:",
    "  bias",
    "Compare the paths above with those of the module: both sides must have the same Variables.",
)
def pure_dict_of_other_names():
    liftnn.state(Affine(), liftnn.Param).replace_by_pure_dict({"w": jnp.ones(3), "bias": jnp.ones(3)})


@message(errors.ArgumentError, "replace_all cannot replace the tree itself.", "Use the new object instead.")
def replace_the_tree():
    model = Affine()
    liftnn.replace_all(model, model, Affine())


@message(
    errors.ArgumentError,
    "replace_all cannot replace [1].a: it is a leaf of the tree itself.",
    "Build a new tree with the new object instead.",
)
def replace_a_leaf_of_the_tree():
    model = Affine()
    liftnn.replace_all([Affine(), {"a": model}], model, Affine())


@message(
    errors.ArgumentError,
    "replace_all cannot replace an object in a Point, which is immutable.",
    "Store the object in a list, a dict or an attribute of a Module instead.",
)
def replace_in_a_tuple():
    point = collections.namedtuple("Point", "x y")
    w = liftnn.Param(1.0)
    liftnn.replace_all(Holder(pair=point(w, 1)), w, liftnn.Param(2.0))


# --- layers of a Stack


def stack():
    return liftnn.Stack(3, lambda: liftnn.BatchNorm(2, rngs=liftnn.Rngs(0)))


@message(
    errors.LayerIndexError,
    "This Stack has 3 layers, but layer 3 was accessed.",
    "Use a position from `-len(stack)` to `len(stack) - 1`.",
)
def layer_after_the_last():
    stack()[3]


@message(
    errors.ArgumentError,
    "This Stack has 3 layers, but layers.mean has 1 along axis 0.",
    "Inside shard_map, each device has the layers of its own shard; apply them with `liftnn.scan(lambda x, layer: "
    "layer(x), in_axes=(liftnn.Carry, 0), out_axes=liftnn.Carry)(x, stack.layers)`.",
)
def layers_of_one_shard():
    def apply(stack, x):
        return stack(x)

    mesh = jax.make_mesh(
        (3,), ("layers",), devices=jax.devices()[:3], axis_types=(jax.sharding.AxisType.Auto,)
    )
    specs = (jax.P("layers"), jax.P())
    liftnn.shard_map(apply, mesh=mesh, in_specs=specs, out_specs=jax.P())(stack(), jnp.ones(2))


@message(
    errors.TraceContextError,
    "Cannot change the attribute 'momentum' of a BatchNorm here: it is one layer of a Stack, and the layers of a Stack "
    "differ only in the values of Variables and arrays.",
    "Change `stack.layers`, the module that holds all layers, or assign a layer: `stack[i] = layer`.",
)
def attribute_of_one_layer():
    stack()[1].momentum = 0.5


@message(
    errors.ArgumentTypeError,
    "set_metadata takes entries by keyword, or a name and a value, or one mapping that replaces all metadata.",
    "Write `variable.set_metadata(name=value)`.",
)
def set_metadata_of_a_name_alone():
    liftnn.Param(1.0).set_metadata("axes")


@message(
    errors.ArgumentError,
    "The stream 'default' of an Rngs needs an int or a PRNG key, not an Rngs.",
    "Pass the Rngs itself where random keys are needed, `rngs.fork()` for independent streams of the same names, or "
    "`liftnn.Rngs(rngs())` to seed others with its next key.",
)
def an_rngs_as_a_seed():
    liftnn.Rngs(liftnn.Rngs(0))


GONE = (
    "Use the Variable of the module that the call has updated, make a `liftnn.clone` before the call, or do not donate "
    "the argument."
)


@message(
    errors.DonatedError,
    "The buffer of w in the State was donated earlier and is gone.",
    "Keep the State of a copy, as in `liftnn.state(liftnn.clone(model))`: `state` shares its arrays with the module.",
)
def update_with_a_donated_array():
    model = Affine()
    state = liftnn.state(model)
    state["w"].value.delete()
    liftnn.update(Affine(), state)


@message(errors.DonatedError, "The buffer of w was donated earlier and is gone.", GONE)
def clone_of_a_donated_array():
    model = Affine()
    model.w.value.delete()
    liftnn.clone(model)
