"""Record values during a call: in Variables of the module, or for `capture`, which marks the modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from liftnn import errors
from liftnn._src.graph.attributes import attributes_of
from liftnn._src.trees import an
from liftnn._src.variables import frames
from liftnn._src.variables.collection_names import as_type
from liftnn._src.variables.operators import unwrap
from liftnn._src.variables.variable import Variable
from liftnn._src.variables.variable_types import Empty

RECORDS = "__captures__"
"""The attribute of a module during a call of `capture`: a tuple of Variables, each with a dict of values by name."""


def records_of(module: Any) -> tuple[Variable[Any], ...] | None:
    """Return where a call of `capture` records the values of a module; None outside of such a call."""
    found = frames.resolve(module) if frames.open_frames else module
    return attributes_of(found).get(RECORDS)


def _record_of(records: tuple[Variable[Any], ...], cls: type[Variable[Any]]) -> Variable[Any] | None:
    """Return the record for a type; None if the type is not captured."""
    return next((x for x in records if type(x) is cls), None)


def append(old: Any, new: Any) -> tuple[Any, ...]:
    """Append a value to a recorded tuple: the default `reduce_fn` of `Module.sow`."""
    return (*old, new)


def sow(
    module: Any,
    cls: type[Variable[Any]] | str,
    name: str,
    value: Any,
    reduce_fn: Callable[[Any, Any], Any],
    init_fn: Callable[[], Any],
) -> bool:
    """Record a value; see `Module.sow`."""
    cls, value = as_type(cls), unwrap(value)
    records = records_of(module)
    if records is not None:
        record = _record_of(records, cls)
        if record is None:
            return False
        known = record.raw_value
        old = known[name] if name in known else init_fn()
        record.raw_value = {**known, name: _reduce(module, name, reduce_fn, old, value)}
        return True
    variable = getattr(module, name, None)
    if variable is None:
        setattr(module, name, cls(_reduce(module, name, reduce_fn, init_fn(), value)))
        return True
    _check_type(module, name, variable, cls)
    old = variable.value
    variable.value = _reduce(module, name, reduce_fn, init_fn() if old is Empty else old, value)
    return True


def _reduce(module: Any, name: str, reduce_fn: Callable[[Any, Any], Any], old: Any, new: Any) -> Any:
    """Return the value to store; raise ArgumentError if it would be appended to something else than a tuple."""
    if reduce_fn is append and not isinstance(old, (tuple, list)):
        raise errors.ArgumentError(
            f"sow appends to a tuple, but the attribute {name!r} of {an(type(module))} holds something else.",
            "Pass a name that no other attribute has, or a reduce_fn that combines the old value with the new one.",
        )
    return reduce_fn(old, new)


def perturb(module: Any, name: str, value: Any, cls: type[Variable[Any]] | str) -> Any:
    """Add a zero Variable to a value; see `Module.perturb`."""
    cls, value = as_type(cls), unwrap(value)
    records = records_of(module)
    if records is not None:
        record = _record_of(records, cls)
        if record is None:
            return value
        if name not in record.raw_value:
            record.raw_value = {**record.raw_value, name: jax.tree.map(jnp.zeros_like, value)}
        return jax.tree.map(jnp.add, value, record.raw_value[name])
    variable = getattr(module, name, None)
    if variable is None:
        variable = cls(jax.tree.map(jnp.zeros_like, value))
        setattr(module, name, variable)
    _check_type(module, name, variable, cls)
    if variable.value is Empty:
        variable.value = jax.tree.map(jnp.zeros_like, value)
    return jax.tree.map(jnp.add, value, variable.value)


def _check_type(module: Any, name: str, variable: Any, cls: type[Variable[Any]]) -> None:
    """Raise ArgumentError for an attribute that is not a Variable of the requested type."""
    if not isinstance(variable, cls):
        raise errors.ArgumentError(
            f"The attribute {name!r} of {an(type(module))} is {an(type(variable))}, not {an(cls)}.",
            f"Pass a name that no other attribute has, or one that holds {an(cls)}.",
        )
