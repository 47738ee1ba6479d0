"""`Exported`: an exported function of modules, which can be called and serialized."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from liftnn import errors
from liftnn._src.compilation.by_name import by_name
from liftnn._src.compilation.donation import deleted_error, unshare
from liftnn._src.compilation.plain import to_json
from liftnn._src.compilation.stages import check_structure, check_values
from liftnn._src.graph.description import GraphSpec, find_all_paths
from liftnn._src.lifting.arguments import StaticArgument
from liftnn._src.lifting.contract import Plan, PureFunction, Result, name_argument
from liftnn._src.lifting.lift import Lifted, LiftOptions
from liftnn._src.publish import PICKLED, publish
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import an, list_paths
from liftnn._src.variables import frames

MARK = b"liftnn exported function 1\n"
"""The first bytes of a file with pickled data: format and version. A checksum and the data follow."""
PLAIN_MARK = b"liftnn plain exported function 1\n"
"""The first bytes of a file without pickled data; a checksum, the length of the JSON text, text and program follow."""
_REMEDY = "Export the function for the new structure."
LENGTH = 8
"""Bytes of the length of the text."""


class ExportedContents(NamedTuple):
    """The data that is serialized in addition to JAX's own bytes.

    Args:
      name: The function's name.
      graph: The structure of the arguments; functions are stored by name.
      static: The static arguments by position (None for a dynamic one) and by name.
      values: The trees of the dynamic leaves: a value of a Variable may be a tree.
      result: The tree of the result, with the static description of what was returned, created and changed.
      donated: The positions of the flat arrays that a call donates.
    """

    name: str
    graph: GraphSpec
    static: tuple[list[Any], dict[str, Any]]
    values: list[Any]
    result: Any
    donated: tuple[int, ...]


@boundary
class Exported:
    """An exported function of modules, returned by `export` and `deserialize`.

    All other attributes are those of JAX's `jax.export.Exported`.

    Args:
      program: JAX's exported function of flat arrays.
      contents: The static data of the function.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> exported = liftnn.export(liftnn.jit(model))(jnp.ones((1, 2)))
      >>> exported.call(model, jnp.zeros((1, 2))).tolist(), exported.platforms
      ([[0.0, 0.0, 0.0]], ('cpu',))
    """

    calling_convention_version: int
    disabled_safety_checks: Sequence[jax.export.DisabledSafetyCheck]
    fun_name: str
    in_avals: tuple[Any, ...]
    in_tree: Any
    mlir_module: Callable[[], str]
    mlir_module_serialized: bytes
    nr_devices: int
    out_avals: tuple[Any, ...]
    out_tree: Any
    platforms: tuple[str, ...]

    def __init__(self, program: Any, contents: ExportedContents):
        self._program = program
        self._contents = contents
        self._call = _ExportedCall(program, contents)

    def call(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run the function and propagate its changes to the modules in the arguments.

        Args:
          *args: Arguments of the structure that the function was exported for, without static ones. For a bound method
            the module is argument 0.
          **kwargs: Keyword arguments, likewise.

        Returns:
          The function's output.

        Raises:
          ArgumentError: If the shape or dtype of an array differs from that at the export, or if a static argument is
            passed with another value.
          StructureError: If the arguments have another structure; the message names the paths that differ.
        """
        return self._call(*args, **kwargs)

    def serialize(self, vjp_order: int = 0, *, plain: bool = False) -> bytes:
        """Convert the function to bytes for `deserialize`; needs the package `flatbuffers`, as in JAX.

        Args:
          vjp_order: How often the loaded function can be differentiated. The default is 0.
          plain: Whether to write the structure as plain data, so that loading runs no code. It may hold modules,
            Variables, containers, dataclasses and named tuples with numbers, strings and dtypes; functions in the
            arguments are written by name. The default, False, uses pickle, which writes more.

        Returns:
          The bytes.

        Raises:
          StructureError: If pickle cannot serialize a class or a static value, or if it is not plain.
        """
        if plain:
            text = to_json(self._contents).encode()
            program = bytes(self._program.serialize(vjp_order))
            data = len(text).to_bytes(LENGTH, "little") + text + program
            return PLAIN_MARK + hashlib.sha256(data).digest() + data
        try:
            contents = pickle.dumps(self._contents)
        except (pickle.PicklingError, AttributeError, TypeError, errors.StructureError) as error:
            raise errors.StructureError(
                f"pickle cannot serialize {_find_unwritable(self._contents.graph)}.",
                "Define the functions and classes that modules refer to at the top level of a file.",
            ) from error
        data = pickle.dumps((bytes(self._program.serialize(vjp_order)), contents))
        return MARK + hashlib.sha256(data).digest() + data

    if not TYPE_CHECKING:  # type checkers use the declared names only

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_"):
                raise AttributeError(name)
            return getattr(self._program, name)

    def __repr__(self) -> str:
        return f"<liftnn Exported of {self._contents.name}>"


