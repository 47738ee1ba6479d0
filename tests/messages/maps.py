"""Errors of maps, associative scans and split streams."""

from __future__ import annotations

import functools

import jax.numpy as jnp

import liftnn
from liftnn import errors
from tests.messages.registry import message
from tests.user_modules import Affine, Holder

LANES = jnp.arange(2.0)

REDUCTION = (
    "Pass a function of an array and a keyword `axis` for each filter, such as {liftnn.BatchStat: jnp.mean}."
)

# --- vmap


@message(
    errors.ArgumentTypeError,
    "`reduce_writes` must be a mapping from filters to functions, not a function.",
    REDUCTION,
)
def reduction_without_a_filter():
    liftnn.vmap(lambda x: x, reduce_writes=lambda x, axis: x)


@message(
    errors.ArgumentTypeError,
    "`transform_metadata` must be a mapping, not 'layers'.",
    "Pass the name of the axis in a dict, such as {liftnn.PARTITION_NAME: 'layers'}.",
)
def metadata_that_are_text():
    liftnn.vmap(lambda x: x, transform_metadata="layers")(LANES)


@message(
    errors.ArgumentTypeError,
    "`reduce_writes` contains 'mean', which is not a function.",
    REDUCTION,
)
def reduction_that_is_text():
    liftnn.vmap(lambda x: x, reduce_writes={liftnn.BatchStat: "mean"})


@message(
    errors.ArgumentError,
    "`transform_metadata` names the mapped axis 'layers', but axis 0 of args[0].w (a Param) is named 'in' in its "
    "metadata 'sharding': ('in', 'out').",
    "Use the same name in `transform_metadata` and in the metadata of the Variable.",
)
def mapped_axis_of_another_name():
    model = Holder(w=liftnn.Param(jnp.ones((2, 2)), sharding=("in", "out")))
    liftnn.vmap(lambda m: m.w.sum(), transform_metadata={liftnn.PARTITION_NAME: "layers"})(model)


# --- map

STACK = "Stack the same number of elements along axis 0 of every array in `xs`; store shared arguments in a partial."


@message(
    errors.ArgumentTypeError,
    "`batch_size` must be a non-negative int or None, not 2.0.",
    "Pass the number of elements to process at once, 0 for all, or None for one at a time.",
)
def batch_of_a_fraction():
    liftnn.map(lambda x: x, LANES, batch_size=2.0)


@message(
    errors.ArgumentError,
    "`batch_size` must be a non-negative int or None, not -1.",
    "Pass the number of elements to process at once, 0 for all, or None for one at a time.",
)
def batch_of_a_negative_size():
    liftnn.map(lambda x: x, LANES, batch_size=-1)


@message(
    errors.ArgumentError,
    "map has nothing to map: `xs` does not contain an array.",
    "Pass arrays, or modules that contain arrays.",
)
def map_over_nothing():
    liftnn.map(Affine(), Holder())


@message(
    errors.ArgumentError, "args[0].calls (a Variable) cannot be mapped over axis 0: its shape is ().", STACK
)
def map_over_a_module_that_is_not_stacked():
    liftnn.map(lambda m: m.w, Affine())


@message(
    errors.ArgumentError,
    "The arguments of map have different sizes along their mapped axes:",
    "  3: axis 0 of args[0][0]",
    "  2: axis 0 of args[0][1]",
    STACK,
)
def map_over_different_sizes():
    liftnn.map(lambda pair: pair[0], (jnp.ones(3), LANES))


@message(
    errors.SharedWriteError,
    "args[0].calls (a Variable) is shared by all elements of this map, but it was written while `batch_size` "
    "processes several elements at once.",
    "Leave `batch_size` out, or pass the module in `xs` with a slice for each element.",
)
def shared_write_in_batches():
    liftnn.map(Affine(), LANES, batch_size=2)


@message(
    errors.StructureError,
    "partial[0][0].layers[0] (an Affine) is shared by all elements of this map, but the function changes its "
    "structure.",
    "Change it outside the map, or pass the module in `xs` with a slice for each element. Store an array that the "
    "function replaces in a Variable.",
)
def structure_of_a_shared_module_changed():
    def f(model, x):
        model.layers[0].mode = "eval"

    liftnn.map(functools.partial(f, Holder(layers=[Affine()])), LANES)


