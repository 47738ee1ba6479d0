"""The transforms with the arguments and defaults of Flax NNX."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from liftnn._src.autodiff import grad as own_grad, remat as own_remat
from liftnn._src.compat.modes import accept_modes
from liftnn._src.compilation import checkify as own_checkify, jaxpr, jit as own_jit, shape
from liftnn._src.control_flow import branches, loops, scan as own_scan
from liftnn._src.mapping import pmap as own_pmap, shard_map as own_shard_map, vmap as own_vmap

F = TypeVar("F", bound=Callable[..., Any])


def _share_keys(transform: F) -> F:
    """Let all batch elements draw the same numbers from a stream without an axis: the default of Flax NNX."""

    @functools.wraps(transform)
    def call(*args: Any, split_rngs: Any = False, **options: Any) -> Any:
        return transform(*args, split_rngs=split_rngs, **options)

    return call  # pyright: ignore[reportReturnType]  # the same signature


checkify = accept_modes(own_checkify.checkify)
cond = accept_modes(branches.cond)
eval_shape = accept_modes(shape.eval_shape)
fori_loop = accept_modes(loops.fori_loop)
grad = accept_modes(own_grad.grad)
jit = accept_modes(own_jit.jit)
make_jaxpr = accept_modes(jaxpr.make_jaxpr)
pmap = accept_modes(_share_keys(own_pmap.pmap))
remat = accept_modes(own_remat.remat)
scan = accept_modes(own_scan.scan)
shard_map = accept_modes(_share_keys(own_shard_map.shard_map))
switch = accept_modes(branches.switch)
value_and_grad = accept_modes(own_grad.value_and_grad)
vmap = accept_modes(_share_keys(own_vmap.vmap))
while_loop = accept_modes(loops.while_loop)
