"""Errors of `export`."""

from __future__ import annotations

import functools
import hashlib

import jax.numpy as jnp

import liftnn
from liftnn import errors
from tests.messages.registry import message
from tests.user_modules import Affine, Holder, step

PASS = "Pass the module as an argument. What is only read may be captured, or stored in a partial."
NEW = "Export the function for the new structure."


@message(
    errors.ArgumentTypeError,
    "liftnn.export needs what liftnn.jit returns, not a function.",
    "Pass `liftnn.jit(f)`.",
)
def export_of_a_function():
    liftnn.export(step)


@message(
    errors.ArgumentError,
    "The function to export changes partial[0][0].calls (a Variable), which is not among its arguments: where the "
    "exported function is called, there is no such object.",
    PASS,
)
def export_of_a_partial_that_writes():
    liftnn.export(liftnn.jit(functools.partial(step, Affine())))(1.0)


@message(
    errors.ArgumentError,
    "The function to export returns or stores model.layers[0] (an Affine), which is not among its arguments: where the "
    "exported function is called, there is no such object.",
    PASS,
)
def export_of_a_closure_that_returns_what_it_captures():
    model = Holder(layers=[Affine()])
    liftnn.export(liftnn.jit(lambda x: model.layers[0]))(1.0)


@message(
    errors.StructureError,
    "This program was exported for arguments of another structure:",
    "args[0].mode: 'train' -> 'eval'",
    NEW,
)
def exported_for_another_structure():
    model = Affine()
    exported = liftnn.export(liftnn.jit(step))(model, 1.0)
    model.mode = "eval"
    exported.call(model, 1.0)


@message(
    errors.StructureError,
    "args[0].v holds {'a': an array}, but the function was exported for [an array].",
    NEW,
)
def exported_for_a_value_of_another_tree():
    exported = liftnn.export(liftnn.jit(lambda m: None))(Holder(v=liftnn.Variable([1.0])))
    exported.call(Holder(v=liftnn.Variable({"a": 1.0})))


@message(
    errors.ArgumentError,
    "Arrays have other shapes or dtypes than the function was exported for:",
    "  args[0].w: float32[4], exported for float32[3]",
    "  args[0].b: float32[4], exported for float32[3]",
    "  args[1]: int32[3], exported for float32[3]",
    "Convert them, or export the function again; jax.export.symbolic_shape leaves a dimension open.",
)
def exported_for_other_shapes():
    exported = liftnn.export(liftnn.jit(step))(Affine(), jnp.ones(3))
    exported.call(Affine(size=4), jnp.arange(3))


@message(
    errors.StructureError,
    "Pickle cannot write args[0].layers[0] (a Local): its class, or a static value in it.",
    "Define functions and classes that modules hold at the top level of a file.",
)
def class_that_cannot_be_written():
    class Local(liftnn.Module):
        pass

    liftnn.export(liftnn.jit(lambda model: None))(Holder(layers=[Local()])).serialize()


@message(
    errors.StructureError,
    "Pickle cannot write the static part of what the function returns or changes.",
    "Define functions and classes that modules hold at the top level of a file.",
)
def function_returned_that_cannot_be_written():
    liftnn.export(liftnn.jit(lambda x: lambda: 1))(1.0).serialize()


@message(
    errors.ArgumentError,
    "These bytes are no function that liftnn has exported.",
    "Pass what `Exported.serialize` returned.",
)
def other_bytes_read():
    liftnn.deserialize(b"PK\x03\x04")


@message(
    errors.ArgumentError,
    "This exported function is damaged: a part of it is missing or was changed.",
    "Write it again, and read the whole file in binary mode.",
)
def truncated_bytes_read():
    liftnn.deserialize(b"liftnn exported function 1\n" + bytes(40))


@message(
    errors.StructureError,
    "The exported function needs something that is not there: No module named 'gone'.",
    "Define or import its classes under the names that they had when it was exported.",
)
def class_that_is_not_there():
    data = b"cgone\nNet\n."  # what pickle writes for a class of a module
    liftnn.deserialize(b"liftnn exported function 1\n" + hashlib.sha256(data).digest() + data)
