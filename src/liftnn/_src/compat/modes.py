"""The modes of Flax NNX, which change little or nothing in liftnn: settings, and the arguments of every function."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from liftnn import errors
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import an
from liftnn._src.variables.axis_rules import axis_rules
from liftnn._src.variables.eager_sharding import Setting, use_eager_sharding

F = TypeVar("F", bound=Callable[..., Any])

MODES = ("graph", "graph_updates")
"""The arguments that choose between the modes of Flax NNX; liftnn has one mode, which does what each of them does."""


def check_modes(**modes: Any) -> None:
    """Raise ArgumentTypeError for a mode that is neither a bool nor None.

    Args:
      **modes: The arguments by name.

    Raises:
      ArgumentTypeError: If one is something else.
    """
    for name, value in modes.items():
        if value is not None and not isinstance(value, bool):
            raise errors.ArgumentTypeError(
                f"`{name}` must be True, False or None, not {an(type(value))}.",
                "Leave it out: liftnn has one mode, with sharing, cycles and changes of structure.",
            )


def accept_modes(f: F) -> F:
    """Let a function take the arguments `graph` and `graph_updates`, which it does not need.

    Args:
      f: The function.

    Returns:
      A function with the same signature otherwise, which checks that they are bools or None.
    """

    @functools.wraps(f)
    def call(*args: Any, graph: Any = None, graph_updates: Any = None, **kwargs: Any) -> Any:
        check_modes(graph=graph, graph_updates=graph_updates)
        return f(*args, **kwargs)

    return boundary(call)  # pyright: ignore[reportReturnType]  # the same signature


def resolve_modes(f: F) -> F:
    """Let the settings be the defaults of `graph` and `graph_updates` of a function that acts differently.

    Args:
      f: The function, which has both arguments.

    Returns:
      A function with the same signature.
    """

    @functools.wraps(f)
    def call(*args: Any, graph: Any = None, graph_updates: Any = None, **kwargs: Any) -> Any:
        check_modes(graph=graph, graph_updates=graph_updates)
        graph = set_graph_mode.current_value() if graph is None else graph
        graph_updates = set_graph_updates.current_value() if graph_updates is None else graph_updates
        return f(*args, graph=graph, graph_updates=graph_updates, **kwargs)

    return boundary(call)  # pyright: ignore[reportReturnType]  # the same signature


class set_graph_mode(Setting):  # noqa: N801  # a function in Flax NNX
    """Set the default of `graph`. liftnn has one mode, in which sharing and cycles always work.

    With False, `split_rngs` and `fork_rngs` return copies, `custom_vjp` has JAX's signature, and the gradient of a
    module that is a pytree is a module, for all its leaves. All else is the same.

    Args:
      value: True or False.

    Raises:
      ArgumentTypeError: If it is not a bool.

    Example:
      >>> from liftnn.compat import nnx
      >>> with nnx.set_graph_mode(False):
      ...   nnx.set_graph_mode.current_value()
      False
    """


class set_graph_updates(Setting):  # noqa: N801  # a function in Flax NNX
    """Set the default of `graph_updates`. Changes of structure are always propagated.

    With False, `split_rngs` and `fork_rngs` return copies, `custom_vjp` has JAX's signature, and the gradient of a
    module that is a pytree is a module, for all its leaves. All else is the same.

    Args:
      value: True or False.

    Raises:
      ArgumentTypeError: If it is not a bool.

    Example:
      >>> from liftnn.compat import nnx
      >>> with nnx.set_graph_updates(False):
      ...   nnx.set_graph_updates.current_value()
      False
    """


def setting_of_flax(name: str, default: bool) -> bool:
    """Return a setting of Flax.

    Args:
      name: Its name in `flax.config`.
      default: The result if the program has not imported Flax, or its version does not have the setting.

    Returns:
      Whether it is on.
    """
    return bool(getattr(getattr(sys.modules.get("flax"), "config", None), name, default))


class _DefaultOfFlax:
    """A class attribute: the setting `flax_always_shard_variable` of Flax, if the program has imported it."""

    def __get__(self, instance: object, owner: type | None = None) -> bool:
        return setting_of_flax("flax_always_shard_variable", default=True)


def follow_flax() -> None:
    """Let `use_eager_sharding` start from the setting of Flax: `flax.config.update` changes it."""
    type.__setattr__(use_eager_sharding, "default", _DefaultOfFlax())


class VarDefaults(dict[str, bool]):
    """The defaults of new Variables: `hijax` and `ref` are False."""

    hijax = ref = False


def check_variable_kinds(**kinds: Any) -> None:
    """Raise ArgumentError for a kind of Variable that liftnn does not have.

    Args:
      **kinds: The arguments `hijax` and `ref`.

    Raises:
      ArgumentError: If one is True.
    """
    for name, value in kinds.items():
        if value:
            raise errors.ArgumentError(
                f"liftnn has no Variables with `{name}=True`.",
                "Leave the argument out: every Variable can be read and written in liftnn's transforms.",
            )


class VarDefaultsContext(contextlib.ContextDecorator):
    """A context manager and decorator without effect for the defaults that liftnn has; it raises for others.

    Args:
      kinds: The requested defaults by name.
    """

    def __init__(self, kinds: Mapping[str, bool | None]):
        self._kinds = kinds

    def __enter__(self) -> None:
        check_variable_kinds(**self._kinds)

    def __exit__(self, *error: object) -> None:
        """Do nothing; the defaults were not changed."""


def var_defaults(*, hijax: bool | None = None, ref: bool | None = None) -> Any:
    """Return the defaults of new Variables, or check that the requested values are the defaults.

    Args:
      hijax: False or None.
      ref: False or None.

    Returns:
      Without arguments the defaults by name, else a context manager and decorator without effect. If one of them is
      True, the `with` block or the decorated function raises an ArgumentError when it starts.

    Example:
      >>> from liftnn.compat import nnx
      >>> nnx.var_defaults().ref
      False
    """
    if hijax is None and ref is None:
        return VarDefaults(hijax=False, ref=False)
    return VarDefaultsContext({"hijax": hijax, "ref": ref})


@boundary
def logical_axis_rules(rules: Sequence[tuple[str, Any]]) -> axis_rules:
    """Map declared axis names to mesh axes within a `with` block, as `liftnn.axis_rules` does.

    Args:
      rules: Pairs of a declared name and a mesh axis, a sequence of mesh axes, or None. As in Flax, the last rule for a
        name counts.

    Returns:
      The context manager.

    Example:
      >>> import jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> w = nnx.Param(jnp.ones((2, 3)), sharding=("embed", None))
      >>> with nnx.logical_axis_rules([("embed", "model")]):
      ...   nnx.get_partition_spec(w).value
      P('model', None)
    """
    return axis_rules(dict(rules))
