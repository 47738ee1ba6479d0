"""Optimizer: an optax transformation with its state, applied to the Variables of a module in place."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from liftnn import errors
from liftnn._src.filters import Filter, to_predicate
from liftnn._src.modules.module import Module
from liftnn._src.modules.verbs import find_variables
from liftnn._src.trees import Path, an, key_of
from liftnn._src.variables import frames
from liftnn._src.variables.metadata import SHARDING_NAMES, Metadata, holds_nodes
from liftnn._src.variables.state import State, mismatch
from liftnn._src.variables.variable import Variable, make_variable
from liftnn._src.variables.variable_types import OptState, Param


class Optimizer(Module):
    """An optax transformation and its state; `update` applies gradients to a model in place.

    The transformation sees parameters, gradients and its own state as `State`s by path, so masks and labels made with
    `State.map` fit. Its state is kept one array a Variable.

    Args:
      model: The module, or tree of modules, whose Variables are optimized. The optimizer does not keep it.
      tx: Any `optax.GradientTransformation`.
      wrt: Which Variables are optimized. The default is `Param`.

    Raises:
      FilterError: If no Variable of the model matches `wrt`.

    Example:
      >>> import jax.numpy as jnp, liftnn, optax
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> optimizer = liftnn.Optimizer(model, optax.sgd(0.5))
      >>> grads = liftnn.grad(lambda m, x: m(x).sum())(model, jnp.ones((1, 2)))
      >>> optimizer.update(model, grads)
      >>> model.bias.value.tolist(), int(optimizer.step.value)
      ([-0.5, -0.5, -0.5], 1)
    """

    def __init__(self, model: Any, tx: optax.GradientTransformation, *, wrt: Filter = Param):
        self.step = OptState(jnp.zeros((), jnp.uint32))
        self.tx = optax.with_extra_args_support(tx)
        self.wrt = wrt
        variables = find_variables(model, wrt)
        if not variables:
            raise errors.FilterError(
                f"Nothing to optimize: no Variable of the model matches {to_predicate(wrt)!r}.",
                "Correct `wrt`.",
            )
        self._paths = tuple(variables)
        self._structure = jax.tree.structure(State.from_flat({p: _model(x) for p, x in variables.items()}))
        opt_state = tx.init(cast(Any, self._params(variables)))
        self._treedef = jax.tree.structure(opt_state)
        self._leaves = tuple(_declare_shardings(opt_state, variables))

    @property
    def opt_state(self) -> Any:
        """The transformation's state, as optax made it; assigning replaces it."""
        return self._treedef.unflatten([x.value for x in self._leaves])

    @opt_state.setter
    def opt_state(self, opt_state: Any) -> None:
        leaves, treedef = jax.tree.flatten(opt_state)
        if treedef != self._treedef:
            self._treedef = treedef
            self._leaves = tuple([OptState(x) for x in leaves])
            return
        for variable, x in zip(self._leaves, leaves, strict=True):
            if variable.value is not x:
                variable.value = x

    def update(  # pyright: ignore[reportIncompatibleMethodOverride]  # the field's name for a step
        self, model: Any, grads: Any, **extra: Any
    ) -> None:
        """Applies gradients: updates the model's Variables, the transformation's state and the step count.

        Args:
          model: The module, or tree of modules, that the optimizer was made for, or one with the same Variables.
          grads: Their gradients, of the shapes of the Variables: the State that `grad` gives, or the tree of States
            that it gives for a tree of modules.
          **extra: Passed on to the transformation, such as `value`, `grad` and `value_fn` for `optax.lbfgs`. A
            `value_fn` gets a State of the parameters.

        Raises:
          StructureError: If gradients, model and optimizer do not cover the same Variables; the message lists the
            paths. Nothing is changed then.
          TraceContextError: If the model belongs to another trace.
        """
        variables = find_variables(model, self.wrt)
        _check_paths(
            variables,
            self._paths,
            "The model does not have the Variables that the optimizer was made for",
            "Make a new Optimizer for the model as it is now.",
        )
        for variable in variables.values():
            if not frames.may_write(variable._owner):
                raise frames.write_error(variable, "the value")
        gradients = _flatten(grads)
        _check_paths(
            gradients,
            self._paths,
            "The gradients do not cover the Variables that the optimizer updates",
            None,
        )
        extra = {name: self._params(x.flat()) if self._fits(x) else x for name, x in extra.items()}
        params: Any = self._params(variables)
        updates, opt_state = self.tx.update(
            cast(Any, self._params(gradients)), self.opt_state, params, **extra
        )
        new_params: Any = optax.apply_updates(params, updates)
        for path, new in new_params.flat().items():
            variables[path].value = new.raw_value
        self.opt_state = opt_state
        self.step.value = self.step.value + 1

    def _params(self, values: Mapping[Path, Any]) -> State:
        """A State of the optimized Variables, as they were when the optimizer was made, with these values."""
        bare = [x.raw_value if isinstance(x, Variable) else x for x in (values[p] for p in self._paths)]
        return self._structure.unflatten(jax.tree.leaves(bare))

    def _fits(self, x: Any) -> bool:
        """Whether `x` is a State of the optimized Variables."""
        return isinstance(x, State) and x.flat().keys() == set(self._paths)


def _declare_shardings(opt_state: Any, variables: Mapping[Path, Variable[Any]]) -> list[OptState]:
    """The transformation's state; what has the shape of a parameter is sharded as that declares to be."""
    leaves: list[OptState] = []
    for entry, x in jax.tree_util.tree_flatten_with_path(opt_state)[0]:
        parameter = next((variables[key] for key in map(key_of, entry) if key in variables), None)
        alike = parameter is not None and getattr(parameter.raw_value, "shape", None) == jnp.shape(x)
        given = parameter.get_metadata() if parameter is not None and alike else {}
        leaves.append(OptState(x, **{name: given[name] for name in SHARDING_NAMES if name in given}))
    return leaves


def _model(x: Variable[Any]) -> Variable[Any]:
    """A Variable like `x` that holds on to no module and no array of the model in its metadata."""
    given = {name: copy.deepcopy(m) for name, m in x.get_metadata().items() if not holds_nodes(m)}
    return make_variable(type(x), x.raw_value, Metadata.of(given), x._owner)


def _flatten(grads: Any) -> dict[Path, Any]:
    """Gradients by path: those of a module, or of a tree of modules, for which there is a tree of States."""
    entries, _ = jax.tree_util.tree_flatten_with_path(
        grads, is_leaf=lambda x: isinstance(x, (State, Variable))
    )
    if not any(isinstance(x, (State, Variable)) for _, x in entries):
        raise errors.StructureError(
            f"The gradients must be a State, not {an(type(grads))}.",
            "Pass what liftnn.grad returns for the model alone.",
        )
    flat: dict[Path, Any] = {}
    for entry, x in entries:
        root = tuple(map(key_of, entry))
        flat |= (
            {(*root, *path): leaf for path, leaf in x.flat().items()} if isinstance(x, State) else {root: x}
        )
    return flat


def _check_paths(given: Mapping[Path, Any], expected: Sequence[Path], what: str, remedy: str | None) -> None:
    """Refuses gradients, or a model, with other Variables than expected."""
    if set(given) != set(expected):
        missing = [path for path in expected if path not in given]
        unknown = [path for path in given if path not in set(expected)]
        raise mismatch(what, missing, unknown, remedy)
