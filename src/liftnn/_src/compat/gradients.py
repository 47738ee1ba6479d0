"""`grad` and `value_and_grad`, which give an empty State for a module without Variables to differentiate."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from liftnn._src.autodiff import grad as own
from liftnn._src.compat.modes import accept_modes
from liftnn._src.filters import Filter
from liftnn._src.lifting.configure import configurable
from liftnn._src.variables.variable_types import Param


def _allow_empty(transform: Callable[..., Any]) -> Callable[..., Any]:
    """Return a transform which needs a matching Variable in one of the differentiated modules, not in each."""

    @functools.wraps(transform)
    def call(
        f: Any,
        /,
        argnums: Any = 0,
        has_aux: bool = False,
        holomorphic: bool = False,
        allow_int: bool = False,
        reduce_axes: Sequence[Any] = (),
        *,
        wrt: Filter = Param,
    ) -> Any:
        options = {"holomorphic": holomorphic, "allow_int": allow_int, "reduce_axes": reduce_axes}
        return own.differentiate(f, transform.__name__, argnums, wrt, has_aux, "one", **options)

    return accept_modes(configurable(call))


grad = _allow_empty(own.grad)
value_and_grad = _allow_empty(own.value_and_grad)
