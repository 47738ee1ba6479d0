"""Optimizers, averages, and `TrainState`: a functional model with its optimizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Generic, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import optax

from liftnn import errors
from liftnn._src.compat.graph import as_pure
from liftnn._src.compat.modes import check_modes
from liftnn._src.compat.splitting import Call
from liftnn._src.filters import Filter
from liftnn._src.optim import ema, optimizer
from liftnn._src.trees import an
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable
from liftnn._src.variables.variable_types import OptState, Param

M = TypeVar("M")


class Optimizer(optimizer.Optimizer, Generic[M], pytree=True):
    """An optax gradient transformation with its state; see `liftnn.Optimizer`.

    `Optimizer[Model]` names the class of the model for type checkers.

    Args:
      model: The module, or tree of modules, to optimize.
      tx: A gradient transformation of optax.
      wrt: A filter that selects what is optimized. The default is `Param`.
      graph: Accepted without effect.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from liftnn.compat import nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> optimizer = nnx.Optimizer(model, optax.sgd(0.5), wrt=nnx.Param)
      >>> updates = optimizer.update(model, nnx.grad(lambda m: m(jnp.ones((1, 2))).sum())(model))
      >>> updates["bias"].tolist()
      [-0.5, -0.5, -0.5]
    """

    def __init__(self, model: Any, tx: Any, *, wrt: Filter = Param, graph: bool | None = None):
        check_modes(graph=graph)
        super().__init__(model, tx, wrt=wrt)

    def update(self, model: Any, grads: Any, **extra: Any) -> Any:
        """Apply gradients to a model; see `liftnn.Optimizer`.

        Args:
          model: The module, or tree of modules, that the optimizer was created for.
          grads: The gradients.
          **extra: Keyword arguments for the transformation.

        Returns:
          The updates that were added to the parameters, as a State of arrays.
        """
        return as_pure(super().update(model, grads, **extra))


class ModelAndOptimizer(Optimizer[M]):
    """An Optimizer that holds its model, so that `update` takes the gradients alone.

    Args:
      model: The module to optimize.
      tx: An `optax.GradientTransformation`.
      wrt: A filter that selects the Variables to optimize. The default is `Param`.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from liftnn.compat import nnx
      >>> optimizer = nnx.ModelAndOptimizer(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), optax.sgd(0.5))
      >>> _ = optimizer.update(nnx.grad(lambda m: m(jnp.ones((1, 2))).sum())(optimizer.model))
      >>> optimizer.model.bias.value.tolist()
      [-0.5, -0.5, -0.5]
    """

    def __init__(self, model: Any, tx: optax.GradientTransformation, *, wrt: Filter = Param):
        super().__init__(model, tx, wrt=wrt)
        self.model = model

    def update(  # pyright: ignore[reportIncompatibleMethodOverride]  # the model is known
        self, grads: Any, /, **extra: Any
    ) -> Any:
        """Apply gradients to the model; see `Optimizer.update`.

        Args:
          grads: The gradients.
          **extra: Keyword arguments for the transformation.

        Returns:
          What `Optimizer.update` returns.
        """
        return super().update(self.model, grads, **extra)


class EMA(ema.EMA, pytree=True):
    """An exponential moving average of the Variables of a module; see `liftnn.EMA`.

    Args:
      params: The module, State, or tree of modules, whose Variables are averaged.
      decay: The weight of the average so far, from 0 to 1.
      only: A filter that selects the Variables to average. The default, `...`, selects all.
      graph: Accepted without effect.

    Example:
      >>> from liftnn.compat import nnx
      >>> nnx.EMA(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), decay=0.9).params.bias.shape
      (3,)
    """

    def __init__(self, params: Any, decay: float, *, only: Filter = ..., graph: bool | None = None):
        check_modes(graph=graph)
        super().__init__(params, decay, only=only)


_STATIC = "pytree_node"
"""The entry of a field's metadata that is False for a static field, as in `flax.struct.field`."""


def _make_pytree(cls: Any, options: Mapping[str, Any] = {}) -> None:
    """Make a class a frozen dataclass, with further options of dataclasses, that is a JAX pytree of its fields."""
    dataclasses.dataclass(**{"frozen": True, "eq": False, **options})(cls)
    cls._flax_dataclass = True  # so that `flax.struct.dataclass` as a decorator leaves it as it is
    names = {f.name: f.metadata.get(_STATIC, True) for f in dataclasses.fields(cls)}
    data = [name for name, is_data in names.items() if is_data]
    jax.tree_util.register_dataclass(cls, data, [name for name in names if name not in data])


