"""Errors of maps, associative scans and split streams."""

from __future__ import annotations

import functools

import jax.numpy as jnp

import liftnn
from liftnn import errors
from tests.messages.registry import message
from tests.user_modules import Affine, Holder

LANES = jnp.arange(2.0)

REDUCTION = "Give a function of an array and `axis` for each filter, such as {liftnn.BatchStat: jnp.mean}."

# --- vmap


@message(
    errors.ArgumentTypeError,
    "`reduce_writes` must be a mapping of filter to function, not a function.",
    REDUCTION,
)
def reduction_without_a_filter():
    liftnn.vmap(lambda x: x, reduce_writes=lambda x, axis: x)


@message(
    errors.ArgumentTypeError,
    "`transform_metadata` must be a mapping, not 'layers'.",
    "Give the axis a name, such as {liftnn.PARTITION_NAME: 'layers'}.",
)
def metadata_that_are_text():
    liftnn.vmap(lambda x: x, transform_metadata="layers")(LANES)


@message(
    errors.ArgumentTypeError,
    "`reduce_writes` has 'mean', which is no function.",
    REDUCTION,
)
def reduction_that_is_text():
    liftnn.vmap(lambda x: x, reduce_writes={liftnn.BatchStat: "mean"})


@message(
    errors.ArgumentError,
    "`transform_metadata` calls the mapped axis 'layers', but axis 0 of args[0].w (a Param) is called 'in' in its "
    "metadata 'sharding': ('in', 'out').",
    "Correct one of the two.",
)
def mapped_axis_of_another_name():
    model = Holder(w=liftnn.Param(jnp.ones((2, 2)), sharding=("in", "out")))
    liftnn.vmap(lambda m: m.w.sum(), transform_metadata={liftnn.PARTITION_NAME: "layers"})(model)


# --- map

STACK = (
    "Stack as many elements along axis 0 of everything in `xs`; what all elements share goes into a partial."
)


@message(errors.ArgumentError, "`batch_size` must be a number of elements, not 2.0.", "Correct it.")
def batch_of_a_fraction():
    liftnn.map(lambda x: x, LANES, batch_size=2.0)


@message(
    errors.ArgumentError,
    "map has nothing to map: there is no array in `xs`.",
    "Pass arrays, or modules that hold some.",
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
    "args[0].calls (a Variable) is shared by all elements of this map, and was written where `batch_size` takes "
    "several at a time.",
    "Leave `batch_size` out, or pass the module in `xs`, with a slice for each element.",
)
def shared_write_in_batches():
    liftnn.map(Affine(), LANES, batch_size=2)


@message(
    errors.StructureError,
    "partial[0][0].layers[0] (an Affine) is shared by all elements of this map, and its structure is not the same "
    "after one of them as before.",
    "Change it outside of the map, or pass the module in `xs`, with a slice for each element. An array that is set "
    "anew belongs in a Variable.",
)
def structure_of_a_shared_module_changed():
    def f(model, x):
        model.layers[0].mode = "eval"

    liftnn.map(functools.partial(f, Holder(layers=[Affine()])), LANES)


@message(
    errors.StructureError,
    "partial[0][0].v (a Variable) is shared by all elements of this map, and holds {'a': float32[3]} after one of "
    "them instead of {'a': int32[]}.",
    "Write values of the same shape and dtype.",
)
def shared_variable_of_another_shape():
    def f(model, x):
        model.v.value = {"a": jnp.ones(3)}

    liftnn.map(functools.partial(f, Holder(v=liftnn.Variable({"a": 1}))), LANES)


# --- split_rngs


@message(errors.ArgumentError, "`splits` must be an int or a tuple of ints, not 2.0.", "Correct it.")
def splits_that_are_no_shape():
    liftnn.split_rngs(splits=2.0)


@message(errors.ArgumentError, "squeeze=True needs splits=1, not 2.", "Leave one of them out.")
def squeeze_of_two():
    liftnn.split_rngs(liftnn.Rngs(0), splits=2, squeeze=True)


@message(errors.FilterError, "No random stream matches WithTag(tag='dropuot').", "Correct `only`.")
def split_of_a_stream_that_is_not_there():
    liftnn.split_rngs(liftnn.Rngs(0, dropout=1), splits=2, only="dropuot")


# --- associative_scan


@message(
    errors.ArgumentError, "There is no array in `elems` to scan over.", "Pass arrays, or modules of them."
)
def scan_over_nothing():
    liftnn.associative_scan(lambda a, b: a, Holder(mode="train"))


@message(
    errors.ArgumentTypeError,
    "elems.layers[0].v is a str, which has no axis to scan over: 'text'.",
    "Make it an attribute of the module: what is no array is static there.",
)
def scan_over_text():
    liftnn.associative_scan(lambda a, b: a, Holder(layers=[Holder(v=liftnn.Variable("text"))]))


@message(errors.ArgumentError, "elems.calls has no axis 0: its shape is ().", "Correct `axis`.")
def scan_over_an_axis_that_is_not_there():
    liftnn.associative_scan(lambda a, b: a, Affine())


@message(
    errors.ArgumentError,
    "elems[0].w and elems[1] have different sizes along axis 0: 3 and 2.",
    "Stack as many elements in each array.",
)
def scan_over_rows_of_different_lengths():
    liftnn.associative_scan(lambda a, b: a, (Holder(w=liftnn.Param(jnp.ones(3))), jnp.ones(2)))


@message(
    errors.StructureError,
    "The function given to associative_scan returned another structure than its arguments have:",
    "  w: removed, was Param",
    "Return the structure of `elems`.",
)
def combination_of_another_structure():
    liftnn.associative_scan(lambda a, b: Holder(), Holder(w=liftnn.Param(jnp.ones(3))))


@message(
    errors.ArgumentError,
    "the output.w of the function given to associative_scan is float32[], but a.w is float32[1].",
    "Return arrays of the same shapes and dtypes; the function gets several elements at once.",
)
def combination_of_another_shape():
    def fn(a, b):
        a.w.value = (a.w * b.w).sum()
        return a

    liftnn.associative_scan(fn, Holder(w=liftnn.Param(jnp.ones(3))))


@message(
    errors.SharedWriteError,
    "self.calls (a Variable) was changed by the function given to associative_scan, which is called as often as the "
    "algorithm needs.",
    "Return what it computes; let it only read modules other than the two that it combines.",
)
def combination_that_counts():
    class Counting(Affine):
        def combine(self, a, b):
            self.calls.value = self.calls + 1
            return a + b

    liftnn.associative_scan(Counting().combine, LANES)
