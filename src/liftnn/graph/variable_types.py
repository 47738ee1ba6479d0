"""The kinds of Variables that liftnn itself knows, and `Empty`, what a popped one holds."""

from __future__ import annotations

import jax

from liftnn.graph.variable import Variable


class _EmptyType:
    """The type of `Empty`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Empty"

    def __bool__(self) -> bool:
        return False

    def __reduce__(self) -> str:
        return "Empty"


Empty = _EmptyType()
"""What a Variable holds after it was popped: a pytree without leaves."""
jax.tree_util.register_pytree_node(_EmptyType, lambda _: ((), None), lambda *_: Empty)


class Param(Variable):
    """A parameter: what gradients are taken of and optimizers update, unless a filter says otherwise."""

    __slots__ = ()


class BatchStat(Variable):
    """A running statistic of the batches seen, such as the mean of a BatchNorm."""

    __slots__ = ()


class Cache(Variable):
    """A value kept from one call for the next, such as the keys and values of an attention layer."""

    __slots__ = ()


class Intermediate(Variable):
    """A value noted on the way through a model, for example by `Module.sow`."""

    __slots__ = ()


class Perturbation(Intermediate):
    """A zero added to a value on the way through a model, so that its gradient can be taken."""

    __slots__ = ()


class RngState(Variable):
    """State of a random number stream: the base of `RngKey` and `RngCount`."""

    __slots__ = ()


class RngKey(RngState):
    """The key of a random number stream, a typed PRNG key array."""

    __slots__ = ()


class RngCount(RngState):
    """How many keys a random number stream has given out, uint32."""

    __slots__ = ()


class OptState(Variable):
    """One array of an optimizer's state."""

    __slots__ = ()


class MetricState(Variable):
    """What a metric has accumulated."""

    __slots__ = ()
