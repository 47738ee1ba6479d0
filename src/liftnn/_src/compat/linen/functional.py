"""`functional`: the `init` and `apply` of a class of modules, in the manner of Linen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from liftnn import errors
from liftnn._src.compat import splitting
from liftnn._src.compat.linen.boxes import BRIDGE
from liftnn._src.compat.splitting import Call, GraphDef
from liftnn._src.publish import publish
from liftnn._src.rngs import Rngs
from liftnn._src.variables.state import State

M = TypeVar("M")


class Functional(Generic[M]):
    """A module that is not created yet: `init` returns its State, and `apply` calls it with a State.

    Args:
      module_type: The class of the module.
      graphdef: Its GraphDef. The default, None, means that `init` sets it.
      args: The arguments to create it with.
      kwargs: The keyword arguments.
    """

    def __init__(
        self,
        module_type: type[M],
        graphdef: GraphDef[M] | None = None,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ):
        self.module_type = module_type
        self.graphdef = graphdef
        self.args = args
        self.kwargs = kwargs or {}

    def init(self, *, rngs: Rngs | None = None) -> State:
        """Create the module, keep its GraphDef, and return its State.

        Args:
          rngs: The streams of random keys. The default, None, means that the class does not take them.

        Returns:
          The State.
        """
        streams = {} if rngs is None else {"rngs": rngs}
        self.graphdef, state = splitting.split(self.module_type(*self.args, **self.kwargs, **streams))
        return state

    def apply(self, *states: Any) -> Call:
        """Return a proxy of the module with these States: its calls return `(output, (graphdef, state))`.

        Args:
          *states: The States.

        Returns:
          The proxy.

        Raises:
          ArgumentError: If `init` has not been called.
        """
        if self.graphdef is None:
            raise errors.ArgumentError(
                f"This Functional of {self.module_type.__name__} has no structure yet.",
                "Call `init` first, which creates the module.",
            )
        return self.graphdef.apply(*states)


def functional(cls: type[M]) -> Callable[..., Functional[M]]:
    """Return the constructor of a `Functional`.

    Args:
      cls: The class of the module.

    Returns:
      A function that takes the arguments of the class, without `rngs`.

    Example:
      >>> import jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> linear = nnx.bridge.functional(nnx.Linear)(2, 3)
      >>> y, _ = linear.apply(linear.init(rngs=nnx.Rngs(0)))(jnp.ones((1, 2)))
      >>> y.shape
      (1, 3)
    """
    return lambda *args, **kwargs: Functional(cls, None, args, kwargs)


publish(Functional, module=BRIDGE)
