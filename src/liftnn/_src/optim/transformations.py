"""What can be a transformation of an Optimizer: the check, the call, and how one is pickled."""

from __future__ import annotations

import functools
import pickle
import re
import sys
import types
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
import optax

from liftnn import errors
from liftnn._src.annotations import signature_of
from liftnn._src.modules.portable import register_portable
from liftnn._src.publish import PICKLED, publish
from liftnn._src.trees import an


def check_transformation(tx: Any, model: Any) -> None:
    """Raise an error for something that is not a gradient transformation.

    Args:
      tx: What was passed as the transformation.
      model: What was passed as the model.

    Raises:
      ArgumentTypeError: If `tx` has no `init` and `update`.
    """
    if _is_transformation(tx):
        return
    if _is_transformation(model) and not hasattr(type(model), "__graph_node__"):
        raise errors.ArgumentTypeError(
            "Optimizer got the transformation first.", "Write Optimizer(model, tx): the model comes first."
        )
    if callable(tx):
        name = getattr(tx, "__name__", type(tx).__name__)
        is_optax = getattr(optax, name, None) is tx
        raise errors.ArgumentTypeError(
            f"tx is the function {name}, which returns a transformation when it is called.",
            f"Call it: Optimizer(model, {'optax.' if is_optax else ''}{name}({_first_argument(tx)})).",
        )
    example = f"optax.adam({tx!r})" if isinstance(tx, (int, float)) else "optax.adam(1e-3)"
    raise errors.ArgumentTypeError(
        f"tx must be a gradient transformation of optax, not {an(type(tx))}.",
        f"Pass one, such as Optimizer(model, {example}).",
    )


def _is_transformation(x: Any) -> bool:
    return (
        not isinstance(x, type)
        and callable(getattr(x, "init", None))
        and callable(getattr(x, "update", None))
    )


def _first_argument(factory: Any) -> str:
    """Return the example of a first argument for a factory of transformations."""
    try:
        names = list(signature_of(factory).parameters)
    except (TypeError, ValueError):
        return "..."
    return "1e-3" if names[:1] == ["learning_rate"] else "..." if names else ""


def init_state(tx: Any, params: Any) -> Any:
    """Call the `init` of a transformation.

    Args:
      tx: The transformation.
      params: The parameters, a State.

    Returns:
      The state of the transformation.

    Raises:
      ArgumentError: If it has a dict in the place of a State, such as a mask or labels, or if it is
        `optax.lookahead`.
    """
    try:
        state = tx.init(params)
    except ValueError as error:
        text = str(error)
        if not ("State" in text and ("Expected dict, got" in text or "<class 'dict'>" in text)):
            raise
        raise errors.ArgumentError(
            "The transformation of optax has a dict, such as a mask or labels, where the parameters are a State.",
            "Pass liftnn.State(...) of the dict, or a function of the parameters, as in "
            "`mask=lambda params: params.map(lambda path, x: path[-1] == 'kernel')`.",
        ) from error
    if any(map(_is_lookahead, jax.tree.leaves(state, is_leaf=_is_lookahead))):
        raise errors.ArgumentError(
            "optax.lookahead updates two sets of parameters, fast and slow ones, but a model has one.",
            "Pass the fast transformation to the Optimizer, and average the weights with liftnn.EMA; or keep "
            "`optax.LookaheadParams.init_synced(liftnn.state(model, liftnn.Param))` without an Optimizer.",
        )
    return state


def _is_lookahead(state: Any) -> bool:
    return isinstance(state, optax.LookaheadState)


def call_update(tx: Any, grads: Any, state: Any, params: Any, extra: dict[str, Any]) -> Any:
    """Call the `update` of a transformation; one that takes no extra arguments does not get them.

    Args:
      tx: The transformation.
      grads: The gradients.
      state: Its state.
      params: The parameters.
      extra: The extra arguments by name.

    Returns:
      The updates and the new state.

    Raises:
      ArgumentTypeError: If the transformation needs an extra argument that is missing.
    """
    if not isinstance(tx, optax.MultiSteps):  # which passes them on
        tx = optax.with_extra_args_support(tx)
    try:
        return tx.update(grads, state, params, **extra)
    except TypeError as error:
        missing = _missing_arguments(error, extra)
        if not missing:
            raise
        raise _missing_error(missing) from error


_LACKS = re.compile(r"update\w*\(\) missing \d+ required keyword-only arguments?: (.+)")
"""What Python says if an `update` is called without an argument that it needs."""

_MEANINGS = {"value": "loss", "grad": "grads"}
"""The names in a training step of what optax's line searches and schedules need."""


