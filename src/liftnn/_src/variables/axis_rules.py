"""Rules from declared axis names to mesh axes, as a mapping, as pairs, and as the context `axis_rules`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax

from liftnn import errors
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import an

MeshAxes = str | Sequence[str] | None
"""A mesh axis, several, or None (not sharded)."""
AxisRules = Mapping[str, MeshAxes] | Iterable[tuple[str, MeshAxes]]

_rules = jax.make_user_context(default_value=())  # part of the cache key of `jax.jit`
"""The rules of the innermost `axis_rules`, as pairs."""


def normalize_rules(rules: Any) -> dict[str, str | tuple[str, ...] | None]:
    """Return rules as a dict from declared names to a mesh axis, a tuple of mesh axes, or None.

    Args:
      rules: A mapping, or pairs. None means no rules.

    Returns:
      The dict.

    Raises:
      ArgumentTypeError: If it is neither a mapping nor pairs, or a rule is not for a name.
      ArgumentError: If there are two different rules for a name.
    """
    if rules is None:
        return {}
    pairs = rules.items() if isinstance(rules, Mapping) else rules
    if isinstance(pairs, str) or not isinstance(pairs, Iterable):
        raise _no_rules(f"got {an(type(rules))}")
    found: dict[str, str | tuple[str, ...] | None] = {}
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise _no_rules(f"one of them is {pair!r}")
        name, axes = pair[0], tuple(pair[1]) if isinstance(pair[1], list) else pair[1]
        names = axes if isinstance(axes, tuple) else () if axes is None else (axes,)
        if not isinstance(name, str) or not all(isinstance(each, str) for each in names):
            raise _no_rules(f"one of them is {name!r}: {pair[1]!r}")
        if found.setdefault(name, axes) != axes:
            raise errors.ArgumentError(
                f"The rules map the axis {name!r} twice: to {found[name]!r} and to {axes!r}.",
                "Keep one of the two rules.",
            )
    return found


def _no_rules(what: str) -> errors.ArgumentTypeError:
    """Return the error for rules that are not rules."""
    return errors.ArgumentTypeError(
        f"Axis rules must map names to mesh axes, as a mapping or as pairs, but {what}.",
        'Write them as {"hidden": "model", "batch": ("data", "fsdp"), "embed": None}.',
    )


def current_rules() -> dict[str, Any]:
    """Return the rules of the innermost `axis_rules`."""
    return dict(_rules.value)


def rules_or_current(rules: Any) -> dict[str, Any]:
    """Return the given rules, or those of the innermost `axis_rules` for None."""
    return current_rules() if rules is None else normalize_rules(rules)


@boundary
class axis_rules(contextlib.ContextDecorator):  # noqa: N801  # used like a function
    """Map declared axis names to mesh axes within a `with` block or a decorated function.

    The rules hold for Variables that are created, and for each function that takes `rules` and gets None. `jit` traces
    a function again under other rules. Inner rules replace outer ones.

    Args:
      rules: A mapping, or pairs, from names to a mesh axis, a sequence of mesh axes, or None (not sharded).
      mesh: A mesh to set as `jax.set_mesh` does. The default, None, keeps the current mesh.

    Raises:
      ArgumentTypeError: If `rules` is neither a mapping nor pairs.
      ArgumentError: If there are two different rules for a name.
      TraceContextError: If another mesh is set inside a transform.

    Example:
      >>> import jax, jax.numpy as jnp, liftnn
      >>> mesh = jax.make_mesh((1,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
      >>> with liftnn.axis_rules({"hidden": "model"}, mesh):
      ...   w = liftnn.Param(jnp.ones((2, 3)), sharding=(None, "hidden"))
      >>> w.value.sharding.spec
      P(None, 'model')
    """

    def __init__(self, rules: AxisRules, mesh: Any = None):
        self._pairs = tuple(normalize_rules(rules).items())
        self._mesh = mesh
        self._entered: list[contextlib.ExitStack] = []

    def __enter__(self) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(_rules(self._pairs))
            stack.enter_context(entered(self._mesh))
            self._entered.append(stack.pop_all())

    def __exit__(self, *error: object) -> None:
        self._entered.pop().close()

    def _recreate_cm(self) -> axis_rules:
        """Return the context for one call of a decorated function."""
        return axis_rules(self._pairs, self._mesh)


def entered(mesh: Any) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which a mesh is the current one.

    Args:
      mesh: A mesh, which may be abstract; None keeps the current one.

    Returns:
      The context manager.

    Raises:
      TraceContextError: If it is another mesh, inside a transform.
    """
    if mesh is None or jax.sharding.get_abstract_mesh() == getattr(mesh, "abstract_mesh", mesh):
        return contextlib.nullcontext()
    if isinstance(mesh, jax.sharding.AbstractMesh):
        return jax.sharding.use_abstract_mesh(mesh)
    try:
        return jax.set_mesh(mesh)
    except ValueError:
        raise errors.TraceContextError(
            f"The mesh ({mesh_text(mesh)}) cannot be set inside a transform.",
            "Set it around the call of the transformed function.",
        ) from None


def mesh_text(mesh: Any) -> str:
    """Format the axes of a mesh, such as `'data': 4, 'model': 2`."""
    return ", ".join(f"{name!r}: {size}" for name, size in mesh.shape.items())
