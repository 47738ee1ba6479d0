"""`export`: compile a function of modules to bytes that another process can load and call with modules."""

from __future__ import annotations

import hashlib
import pickle
import types
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.export as jax_export

from liftnn import errors
from liftnn._src.compilation.by_name import by_name
from liftnn._src.compilation.constants import ArgumentsOnly
from liftnn._src.compilation.exported import LENGTH, MARK, PLAIN_MARK, Exported, ExportedContents
from liftnn._src.compilation.jitted import Jitted
from liftnn._src.compilation.plain import from_json
from liftnn._src.lifting.call import Call
from liftnn._src.publish import publish
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import an


@boundary
def export(
    jitted: Jitted[..., Any],
    /,
    *,
    platforms: Sequence[str] | None = None,
    disabled_checks: Sequence[jax_export.DisabledSafetyCheck] = (),
) -> Callable[..., Exported]:
    """Export a compiled function of modules, as `jax.export.export`.

    Modules that the function captures, or that a partial stores, become constants with their values at the time of the
    export; the function may only read them. The exported function donates the same arguments as the original one.

    Args:
      jitted: A function, bound method or module wrapped by `liftnn.jit`, or a method that has it as its decorator.
      platforms: The platforms to compile for: `"cpu"`, `"cuda"`, `"rocm"`, `"tpu"`. The default, None, means the
        backend in use.
      disabled_checks: Safety checks of JAX to skip. The default is none.

    Returns:
      A function that takes the arguments of the original function, does not change them, and returns the `Exported`.
      `jax.ShapeDtypeStruct` may replace arrays, also in Variables, with dimensions from `jax.export.symbolic_shape`.

    Raises:
      ArgumentError: When called, if the function changes or returns a module that is not an argument.
      ArgumentTypeError: If `jitted` was not made by `liftnn.jit`.

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
    leading: tuple[Any, ...] = ()
    if isinstance(jitted, types.MethodType) and isinstance(jitted.__func__, Jitted):
        jitted, leading = jitted.__func__, (jitted.__self__,)
    if not isinstance(jitted, Jitted):
        raise errors.ArgumentTypeError(
            f"liftnn.export takes the result of liftnn.jit, not {an(type(jitted))}.",
            "Pass `liftnn.jit(f)`.",
        )

    @boundary
    def make(*args: Any, **kwargs: Any) -> Exported:
        def act(call: Call) -> Exported:
            return _export(jitted, call, platforms, disabled_checks)

        args = (*leading, *args)
        call, exported = jitted._run(args, kwargs, act)
        again = jitted._lifted._flatten_call(args, kwargs)
        if (
            again.plan.graph != call.plan.graph
        ):  # the first run changed the structure: schedules of optax change their own closures
            _, exported = jitted._run(args, kwargs, act)
        return exported

    return make


def _export(
    jitted: Jitted[..., Any], call: Call, platforms: Sequence[str] | None, disabled_checks: Sequence[Any]
) -> Exported:
    """Export the function of flat arrays with JAX, and collect the static contents."""
    arguments = ArgumentsOnly(call.plan)
    argument_leaves = arguments.take(call.leaves)
    leaves, treedef = jax.tree.flatten(argument_leaves)
    kept = call.bound.placement(call.leaves[: call.bound.inputs.n_values])
    found: list[Any] = []

    def flat(*leaves: Any) -> list[Any]:
        parts = arguments.put(treedef.unflatten(leaves), call.leaves)
        result = call.bound(parts)
        for placement in kept:
            result = placement.constrain(call.plan, result, parts)
        out, result = jax.tree.flatten(arguments.cut(result))
        found.append(result)
        return out

    flat.__name__ = flat.__qualname__ = getattr(jitted, "__name__", "call")
    abstract = list(map(_anywhere, leaves))
    if call.bound.is_abstract:  # `donate_written` knows the donated leaves only after a trace
        jax.eval_shape(flat, *abstract)
    marks = [call.plan.index[slot] in call.bound.inputs.donated_leaves for slot in arguments.slots]
    each = [mark for mark, x in zip(marks, argument_leaves, strict=True) for _ in jax.tree.leaves(x)]
    positions = tuple([i for i, mark in enumerate(each) if mark])
    compiled = jax.jit(flat, donate_argnums=positions)
    program = jax_export.export(compiled, platforms=platforms, disabled_checks=disabled_checks)(*abstract)
    positional, named = call.static
    static = [None if x is None else (x.value,) for x in positional], named
    trees = list(map(jax.tree.structure, argument_leaves))
    contents = ExportedContents(
        program.fun_name, by_name(arguments.graph), static, trees, found[-1], positions
    )
    return Exported(program, contents)


def _anywhere(leaf: Any) -> Any:
    """Remove the placement of an array on a single device, since JAX cannot export a VJP of a placed one."""
    if not isinstance(getattr(leaf, "sharding", None), jax.sharding.SingleDeviceSharding):
        return leaf
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, weak_type=jax.typeof(leaf).weak_type)


@boundary
def deserialize(blob: bytes | bytearray, *, plain: bool = False) -> Exported:
    """Load an exported function from the bytes of `Exported.serialize`; needs the package `flatbuffers`, as in JAX.

    **Loading runs code.** Without `plain` the bytes may be read with pickle, and whoever wrote them can run any program
    with your rights: load only bytes that you trust. With `plain=True` only bytes of `serialize(plain=True)` are
    loaded, which are data: no code of the file or of your modules runs. A call of the loaded function then runs its
    program, which computes with arrays.

    Classes are stored by name, so they must be importable under the same names; with `plain=True` their modules must be
    imported already.

    Args:
      blob: The bytes.
      plain: Whether to raise an error for bytes that pickle would read. The default is False.

    Returns:
      The exported function.

    Raises:
      ArgumentTypeError: If `blob` is not bytes.
      ArgumentError: If the bytes are not an exported function, or are damaged; with `plain`, if they need pickle.
      StructureError: If a class or function that the arguments or results need cannot be found.

    Example:
      >>> import liftnn
      >>> def load(path):
      ...   with open(path, "rb") as file:
      ...     return liftnn.deserialize(file.read(), plain=True)
    """
    if not isinstance(blob, (bytes, bytearray, memoryview)):
        raise errors.ArgumentTypeError(
            f"liftnn.deserialize takes bytes, not {an(type(blob))}.",
            "Pass the bytes that `Exported.serialize` returned; to read a file, `pathlib.Path(file).read_bytes()`.",
        )
    blob = bytes(blob)
    if blob.startswith(PLAIN_MARK):
        data = _checked(blob.removeprefix(PLAIN_MARK))
        size = LENGTH + int.from_bytes(data[:LENGTH], "little")
        contents = from_json(data[LENGTH:size])
        if not isinstance(contents, ExportedContents):
            raise _damaged()
        return _load(data[size:], contents)
    if not blob.startswith(MARK):
        raise errors.ArgumentError(
            "These bytes are not a function exported by liftnn.",
            "Pass the bytes that `Exported.serialize` returned.",
        )
    if plain:
        raise errors.ArgumentError(
            "These bytes are a pickle, which can run any code when it is read, and `plain=True` forbids that.",
            "Serialize the function with `serialize(plain=True)`, or, if you trust the bytes, omit `plain`.",
        )
    data = _checked(blob.removeprefix(MARK))
    try:
        program, written = pickle.loads(data)
        contents = pickle.loads(written)
    except (AttributeError, ImportError) as error:
        raise errors.StructureError(
            f"The exported function needs a class or function that cannot be found: {error}.",
            "Make it importable under the name that it had when the function was exported.",
        ) from error
    return _load(program, contents)


def _load(program: bytes, contents: ExportedContents) -> Exported:
    return Exported(jax_export.deserialize(bytearray(program)), contents)


def _checked(data: bytes) -> bytes:
    """Return the data after its checksum, which it must have."""
    if hashlib.sha256(data[32:]).digest() != data[:32]:
        raise _damaged()
    return data[32:]


def _damaged() -> errors.ArgumentError:
    return errors.ArgumentError(
        "This exported function is damaged: some of its bytes are missing or were changed.",
        "Serialize it again, and read the whole file in binary mode.",
    )


publish(deserialize, export)
