"""`ToNNX`: a module that holds the variables of a Linen module, which a call reads and may update."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import types
from collections.abc import Callable, Generator, Mapping
from typing import Any, Self, TypeVar

import jax
from flax.core import unfreeze
from flax.errors import ScopeCollectionNotFound

from liftnn import errors
from liftnn._src.compat.linen.boxes import BRIDGE, collections_of, variables_of
from liftnn._src.compat.modules import Module
from liftnn._src.compat.traversals import flatten_mapping
from liftnn._src.graph.attributes import attributes_of
from liftnn._src.modules.iterate import iter_graph
from liftnn._src.publish import PICKLED, publish
from liftnn._src.rngs import Rngs
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import Path, an, format_path
from liftnn._src.variables.variable import Variable

F = TypeVar("F", bound=Callable[..., Any])

_OWN = "to_nnx__"
"""How the attributes start that are not variables of the Linen module."""

_CREATE = "`lazy_init` creates the variables of a Linen module: call it with the inputs of a call."

mutable_outside: contextvars.ContextVar[Any] = contextvars.ContextVar("mutable_outside", default=False)
"""The collections that calls may change by default: those of the `ToLinen` around them."""


class LinenModule:
    """A Linen module as a static attribute; without it, the Linen module is a dataclass, whose fields are in the model.

    Args:
      module: The Linen module. Two are equal if they have the same class and fields; if a field has no hash, as an
        array, only if they are one object.
    """

    __slots__ = ("_hash", "module")

    def __init__(self, module: Any):
        self.module = module
        self._hash: int | None = None
        with contextlib.suppress(TypeError):
            self._hash = hash(module)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LinenModule):
            return NotImplemented
        is_comparable = self._hash is not None and self._hash == other._hash
        return self.module is other.module or (is_comparable and self.module == other.module)

    def __hash__(self) -> int:
        return id(self.module) if self._hash is None else self._hash

    def __reduce__(self) -> Any:
        return LinenModule, (self.module,)

    def __repr__(self) -> str:
        return repr(self.module)


class ToNNX(Module):
    """A module that wraps a Linen module and holds its variables as attributes.

    The variables are created by `lazy_init`, with the inputs of a call. A collection becomes the type of its
    Variables: `params` gives Params, `batch_stats` BatchStats; see `nnx.variable_type_from_name`.

    Args:
      module: The Linen module.
      rngs: The streams of random keys of the module; it gets its own, forked from them. A single key or seed is that of
        the stream `params`. The default, None, means no streams.

    Example:
      >>> import flax.linen, jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> model = nnx.bridge.ToNNX(flax.linen.Dense(3), rngs=nnx.Rngs(0)).lazy_init(jnp.ones((1, 2)))
      >>> model.kernel.shape, model(jnp.ones((4, 2))).shape
      ((2, 3), (4, 3))
    """

    to_nnx__initializing = False
    """Whether calls create the variables: while `lazy_init` runs."""

    def __init__(self, module: Any, rngs: Rngs | jax.Array | int | None = None):
        self.to_nnx__linen = LinenModule(module)
        self.to_nnx__rngs: Rngs | None = None
        if rngs is not None:
            self.to_nnx__rngs = rngs.fork() if isinstance(rngs, Rngs) else Rngs(params=rngs)

    @property
    def to_nnx__module(self) -> Any:
        """The Linen module."""
        return self.to_nnx__linen.module

    def lazy_init(self, *args: Any, **kwargs: Any) -> Self:
        """Create the variables of the Linen module, by a call with these arguments.

        Args:
          *args: The arguments of the call. Only their shapes and dtypes matter.
          **kwargs: Its keyword arguments; `method` is the method that is called.

        Returns:
          This module.
        """
        return lazy_init(self, *args, **kwargs)

    def __call__(
        self,
        *args: Any,
        rngs: Rngs | jax.Array | None = None,
        method: Callable[..., Any] | str | None = None,
        mutable: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Call the Linen module with the variables that this module holds.

        Args:
          *args: The arguments.
          rngs: The streams of random keys. The default, None, means those of this module.
          method: The method to call, or its name. The default, None, means `__call__`.
          mutable: The collections whose variables the call may change, as for `apply` of Linen; they are written to
            this module. The default, None, means none, or within a `ToLinen` those that may be changed there.
          **kwargs: The keyword arguments.

        Returns:
          The output.
        """
        module, keys = self.to_nnx__module, _keys_of(self.to_nnx__rngs if rngs is None else rngs)
        if self.to_nnx__initializing:
            out, updates = module.init_with_output(keys, *args, method=method, **kwargs)
        else:
            variables = collections_of(self._variables())
            mutable = mutable_outside.get() if mutable is None else mutable
            try:
                out = module.apply(variables, *args, rngs=keys, method=method, mutable=mutable, **kwargs)
            except ScopeCollectionNotFound as error:
                if not variables:
                    error.add_note(f"This {type(self).__name__} has no variables yet. {_CREATE}")
                raise
            if mutable is False:
                return out
            out, updates = out
        self._write(unfreeze(updates))
        return out

    def __getattr__(self, name: str) -> Any:
        """Return a method of the Linen module, bound to this module."""
        module = getattr(vars(self).get("to_nnx__linen"), "module", None)
        method = None if name.startswith("__") else getattr(type(module), name, None)
        if not callable(method):
            raise errors.AttributeNameError(
                f"This {type(self).__name__} of {an(type(module))} has no attribute {name!r}.",
                _CREATE,
            )

        @functools.wraps(method)
        def call(self: Self, /, *args: Any, **kwargs: Any) -> Any:
            return self(*args, method=method, **kwargs)

        return types.MethodType(call, self)

    def _variables(self) -> dict[Path, Variable[Any]]:
        """Return the variables of the Linen module by path."""
        attributes = attributes_of(self).items()
        found = flatten_mapping({name: x for name, x in attributes if not name.startswith(_OWN)})
        for path, x in found.items():
            if not isinstance(x, Variable):
                raise errors.StructureError(
                    f"{format_path(path)} is {an(type(x))}, and cannot be passed to the Linen module, whose variables "
                    "are the attributes of a ToNNX.",
                    "Make it a Variable, or an attribute of the module that holds this one.",
                )
        return found

    def _write(self, collections: Mapping[str, Any]) -> None:
        """Write variables that the Linen module has created or changed; those that there are stay the same objects."""
        new, known = variables_of(collections), self._variables()
        for path, variable in new.items():
            old = known.get(path)
            if old is not None and type(old) is type(variable):
                old.value = variable.value
            else:
                self.set_variable(path, variable)

    def set_variable(self, path: Path, variable: Variable[Any]) -> None:
        """Set a variable as an attribute, or in the nested dicts of one.

        Args:
          path: Its path among the variables of the Linen module.
          variable: The variable.
        """
        name, *keys = path
        if not keys:
            setattr(self, str(name), variable)
            return
        if name not in vars(self):
            setattr(self, str(name), {})
        inner = getattr(self, str(name))
        for key in keys[:-1]:
            inner = inner.setdefault(key, {})
        inner[keys[-1]] = variable