@message(
    errors.StructureError,
    "partial[0][0].v (a Variable) is shared by all elements of this map, but the function changes its value from "
    "{'a': int32[]} to {'a': float32[3]}.",
    "Write values of the same structure, shape and dtype.",
)
def shared_variable_of_another_shape():
    def f(model, x):
        model.v.value = {"a": jnp.ones(3)}

    liftnn.map(functools.partial(f, Holder(v=liftnn.Variable({"a": 1}))), LANES)


# --- split_rngs


@message(
    errors.ArgumentError,
    "`splits` must be a number of keys or a shape, not 2.0.",
    "Pass the number of keys, such as 8, or their shape, such as (2, 4).",
)
def splits_that_are_no_shape():
    liftnn.split_rngs(splits=2.0)


@message(errors.ArgumentError, "squeeze=True needs splits=1, not 2.", "Pass splits=1 or squeeze=False.")
def squeeze_of_two():
    liftnn.split_rngs(liftnn.Rngs(0), splits=2, squeeze=True)


@message(
    errors.ArgumentError,
    "The stream 'default' holds keys of shape (3,), so split_rngs cannot split it again.",
    "Leave split_rngs out: each batch element of a vmap over axis 0 has its own key. Or select other streams.",
)
def split_of_a_split_stream():
    liftnn.split_rngs(liftnn.Rngs(0).split(3), splits=2)


# --- associative_scan


@message(
    errors.ArgumentError,
    "associative_scan has nothing to scan: `elems` does not contain an array.",
    "Pass arrays, or modules that contain arrays.",
)
def scan_over_nothing():
    liftnn.associative_scan(lambda a, b: a, Holder(mode="train"))


@message(
    errors.ArgumentTypeError,
    "elems.layers[0].v is a str, which has no axis to scan over: 'text'.",
    "Store it as a plain attribute of the module, where it is static, not in a Variable.",
)
def scan_over_text():
    liftnn.associative_scan(lambda a, b: a, Holder(layers=[Holder(v=liftnn.Variable("text"))]))


@message(
    errors.ArgumentError,
    "elems.calls has no axis 0: its shape is ().",
    "Pass an `axis` that all arrays in `elems` have.",
)
def scan_over_an_axis_that_is_not_there():
    liftnn.associative_scan(lambda a, b: a, Affine())


@message(
    errors.ArgumentError,
    "elems[0].w and elems[1] have different sizes along axis 0: 3 and 2.",
    "Stack the same number of elements in each array.",
)
def scan_over_rows_of_different_lengths():
    liftnn.associative_scan(lambda a, b: a, (Holder(w=liftnn.Param(jnp.ones(3))), jnp.ones(2)))


@message(
    errors.StructureError,
    "The function given to associative_scan must return the structure of its arguments, but its output differs at:",
    "  w: removed, was Param",
    "Return the combination in the structure of `elems`.",
)
def combination_of_another_structure():
    liftnn.associative_scan(lambda a, b: Holder(), Holder(w=liftnn.Param(jnp.ones(3))))


@message(
    errors.ArgumentError,
    "The function given to associative_scan must keep shapes and dtypes, but a.w is float32[1] and the output.w is "
    "float32[].",
    "Combine all elements at once, stacked along the axis; for one at a time, use liftnn.vmap.",
)
def combination_of_another_shape():
    def fn(a, b):
        a.w.value = (a.w * b.w).sum()
        return a

    liftnn.associative_scan(fn, Holder(w=liftnn.Param(jnp.ones(3))))


@message(
    errors.SharedWriteError,
    "The function given to associative_scan changed self.calls (a Variable), but how often it is called is "
    "undefined.",
    "Return the new value instead. The function may change only the two elements that it combines.",
)
def combination_that_counts():
    class Counting(Affine):
        def combine(self, a, b):
            self.calls.value = self.calls + 1
            return a + b

    liftnn.associative_scan(Counting().combine, LANES)