def _missing_arguments(error: TypeError, extra: dict[str, Any]) -> list[str]:
    """Return the names of the extra arguments that an `update` lacks; empty if the error says something else."""
    found = _LACKS.search(str(error))
    names: list[str] = re.findall(r"'(\w+)'", found[1]) if found else []
    return [] if any(name in extra for name in names) else names


def _missing_error(names: list[str]) -> errors.ArgumentTypeError:
    """Return the error for extra arguments that are missing."""
    listed = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    passed = ", ".join(f"{name}={_MEANINGS.get(name, name)}" for name in names)
    what_it_is = "; value_fn maps a State of parameters to the loss" if "value_fn" in names else ""
    return errors.ArgumentTypeError(
        f"The transformation of optax needs {listed} in addition to the gradients.",
        f"Write `optimizer.update(model, grads, {passed})`{what_it_is}.",
    )


def sees_leaves_only(tx: Any) -> bool:
    """Return whether a transformation cannot tell one kind of tree from another.

    That is certain if it consists of functions of optax and JAX, which map over trees, with numbers and arrays. A
    function or a State of the user, such as a mask, a schedule or an `update`, may look at the trees.

    Args:
      tx: The transformation.
    """
    seen: dict[int, Any] = {}
    stack = [tx]
    while stack:
        x = stack.pop()
        if id(x) in seen:
            continue
        seen[id(x)] = x
        parts = _parts(x)
        if parts is None:
            return False
        stack += parts
    return True


_LIBRARIES = frozenset(["jax", "jaxlib", "optax", "functools"])
_PLAIN_TYPES = frozenset([type(None), bool, int, float, complex, str])
_ARRAYS = (jax.Array, np.ndarray, np.generic, np.dtype)


def _parts(x: Any) -> Iterable[Any] | None:
    """Return what a part of a transformation refers to; None if it may look at trees."""
    if type(x) in _PLAIN_TYPES or isinstance(x, _ARRAYS):
        return ()
    if isinstance(x, type):
        return () if _is_of_library(x.__module__) else None
    if isinstance(x, types.FunctionType):
        if not _is_of_library(x.__globals__.get("__name__")):
            return None
        bound = (*(x.__closure__ or ()), *(x.__defaults__ or ()))
        return (*bound, *(x.__kwdefaults__ or {}).values(), *vars(x).values())
    if isinstance(x, types.CellType):
        try:
            return (x.cell_contents,)
        except ValueError:  # not filled yet
            return None
    if isinstance(x, types.MethodType):
        return (x.__func__, x.__self__)
    if type(x) is dict:
        return x.values()
    if type(x) in (tuple, list):
        return x
    if not _is_of_library(type(x).__module__):
        return None
    if isinstance(x, tuple):
        return tuple.__iter__(x)
    if isinstance(x, functools.partial):
        return (x.func, *x.args, *x.keywords.values(), *vars(x).values())
    return vars(x).values() if hasattr(x, "__dict__") else None


def _is_of_library(module: Any) -> bool:
    """Return whether a module belongs to optax, JAX, or what they are made with."""
    return isinstance(module, str) and module.partition(".")[0] in _LIBRARIES


class PortableTransformation:
    """A transformation, to be pickled as an attribute of a module.

    Args:
      tx: The transformation.
    """

    def __init__(self, tx: Any):
        self.tx = tx

    def __reduce__(self) -> Any:
        try:
            pickle.dumps(self.tx)
        except Exception as error:
            if not _has_own_rules(sys._getframe(1)):
                raise errors.ArgumentTypeError(
                    f"The transformation of an Optimizer cannot be pickled: {error}.",
                    "Save it with `liftnn.save(folder, step, model, optimizer)`, and load it with `liftnn.restore` "
                    "into an Optimizer that you create again. The package cloudpickle can pickle the Optimizer itself.",
                ) from error
        return restore_transformation, (self.tx,)


def restore_transformation(tx: Any) -> Any:
    """Return a transformation, for unpickling."""
    return tx


def _has_own_rules(frame: Any) -> bool:
    """Return whether a pickler with rules of its own is running, such as that of cloudpickle."""
    while frame is not None:
        pickler = frame.f_locals.get("self")
        if isinstance(pickler, (pickle.Pickler, pickle._Pickler)) and type(pickler) not in (
            pickle.Pickler,
            pickle._Pickler,
        ):
            return True
        frame = frame.f_back
    return False


register_portable(optax.GradientTransformation, PortableTransformation)
register_portable(optax.MultiSteps, PortableTransformation)


publish(restore_transformation, module=PICKLED)
