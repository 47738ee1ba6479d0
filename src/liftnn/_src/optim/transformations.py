"""What can be a transformation of an Optimizer: the check, the call, and how one is pickled."""

from __future__ import annotations

import inspect
import pickle
import sys
from typing import Any

import optax

from liftnn import errors
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
        names = list(inspect.signature(factory).parameters)
    except (TypeError, ValueError):
        return "..."
    return "1e-3" if names[:1] == ["learning_rate"] else "..." if names else ""


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
    """
    if not isinstance(tx, optax.MultiSteps):  # which passes them on
        tx = optax.with_extra_args_support(tx)
    return tx.update(grads, state, params, **extra)


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