def _keys_of(rngs: Rngs | jax.Array | None) -> dict[str, jax.Array]:
    """Return the next key of each stream, by the names of Linen."""
    if rngs is None:
        return {}
    if not isinstance(rngs, Rngs):
        return {"params": rngs}
    keys = {name: stream() for name, stream in rngs.items()}
    if "params" not in keys and "default" in keys:
        keys["params"] = keys.pop("default")
    return keys


@boundary
def lazy_init(fn: F, /, *args: Any, **kwargs: Any) -> F:
    """Create the variables of all `ToNNX` that a module reaches, by a call with these arguments.

    Args:
      fn: The module, or a method of it.
      *args: The arguments of the call.
      **kwargs: Its keyword arguments.

    Returns:
      The module or method.

    Raises:
      ArgumentTypeError: If it is neither a module nor a method of one.

    Example:
      >>> import flax.linen, jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> model = nnx.Sequential(nnx.bridge.ToNNX(flax.linen.Dense(3), rngs=nnx.Rngs(0)), nnx.relu)
      >>> nnx.bridge.lazy_init(model, jnp.ones((1, 2))) is model
      True
    """
    module = fn if isinstance(fn, Module) else getattr(fn, "__self__", None)
    if not isinstance(module, Module) or not callable(fn):
        raise errors.ArgumentTypeError(
            f"nnx.bridge.lazy_init got {an(type(fn))}, which is neither a module nor a method of one.",
            "Pass the module, and the arguments of a call: `lazy_init(model, x)`.",
        )
    with initializing(module):
        fn(*args, **kwargs)
    return fn


@contextlib.contextmanager
def initializing(module: Any) -> Generator[None]:
    """Let the calls of each `ToNNX` that a module reaches create its variables."""
    wrappers = [x for _, x in iter_graph(module) if isinstance(x, ToNNX)]
    try:
        for x in wrappers:
            x.to_nnx__initializing = True
        yield
    finally:
        for x in wrappers:
            del x.to_nnx__initializing


publish(ToNNX, module=BRIDGE)
publish(LinenModule, module=PICKLED)
