"""Raise an error when JAX flattens a Module, which is registered as a pytree for this purpose only.

JAX flattens an object before it checks its type, so the flattening function can name the liftnn transform to use
instead. Only `jax.tree.leaves` gets the leaves, since it only reads them: `jax.block_until_ready` waits for the arrays
among them, and a class of Equinox inspects its fields, which may contain a Module.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any, NoReturn

import jax

from liftnn import errors
from liftnn._src.graph.walk import Walk
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import an, at_start
from liftnn._src.variables.variable import Variable


def refuse_in_jax(cls: type) -> None:
    """Register a class of Modules with JAX, so that JAX's functions raise an error for its instances.

    Args:
      cls: The class.
    """
    jax.tree_util.register_pytree_node(cls, _parts, _never)


@boundary
def _parts(module: Any) -> tuple[Any, None]:
    if _only_reads():
        walk = Walk()
        walk.visit(module, ())
        return [x.raw_value if isinstance(x, Variable) else None for x in walk.objects] + walk.arrays, None
    raise errors.ArgumentTypeError(
        f"{at_start(an(type(module)))} was passed to a JAX function, or returned from a function that JAX transforms. "
        "JAX handles arrays and pytrees of arrays; changes to a Module would be lost.",
        _remedy_for_caller() or _RAW_JAX_REMEDY,
    )


_RAW_JAX_REMEDY = (
    "Use the liftnn transform of the same name (liftnn.jit for jax.jit, liftnn.grad for jax.grad ...), or pass the "
    "State from liftnn.split to JAX and merge it inside. Functions of jax.tree accept Modules as leaves with "
    "is_leaf=lambda x: isinstance(x, liftnn.Module)."
)


_SOLVER_REMEDY = (
    "Let the function that {library} calls capture the module, as in `lambda x: module(x)`, under liftnn.jit. Or pass "
    "the State from liftnn.split, and merge it inside."
)
_LIBRARY_REMEDIES = {
    "equinox": "Use liftnn's transforms in place of Equinox's (liftnn.jit for equinox.filter_jit, liftnn.grad for "
    "equinox.filter_grad ...), or pass the State from liftnn.split and merge it inside. A function that a solver calls "
    "may capture the module, under liftnn.jit.",
    "flax": "Use liftnn's function of the same name (liftnn.jit for nnx.jit, liftnn.split for nnx.split ...). A "
    "program for Flax NNX needs `from liftnn.compat import nnx` in place of `from flax import nnx`.",
    "chex": "Pass `liftnn.state(module)`, which is a pytree of arrays.",
    "orbax": "Write `liftnn.save(folder, step, module)`, or pass `liftnn.state(module)` to Orbax.",
    **{
        library: _SOLVER_REMEDY.format(library=library)
        for library in ("diffrax", "optimistix", "lineax", "jaxopt", "blackjax", "numpyro")
    },
}
"""What to write for a module that was passed to a library, by the package that the user has called."""

_ON_THE_WAY = frozenset(["jax", "jaxlib", "liftnn", "optax", "contextlib", "functools", *_LIBRARY_REMEDIES])
"""Packages whose functions may stand between the user's call and JAX."""


def _remedy_for_caller() -> str:
    """Return what to write in place of the function that was called; empty if it is one of JAX's."""
    frame, remedy = sys._getframe(2), ""
    while frame is not None:
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if frame.f_code is _DEVICE_PUT:
            return "Write `liftnn.device_put(module, device)`, which moves a module in place."
        if package == "optax" and frame.f_code.co_name in ("init", "init_fn"):
            return "Write `liftnn.Optimizer(module, tx)`, which holds the transformation `tx` with its state."
        if package not in _ON_THE_WAY:
            break
        remedy = _LIBRARY_REMEDIES.get(package, remedy)
        frame = frame.f_back
    return remedy


def _only_reads() -> bool:
    """Return whether the caller is `jax.tree.leaves`, and not on behalf of one of JAX's transforms."""
    frame = sys._getframe(1)
    for _ in range(4):
        if frame is None or frame.f_code is _TREE_LEAVES[0]:
            break
        frame = frame.f_back
    else:
        return False
    while frame is not None and frame.f_code in _TREE_LEAVES:
        frame = frame.f_back
    if frame is None:
        return False
    return frame.f_code is _WAIT or str(frame.f_globals.get("__name__")).partition(".")[0] != "jax"


_TREE_LEAVES = jax.tree_util.tree_leaves.__code__, jax.tree.leaves.__code__
_DEVICE_PUT = inspect.unwrap(jax.device_put).__code__
_WAIT = getattr(jax.block_until_ready, "__wrapped__", jax.block_until_ready).__code__


def _never(*_: Any) -> NoReturn:
    raise AssertionError
