"""`export`: a compiled step that can be written to a file, and called in another process with modules."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.export as jax_export

from liftnn import errors
from liftnn.graph.portable import by_name
from liftnn.lifting.lift import Call
from liftnn.tracebacks import boundary
from liftnn.transforms.exported import MARK, Contents, Exported
from liftnn.transforms.jit import Jitted


@boundary
def export(
    jitted: Jitted,
    /,
    *,
    platforms: Sequence[str] | None = None,
    disabled_checks: Sequence[jax_export.DisabledSafetyCheck] = (),
) -> Callable[..., Exported]:
    """Exports a compiled function of modules, as `jax.export.export`.

    Args:
      jitted: What `liftnn.jit` returned, of a function, a bound method or a module.
      platforms: What to compile for: `"cpu"`, `"cuda"`, `"rocm"`, `"tpu"`. The default, None, means the backend in use.
      disabled_checks: Safety checks of JAX to leave out. The default is none.

    Returns:
      A function that takes arguments like those of the step, of which nothing is changed, and returns the `Exported`.
      `jax.ShapeDtypeStruct` may stand for arrays, in Variables too, with dimensions of `jax.export.symbolic_shape`.

    Raises:
      ArgumentError: If the function is a partial; when called, if it uses a module that is no argument.
      ArgumentTypeError: If it was not made by `liftnn.jit`.

    Example:
      >>> import jax, jax.numpy as jnp, liftnn
      >>> def step(v, x):
      ...   v.value = v + x.sum()
      ...   return 2 * x
      >>> v = liftnn.Variable(jnp.zeros(()))
      >>> batch = jax.ShapeDtypeStruct(jax.export.symbolic_shape("batch"), jnp.float32)
      >>> exported = liftnn.export(liftnn.jit(step))(v, batch)
      >>> exported.call(v, jnp.ones(3)).tolist(), float(v.value)
      ([2.0, 2.0, 2.0], 3.0)
    """
    if not isinstance(jitted, Jitted):
        raise errors.ArgumentTypeError(
            f"liftnn.export needs what liftnn.jit returns, not a {type(jitted).__name__}.",
            "Pass `liftnn.jit(f)`.",
        )
    if jitted._stored is not None:
        raise errors.ArgumentError(
            "liftnn.export cannot export a partial: what it stores would have to be written as well.",
            "Export a jit of the function itself, and pass all arguments.",
        )

    @boundary
    def make(*args: Any, **kwargs: Any) -> Exported:
        def act(call: Call) -> tuple[jax_export.Exported, Any]:
            return _export_flat(jitted, call, platforms, disabled_checks)

        call, (program, result) = jitted._run(args, kwargs, act)
        again = jitted._open(args, kwargs)
        if (
            again.plan.graph != call.plan.graph
        ):  # schedules of optax change their own closures when they first run
            call, (program, result) = jitted._run(args, kwargs, act)
        _check_nothing_captured(call)
        positional, named = call.static
        static = [None if x is None else (x.value,) for x in positional], named
        trees = [jax.tree.structure(value) for value in call.values]
        contents = Contents(program.fun_name, by_name(call.plan.graph), static, trees, result)
        return Exported(program, contents)

    return make


def _export_flat(
    jitted: Jitted, call: Call, platforms: Sequence[str] | None, disabled_checks: Sequence[Any]
) -> tuple[jax_export.Exported, Any]:
    """JAX's exported function of flat arrays, and the tree of its result."""
    leaves, treedef = jax.tree.flatten((call.values, call.arrays))
    found: list[Any] = []

    def flat(*leaves: Any) -> list[Any]:
        out, result = jax.tree.flatten(call.bound(*treedef.unflatten(leaves)))
        found.append(result)
        return out

    flat.__name__ = flat.__qualname__ = getattr(jitted, "__name__", "call")
    exporter = jax_export.export(jax.jit(flat), platforms=platforms, disabled_checks=disabled_checks)
    return exporter(*map(_anywhere, leaves)), found[-1]


def _anywhere(leaf: Any) -> Any:
    """What an array on one device is exported as: placed nowhere, since JAX has no VJP for one that was put there."""
    if not isinstance(getattr(leaf, "sharding", None), jax.sharding.SingleDeviceSharding):
        return leaf
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, weak_type=jax.typeof(leaf).weak_type)


def _check_nothing_captured(call: Call) -> None:
    """Refuses a function that uses modules which are no arguments: whoever calls it elsewhere has none to give."""
    for number in call.plan.captured:
        raise errors.ArgumentError(
            f"The function to export captures {call.plan.path_of(number)}, which is not among its arguments.",
            "Pass the module as an argument.",
        )


@boundary
def deserialize(blob: bytes | bytearray) -> Exported:
    """Reads an exported function that `Exported.serialize` has written; needs the package `flatbuffers`, as in JAX.

    Classes are stored by name, so they must be defined or importable under the same names. The bytes are read with
    pickle, which can run any code: read only what you trust.

    Args:
      blob: The bytes.

    Returns:
      The exported function.

    Raises:
      ArgumentError: If the bytes are no exported function, or damaged.
      StructureError: If a class that the function's arguments or results need is not there.

    Example:
      >>> import liftnn
      >>> def load(path):
      ...   with open(path, "rb") as file:
      ...     return liftnn.deserialize(file.read())
    """
    blob = bytes(blob)
    if not blob.startswith(MARK):
        raise errors.ArgumentError(
            "These bytes are no function that liftnn has exported.",
            "Pass what `Exported.serialize` returned.",
        )
    checksum, data = blob[len(MARK) :][:32], blob[len(MARK) + 32 :]
    if hashlib.sha256(data).digest() != checksum:
        raise errors.ArgumentError(
            "This exported function is damaged: a part of it is missing or was changed.",
            "Write it again, and read the whole file in binary mode.",
        )
    try:
        program, written = pickle.loads(data)
        contents = pickle.loads(written)
    except (AttributeError, ImportError) as error:
        raise errors.StructureError(
            f"The exported function needs something that is not there: {error}.",
            "Define or import its classes under the names that they had when it was exported.",
        ) from error
    return Exported(jax_export.deserialize(bytearray(program)), contents)
