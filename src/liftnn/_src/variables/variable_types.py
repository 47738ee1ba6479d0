"""The built-in kinds of Variables, and `Empty`, the value of a popped Variable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import jax

from liftnn import errors
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import an, at_start
from liftnn._src.type_variables import T
from liftnn._src.variables.variable import Variable


class EmptyType:
    """The type of `Empty`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Empty"

    def __bool__(self) -> bool:
        return False

    def __reduce__(self) -> str:
        return "Empty"


Empty = EmptyType()
"""The value of a Variable after it was popped: a pytree without leaves."""
jax.tree_util.register_pytree_node(EmptyType, lambda _: ((), None), lambda *_: Empty)


class Param(Variable[T]):
    """A parameter: gradients are taken with respect to it and optimizers update it, unless a filter says otherwise.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> model = liftnn.Module()
      >>> model.w, model.seen = liftnn.Param(jnp.ones(2)), liftnn.Variable(jnp.ones(2))
      >>> list(liftnn.grad(lambda model: (model.w * model.seen).sum())(model))
      ['w']
    """

    __slots__ = ()


class LoRAParam(Param[T]):
    """A parameter of a low-rank adaptation, so that a filter can select these alone for training.

    Example:
      >>> import liftnn
      >>> layer = liftnn.LoRALinear(2, 3, lora_rank=1, rngs=liftnn.Rngs(0))
      >>> list(liftnn.state(layer, liftnn.LoRAParam)["lora"])
      ['lora_a', 'lora_b']
    """

    __slots__ = ()


class BatchStat(Variable[T]):
    """A running statistic of the batches seen, such as the mean of a BatchNorm.

    Example:
      >>> import liftnn
      >>> list(liftnn.state(liftnn.BatchNorm(2, rngs=liftnn.Rngs(0)), liftnn.BatchStat))
      ['mean', 'var']
    """

    __slots__ = ()


class Cache(Variable[T]):
    """A value kept from one call to the next, such as the keys and values of an attention layer.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> cache = liftnn.Cache(jnp.zeros((4, 2)))
      >>> cache[1] = 1.0
      >>> cache.value.sum(axis=1).tolist()
      [0.0, 2.0, 0.0, 0.0]
    """

    __slots__ = ()


class Intermediate(Variable[T]):
    """An intermediate value recorded during a call of a model, for example by `Module.sow`.

    Example:
      >>> import liftnn
      >>> model = liftnn.Module()
      >>> model.sow(liftnn.Intermediate, "y", 1.5)
      True
      >>> liftnn.pop(model, liftnn.Intermediate)["y"].value
      (1.5,)
    """

    __slots__ = ()


class Perturbation(Intermediate[T]):
    """A zero added to an intermediate value of a model, so that the gradient with respect to that value can be taken.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> model = liftnn.Module()
      >>> def square(model, x):
      ...   return model.perturb("input", x) ** 2
      >>> float(square(model, jnp.array(3.0)))
      9.0
      >>> grads = liftnn.grad(square, wrt=liftnn.Perturbation)(model, jnp.array(3.0))
      >>> float(grads["input"].value)
      6.0
    """

    __slots__ = ()


class RngState(Variable[T]):
    """State of a random number stream: the base of `RngKey` and `RngCount`.

    Example:
      >>> import liftnn
      >>> list(liftnn.state(liftnn.RngStream(0), liftnn.RngState))
      ['key', 'count']
    """

    __slots__ = ()


class RngKey(RngState[T]):
    """The key of a random number stream, a typed PRNG key array.

    Example:
      >>> import liftnn
      >>> list(liftnn.state(liftnn.RngStream(0), liftnn.RngKey))
      ['key']
    """

    __slots__ = ()


class RngCount(RngState[T]):
    """The number of keys that a random number stream has produced, uint32.

    Example:
      >>> import liftnn
      >>> stream = liftnn.RngStream(0)
      >>> key = stream()
      >>> int(stream.count)
      1
    """

    __slots__ = ()


class OptState(Variable[T]):
    """One array of an optimizer's state.

    Example:
      >>> import liftnn, optax
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> len(liftnn.state(liftnn.Optimizer(model, optax.sgd(0.1, momentum=0.9)), liftnn.OptState).flat())
      3
    """

    __slots__ = ()

    if not TYPE_CHECKING:  # hidden, so that type checkers report a call

        @boundary
        def __call__(self, *_: Any, **__: Any) -> NoReturn:
            raise errors.ArgumentTypeError(
                f"{at_start(an(type(self)))} cannot be called: it holds a value, such as the number of steps so far in "
                "`optimizer.step`.",
                "Write `optimizer.update(model, grads)` to apply gradients.",
            )


class MetricState(Variable[T]):
    """The accumulated state of a metric.

    Example:
      >>> import liftnn
      >>> list(liftnn.state(liftnn.Average(), liftnn.MetricState))
      ['total', 'count']
    """

    __slots__ = ()
