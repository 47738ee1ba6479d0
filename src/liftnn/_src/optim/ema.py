"""`EMA`: an exponential moving average of the Variables of a module, and a model that uses it."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from liftnn import errors
from liftnn._src.filters import Filter, to_predicate
from liftnn._src.graph.graphdef import walk_tree
from liftnn._src.graph.undo import to_the_end
from liftnn._src.modules.copies import copy_modules
from liftnn._src.modules.module import Module
from liftnn._src.optim.fixed_entries import with_fixed_entries
from liftnn._src.optim.layout import (
    check_arrays,
    check_values,
    find_leaves,
    same_shapes,
    shapes_text,
)
from liftnn._src.publish import publish
from liftnn._src.trees import Path, an, format_path, is_argument_array, list_paths
from liftnn._src.variables.nested import mismatch
from liftnn._src.variables.operators import unwrap_raw
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable

T = TypeVar("T")
_PURPOSE = "an EMA cannot average it"


class EMA(Module):
    """An exponential moving average of the Variables of a module.

    `update` moves each average by `average = decay * average + (1 - decay) * value`. `apply_to` returns a model that
    uses the averages, and follows later updates.

    Variables that are not of a floating-point or complex dtype, such as counts and random keys, have no average.

    Args:
      params: The module, State, or tree of modules, whose Variables are averaged. The averages start at its values.
      decay: The weight of the average so far, from 0 (the latest values) to 1 (the first values).
      only: A filter that selects the Variables to average. The default, `...`, selects all.

    Raises:
      ArgumentError: If `decay` is a number outside of [0, 1].
      ArgumentTypeError: If the filter selects an array that is not in a Variable, or an abstract Variable; or if
        `decay` is not a number.
      FilterError: If the filter selects no Variable of a floating-point or complex dtype.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> model = liftnn.Linear(2, 2, use_bias=False, rngs=liftnn.Rngs(0))
      >>> model.kernel.value = jnp.zeros((2, 2))
      >>> ema = liftnn.EMA(model, decay=0.75)
      >>> averaged = ema.apply_to(model)
      >>> model.kernel.value = jnp.ones((2, 2))
      >>> ema.update(model)
      >>> averaged(jnp.ones((1, 2))).tolist(), averaged.kernel is ema.params.kernel
      ([[0.5, 0.5]], True)
    """

    params: Any

    def __init__(self, params: Any, decay: float, *, only: Filter = ...):
        if not is_argument_array(unwrap_raw(decay)):
            raise errors.ArgumentTypeError(
                f"`decay` must be a number, or a Variable that holds one, not {an(type(decay))}.",
                "Pass a number such as 0.999. If it changes with the steps, pass a Variable, and set its value.",
            )
        if isinstance(decay, numbers.Real) and not 0 <= float(decay) <= 1:
            raise errors.ArgumentError(
                f"`decay` must be from 0 to 1, not {decay!r}.",
                "Pass the weight of the average so far, such as 0.999.",
            )
        self.decay = decay
        self.filter = only
        variables = _find_averaged(params, only)
        if not variables:
            where = "is in the model" if only is ... else f"matches {to_predicate(only)!r}"
            raise errors.FilterError(
                f"Nothing to average: no Variable with floating-point values {where}.",
                "Pass a module with Variables, not a function."
                if only is ...
                else "Pass a filter as `only` that matches Variables of the model, such as liftnn.Param.",
            )
        check_arrays(variables, _PURPOSE)
        check_values(variables, _PURPOSE)
        copies = [(path, x.replace(jax.tree.map(jnp.copy, x.raw_value))) for path, x in variables.items()]
        self.params = with_fixed_entries(State.from_flat(copies))

    def update(self, updates: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # the name in Flax
        """Move the averages towards the new values.

        Args:
          updates: The module, State, or tree of modules that has the new values, with the Variables that the averages
            were created for.

        Raises:
          ArgumentTypeError: If the filter selects an array that is not in a Variable, or an abstract Variable.
          StructureError: If the Variables, or their shapes, are not those of the averages; the message lists the paths.
            Nothing is changed then.
        """
        averages = self.params.flat()
        values = _find_averaged(updates, self.filter)
        _check(averages, values)
        check_values(values, _PURPOSE)
        decay = unwrap_raw(self.decay)

        def move(old: Any, new: Any) -> Any:
            return (decay * old + (1.0 - decay) * new).astype(old.dtype)

        moved = {p: jax.tree.map(move, x.raw_value, values[p].raw_value) for p, x in averages.items()}

        def write() -> None:
            for path, average in averages.items():
                average.raw_value = moved[path]

        to_the_end(write)

    def apply_to(self, model: T) -> T:
        """Return a model with the averages in place of its Variables.

        The modules and containers of the new model are new objects. It shares the averages with the EMA, so that it
        follows later updates, and all other Variables, arrays and static values with the given model.

        Args:
          model: The module, or tree of modules, that the averages were created for, or one with the same Variables.

        Returns:
          The new model.

        Raises:
          ArgumentTypeError: If the filter selects an array that is not in a Variable.
          StructureError: If its Variables, or their shapes, are not those of the averages; the message lists the paths.
        """
        averages = self.params.flat()
        averaged = _find_averaged(model, self.filter)
        _check(averages, averaged)
        return copy_modules(walk_tree(model), {id(x): averages[path] for path, x in averaged.items()})


def _find_averaged(tree: Any, only: Filter) -> dict[Path, Variable[Any]]:
    """Return the selected Variables of a floating-point or complex dtype, by path."""
    leaves = find_leaves(tree, only)
    arrays = [format_path(path) for path, x in leaves.items() if not isinstance(x, Variable)]
    if arrays:
        raise errors.ArgumentTypeError(
            f"EMA averages only Variables, but these are arrays:\n{list_paths(arrays)}",
            "Store them in Variables, or select Variables only, such as `only=liftnn.Variable`.",
        )
    return {path: x for path, x in leaves.items() if _is_inexact(x)}


def _is_inexact(x: Variable[Any]) -> bool:
    values = filter(is_argument_array, jax.tree.leaves(x.raw_value))
    return all(jnp.issubdtype(jnp.result_type(v), jnp.inexact) for v in values)


def _check(averages: Mapping[Path, Any], values: Mapping[Path, Any]) -> None:
    """Raise StructureError if a model does not have the Variables of the averages, in the same shapes."""
    remedy = "Pass the model that the EMA was created for, or create a new EMA for the changed model."
    missing = [path for path in averages if path not in values]
    unknown = [path for path in values if path not in averages]
    if missing or unknown:
        raise mismatch(
            "The model does not have the Variables that the EMA averages", missing, unknown, remedy
        )
    lines = [
        f"{format_path(path)}: {shapes_text(values[path])} in the model, {shapes_text(x)} in the EMA"
        for path, x in averages.items()
        if not same_shapes(values[path], x)
    ]
    if lines:
        raise errors.StructureError(
            f"The model does not have the shapes that the EMA averages:\n{list_paths(lines)}", remedy
        )


publish(EMA)
