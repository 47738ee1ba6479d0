"""`export`: a compiled step that can be written to a file, and called in another process with modules."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.export as jax_export

from liftnn import errors
from liftnn.graph.description import Description, find_all_paths
from liftnn.graph.portable import by_name
from liftnn.lifting.lift import Call, Lifted, Options, StaticArgument
from liftnn.lifting.pure import PureCall
from liftnn.lifting.result import Plan, Result, name_argument
from liftnn.transforms.jit import Jitted
from liftnn.transforms.stages import check_structure
from liftnn.trees import list_paths

_MARK = b"liftnn exported function 1\n"


class Contents(NamedTuple):
    """What is written beside JAX's own bytes.

    Args:
      name: The function's name.
      graph: The structure of the arguments, functions in it by name.
      static: The static arguments by position (None where there is another) and by name.
      values: The trees of the Variables' values.
      result: The tree of the result, with the static description of what was returned, made and changed.
    """

    name: str
    graph: Description
    static: tuple[list[Any], dict[str, Any]]
    values: list[Any]
    result: Any


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
      ArgumentError: If the function is a partial.
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

    def make(*args: Any, **kwargs: Any) -> Exported:
        call = jitted._open(args, kwargs)
        program, result = _export_flat(jitted, call, platforms, disabled_checks)
        again = jitted._open(args, kwargs)
        if (
            again.plan.graph != call.plan.graph
        ):  # schedules of optax change their own closures when they first run
            call = again
            program, result = _export_flat(jitted, call, platforms, disabled_checks)
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
    return exporter(*leaves), found[-1]


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
    if not blob.startswith(_MARK):
        raise errors.ArgumentError(
            "These bytes are no function that liftnn has exported.",
            "Pass what `Exported.serialize` returned.",
        )
    checksum, data = blob[len(_MARK) :][:32], blob[len(_MARK) + 32 :]
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


class Exported:
    """An exported function of modules; what it does not know itself it asks of JAX's `jax.export.Exported`.

    `export` and `deserialize` make it; it is not made by hand.

    Args:
      program: JAX's exported function of flat arrays.
      contents: What belongs to it.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> exported = liftnn.export(liftnn.jit(model))(jnp.ones((1, 2)))
      >>> exported.call(model, jnp.zeros((1, 2))).tolist(), exported.platforms
      ([[0.0, 0.0, 0.0]], ('cpu',))
    """

    def __init__(self, program: Any, contents: Contents):
        self._program = program
        self._contents = contents
        self._call = _ExportedCall(program, contents)

    def call(self, /, *args: Any, **kwargs: Any) -> Any:
        """Runs the function and puts what it does into the modules.

        Args:
          *args: Arguments of the structure that the function was exported for, without static ones. Of a bound method
            the module is argument 0.
          **kwargs: Keyword arguments, likewise.

        Returns:
          The function's output.

        Raises:
          ArgumentError: If an array has another shape or dtype than the function was exported for.
          StructureError: If the arguments have another structure; the message says what differs, by path.
        """
        return self._call(*args, **kwargs)

    def serialize(self, vjp_order: int = 0) -> bytes:
        """The function as bytes, for `deserialize`; needs the package `flatbuffers`, as in JAX.

        Args:
          vjp_order: How often the function can be differentiated when it is read. The default is 0.

        Returns:
          The bytes.

        Raises:
          StructureError: If there is something among static values that pickle cannot write.
        """
        try:
            contents = pickle.dumps(self._contents)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise errors.StructureError(
                f"Pickle cannot write {_find_unwritable(self._contents.graph)}.",
                "Define functions and classes that modules hold at the top level of a file.",
            ) from error
        data = pickle.dumps((bytes(self._program.serialize(vjp_order)), contents))
        return _MARK + hashlib.sha256(data).digest() + data

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._program, name)

    def __repr__(self) -> str:
        return f"<liftnn Exported of {self._contents.name}>"


class _ExportedCall(Lifted):
    """The call of an exported function: everything but the function itself is as in any transform."""

    def __init__(self, program: Any, contents: Contents):
        self._contents = contents
        self._avals = program.in_avals
        self._jitted = jax.jit(program.call)
        super().__init__((_exported,), self._bind_call, Options("export", static_leaves=False))

    def _arguments(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        positional, named = self._contents.static
        dynamic = iter(args)
        full = [next(dynamic, _exported) if x is None else StaticArgument(x[0]) for x in positional]
        marked = [x for x in full if x is not _exported]
        return (*marked, *dynamic), {**kwargs, **{k: StaticArgument(x) for k, x in named.items()}}

    def _bind_call(self, plan: Plan, pure: PureCall) -> PureCall:
        check_structure(
            self._contents.graph,
            by_name(plan.graph),
            "exported",
            "Export the function for the new structure.",
        )

        def call(values: Sequence[Any], arrays: Sequence[Any]) -> Result:
            self._check_arrays(plan, values, arrays)
            leaves = jax.tree.leaves((values, arrays))
            return self._contents.result.unflatten(self._jitted(*leaves))

        return call

    def _check_arrays(self, plan: Plan, values: Sequence[Any], arrays: Sequence[Any]) -> None:
        """Refuses values and arrays of other trees, shapes and dtypes than the function was exported for."""
        trees = list(map(jax.tree.structure, values))
        paths = [plan.path_of(number) for number in plan.variables]
        for path, tree, expected in zip(paths, trees, self._contents.values, strict=True):
            if tree != expected:
                raise errors.StructureError(
                    f"{path} holds {_words(tree)}, but the function was exported for {_words(expected)}.",
                    "Export the function for the new structure.",
                )
        names = [path for path, tree in zip(paths, trees, strict=True) for _ in range(tree.num_leaves)]
        names += [plan.array_name(i) for i in range(len(arrays))]
        leaves = map(jax.typeof, jax.tree.leaves((values, arrays)))
        wrong = [
            f"{name}: {actual.str_short()}, exported for {expected.str_short()}"
            for name, actual, expected in zip(names, leaves, self._avals, strict=True)
            if not _fits(actual, expected)
        ]
        if wrong:
            raise errors.ArgumentError(
                f"Arrays have other shapes or dtypes than the function was exported for:\n{list_paths(wrong)}",
                "Convert them, or export the function again; jax.export.symbolic_shape leaves a dimension open.",
            )


def _find_unwritable(graph: Description) -> str:
    """What pickle cannot write, in words."""
    for number, spec in enumerate(graph.specs):
        try:
            pickle.dumps(spec)
        except (pickle.PicklingError, AttributeError, TypeError):
            path = name_argument(find_all_paths(graph)[number][0])
            return f"{path} (a {spec.type.__name__}): its class, or a static value in it"
    return "the static part of what the function returns or changes"


def _fits(actual: Any, expected: Any) -> bool:
    """Whether an array may be passed; whether symbolic dimensions fit JAX will say."""
    if actual.dtype != expected.dtype or len(actual.shape) != len(expected.shape):
        return False
    return all(not isinstance(e, int) or a == e for a, e in zip(actual.shape, expected.shape, strict=True))


def _words(treedef: Any) -> str:
    return str(treedef).removeprefix("PyTreeDef(")[:-1].replace("*", "an array")


def _exported() -> None:
    """Stands for the function that was exported."""
