"""`Optimizer`: an optax transformation with its state, which updates the Variables of a module in place."""

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
from liftnn._src.variables.nested import mismatch
from liftnn._src.variables.operators import unwrap_raw
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable, make_variable, set_owner
from liftnn._src.variables.variable_types import OptState, Param


class Optimizer(Module):
    """An optax gradient transformation with its state; `update` applies gradients to a model in place.

    The transformation gets parameters and gradients as a `State` by path, so masks and labels from `State.map` match
    them. Each array of the transformation's state is stored in an `OptState` Variable.

    Args:
      model: The module, or tree of modules, to optimize. The optimizer keeps no reference to it.
      tx: An `optax.GradientTransformation`.
      wrt: A filter that selects the Variables to optimize. The default is `Param`.

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
                "Pass a filter as `wrt` that matches Variables of the model, such as liftnn.Param.",
            )
        self._paths = tuple(variables)
        self._structure = jax.tree.structure([_model(x) for x in variables.values()])
        opt_state = tx.init(cast(Any, self._params(variables)))
        self._treedef = jax.tree.structure(opt_state)
        self._leaves = tuple(_declare_shardings(opt_state, variables))

    @property
    def opt_state(self) -> Any:
        """The state of the transformation, in optax's structure; assign to it to replace it."""
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
        """Apply gradients: update the Variables of the model, the state of the transformation, and `step`.

        Args:
          model: The module, or tree of modules, that the optimizer was created for, or one with the same Variables.
          grads: The gradients, with the shapes of the Variables: the State that `liftnn.grad` returns for a module, or
            the tree of States that it returns for a tree of modules.
          **extra: Keyword arguments for the transformation, such as `value`, `grad` and `value_fn` for `optax.lbfgs`. A
            `value_fn` is called with a State of the parameters.

        Raises:
          StructureError: If gradients, model and optimizer do not have the same Variables; the message names the paths,
            and nothing is changed.
          TraceContextError: If the model belongs to another trace.
        """
        variables = find_variables(model, self.wrt)
        _check_paths(
            variables,
            self._paths,
            "The model does not have the Variables that the optimizer was created for",
            "Create a new Optimizer for the changed model.",
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
        """Return a State of the optimized Variables with these values and the types and metadata of `__init__`."""
        owner = frames.owner_now()
        bare = [unwrap_raw(x) for x in (values[p] for p in self._paths)]
        made = self._structure.unflatten(jax.tree.leaves(bare))
        for x in made:
            set_owner(x, owner)
        return State.from_flat(zip(self._paths, made, strict=True))

    def _fits(self, x: Any) -> bool:
        """Check whether `x` is a State of the optimized Variables."""
        return isinstance(x, State) and x.flat().keys() == set(self._paths)


def _declare_shardings(opt_state: Any, variables: Mapping[Path, Variable[Any]]) -> list[OptState]:
    """Wrap the transformation's state in Variables; those with the shape of a parameter get its declared sharding."""
    leaves: list[OptState] = []
    for entry, x in jax.tree_util.tree_flatten_with_path(opt_state)[0]:
        path = tuple(map(key_of, entry))
        parts = (path[i:j] for i in range(len(path)) for j in range(len(path), i, -1))
        parameter = next((variables[part] for part in parts if part in variables), None)
        alike = parameter is not None and getattr(parameter.raw_value, "shape", None) == jnp.shape(x)
        given = parameter.get_metadata() if parameter is not None and alike else {}
        leaves.append(OptState(x, **{name: given[name] for name in SHARDING_NAMES if name in given}))
    return leaves


def _model(x: Variable[Any]) -> Variable[Any]:
    """Return a Variable like `x`, without metadata that refer to modules or arrays of the model."""
    given = {name: copy.deepcopy(m) for name, m in x.get_metadata().items() if not holds_nodes(m)}
    return make_variable(type(x), x.raw_value, Metadata.of(given), x._owner)


def _flatten(grads: Any) -> dict[Path, Any]:
    """Return gradients by path, from a State or a tree of States."""
    entries, _ = jax.tree_util.tree_flatten_with_path(
        grads, is_leaf=lambda x: isinstance(x, (State, Variable))
    )
    if not any(isinstance(x, (State, Variable)) for _, x in entries):
        raise errors.StructureError(
            f"The gradients must be a State, not {an(type(grads))}.",
            "Pass the gradient that liftnn.grad returns for the model.",
        )
    flat: dict[Path, Any] = {}
    for entry, x in entries:
        root = tuple(map(key_of, entry))
        flat |= (
            {(*root, *path): leaf for path, leaf in x.flat().items()} if isinstance(x, State) else {root: x}
        )
    return flat


def _check_paths(given: Mapping[Path, Any], expected: Sequence[Path], what: str, remedy: str | None) -> None:
    """Raise StructureError if gradients, or a model, do not have the expected Variables."""
    if set(given) != set(expected):
        missing = [path for path in expected if path not in given]
        unknown = [path for path in given if path not in set(expected)]
        raise mismatch(what, missing, unknown, remedy)
