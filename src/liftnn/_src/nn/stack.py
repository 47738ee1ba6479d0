"""A stack of equal layers, held as one module with stacked weights and applied with `scan`."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar, overload

import jax
import numpy as np

from liftnn import errors
from liftnn._src.autodiff.remat import checkpoint
from liftnn._src.compilation.jit import jit
from liftnn._src.control_flow.loop_axes import Carry
from liftnn._src.control_flow.scan import scan
from liftnn._src.lifting.callables import call_method
from liftnn._src.mapping.vmap import vmap
from liftnn._src.modules.iterate import iter_graph
from liftnn._src.modules.module import Module
from liftnn._src.nn.layer_arguments import mark_static, without_marks
from liftnn._src.nn.layer_view import axis_names, copy_layer, stack_layers, view_layer, write_layers
from liftnn._src.publish import publish
from liftnn._src.rngs import Rngs, RngStream
from liftnn._src.static_values.static import Static
from liftnn._src.trees import an, format_path, is_jax_array
from liftnn._src.variables import frames
from liftnn._src.variables.variable import Variable

L = TypeVar("L", bound=Module)


class Stack(Module, Generic[L]):
    """Identical layers in sequence, which are traced and compiled once.

    The values of all layers are stacked along axis 0 of the Variables of one module, `layers`, and `scan` applies the
    layers. So the time to trace and compile does not depend on the number of layers. The results are those of a Python
    list of the same layers: each layer has its own weights, statistics and random streams.

    `stack[i]` shows one layer: its Variables read and write the stacked values. `stack[i] = layer` and
    `stack[:] = layers` copy the values of other modules into the stack, `len(stack)` is the number of layers, and
    `stack.to_list()` returns independent layers. `stack.layers` is the module of all layers; change it to change their
    static attributes, as `train()` and `eval()` do.

    Args:
      n: The number of layers, at least 1.
      make: Creates one layer: called with an `Rngs`, or without arguments if `rngs` is None. It runs once, under
        `vmap`.
      rngs: The random keys. Layer `i` gets an `Rngs` with the same streams, and the stream `name` starts from
        `jax.random.split(rngs[name](), n)[i]`; so the layers are `[make(r) for r in ...]` of these, bit for bit. A
        stream is split in the same way. The default, None, passes nothing; keys that `make` draws from captured
        streams differ between layers too.
      in_axes: How the positional arguments of a call reach the layers: `Carry` for a value that each layer replaces by
        its output, None for a value that all layers share, and an int for an array, or pytree of arrays, with one slice
        for each layer. Further arguments, and keyword arguments, are shared. The default is `(Carry,)`: the first
        argument goes through all layers.
      out_axes: What a layer returns: `Carry` for the carry, and an int for an output of each layer, such as its cache;
        it is the axis along which these are stacked. A pytree prefix of the output. The default, `Carry`, means the
        carry alone.
      remat: Whether the gradients recompute the intermediate values of each layer instead of storing them, or a policy
        of `jax.checkpoint_policies` that selects those to store. False by default.
      unroll: The number of layers in one iteration of the loop, or True for all; 1 by default.
      transform_metadata: The name of the axis of the layers in the metadata of Variables, such as
        `{liftnn.PARTITION_NAME: "layers"}`; as in `vmap`. By default the axis has no name, so shardings that are
        declared for a layer apply to its own axes. An empty dict leaves metadata unchanged.

    Raises:
      ArgumentError: If `n` is not a positive int, or if `rngs` is neither an `Rngs` nor a stream.
      ArgumentTypeError: If `n` is a class, a function, a list or a tuple.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> class Block(liftnn.Module):
      ...   def __init__(self, rngs):
      ...     self.linear = liftnn.Linear(4, 4, rngs=rngs)
      ...     self.dropout = liftnn.Dropout(0.1, rngs=rngs)
      ...   def __call__(self, x, scale=1.0):
      ...     return x + scale * self.dropout(jnp.tanh(self.linear(x)))
      >>> stack = liftnn.Stack(12, Block, rngs=liftnn.Rngs(0))
      >>> stack(jnp.ones((2, 4)), scale=0.5).shape, stack.layers.linear.kernel.shape, len(stack)
      ((2, 4), (12, 4, 4), 12)
      >>> stack[3].linear.bias.value = jnp.ones(4)
      >>> stack.layers.linear.bias.sum(axis=1)[2:5].tolist()
      [0.0, 4.0, 0.0]
    """

    def __init__(
        self,
        n: int,
        make: Callable[..., L],
        *,
        rngs: Rngs | RngStream | None = None,
        in_axes: Sequence[Any] = (Carry,),
        out_axes: Any = Carry,
        remat: bool | Callable[..., bool] = False,
        unroll: int | bool = 1,
        transform_metadata: Mapping[str, Any] | None = None,
    ):
        n = _checked_count(n)
        if isinstance(make, Module):
            raise errors.ArgumentTypeError(
                f"Stack takes a function that creates a layer, not {an(type(make))}.",
                "Pass the class of the layer, or a function such as lambda rngs: Block(64, rngs=rngs); "
                "`Stack.from_list(layers)` stacks existing layers.",
            )
        if rngs is not None and not isinstance(rngs, (Rngs, RngStream)):
            raise errors.ArgumentError(
                f"Stack needs a liftnn.Rngs or one of its streams, but rngs is of type {type(rngs).__qualname__}.",
                "Pass rngs=liftnn.Rngs(0), where 0 is the seed.",
            )
        init = vmap(make, axis_size=n, transform_metadata=axis_names(transform_metadata))
        layers = init() if rngs is None else init(rngs.fork(split=n))
        if not isinstance(layers, Module):
            raise errors.ArgumentError(
                f"Stack needs a function that makes a module, but it returned an object of type "
                f"{type(layers).__qualname__}.",
                "Pass the class of the layer, or a function such as lambda rngs: Block(64, rngs=rngs).",
            )
        self._fill(n, layers, in_axes, out_axes, remat, unroll, transform_metadata)

    def _fill(
        self,
        n: int,
        layers: Any,
        in_axes: Sequence[Any],
        out_axes: Any,
        remat: bool | Callable[..., bool],
        unroll: int | bool,
        transform_metadata: Mapping[str, Any] | None,
    ) -> None:
        """Set all attributes."""
        self.n = n
        self.layers: L = layers
        self.in_axes, self.out_axes = tuple(in_axes), out_axes
        self.remat, self.unroll = remat, unroll
        self.transform_metadata = None if transform_metadata is None else dict(transform_metadata)

    @classmethod
    def from_list(
        cls,
        layers: Sequence[L],
        *,
        in_axes: Sequence[Any] = (Carry,),
        out_axes: Any = Carry,
        remat: bool | Callable[..., bool] = False,
        unroll: int | bool = 1,
        transform_metadata: Mapping[str, Any] | None = None,
    ) -> Stack[L]:
        """Create a stack with the values of existing layers, which are copied.

        Args:
          layers: The layers, at least one; they may differ in values only.
          in_axes: As for the constructor, like the next four.
          out_axes: What a layer returns.
          remat: Whether gradients recompute the intermediate values.
          unroll: The number of layers in one iteration of the loop.
          transform_metadata: The name of the axis of the layers in metadata.

        Returns:
          The stack.

        Raises:
          AliasingError: If two layers share a Variable.
          ArgumentError: If there are no layers.
          StructureError: If the layers differ in more than values; the message lists the differences by path.

        Example:
          >>> import liftnn
          >>> rngs = liftnn.Rngs(0)
          >>> stack = liftnn.Stack.from_list([liftnn.Linear(3, 3, rngs=rngs) for _ in range(4)])
          >>> len(stack), len(stack.to_list())
          (4, 4)
        """
        layers = list(layers)
        n, stack = _checked_count(len(layers)), cls.__new__(cls)
        stacked = stack_layers(layers, axis_names(transform_metadata))
        stack._fill(n, stacked, in_axes, out_axes, remat, unroll, transform_metadata)
        return stack

    def to_list(self) -> list[L]:
        """Return the layers as independent modules, with copies of their values."""
        return [copy_layer(self.layers, i, axis_names(self.transform_metadata)) for i in range(self.n)]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Apply the layers one after the other.

        Args:
          *args: The arguments of the first layer; `in_axes` says how they reach the others.
          **kwargs: Keyword arguments of each layer. Values that are neither arrays nor modules, such as flags, are
            static.

        Returns:
          The output of the last layer; with `out_axes` also the stacked outputs of all layers.

        Raises:
          ArgumentError: If the arguments with one slice for each layer do not have the size of the stack, or if the
            output does not have the structure of `out_axes`.
          StructureError: If a layer changes structure, shapes or dtypes of the carry.
        """
        if not args and kwargs and _has_carry(self.in_axes):
            raise errors.ArgumentError(
                "A Stack replaces its first positional argument by the output of each layer, but the call has keyword "
                "arguments only, which all layers share.",
                "Pass the input by position: `stack(x)`.",
            )
        return self._apply(call_method(type(self.layers)), args, kwargs)

    def apply(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Apply a function or another method of the layers to one layer after the other.

        Args:
          function: Called with a layer and the arguments, such as `Block.decode`. It may write to the layer.
          *args: As for a call of the stack.
          **kwargs: As for a call of the stack.

        Returns:
          As for a call of the stack. If no argument is a carry, as in `stack.apply(function)`, it is what the function
          returns, stacked along axis 0.

        Example:
          >>> import jax.numpy as jnp, liftnn
          >>> stack = liftnn.Stack(3, lambda: liftnn.BatchNorm(2, rngs=liftnn.Rngs(0)))
          >>> stack.apply(lambda layer, x: x * layer.var, jnp.ones(2)).tolist()
          [1.0, 1.0]
          >>> stack.apply(lambda layer: layer.var.sum()).tolist()
          [2.0, 2.0, 2.0]
        """
        return self._apply(function, args, kwargs)

    def _apply(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Apply a function of a layer; a call of the stack does not count as a call of its method `apply`."""
        axes = (*self.in_axes, *[None] * (len(args) - len(self.in_axes)))[: len(args)]
        marked = tuple([mark_static(x) if axis is None else x for x, axis in zip(args, axes, strict=True)])
        out_axes = self.out_axes if _has_carry(axes) else _without_carry(self.out_axes)
        loop = _Loop(self.n, axes, out_axes, self.remat, self.unroll, axis_names(self.transform_metadata))
        try:
            return loop.of(function, type(self.layers))(self.layers, marked, mark_static(kwargs))
        except errors.ArgumentError:
            self._check_sizes()
            raise

    def _check_sizes(self) -> None:
        """Raise an error if the stacked values are not those of all layers."""
        for path, x in iter_graph(self.layers):
            shape = np.shape(x.value) if isinstance(x, Variable) and is_jax_array(x.value) else ()
            if shape and shape[0] != self.n:
                raise errors.ArgumentError(
                    f"This Stack has {self.n} layers, but {format_path(path, 'layers')} has {shape[0]} along axis 0.",
                    _OF_ONE_SHARD if jax.sharding.get_abstract_mesh().manual_axes else _NOT_STACKED,
                ) from None

    def __len__(self) -> int:
        return self.n

    @overload
    def __getitem__(self, index: int, /) -> L: ...

    @overload
    def __getitem__(self, index: slice, /) -> list[L]: ...

    def __getitem__(self, index: int | slice, /) -> L | list[L]:
        """Return a layer, or a list of layers, whose Variables read and write their slice of the stacked values."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.n))]
        return view_layer(self.layers, self._position(index), axis_names(self.transform_metadata))

    def __setitem__(self, index: int | slice, value: Any, /) -> None:
        """Copy the values of a layer, or of a sequence of layers, into the stack."""
        if not isinstance(index, slice):
            write_layers(self.layers, {self._position(index): value}, axis_names(self.transform_metadata))
            return
        positions, layers = range(*index.indices(self.n)), list(value)
        if len(positions) != len(layers):
            raise errors.ArgumentError(
                f"Cannot assign {len(layers)} layers to {len(positions)} layers of a Stack: its length is fixed.",
                "Assign as many layers as the slice has, or make a new Stack with Stack.from_list.",
            )
        write_layers(
            self.layers, dict(zip(positions, layers, strict=True)), axis_names(self.transform_metadata)
        )

    def __iter__(self) -> Iterator[L]:
        return iter([self[i] for i in range(self.n)])

    def _position(self, index: int) -> int:
        """Return the position of a layer, not negative; raise an IndexError if there is none."""
        i = operator.index(index)
        if not -self.n <= i < self.n:
            raise errors.LayerIndexError(f"This Stack has {self.n} layers, but layer {i} was accessed.")
        return i % self.n


def _checked_count(n: Any) -> int:
    """Return the number of layers as an int; raise an error if it is not positive, or something else."""
    if callable(n):
        raise errors.ArgumentTypeError(
            "Stack got the class or function that creates a layer as its first argument.",
            "Write `Stack(n, make, rngs=rngs)`: the number of layers comes first.",
        )
    if isinstance(n, (list, tuple)):
        raise errors.ArgumentTypeError(
            f"The number of layers of a Stack must be an int, not {an(type(n))}.",
            "Write `Stack.from_list(layers)` to stack existing layers.",
        )
    count = n if isinstance(n, int) and not isinstance(n, bool) else getattr(n, "__index__", lambda: 0)()
    if isinstance(n, bool) or count < 1:
        raise errors.ArgumentError(
            f"A Stack needs at least one layer, but n is {n!r}.", "Pass a positive int, such as 12."
        )
    return count


def _has_carry(axes: Any) -> bool:
    """Return whether an axis is Carry."""
    return any(axis is Carry for axis in jax.tree.leaves(axes))


def _without_carry(axes: Any) -> Any:
    """Return axes with 0 in place of Carry."""
    return jax.tree.map(lambda axis: 0 if axis is Carry else axis, axes)


class _Loop(NamedTuple):
    """How the layers of a Stack are applied: the options that its loop depends on.

    Args:
      n: The number of layers.
      in_axes: The axis of each positional argument.
      out_axes: The axes of the output.
      remat: Whether to recompute intermediate values, or a policy.
      unroll: The number of layers in one iteration.
      transform_metadata: The name of the axis of the layers in metadata.
    """

    n: int
    in_axes: tuple[Any, ...]
    out_axes: Any
    remat: bool | Callable[..., bool]
    unroll: int | bool
    transform_metadata: Mapping[str, Any]

    def of(self, function: Callable[..., Any], cls: type) -> Callable[..., Any]:
        """Return a function of the stacked layers, the positional arguments and the keyword arguments.

        Outside of transforms the loop of a method is compiled, and kept with the class of the layers: `jax.lax.scan`
        alone would be traced and compiled in each call.
        """
        if not frames.is_plain() or getattr(cls, getattr(function, "__name__", ""), None) is not function:
            return self.transform(function)
        kept = vars(cls).get(_KEPT)
        if kept is None:
            setattr(cls, _KEPT, kept := {})
        key = (function, Static(tuple(self)))
        found = kept.get(key)
        if found is None:
            while len(kept) >= 16:
                kept.pop(next(iter(kept)), None)  # another thread may have removed it
            found = kept.setdefault(key, jit(self.transform(function)))
        return found

    def transform(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the loop as a transformed function."""

        @functools.wraps(function, updated=())
        def call_layer(layer: Any, args: Any, kwargs: Any) -> Any:
            return function(layer, *without_marks(args), **without_marks(kwargs))

        body: Callable[..., Any] = call_layer
        if self.remat:
            policy = None if self.remat is True else self.remat
            body = checkpoint(body, prevent_cse=False, policy=policy)
        return scan(
            body,
            length=self.n,
            in_axes=(0, self.in_axes, None),
            out_axes=self.out_axes,
            unroll=self.unroll,
            transform_metadata=self.transform_metadata,
        )


_OF_ONE_SHARD = (
    "Inside shard_map, each device has the layers of its own shard; apply them with `liftnn.scan(lambda x, layer: "
    "layer(x), in_axes=(liftnn.Carry, 0), out_axes=liftnn.Carry)(x, stack.layers)`."
)
_NOT_STACKED = (
    "What is put into `stack.layers` needs one value for each layer, stacked along axis 0. Put it into each layer and "
    "make a new Stack: `liftnn.Stack.from_list([change(layer) for layer in stack.to_list()])`."
)
"""What to do about stacked values of a wrong size, inside shard_map and elsewhere."""


_KEPT = "_stack_loops"
"""The attribute of a class of layers with the compiled loops of its Stacks, by method and options."""


publish(Stack)
