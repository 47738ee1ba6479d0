"""The ahead-of-time stages of `jit`: traced, lowered and compiled; a compiled stage updates modules like a call."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic

import jax

from liftnn import errors
from liftnn._src.graph.description import GraphSpec
from liftnn._src.graph.views import describe_difference
from liftnn._src.lifting.call import Call, commit_to_copies
from liftnn._src.lifting.contract import Plan, name_argument
from liftnn._src.lifting.values import describe_structure
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import is_jax_array, is_tracer
from liftnn._src.type_variables import R


class Stage(Generic[R]):
    """One stage of a compilation; all other attributes are those of JAX's stage.

    Args:
      jitted: The function.
      call: The flattened arguments with which it was traced.
      stage: JAX's stage.
    """

    args_info: Any
    donate_argnums: tuple[int, ...]
    in_avals: Any
    in_tree: Any
    out_tree: Any

    def __init__(self, jitted: Any, call: Call, stage: Any):
        self._jitted = jitted
        self._arguments = call._replace(objects=[], leaves=jax.tree.map(_describe, call.leaves))
        self._stage = stage

    @functools.cached_property
    def _call(self) -> Call:
        """The arguments, without objects and with `jax.ShapeDtypeStruct` in place of arrays."""
        return self._arguments._replace(leaves=jax.tree.map(_as_struct, self._arguments.leaves))

    if not TYPE_CHECKING:  # type checkers use the declared names only

        @boundary
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            if name.startswith("_"):
                raise self._error_for_jax(errors.AttributeNameError)
            return getattr(self._stage, name)

    def _error_for_jax(self, cls: type[errors.LiftError]) -> errors.LiftError:
        """Return the error for a function of JAX that exports or serializes the program without its modules."""
        return cls(
            "JAX cannot export or serialize a program that liftnn.jit compiled for modules.",
            "Use `liftnn.export(liftnn.jit(f))`, whose result is called with modules, and has `serialize()`.",
        )

    def __repr__(self) -> str:
        return f"<liftnn {type(self).__name__} of {getattr(self._jitted, '__qualname__', 'a function')}>"

    @property
    def out_info(self) -> Any:
        """The output with `jax.ShapeDtypeStruct` in place of arrays."""
        return commit_to_copies(self._call, self._call.bound.result(self._stage.out_info))


class _Description:
    """The type and the placement of an array; a stage, which may live long, does not keep the array alive."""

    __slots__ = ("dtype", "shape", "sharding", "weak_type")

    def __init__(self, x: jax.Array):
        self.shape, self.dtype, self.sharding = x.shape, x.dtype, x.sharding
        # Keys have no weak type; `jax.typeof` takes ten times as long.
        self.weak_type = getattr(x, "weak_type", False)


def _describe(x: Any) -> Any:
    """Return the description of an array; anything else as it is."""
    return _Description(x) if is_jax_array(x) and not is_tracer(x) else x


def _as_struct(x: Any) -> Any:
    """Return the `jax.ShapeDtypeStruct` of a description, which takes longer to make."""
    if type(x) is not _Description:
        return x
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding, weak_type=x.weak_type)


@boundary
class Traced(Stage[R]):
    """A function traced for some arguments: `jaxpr`, `out_info`, `lower()`."""

    fun_name: str
    jaxpr: Any
    out_avals: Any

    def lower(self, **options: Any) -> Lowered[R]:
        """Lower the function to the compiler's input.

        Args:
          **options: Options of JAX's stage, such as `lowering_platforms`.

        Returns:
          The lowered stage.

        Raises:
          ArgumentTypeError: If `jax.export.export` calls it; `liftnn.export` returns a function that takes modules.
        """
        if any(name.startswith("_") for name in options):
            raise self._error_for_jax(errors.ArgumentTypeError)
        return Lowered(self._jitted, self._call, self._stage.lower(**options))


@boundary
class Lowered(Stage[R]):
    """A function lowered for some arguments: `as_text()`, `cost_analysis()`, `compile()`."""

    as_text: Callable[..., str]
    compiler_ir: Callable[..., Any]
    cost_analysis: Callable[[], Any]

    def compile(self, compiler_options: dict[str, Any] | None = None) -> Compiled[R]:
        """Compile the function.

        Args:
          compiler_options: Options for XLA. The default, None, means none.

        Returns:
          The compiled stage.
        """
        options = {} if compiler_options is None else {"compiler_options": compiler_options}
        return Compiled(self._jitted, self._call, self._stage.compile(**options))


@boundary
class Compiled(Stage[R]):
    """A function compiled for some arguments; it is called like the function and updates the modules."""

    as_text: Callable[[], str]
    cost_analysis: Callable[[], Any]
    input_formats: Any
    input_shardings: Any
    memory_analysis: Callable[[], Any]
    output_formats: Any
    output_shardings: Any
    runtime_executable: Callable[[], Any]

    def __call__(self, /, *args: Any, **kwargs: Any) -> R:
        """Run the program and propagate its changes to the modules in the arguments."""
        call = self._jitted._lifted._flatten_without_static(self._call, args, kwargs)
        made_for = (
            "compiled",
            "Lower and compile again for the new structure, or call the jitted function itself.",
        )
        check_structure(self._call.plan.graph, call.plan.graph, *made_for)
        program = self._call.bound  # the call has another one if `clear_cache` has dropped it since
        try:
            returned = self._stage(*program.pack(call.leaves, self._call.leaves))
        except (TypeError, ValueError) as error:
            check_values(call.plan, call.leaves, list(map(jax.tree.structure, self._call.leaves)), *made_for)
            program.name_slots(error)
            raise
        return self._jitted._lifted._commit(call, program.result(returned))


def check_structure(expected: GraphSpec, actual: GraphSpec, what: str, remedy: str) -> None:
    """Check that arguments have the structure that a program was made for.

    Args:
      expected: The structure that the program was made for.
      actual: The structure of the arguments.
      what: The word for how the program was made, such as `"compiled"`.
      remedy: The remedy of the error.

    Raises:
      StructureError: If the two differ; the message names the paths that differ.
    """
    if actual != expected:
        difference = describe_difference(expected, actual, name_argument)
        raise errors.StructureError(
            f"This program was {what} for arguments of another structure:\n{difference}", remedy
        )


def check_values(plan: Plan, leaves: Sequence[Any], expected: Sequence[Any], what: str, remedy: str) -> None:
    """Check that the values of Variables have the structures that a program was made for.

    Args:
      plan: The arguments.
      leaves: Their dynamic leaves.
      expected: The structure of each leaf that the program was made for.
      what: The word for how the program was made, such as `"compiled"`.
      remedy: The remedy of the error.

    Raises:
      StructureError: If a structure differs; the message names the path.
    """
    for slot, tree, made_for in zip(plan.slots, map(jax.tree.structure, leaves), expected, strict=True):
        if tree != made_for:
            raise errors.StructureError(
                f"{plan.name(slot)} holds {describe_structure(tree)}, but the function was {what} for "
                f"{describe_structure(made_for)}.",
                remedy,
            )
