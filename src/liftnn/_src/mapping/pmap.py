"""`pmap`: a function mapped over an axis of its arguments, with one slice on each device, compiled as one program."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from liftnn import errors
from liftnn._src.compilation.jit import gives_jitted
from liftnn._src.compilation.jitted import Jitted
from liftnn._src.filters import Filter
from liftnn._src.lifting.contract import Plan, PureFunction, Purified
from liftnn._src.lifting.shown import show_as
from liftnn._src.lifting.signature import as_positions
from liftnn._src.mapping.axis_errors import check_axes
from liftnn._src.mapping.batch_keys import axis_size_of
from liftnn._src.mapping.reductions import input_axes, to_reductions
from liftnn._src.mapping.vmap import MapOptions, VmapCall
from liftnn._src.prefixes.prefix import Prefix, count_positional, leaf_prefixes
from liftnn._src.publish import publish
from liftnn._src.trees import is_tracer


@gives_jitted
def pmap(
    f: Callable[..., Any],
    /,
    axis_name: Hashable | None = None,
    *,
    in_axes: Any = 0,
    out_axes: Any = 0,
    static_broadcasted_argnums: int | Iterable[int] = (),
    devices: Sequence[Any] | None = None,
    backend: str | None = None,
    axis_size: int | None = None,
    donate_argnums: int | Iterable[int] = (),
    split_rngs: bool = True,
    reduce_writes: Mapping[Filter, Callable[..., Any]] | None = None,
    transform_metadata: Mapping[str, Any] | None = None,
) -> Jitted[..., Any]:
    """Map a function over an axis of its arguments, with one slice on each device, as `jax.pmap`.

    Arguments and outputs may contain modules. The results are those of `vmap`, but each device runs the function on one
    slice. A mapped Variable has one slice on each device; a shared Variable (None) is replicated on all devices. JAX
    recommends `shard_map`, or `jit` with shardings, for new programs; use them for several processes.

    Args:
      f: A function, a bound method or a module. The module of a bound method is argument 0; if `in_axes` is a single
        int, or a tuple without an entry for it, the module is shared by all devices.
      axis_name: The name of the mapped axis for collectives such as `jax.lax.pmean`. The default, None, means no name.
      in_axes: The axis of each argument: an int, None (shared) or, for a module, `StateAxes`; a tree prefix of the
        positional arguments. A keyword argument has the axis of its position, or axis 0 if `in_axes` has no entry for
        it. The default is 0.
      out_axes: The axes of the output: a tree prefix like `in_axes`. A module that was an argument keeps its own axes.
        The default is 0.
      static_broadcasted_argnums: Positions of static arguments. The default, `()`, means none.
      devices: The devices, of which the first `axis_size` are used. The default, None, means those of the backend.
      backend: The backend, such as `"cpu"`, if `devices` is None. The default, None, means JAX's default backend.
      axis_size: The size of the mapped axis. The default, None, infers it from the mapped arguments.
      donate_argnums: Positions of arguments to donate to the program, as in `jit`. The default, `()`,
        means none.
      split_rngs: Whether each device draws from its own keys of a shared `Rngs`. The default is True.
      reduce_writes: Reductions of the values that devices write to shared Variables, as in `vmap`. The default, None,
        means no reductions.
      transform_metadata: The name of the mapped axis in the metadata of Variables, as in `vmap`. The default, None,
        leaves metadata unchanged.

    Returns:
      The mapped and compiled function, with the methods and trace counts of `jit`.

    Raises:
      AliasingError: When called, if a Variable is passed with two different axes.
      ArgumentError: If an option names an argument that `f` does not have; when called, if `in_axes` or `out_axes` does
        not match the arguments or the output, if there are fewer devices than the axis size, or inside another `pmap`,
        a `shard_map` or `jax.set_mesh`.
      ArgumentTypeError: If `in_axes` or `out_axes` contains an object that is not an axis, or `reduce_writes` one that
        is not a function; when called, if an argument is neither an array nor a module nor static.
      SharedWriteError: When called, if devices write different values to a shared Variable.

    Example:
      >>> import jax, jax.numpy as jnp, liftnn
      >>> @liftnn.pmap(axis_name="devices", in_axes=(None, None, 0))
      ... def train(model, optimizer, x):
      ...   loss, grads = liftnn.value_and_grad(lambda model: (model(x) ** 2).mean())(model)
      ...   optimizer.update(model, jax.lax.pmean(grads, "devices"))
      ...   return loss
      >>> import optax
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> optimizer = liftnn.Optimizer(model, optax.sgd(0.1))
      >>> train(model, optimizer, jnp.ones((jax.local_device_count(), 8, 2))).shape == (jax.local_device_count(),)
      True
    """
    jax.pmap(lambda: None, devices=devices, backend=backend, axis_size=axis_size)  # checks these options
    check_axes("in_axes", in_axes)
    check_axes("out_axes", out_axes)
    options = {"axis_name": "devices of a pmap" if axis_name is None else axis_name, "axis_size": axis_size}
    map_options = MapOptions(
        out_axes, split_rngs, to_reductions(reduce_writes), transform_metadata, options, "pmap"
    )

    def wrap(plan: Plan, pure: Any, has_leading: bool) -> PureFunction:
        axes = leaf_prefixes(plan, in_axes, has_leading, 0, None)
        return PmapCall(plan, pure, axes, map_options, (devices, backend))

    static = (static_broadcasted_argnums, None, "static_broadcasted")
    of_arrays = PmapOfArrays(
        axis_name=axis_name,
        in_axes=in_axes,
        out_axes=out_axes,
        static_broadcasted_argnums=as_positions(static_broadcasted_argnums, "static_broadcasted_argnums"),
        devices=devices,
        backend=backend,
        axis_size=axis_size,
        donate_argnums=donate_argnums,
    )
    return Jitted(
        f,
        static,
        (donate_argnums, None),
        transform="pmap",
        wrap=wrap,
        of_arrays=of_arrays,
        n_positional=count_positional(in_axes),
    )


class PmapOfArrays:
    """Applies `jax.pmap` to a function of arrays.

    Args:
      **options: The options of `jax.pmap`.
    """

    def __init__(self, **options: Any):
        self._options = options
        self._is_cleared = False

    def __call__(self, f: Callable[..., Any]) -> StagedPmap:
        """Map a function."""
        mapped: Any = jax.pmap(_copy(f) if self._is_cleared else f, **self._options)
        return StagedPmap(mapped, self._options["static_broadcasted_argnums"], self._clear)

    def _clear(self) -> None:
        """Let the next function be a copy: JAX keeps its programs as long as it gets the same function."""
        self._is_cleared = True


def _copy(f: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(f, updated=())
    def call(*args: Any, **kwargs: Any) -> Any:
        return f(*args, **kwargs)

    return call


class StagedPmap:
    """The result of `jax.pmap`, which has only the method `lower`, with the other methods of `jax.jit`.

    Args:
      mapped: The result of `jax.pmap`.
      static: The positions of static arguments.
      clear_cache: Called to drop the compiled programs.
    """

    def __init__(self, mapped: Any, static: tuple[int, ...], clear_cache: Callable[[], None]):
        compiled = jax.jit(mapped, static_argnums=static)
        self._mapped = mapped
        self.trace = compiled.trace
        self.eval_shape = compiled.eval_shape
        self.clear_cache = clear_cache

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self._mapped(*args, **kwargs)

    def lower(self, *args: Any, **kwargs: Any) -> Any:
        """Lower the function; the attribute is read late, since a stand-in for `jax.pmap` may lack it."""
        return self._mapped.lower(*args, **kwargs)


class PmapCall(VmapCall):
    """A pure function mapped over an axis of its dynamic leaves, with one slice on each device.

    Args:
      plan: The arguments.
      pure: The pure function.
      axes: The axis of each leaf of the arguments.
      options: The options of the map.
      where: `devices` and `backend`.
    """

    def __init__(self, plan: Plan, pure: Purified, axes: list[Prefix], options: MapOptions, where: Any):
        super().__init__(plan, pure, axes, options)
        self._where = where

    def map(
        self, function: Callable[..., Any], leaves: list[Any], axes: list[Prefix], out_axes: Any, size: Any
    ) -> Any:
        """Map a function with `jax.shard_map`; check with `vmap` that unmapped outputs are equal on all devices."""
        if size is None:  # an argument does not have its axis; `vmap` raises the error
            return super().map(function, leaves, axes, out_axes, size)
        mesh, over = self._mesh(size), jax.P(self.options.options["axis_name"])

        def one(leaves: list[Any]) -> Any:
            groups, layout = function(_each(lambda x, _: jax.lax.squeeze(x, [0]), axes, leaves))
            return _each(lambda x, _: jax.lax.expand_dims(x, [0]), out_axes, groups), layout

        specs = [[jax.P() if axis is None else over for axis in prefixes] for prefixes in (axes, out_axes)]
        first = _each(lambda x, axis: jnp.moveaxis(x, axis, 0), axes, leaves)
        mapped = jax.shard_map(
            show_as(one, self.pure),
            mesh=mesh,
            in_specs=(specs[0],),
            out_specs=(specs[1], jax.P()),
            check_vma=False,
        )
        groups, layout = mapped(first)
        if jax.tree.leaves(groups[-1]):  # for unmapped outputs, JAX would take the value of one device
            again = functools.partial(super().map, function, axes=axes, out_axes=out_axes, size=size)
            jax.eval_shape(again, leaves)
        return _each(lambda x, axis: jnp.moveaxis(x, 0, axis), out_axes, groups), layout

    def move(self, leaves: Sequence[Any]) -> Sequence[Any]:
        """Move arrays that were put on other devices, or there in another order, to the devices of the map."""
        axes, size = input_axes(self.prefixes_of(leaves)), self.options.options["axis_size"]
        size = axis_size_of(leaves, axes) if size is None else size
        if size is None:  # an argument does not have its axis; the trace raises the error
            return leaves
        mesh = self._mesh(size)

        def move_array(x: Any, axis: int | None) -> Any:
            if not isinstance(x, jax.Array) or is_tracer(x) or not x.committed or _is_on(mesh, x):
                return x
            over = self.options.options["axis_name"]
            spec = jax.P() if axis is None else jax.P(*[None] * (axis % x.ndim), over)
            return jax.device_put(x, jax.sharding.NamedSharding(mesh, spec))

        return [
            jax.tree.map(lambda x, axis=axis: move_array(x, axis), leaf)
            for leaf, axis in zip(leaves, axes, strict=True)
        ]

    def _mesh(self, size: int) -> jax.sharding.Mesh:
        """Return a mesh with one device for each slice."""
        if not jax.sharding.get_abstract_mesh().empty:
            raise errors.ArgumentError(
                "liftnn.pmap was called where a mesh is already in use: inside a pmap, a shard_map or jax.set_mesh.",
                "Use liftnn.shard_map with an axis of that mesh, or liftnn.vmap.",
            )
        devices, backend = self._where
        devices = list(jax.devices(backend) if devices is None else devices)
        if len(devices) < size:
            raise errors.ArgumentError(
                f"liftnn.pmap needs one device for each slice: the axis size is {size}, but there are {len(devices)} "
                "devices.",
                "Map an axis of a smaller size, or use liftnn.vmap, which runs several slices on one device.",
            )
        kinds = (jax.sharding.AxisType.Auto,)
        return jax.sharding.Mesh(
            np.array(devices[:size]), (self.options.options["axis_name"],), axis_types=kinds
        )


def _is_on(mesh: jax.sharding.Mesh, x: jax.Array) -> bool:
    """Return whether an array is on the devices of a mesh, in their order."""
    return isinstance(x.sharding, jax.sharding.NamedSharding) and x.sharding.mesh == mesh


def _each(change: Callable[[Any, int], Any], axes: Sequence[Prefix], trees: Sequence[Any]) -> list[Any]:
    """Apply `change(array, axis)` to each array of each tree that has an axis."""
    return [
        x if axis is None else jax.tree.map(lambda y, axis=axis: change(y, axis), x)
        for x, axis in zip(trees, axes, strict=True)
    ]


publish(pmap)
