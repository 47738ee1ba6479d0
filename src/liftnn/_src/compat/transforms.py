"""The transforms with the arguments and defaults of Flax NNX."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from liftnn import errors
from liftnn._src.autodiff import grad as own_grad, remat as own_remat
from liftnn._src.compat.flat_state import sort_states
from liftnn._src.compat.keywords import take_by_name
from liftnn._src.compat.modes import accept_modes
from liftnn._src.compat.tree_gradients import gives_trees
from liftnn._src.compilation import checkify as own_checkify, jaxpr, jit as own_jit
from liftnn._src.control_flow import branches, loops
from liftnn._src.control_flow.loop_axes import Carry
from liftnn._src.control_flow.scan import scan as own_scan
from liftnn._src.mapping.pmap import pmap as own_pmap
from liftnn._src.mapping.shard_map import shard_map as own_shard_map
from liftnn._src.mapping.vmap import vmap as own_vmap
from liftnn._src.prefixes.prefix import prefix_leaves

F = TypeVar("F", bound=Callable[..., Any])


def _share_keys(transform: F) -> F:
    """Let all batch elements draw the same numbers from a stream without an axis: the default of Flax NNX."""

    @functools.wraps(transform)
    def call(*args: Any, split_rngs: Any = False, **options: Any) -> Any:
        return transform(*args, split_rngs=split_rngs, **options)

    return call  # pyright: ignore[reportReturnType]  # the same signature


def _check_carry(scan: F) -> F:
    """Raise an error for a carry without its counterpart when a function is wrapped, as Flax NNX does."""

    @functools.wraps(scan)
    def call(*args: Any, in_axes: Any = (Carry, 0), out_axes: Any = (Carry, 0), **options: Any) -> Any:
        marked = {
            name: any(x is Carry for x in prefix_leaves(axes))
            for name, axes in {"in_axes": in_axes, "out_axes": out_axes}.items()
        }
        if len({*marked.values()}) > 1:
            only = next(name for name, has in marked.items() if has)
            raise errors.ArgumentError(
                "If one of in_axes or out_axes has Carry, the other must also have Carry; here it is only in "
                f"`{only}`.",
                "Mark with Carry what a step takes from the step before in `in_axes`, and what it passes on in "
                "`out_axes`.",
            )
        return scan(*args, in_axes=in_axes, out_axes=out_axes, **options)

    return call  # pyright: ignore[reportReturnType]  # the same signature


def _ignore_split_transpose(scan: F) -> F:
    """Take `_split_transpose`, which changes how JAX computes a derivative of a scan, and not its value."""

    @functools.wraps(scan)
    def call(*args: Any, _split_transpose: bool = False, **options: Any) -> Any:
        return scan(*args, **options)

    return call  # pyright: ignore[reportReturnType]  # the same signature


def _sort_gradients(derivative: F) -> F:
    """Let `grad` or `value_and_grad` return States that are sorted, as `nnx.state` does."""

    @functools.wraps(derivative)
    def call(f: Any, /, *args: Any, **options: Any) -> Any:
        lifted = derivative(f, *args, **options)
        finish: Any = lifted._options.finish
        lifted._options = lifted._options._replace(finish=lambda out, grads: finish(out, sort_states(grads)))
        return lifted

    return call  # pyright: ignore[reportReturnType]  # the same signature


checkify = accept_modes(take_by_name(own_checkify.checkify, "f"))
cond = accept_modes(branches.cond)
fori_loop = accept_modes(loops.fori_loop)
grad = take_by_name(gives_trees(_sort_gradients(own_grad.grad)), "f")
jit = accept_modes(take_by_name(own_jit.jit, "fun"))
make_jaxpr = accept_modes(take_by_name(jaxpr.make_jaxpr, "f"))
pmap = accept_modes(take_by_name(_share_keys(own_pmap), "f"))
remat = accept_modes(take_by_name(own_remat.remat, "f"))
scan = accept_modes(take_by_name(_ignore_split_transpose(_check_carry(own_scan)), "f"))
shard_map = accept_modes(take_by_name(_share_keys(own_shard_map), "f"))
switch = accept_modes(branches.switch)
value_and_grad = take_by_name(gives_trees(_sort_gradients(own_grad.value_and_grad)), "f")
vmap = accept_modes(take_by_name(_share_keys(own_vmap), "f"))
while_loop = accept_modes(loops.while_loop)
