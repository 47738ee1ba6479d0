"""Derivatives in the tree mode of Flax NNX: the gradient of a module that is a pytree is a module, for all its leaves.

That of a layer of liftnn, which JAX does not take as a pytree, is a State as in graph mode.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from liftnn._src.autodiff.selection import DiffState
from liftnn._src.compat.modes import resolve_modes
from liftnn._src.graph.graphdef import WalkedTree, walk_tree
from liftnn._src.graph.kinds import is_jax_tree, is_object
from liftnn._src.lifting.configure import MISSING
from liftnn._src.trees import key_of
from liftnn._src.variables.operators import unwrap_raw
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable

F = TypeVar("F", bound=Callable[..., Any])


def gives_trees(derivative: F) -> F:
    """Let `grad` or `value_and_grad` return modules of gradients if `graph` or `graph_updates` is False.

    Args:
      derivative: The transform, without these arguments.

    Returns:
      The transform with them.
    """

    @functools.wraps(derivative)
    def call(f: Any = MISSING, /, *args: Any, graph: bool, graph_updates: bool, **options: Any) -> Any:
        if f is MISSING:
            return lambda f: call(f, *args, graph=graph, graph_updates=graph_updates, **options)
        argnums = args[0] if args else options.get("argnums", 0)
        has_aux = args[1] if len(args) > 1 else options.get("has_aux", False)
        several = isinstance(argnums, (tuple, list))
        positions = argnums if several else (argnums,)
        of_params = derivative(f, *args, **options)
        if (graph and graph_updates) or "wrt" in options or any(isinstance(n, DiffState) for n in positions):
            return of_params
        of_all = derivative(f, *args, wrt=..., **options)
        place = 1 if derivative.__name__ == "value_and_grad" else 0 if has_aux else None

        @functools.wraps(f, updated=())
        def call_in_tree_mode(*args: Any, **kwargs: Any) -> Any:
            structures = [structure_of(args[n]) if -len(args) <= n < len(args) else None for n in positions]
            if all(s is None for s in structures):
                return of_params(*args, **kwargs)
            found = of_all(*args, **kwargs)
            grads = found if place is None else found[place]
            trees = as_trees(structures, grads) if several else as_trees(structures, (grads,))[0]
            return trees if place is None else (*found[:place], trees, *found[place + 1 :])

        return call_in_tree_mode

    return resolve_modes(call)  # pyright: ignore[reportReturnType]  # the same signature


def pulls_trees(derivative: F) -> F:
    """Let `vjp` return modules of cotangents if `graph` or `graph_updates` is False.

    Args:
      derivative: The transform, without these arguments.

    Returns:
      The transform with them.
    """

    @functools.wraps(derivative)
    def call(f: Any, /, *primals: Any, graph: bool, graph_updates: bool, **options: Any) -> Any:
        if (graph and graph_updates) or "wrt" in options or options.get("argnums") is not None:
            return derivative(f, *primals, **options)
        structures = [structure_of(x) for x in primals]
        if all(s is None for s in structures):
            return derivative(f, *primals, **options)
        out, pull, *aux = derivative(f, *primals, wrt=..., **options)
        return (out, lambda *cotangents: as_trees(structures, pull(*cotangents)), *aux)

    return resolve_modes(call)  # pyright: ignore[reportReturnType]  # the same signature


def structure_of(argument: Any) -> WalkedTree | None:
    """Return an argument with its structure; None if it has no modules, or others than pytrees of JAX."""
    return walk_tree(argument) if is_tree_of_jax(argument) else None


def is_tree_of_jax(argument: Any) -> bool:
    """Return whether an argument has modules or Variables, and no modules but pytrees of JAX."""
    objects = list(filter(is_object, jax.tree.leaves(argument, is_leaf=is_object)))
    return bool(objects) and all(isinstance(x, Variable) or is_jax_tree(x) for x in objects)


def as_trees(structures: Sequence[WalkedTree | None], grads: Sequence[Any]) -> tuple[Any, ...]:
    """Return gradients as trees of the structure of their arguments.

    Args:
      structures: Each argument with its structure; None leaves its gradient as it is.
      grads: The gradients, with a State in place of each module.

    Returns:
      The trees. What has no derivative, such as an integer, has zeros of dtype `float0`, as in JAX.
    """
    return tuple([g if s is None else _as_tree(s, g) for s, g in zip(structures, grads, strict=True)])


def _as_tree(structure: WalkedTree, gradient: Any) -> Any:
    leaves: dict[Any, Any] = {}
    for entries, x in jax.tree.leaves_with_path(gradient, is_leaf=lambda x: isinstance(x, (State, Variable))):
        path = tuple(map(key_of, entries))
        leaves |= {(*path, *p): y for p, y in x.flat().items()} if isinstance(x, State) else {path: x}
    others = {path: _zero(x) for path, x in structure.leaves() if path not in leaves}
    return structure.graphdef.merge(State.from_flat({**leaves, **others}))


def _zero(x: Any) -> Any:
    """Return the gradient of a leaf that has no derivative."""
    zeros = jax.tree.map(lambda y: np.zeros(np.shape(y), jax.dtypes.float0), unwrap_raw(x))
    return x.replace(zeros) if isinstance(x, Variable) else zeros
