"""`ToLinen`: a Linen module that creates a module in each call, and gives its Variables the values of Linen's."""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flax import linen
from flax.core import FrozenDict

from liftnn import errors
from liftnn._src.compat import splitting
from liftnn._src.compat.flat_state import to_flat_state
from liftnn._src.compat.linen.boxes import BRIDGE, to_linen_var, unboxed, variable_of
from liftnn._src.compat.linen.to_module import ToNNX, initializing, mutable_outside
from liftnn._src.compat.traversals import flatten_mapping, unflatten_mapping
from liftnn._src.compat.variable_names import variable_name_from_type
from liftnn._src.filters import Not
from liftnn._src.modules.iterate import iter_graph
from liftnn._src.publish import publish
from liftnn._src.rngs import Rngs
from liftnn._src.tracebacks import warn
from liftnn._src.trees import Path, an, format_path
from liftnn._src.variables.variable import Variable
from liftnn._src.variables.variable_types import RngState


class ToLinen(linen.Module):
    """A Linen module that wraps a class of modules: each call creates one, with the values of Linen's variables.

    The type of a Variable gives the collection: Params are in `params`; see `nnx.variable_name_from_type`. The streams
    of random keys are those of Linen.

    Args:
      nnx_class: The class of modules, or a function that returns a module.
      args: The arguments to create a module with.
      kwargs: The keyword arguments.
      skip_rng: Whether the class has no parameter `rngs`. The default is False.
      metadata_fn: Returns the variable of Linen for a Variable. The default puts its value in a box if it has metadata,
        such as a declared sharding; None means the value alone.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> model = nnx.bridge.ToLinen(nnx.Linear, args=(2, 3))
      >>> variables = model.init(jax.random.key(0), jnp.ones((1, 2)))
      >>> variables["params"]["kernel"].shape, model.apply(variables, jnp.ones((4, 2))).shape
      ((2, 3), (4, 3))
    """

    nnx_class: Callable[..., Any]
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = FrozenDict({})
    skip_rng: bool = False
    metadata_fn: Callable[[Variable[Any]], Any] | None = to_linen_var

    @linen.compact
    def __call__(self, *args: Any, nnx_method: Callable[..., Any] | str | None = None, **kwargs: Any) -> Any:
        """Create the module and call it; what it writes goes to the collections that may be changed.

        Args:
          *args: The arguments.
          nnx_method: The method to call, or its name. The default, None, means `__call__`.
          **kwargs: The keyword arguments.

        Returns:
          The output.
        """
        options = dict(self.kwargs)
        is_first = self.is_initializing()
        if not self.skip_rng:
            options["rngs"] = _rngs_of(self, add_default=not is_first)
        module = self.nnx_class(*self.args, **options)
        method = _method_of(type(module), nnx_method)
        if is_first:
            _store(self, module)
        else:
            _load(module, self.variables)
        assert self.scope is not None
        token = mutable_outside.set(self.scope.mutable)
        try:
            with initializing(module) if is_first else contextlib.nullcontext():
                out = method(module, *args, **kwargs)
        finally:
            mutable_outside.reset(token)
        _store(self, module, only_new=is_first)
        return out

    def __getattr__(self, name: str) -> Any:
        """Return a keyword argument, or a method of the class, bound to this module."""
        if name.startswith("__") or "kwargs" not in vars(self):
            return super().__getattribute__(name)
        if name in self.kwargs:
            return self.kwargs[name]
        method = getattr(self.nnx_class, name, None)
        if not callable(method):
            return super().__getattribute__(name)

        @functools.wraps(method)
        def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            return self(*args, nnx_method=method, **kwargs)

        return types.MethodType(call, self)


def _rngs_of(outer: ToLinen, add_default: bool) -> Rngs:
    """Return the streams of a call; without keys, layers get a fixed stream, whose values are replaced."""
    assert outer.scope is not None
    keys: dict[str, Any] = {name: outer.make_rng(name) for name in outer.scope.rngs}
    if add_default:
        keys.setdefault("default", 0)
    return Rngs(**keys)


def _store(outer: ToLinen, module: Any, only_new: bool = False) -> None:
    """Store the Variables of a module as variables of Linen, in the collections that may be changed.

    Args:
      outer: The Linen module.
      module: The module.
      only_new: Whether the variables that there are stay as they are: `init` returns the values before the call. The
        default is False.
    """
    collections: dict[str, dict[Path, Any]] = {}
    for path, variable in to_flat_state(splitting.state(module, Not(RngState))):
        name = variable_name_from_type(type(variable), allow_register=True)
        if not outer.is_mutable_collection(name):
            continue
        if name not in collections:
            collections[name] = flatten_mapping(outer.variables.get(name, {}))
        if not (only_new and path in collections[name]):
            x = variable.value if outer.metadata_fn is None else outer.metadata_fn(variable)
            collections[name][path] = x
    for name, variables in collections.items():
        for key, x in unflatten_mapping(variables).items():
            outer.put_variable(name, key, x)


def _method_of(cls: type, method: Callable[..., Any] | str | None) -> Callable[..., Any]:
    """Return the function of a method."""
    found = getattr(cls, method or "__call__", None) if method is None or isinstance(method, str) else method
    if not callable(found):
        raise errors.ArgumentTypeError(
            f"{cls.__name__}.{method} is {'not defined' if found is None else an(type(found))}, but `nnx_method` must "
            "name a method.",
            "Pass the name of a method, or the method itself.",
        )
    return found


def _load(module: Any, collections: Mapping[str, Any]) -> None:
    """Give the Variables of a module the values of Linen's variables."""
    known: dict[Path, Variable[Any]] = dict(to_flat_state(splitting.state(module)))
    wrappers = {path: x for path, x in iter_graph(module) if isinstance(x, ToNNX)}
    unknown: list[Path] = []
    for name, variables in collections.items():
        for path, x in flatten_mapping(variables).items():
            at = next((n for n in range(len(path)) if path[:n] in wrappers), None)
            if path in known:
                known[path].value = unboxed(x)
            elif at is not None:  # a ToNNX has its variables after `lazy_init` only
                wrappers[path[:at]].set_variable(path[at:], variable_of(name, x))
            else:
                unknown.append(path)
    if unknown:
        names = ", ".join(map(format_path, unknown))
        warn(
            f"The variables of Linen have values that the {type(module).__name__} has no Variables for: {names}. They "
            "are ignored.",
            UserWarning,
        )


def to_linen(
    nnx_class: Callable[..., Any],
    *args: Any,
    metadata_fn: Callable[[Variable[Any]], Any] | None = to_linen_var,
    name: str | None = None,
    skip_rng: bool = False,
    abstract_init: bool = True,
    **kwargs: Any,
) -> ToLinen:
    """Return a `ToLinen` of a class of modules and the arguments to create them with.

    Args:
      nnx_class: The class of modules.
      *args: The arguments.
      metadata_fn: See `ToLinen`.
      name: The name of the Linen module. The default, None, means the one that Linen gives.
      skip_rng: See `ToLinen`.
      abstract_init: Accepted without effect, as in Flax.
      **kwargs: The keyword arguments.

    Returns:
      The Linen module.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> model = nnx.bridge.to_linen(nnx.Linear, 2, out_features=3)
      >>> y, variables = model.init_with_output(jax.random.key(0), jnp.ones((1, 2)))
      >>> y.shape
      (1, 3)
    """
    return ToLinen(
        nnx_class, args=args, kwargs=FrozenDict(kwargs), metadata_fn=metadata_fn, skip_rng=skip_rng, name=name
    )


publish(ToLinen, module=BRIDGE)
