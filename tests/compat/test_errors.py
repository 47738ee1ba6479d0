"""What cannot be done raises an error that says what to do, and nothing is lost."""

import jax
import jax.numpy as jnp
import optax
import pytest

import liftnn
from liftnn.compat import nnx


def linear():
    return nnx.Linear(2, 3, rngs=nnx.Rngs(0))


def train_state():
    graphdef, params = nnx.split(linear())
    return nnx.TrainState.create(graphdef, params=params, tx=optax.sgd(0.1))


MESSAGES = {
    "states first": (
        lambda: nnx.merge(nnx.state(linear()), nnx.graphdef(linear())),
        (
            "nnx.merge takes a GraphDef as its first argument, not a State.\n"
            "Write `graphdef, *states = nnx.split(model)` and `nnx.merge(graphdef, *states)`."
        ),
    ),
    "no State": (
        lambda: nnx.merge(nnx.graphdef(linear())),
        "nnx.merge takes at least one State after the GraphDef.\nWrite `nnx.merge(graphdef, state)`.",
    ),
    "arrays of shared Variables": (
        lambda: nnx.clone(linear(), variables=False, arrays=True),
        (
            "nnx.clone cannot copy the arrays of Variables that it shares.\n"
            "Pass variables=True, or leave out arrays=True."
        ),
    ),
    "an unknown key": (
        lambda: nnx.replace_by_pure_dict(nnx.state(linear()), {"bias": jnp.ones(3), "scale": 1.0}),
        (
            "These keys of the dicts are not in the State:\n  scale\n"
            "Compare them with the paths of `nnx.to_flat_state(state)`."
        ),
    ),
    "data with options": (
        lambda: nnx.data(1, default=2),
        (
            "nnx.data got a value and the options default.\n"
            "Write nnx.data(value) for an attribute, or nnx.data(default=value) for a field of a dataclass."
        ),
    ),
    "a slice of another size": (
        lambda: nnx.List([1, 2, 3]).__setitem__(slice(0, 2), [5]),
        (
            "A slice of 2 elements of a List was set to 1 values.\n"
            "Set as many values as there are elements, or use append, insert and del."
        ),
    ),
    "a key of a Dict": (
        lambda: nnx.Dict({1: 2}),
        (
            "The keys of a Dict must be strings, not an int.\n"
            "Use a string, or a plain dict as an attribute of a Module: it takes any key."
        ),
    ),
    "immutable Variables": (
        lambda: nnx.with_vars(linear(), mutable=False),
        "liftnn has no immutable Variables.\nLeave out mutable=False, or keep the value of the Variable.",
    ),
    "a name of Variables": (
        lambda: nnx.variable_type_from_name("nothing"),
        (
            "No type of Variables is registered for the name 'nothing'.\n"
            "Call nnx.register_variable_name, or pass allow_register=True."
        ),
    ),
    "a taken name of Variables": (
        lambda: nnx.register_variable_name("params", nnx.Cache),
        "The name 'params' stands for Param already.\nChoose another name, or pass overwrite=True.",
    ),
    "a type of Variables": (
        lambda: nnx.variable_name_from_type(nnx.RngKey),
        (
            "No name is registered for the type RngKey.\n"
            "Call nnx.register_variable_name, or pass allow_register=True."
        ),
    ),
    "a table of an array": (
        lambda: nnx.tabulate(3),
        "tabulate takes a module, not an int.\nPass the module itself.",
    ),
    "a field that is not a State": (
        lambda: train_state().apply("step"),
        (
            "The field 'step' of a TrainState is an ArrayImpl, not a State.\n"
            "Pass the State itself, or the name of a field that holds one."
        ),
    ),
    "leaves by path": (
        lambda: nnx.traversals.unflatten_mapping(3),
        "Leaves by path must be a mapping or pairs of path and leaf, not an int.\nPass what flatten_mapping returns.",
    ),
    "a nested mapping": (
        lambda: nnx.traversals.flatten_mapping([1]),
        "Only a mapping can be flattened by path, not a list.\nPass a dict or a State.",
    ),
    "check_pytree of a list": (
        lambda: nnx.check_pytree([1]),
        "check_pytree takes a Module, not a list.\nPass the Module itself.",
    ),
    "a list of leaves": (
        lambda: nnx.unflatten(nnx.graphdef(linear()), [1]),
        (
            "The structure has 2 Variables and arrays, and the list 1.\n"
            "Pass all leaves of the State, in the order of `jax.tree.leaves`."
        ),
    ),
    "a list of leaves and a State": (
        lambda: nnx.merge(nnx.graphdef(linear()), [1, 2], nnx.State({})),
        (
            "nnx.merge got a list of leaves and other States.\n"
            "A list has all Variables and arrays: write `nnx.merge(graphdef, leaves)`, or pass States."
        ),
    ),
    "a GraphState of a Variable": (
        lambda: nnx.unpack(nnx.Param(1.0)),
        "A GraphState holds a State, not a Param.\nUse `nnx.split` for a single Variable.",
    ),
}


@pytest.mark.parametrize("use, text", MESSAGES.values(), ids=MESSAGES.keys())
def test_the_message_says_what_to_do(use, text):
    with pytest.raises(liftnn.LiftError) as error:
        use()
    assert str(error.value) == text


def test_a_module_in_raw_jax_names_the_transform():
    with pytest.raises(
        liftnn.ArgumentTypeError, match=r"Use the liftnn transform of the same name \(liftnn.jit for"
    ):
        jax.jit(lambda model: model)(linear())


def test_a_key_that_is_unknown_changes_nothing():
    state = nnx.state(linear())
    before = state.bias
    with pytest.raises(liftnn.ArgumentError):
        nnx.replace_by_pure_dict(state, {"bias": jnp.ones(3), "scale": 1.0})
    assert state.bias is before


def test_update_is_strict_where_flax_adds_attributes():
    model = linear()
    with pytest.raises(liftnn.StructureError):
        nnx.update(model, {"scale": jnp.ones(3)})
    assert not hasattr(model, "scale")


def test_a_list_that_another_trace_owns_cannot_be_changed():
    layers = nnx.List([linear()])
    with pytest.raises(liftnn.TraceContextError, match="the elements"):
        jax.jit(lambda x: layers.append(x))(1.0)
    assert len(layers) == 1