class _ExportedCall(Lifted[..., Any]):
    """The call of an exported function: a `Lifted` function with JAX's exported program as its bound function."""

    def __init__(self, program: Any, contents: ExportedContents):
        self._contents = contents
        bind = _ExportedProgram(program, contents).bind
        super().__init__((_exported,), bind, LiftOptions("export", static_leaves=False, needs_values=True))

    def _arguments(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        positional, named = self._contents.static
        self._check_static(args, kwargs)
        dynamic = iter(args)
        full = [next(dynamic, _exported) if x is None else StaticArgument(x[0]) for x in positional]
        marked = [x for x in full if x is not _exported]
        return (*marked, *dynamic), {**kwargs, **{k: StaticArgument(x) for k, x in named.items()}}

    def _check_static(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise ArgumentError if a call passes static arguments, except those with the same value by name."""
        positional, named = self._contents.static
        for name, x in named.items():
            if name in kwargs and not _is_same(kwargs[name], x):
                raise errors.ArgumentError(
                    f"The argument {name!r} is static: the function was exported with {name}={x!r:.60}, and the call "
                    f"has {name}={kwargs[name]!r:.60}.",
                    f"Leave {name!r} out, or export the function again with the other value.",
                )
        static = [f"args[{i}] = {x[0]!r:.60}" for i, x in enumerate(positional) if x is not None]
        expected = len(positional) - len(static)
        if static and len(args) > expected:
            raise errors.ArgumentError(
                f"The call has {len(args)} positional arguments, and the exported function takes {expected}; these are "
                f"static, with the values that the function was exported with:\n{list_paths(static)}",
                "Leave the static arguments out, or export the function again with other values.",
            )


class _ExportedProgram:
    """JAX's exported program, run on the dynamic leaves of a call."""

    def __init__(self, program: Any, contents: ExportedContents):
        self._contents = contents
        self._avals = program.in_avals
        self._jitted = jax.jit(program.call)
        self._donating = jax.jit(program.call, donate_argnums=contents.donated)

    def bind(self, plan: Plan, pure: PureFunction) -> PureFunction:
        """Return the program as the bound function for a structure; raise if it was exported for another one."""
        check_structure(
            self._contents.graph,
            by_name(plan.graph, self._contents.graph),
            "exported",
            _REMEDY,
        )

        def call(leaves: Sequence[Any]) -> Result:
            self._check_arrays(plan, leaves)
            try:
                return self._contents.result.unflatten(self._run_flat(jax.tree.leaves(leaves)))
            except Exception as error:
                deleted = deleted_error(plan, leaves)
                if deleted is None:
                    raise
                raise deleted from error

        return call

    def _run_flat(self, leaves: list[Any]) -> Any:
        """Run the program; without donation inside another transform, as in `jit`."""
        donated = self._contents.donated
        if not donated or frames.owner_now() is not frames.PLAIN:
            return self._jitted(*leaves)
        return self._donating(*unshare(leaves, donated))

    def _check_arrays(self, plan: Plan, leaves: Sequence[Any]) -> None:
        """Raise if trees, shapes or dtypes of the leaves differ from those at the export."""
        check_values(plan, leaves, self._contents.values, "exported", _REMEDY)
        names = [
            plan.name(slot) for slot, x in zip(plan.slots, leaves, strict=True) for _ in jax.tree.leaves(x)
        ]
        types = map(jax.typeof, jax.tree.leaves(leaves))
        wrong = [
            f"{name}: {actual.str_short()}, exported for {expected.str_short()}"
            for name, actual, expected in zip(names, types, self._avals, strict=True)
            if not _fits(actual, expected)
        ]
        if wrong:
            raise errors.ArgumentError(
                f"Some arrays differ in shape or dtype from those of the export:\n{list_paths(wrong)}",
                "Convert them, or export the function again. Use jax.export.symbolic_shape for dimensions that vary.",
            )


def _find_unwritable(graph: GraphSpec) -> str:
    """Describe the part that pickle cannot serialize."""
    for number, spec in enumerate(graph.specs):
        try:
            pickle.dumps(spec)
        except (pickle.PicklingError, AttributeError, TypeError):
            path = name_argument(find_all_paths(graph)[number][0])
            return f"{path} ({an(spec.type)}): its class or a static value in it is not picklable"
    return "the static part of what the function returns or changes"


def _is_same(x: Any, static: Any) -> bool:
    """Return whether an argument has the type and value of a static one."""
    return x is static or (type(x) is type(static) and bool(x == static))


def _fits(actual: Any, expected: Any) -> bool:
    """Return whether dtype and shape match; JAX checks symbolic dimensions itself."""
    if actual.dtype != expected.dtype or len(actual.shape) != len(expected.shape):
        return False
    return all(not isinstance(e, int) or a == e for a, e in zip(actual.shape, expected.shape, strict=True))


def _exported() -> None:
    """Placeholder for the function that was exported."""


publish(Exported)
publish(ExportedContents, module=PICKLED)
