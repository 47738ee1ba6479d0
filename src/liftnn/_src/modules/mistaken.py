"""Warnings of assignments to attributes that have another effect than they seem to have; loaded when one is given."""

from __future__ import annotations

import sys
from typing import Any

from liftnn import errors
from liftnn._src.foreign_names.explain import remedy_for
from liftnn._src.modules.layer_notes import name_in_code
from liftnn._src.tracebacks import warn
from liftnn._src.trees import an
from liftnn._src.variables.variable import Variable


def warn_of_array(module: Any, name: str, old: Variable[Any]) -> None:
    """Warn that an array was set in place of a Param.

    Args:
      module: The module.
      name: The attribute.
      old: The Param.
    """
    holder = name_in_code(module, sys._getframe(1))
    path = f"{holder}.{name}" if holder else f"the attribute {name!r} of {an(type(module))}"
    target = f"{holder or 'module'}.{name}"
    warn(
        f"An array has replaced {an(type(old))}, {path}: gradients and optimizers ignore it. Write "
        f"`{target}.value = ...` to set the value, or `{target} = liftnn.Variable(...)` to leave it untrained.",
        errors.AttributeWarning,
    )


def warn_of_metadata(variable: Variable[Any], name: str, is_foreign: bool) -> None:
    """Warn that metadata were set that were probably meant as the value.

    Args:
      variable: The Variable.
      name: The name of the metadata.
      is_foreign: Whether the name is one of PyTorch; otherwise it resembles `value`.
    """
    found = name_in_code(variable, sys._getframe(1))
    path = f"{found} ({an(type(variable))})" if found else an(type(variable))
    set_value = f"Write `{found or 'variable'}.value = ...` to set it."
    remedy = remedy_for("Variable", name) if is_foreign and name != "data" else set_value
    warn(
        f"Setting {name!r} on {path} adds metadata and leaves its value unchanged. {remedy} To add metadata, "
        f"write `{found or 'variable'}.set_metadata({name}=...)`.",
        errors.AttributeWarning,
    )


def warn_of_rate(optimizer: Any, name: str) -> None:
    """Warn that an attribute was set that looks like the learning rate of an optimizer.

    Args:
      optimizer: The optimizer.
      name: The attribute.
    """
    target = name_in_code(optimizer, sys._getframe(1)) or "optimizer"
    warn(
        f"Setting {name!r} on an Optimizer adds an attribute and leaves the learning rate unchanged. Make the "
        "optimizer with `optax.inject_hyperparams(optax.adam)(learning_rate=1e-3)`, and write "
        f"`{target}.opt_state.hyperparams['learning_rate'] = ...`; or pass a schedule.",
        errors.AttributeWarning,
    )


def warn_of_freezing(layer: Any, name: str) -> None:
    """Warn that an attribute was set that freezes a layer in Keras or PyTorch.

    Args:
      layer: The layer.
      name: The attribute.
    """
    target = name_in_code(layer, sys._getframe(1)) or "layer"
    warn(
        f"Setting {name!r} on {an(type(layer))} adds an attribute and freezes nothing. The filter `wrt` of the "
        "optimizer and of `grad` chooses what is trained, such as `wrt=liftnn.All(liftnn.Param, "
        f"liftnn.Not(liftnn.PathContains({target.rpartition('.')[2]!r})))`.",
        errors.AttributeWarning,
    )
