"""Errors of `export`."""

from __future__ import annotations

import functools
import hashlib

import jax.numpy as jnp

import liftnn
from liftnn import errors
from tests.messages.registry import message
from tests.user_modules import Affine, Holder, step

PASS = (
    "Pass the module as an argument. Only modules that the function just reads may be captured or stored in a "
    "partial."
)
NEW = "Export the function for the new structure."


@message(
    errors.ArgumentTypeError,
    "liftnn.export takes the result of liftnn.jit, not a function.",
    "Pass `liftnn.jit(f)`.",
)
def export_of_a_function():
    liftnn.export(step)


@message(
    errors.ArgumentError,
    "The function to export changes partial[0][0].calls (a Variable), which is not one of its arguments. This "
    "object does not exist where the exported function is called.",
    PASS,
)
def export_of_a_partial_that_writes():
    liftnn.export(liftnn.jit(functools.partial(step, Affine())))(1.0)


@message(
    errors.ArgumentError,
    "The function to export returns or stores model.layers[0] (an Affine), which is not one of its arguments. This "
    "object does not exist where the exported function is called.",
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
    "Some arrays differ in shape or dtype from those of the export:",
    "  args[0].w: float32[4], exported for float32[3]",
    "  args[0].b: float32[4], exported for float32[3]",
    "  args[1]: int32[3], exported for float32[3]",
    "Convert them, or export the function again. Use jax.export.symbolic_shape for dimensions that vary.",
)
def exported_for_other_shapes():
    exported = liftnn.export(liftnn.jit(step))(Affine(), jnp.ones(3))
    exported.call(Affine(size=4), jnp.arange(3))


@message(
    errors.StructureError,
    "pickle cannot serialize args[0].layers[0] (a Local): its class or a static value in it is not picklable.",
    "Define the functions and classes that modules refer to at the top level of a file.",
)
def class_that_cannot_be_written():
    class Local(liftnn.Module):
        pass

    liftnn.export(liftnn.jit(lambda model: None))(Holder(layers=[Local()])).serialize()


@message(
    errors.StructureError,
    "pickle cannot serialize the static part of what the function returns or changes.",
    "Define the functions and classes that modules refer to at the top level of a file.",
)
def function_returned_that_cannot_be_written():
    liftnn.export(liftnn.jit(lambda x: lambda: 1))(1.0).serialize()


@message(
    errors.ArgumentError,
    "These bytes are not a function exported by liftnn.",
    "Pass the bytes that `Exported.serialize` returned.",
)
def other_bytes_read():
    liftnn.deserialize(b"PK\x03\x04")


@message(
    errors.ArgumentTypeError,
    "liftnn.deserialize takes bytes, not a str.",
    "Pass the bytes that `Exported.serialize` returned; to read a file, `pathlib.Path(file).read_bytes()`.",
)
def name_of_a_file_read():
    liftnn.deserialize("step.bin")


def scale(x, n=2):
    return x * n


@message(
    errors.ArgumentError,
    "The argument 'n' is static: the function was exported with n=3, and the call has n=4.",
    "Leave 'n' out, or export the function again with the other value.",
)
def exported_for_another_static_argument():
    exported = liftnn.export(liftnn.jit(scale, static_argnames="n"))(1.0, n=3)
    exported.call(1.0, n=4)


@message(
    errors.ArgumentError,
    "The call has 2 positional arguments, and the exported function takes 1; these are static, with the values that "
    "the function was exported with:",
    "  args[1] = 3",
    "Leave the static arguments out, or export the function again with other values.",
)
def exported_with_a_static_argument_by_position():
    exported = liftnn.export(liftnn.jit(scale, static_argnums=1))(1.0, 3)
    exported.call(1.0, 3)


@message(
    errors.ArgumentError,
    "This exported function is damaged: some of its bytes are missing or were changed.",
    "Serialize it again, and read the whole file in binary mode.",
)
def truncated_bytes_read():
    liftnn.deserialize(b"liftnn exported function 1\n" + bytes(40))


@message(
    errors.StructureError,
    "The exported function needs a class or function that cannot be found: No module named 'gone'.",
    "Make it importable under the name that it had when the function was exported.",
)
def class_that_is_not_there():
    data = b"cgone\nNet\n."  # what pickle writes for a class of a module
    liftnn.deserialize(b"liftnn exported function 1\n" + hashlib.sha256(data).digest() + data)


@message(
    errors.StructureError,
    "The class Local is part of the exported function, and cannot be written with `plain=True`.",
    "Serialize it without `plain`, which uses pickle.",
)
def class_that_is_not_plain():
    class Local(liftnn.Module):
        pass

    liftnn.export(liftnn.jit(lambda model: None))(Holder(layers=[Local()])).serialize(plain=True)


@message(
    errors.ArgumentError,
    "These bytes are a pickle, which can run any code when it is read, and `plain=True` forbids that.",
    "Serialize the function with `serialize(plain=True)`, or, if you trust the bytes, omit `plain`.",
)
def pickled_bytes_read_as_plain():
    liftnn.deserialize(b"liftnn exported function 1\n" + bytes(40), plain=True)


def read_plain(text: bytes):
    """Read bytes that have this text in place of the contents."""
    data = len(text).to_bytes(8, "little") + text
    liftnn.deserialize(
        b"liftnn plain exported function 1\n" + hashlib.sha256(data).digest() + data, plain=True
    )


@message(
    errors.StructureError,
    "The exported function has contents that liftnn does not write: KeyError.",
    "Serialize it again, with `plain=True`.",
)
def plain_bytes_of_something_else():
    read_plain(b'{"is": "call", "function": "os.system"}')


@message(
    errors.StructureError,
    "The exported function needs the class gone.Net, which is not loaded or not plain.",
    "Import its module first, under the name that it had when the function was exported.",
)
def class_that_is_not_loaded():
    read_plain(b'{"is": "class", "module": "gone", "name": "Net"}')
