"""Errors of `jit`: static and donated arguments, retraces, shardings, compiled stages."""

from __future__ import annotations

import jax
import jax.numpy as jnp

import liftnn
from liftnn import errors
from tests.messages.registry import message
from tests.user_modules import Affine, Holder, step


@message(
    errors.ArgumentTypeError,
    "static_argnums must be an int or a sequence of ints, not 'x'.",
    "Pass one position, such as `static_argnums=0`, or a tuple of positions.",
)
def static_number_that_is_text():
    liftnn.jit(step, static_argnums="x")


@message(
    errors.ArgumentError,
    "static_argnums contains 2, but the function has 2 positional arguments.",
    "Count positions from 0; the positional arguments are: model, x.",
)
def static_number_out_of_range():
    liftnn.jit(step, static_argnums=2)


@message(
    errors.ArgumentError,
    "donate_argnames contains 'modle', but the function has no argument of that name.",
    "Check the spelling; the arguments are: model, x.",
)
def unknown_donated_name():
    liftnn.jit(step, donate_argnames="modle")


@message(
    errors.ArgumentError,
    "static_argnames contains 'x', which is a positional-only argument.",
    "Pass its position in static_argnums instead.",
)
def positional_only_static_name():
    liftnn.jit(lambda x, /: x, static_argnames="x")


@message(
    errors.ArgumentTypeError,
    "static_argnames must be a string or a sequence of strings, not 1.",
    "Pass one name, such as `static_argnames='mode'`, or a tuple of names.",
)
def static_name_that_is_a_number():
    liftnn.jit(step, static_argnames=1)


@message(
    errors.ArgumentError,
    "static_argnames contains 'rest', which is the name of the `*args` of the function.",
    "Pass its position in static_argnums instead.",
)
def static_name_of_variadic_arguments():
    liftnn.jit(lambda x, *rest: x, static_argnames="rest")


@message(
    errors.ArgumentError,
    "donate_argnames cannot be used, since the function has no signature.",
    "Pass the positions in donate_argnums instead.",
)
def donated_name_without_a_signature():
    liftnn.jit(type, donate_argnames="x")


@message(
    errors.ArgumentError,
    "Arguments cannot be both static and donated: 0, 1.",
    "Remove them from the static arguments or from the donated ones.",
)
def static_and_donated():
    liftnn.jit(step, static_argnums=(0, 1), donate_argnums=(1, 0))


@message(
    errors.ArgumentError,
    "args[0] is an Affine, so it cannot be static: later changes to the module would not be seen.",
    "Remove it from static_argnums and static_argnames; static attributes of modules are part of the cache key anyway.",
)
def static_module():
    liftnn.jit(step, static_argnums=0)(Affine(), 1.0)


@message(
    errors.ArgumentError,
    "kwargs['x'] is static and must be hashable, but is a list: [1, 2].",
    "Pass a hashable value, such as a tuple instead of a list or a frozen dataclass instead of a dict.",
)
def unhashable_static_argument():
    liftnn.jit(step, static_argnames="x")(Affine(), x=[1, 2])


@message(
    errors.RetraceError,
    "liftnn.jit of step would be traced again (trace 2), but max_traces is 1:",
    "args[1]: weak float32[] -> float32[2]",
    "Pass varying values as arrays or in Variables, pad arrays to a few shapes, or raise `max_traces`.",
)
def more_traces_than_allowed():
    call, model = liftnn.jit(step, max_traces=1), Affine()
    call(model, 1.0)
    call(model, jnp.ones(2))


@message(
    errors.DonatedError,
    "The buffer of args[0].b (a Param) was donated earlier and is gone.",
    "Use the Variable of the module that the call has updated, make a `liftnn.clone` before the call, or "
    "do not donate the argument.",
)
def donated_variable_used_again():
    model = Affine()
    model.b.value.delete()
    liftnn.jit(step)(model, 1.0)


@message(
    errors.DonatedError,
    "The buffer of args[1] was donated earlier and is gone.",
    "Use the Variable of the module that the call has updated, make a `liftnn.clone` before the call, or "
    "do not donate the argument.",
)
def donated_array_used_again():
    x = jnp.ones(3)
    call = liftnn.jit(lambda model, x: model.w * x, donate_argnums=1)
    call(Affine(), x)
    call(Affine(), x)


@message(
    errors.DonatedError,
    "The buffer of args[0].w (a Param) is gone. Either it was donated earlier, or this call computed a NaN or an "
    "infinity: JAX then runs the function again to locate it, but the buffer had been donated.",
    "Set jax_debug_nans or jax_debug_infs before the function is first called, so that JAX does not donate its "
    "arguments.",
)
def nan_of_donated_arguments():
    call = liftnn.jit(lambda model, x: jnp.log(model.w * x), donate_argnums=0)
    model = Affine()
    call(model, 1.0)
    with jax.debug_nans(True):
        call(model, -1.0)


@message(
    errors.StructureError,
    "args[0].v holds (an array, 'two'), but the function was compiled for [an array].",
    "Lower and compile again for the new structure, or call the jitted function itself.",
)
def compiled_for_a_value_of_another_tree():
    compiled = liftnn.jit(lambda m: None).lower(Holder(v=liftnn.Variable([1.0]))).compile()
    compiled(Holder(v=liftnn.Variable((1.0, "two"))))


@message(
    errors.StructureError,
    "This program was compiled for arguments of another structure:",
    "args[0].mode: 'train' -> 'eval'",
    "args[0].a0: added, 0",
    "args[0].a1: added, 1",
    "args[0].a2: added, 2",
    "args[0].a3: added, 3",
    "args[0].a4: added, 4",
    "args[0].a5: added, 5",
    "args[0].a6: added, 6",
    "... and 3 more",
    "Lower and compile again for the new structure, or call the jitted function itself.",
)
def compiled_for_another_structure():
    model = Affine()
    compiled = liftnn.jit(step).lower(model, 1.0).compile()
    model.mode = "eval"
    for i in range(10):
        setattr(model, f"a{i}", i)
    compiled(model, 1.0)


@message(
    errors.ArgumentTypeError,
    "`in_shardings` contains an Affine, which is not a sharding.",
    "Pass one sharding for the whole module, or a liftnn.StateSharding.",
)
def module_as_sharding():
    liftnn.jit(step, in_shardings=(Affine(), None))


@message(
    errors.ArgumentError,
    "(None,) is not a tree prefix of the positional arguments that are not static: (*, *).",
    "Give one entry for the whole tree, or one for each subtree. A module counts as one leaf; use StateAxes "
    "(or StateSharding) to give its Variables different entries.",
)
def in_shardings_for_too_few_arguments():
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    liftnn.jit(step, in_shardings=(None,), out_shardings=sharding)(Affine(), 1.0)


@message(
    errors.AttributeNameError,
    "JAX cannot export or serialize a program that liftnn.jit compiled for modules.",
    "Use `liftnn.export(liftnn.jit(f))`, whose result is called with modules, and has `serialize()`.",
)
def program_read_by_a_function_of_jax():
    liftnn.jit(step).lower(Affine(), 1.0)._lowering  # noqa: B018
