"""`Sequential` with its functions in a `List`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from liftnn._src.compat.containers import List
from liftnn._src.nn import sequential


class Sequential(sequential.Sequential, Iterable[Any], pytree=True):
    """Apply functions in sequence, each to the output of the previous one; see `liftnn.Sequential`.

    The functions are in the `List` `layers`, so that they can be replaced while iterating over the modules of a model.
    Keyword arguments that no function has as a parameter are ignored.

    Args:
      *fns: Modules, functions or other callables.

    Raises:
      ArgumentError: If one of them is not callable.

    Example:
      >>> from liftnn.compat import nnx
      >>> model = nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.relu)
      >>> isinstance(model.layers, nnx.List), [key for key, x in nnx.iter_children(model)]
      (True, ['layers'])
    """

    def __init__(self, *fns: Callable[..., Any]):
        super().__init__(*fns)
        self.layers = cast(list[Any], List(fns))

    def __getitem__(self, index: Any) -> Any:
        return Sequential(*self.layers[index]) if isinstance(index, slice) else self.layers[index]

    def _without_taker(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return no arguments for the first function: those that no function accepts are ignored."""
        return {}
