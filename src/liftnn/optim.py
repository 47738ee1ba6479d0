"""Optimizer: an optax transformation with its state, applied to the Variables of a module in place."""

from __future__ import annotations

from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from liftnn import errors
from liftnn.filters import Filter
from liftnn.graph.graphdef import state
from liftnn.graph.metadata import EMPTY
from liftnn.graph.module import Module
from liftnn.graph.state import State, mismatch
from liftnn.graph.variable import Variable, make_variable
from liftnn.graph.variable_types import OptState, Param
from liftnn.graph.verbs import find_variables
from liftnn.trees import Path


class Optimizer(Module):
    """An optax transformation and its state; `update` applies gradients to a model in place.

    The transformation sees parameters, gradients and its own state as `State`s of plain Variables, by path, so masks
    and labels made with `State.map` fit. Its state is kept one array a Variable.

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
        params = bare(state(model, wrt))
        if not params:
            raise errors.FilterError(
                f"Nothing to optimize: no Variable of the model matches {wrt!r}.", "Correct `wrt`."
            )
        leaves, self._treedef = jax.tree.flatten(tx.init(params))
        self._leaves = [OptState(x) for x in leaves]

    @property
    def opt_state(self) -> Any:
        """The transformation's state, as optax made it; assigning replaces it."""
        return self._treedef.unflatten([x.value for x in self._leaves])

    @opt_state.setter
    def opt_state(self, opt_state: Any) -> None:
        leaves, treedef = jax.tree.flatten(opt_state)
        if treedef != self._treedef:
            self._treedef = treedef
            self._leaves = [OptState(x) for x in leaves]
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
          grads: Their gradients: the State that `grad` gives, of the shapes of the Variables.
          **extra: Passed on to the transformation, such as `value`, `grad` and `value_fn` for `optax.lbfgs`. A
            `value_fn` gets a State of the parameters.

        Raises:
          StructureError: If gradients and optimizer do not cover the same Variables; the message lists the paths.
          TraceContextError: If the model belongs to another trace.

        """
        variables = find_variables(model, self.wrt)
        params = bare(State.from_flat(variables))
        if not isinstance(grads, State):
            raise errors.StructureError(
                f"The gradients must be a State, not a {type(grads).__name__}.",
                "Pass what liftnn.grad returns for the model alone.",
            )
        gradients = _checked(grads, variables)
        extra = {name: bare(x) if isinstance(x, State) else x for name, x in extra.items()}
        updates, opt_state = self.tx.update(gradients, self.opt_state, params, **extra)
        new_params: Any = optax.apply_updates(cast(Any, params), updates)
        for variable, new in zip(variables.values(), jax.tree.leaves(new_params), strict=True):
            variable.value = new
        self.opt_state = opt_state
        self.step.value = self.step.value + 1


def bare(state: State) -> State:
    """The State with plain Variables in place of typed ones with metadata, so that only paths have to agree."""
    return State.from_flat({path: make_bare(x) for path, x in state.flat().items()})


def make_bare(x: Any) -> Variable:
    """A Variable of the same type and value without metadata."""
    if not isinstance(x, Variable):
        return Variable(x)
    return make_variable(type(x), x.raw_value, EMPTY, x._owner)


def _checked(grads: State, variables: dict[Path, Variable]) -> State:
    """The gradients in the order of the Variables, if they are of the same ones."""
    given = grads.flat()
    if given.keys() != variables.keys():
        missing = [path for path in variables if path not in given]
        unknown = [path for path in given if path not in variables]
        raise mismatch(
            "The gradients do not cover the Variables that the optimizer updates", missing, unknown
        )
    return bare(State.from_flat({path: given[path] for path in variables}))