@dataclass_transform(frozen_default=True)
class TrainState(Generic[M]):
    """A model as GraphDef and State, with an optax transformation and its state: an immutable JAX pytree.

    `TrainState[Model]` names the class of the model for type checkers. Subclasses add fields by annotations, such as
    `batch_stats: nnx.State`, and may have options of dataclasses: `class State(nnx.TrainState, kw_only=True)`.

    Args:
      graphdef: The structure of the model.
      params: The parameters.
      opt_state: The state of the transformation.
      step: The number of updates.
      tx: The transformation, which is static.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from liftnn.compat import nnx
      >>> graphdef, params = nnx.split(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
      >>> state = nnx.TrainState.create(graphdef, params=params, tx=optax.sgd(0.5))
      >>> def loss(params):
      ...   y, _ = state.apply(params)(jnp.ones((1, 2)))
      ...   return y.sum()
      >>> state = state.apply_gradients(jax.grad(loss)(state.params))
      >>> state.params.bias.value.tolist(), int(state.step)
      ([-0.5, -0.5, -0.5], 1)
    """

    graphdef: Any
    params: Any
    opt_state: Any
    step: Any
    tx: Any = dataclasses.field(metadata={_STATIC: False})

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__()
        _make_pytree(cls, options)

    @classmethod
    def create(
        cls, graphdef: Any, *, params: Any, tx: optax.GradientTransformation, step: Any = 0, **fields: Any
    ) -> Any:
        """Create a TrainState with a new state of the transformation.

        Args:
          graphdef: The structure of the model.
          params: The parameters.
          tx: The transformation.
          step: The number of updates so far. The default is 0.
          **fields: The values of further fields.

        Returns:
          The TrainState.
        """
        opt_state = tx.init(params)
        constructor: Any = cls
        return constructor(graphdef, params, opt_state, jnp.asarray(step), tx, **fields)

    def apply(self, *states: Any) -> Call:
        """Return a proxy of the model: calls merge it, call it, and split it again.

        Args:
          *states: States, or names of fields that hold one, such as `"params"`.

        Returns:
          The proxy; each call returns `(output, (graphdef, state))`.

        Raises:
          ArgumentTypeError: If a field does not hold a State.
        """
        found = [getattr(self, x) if isinstance(x, str) else x for x in states]
        for name, x in zip(states, found, strict=True):
            if isinstance(name, str) and not isinstance(x, State):
                raise errors.ArgumentTypeError(
                    f"The field {name!r} of {an(type(self))} is {an(type(x))}, not a State.",
                    "Pass the State itself, or the name of a field that holds one.",
                )
        return self.graphdef.apply(*found)

    def apply_gradients(self, grads: Any, **fields: Any) -> Any:
        """Return a TrainState after one step of the transformation.

        Args:
          grads: The gradients, a State like `params`.
          **fields: New values of other fields.

        Returns:
          The TrainState.
        """
        updates, opt_state = self.tx.update(grads, self.opt_state, self.params)
        params = optax.apply_updates(self.params, updates)
        return self.replace(params=params, opt_state=opt_state, step=self.step + 1, **fields)

    def replace(self, **fields: Any) -> Any:
        """Return a copy with other values of some fields.

        Args:
          **fields: The new values by name.

        Returns:
          The TrainState.
        """
        changed: Any = self
        return dataclasses.replace(changed, **fields)


_make_pytree(TrainState)


def to_opt_state(tree: Any) -> Any:
    """Return a tree with an `OptState` in place of each Variable and array, as an optimizer holds them.

    Args:
      tree: A State, or any pytree of Variables and arrays.

    Returns:
      The tree. An `OptState` has the metadata of its Variable; the metadata `optimizer_sharding` become its sharding.

    Example:
      >>> import jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> v = nnx.Param(jnp.ones(2), optimizer_sharding=("data",), note=1)
      >>> state = nnx.optimizer.to_opt_state({"w": v})["w"]
      >>> type(state).__name__, state.out_sharding, state.note
      ('OptState', ('data',), 1)
    """

    def convert(x: Any) -> OptState[Any]:
        if not isinstance(x, Variable):
            return OptState(x)
        metadata = x.get_metadata()
        if "optimizer_sharding" in metadata:
            metadata["out_sharding"] = metadata.pop("optimizer_sharding")
        return OptState(x.value, **metadata)

    return jax.tree.map(convert, tree, is_leaf=lambda x: isinstance(x, Variable))
