"""The array attributes of a Variable, declared for type checkers; at run time its value provides them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

ArrayMethod = Callable[..., jax.Array]


class ArrayAttributes:
    """Array attributes that type checkers know. Other names of a Variable may be metadata."""

    __slots__ = ()

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    ndim: int
    size: int
    itemsize: int
    nbytes: int
    T: jax.Array
    mT: jax.Array  # noqa: N815  # the name that arrays use
    real: jax.Array
    imag: jax.Array
    weak_type: bool
    committed: bool
    is_fully_addressable: bool
    is_fully_replicated: bool
    sharding: Any
    device: Any
    addressable_shards: Sequence[Any]
    global_shards: Sequence[Any]

    addressable_data: ArrayMethod
    all: ArrayMethod
    any: ArrayMethod
    argmax: ArrayMethod
    argmin: ArrayMethod
    argpartition: ArrayMethod
    argsort: ArrayMethod
    astype: ArrayMethod
    block_until_ready: ArrayMethod
    byteswap: ArrayMethod
    choose: ArrayMethod
    clip: ArrayMethod
    compress: ArrayMethod
    conj: ArrayMethod
    conjugate: ArrayMethod
    cumprod: ArrayMethod
    cumsum: ArrayMethod
    diagonal: ArrayMethod
    dot: ArrayMethod
    flatten: ArrayMethod
    max: ArrayMethod
    mean: ArrayMethod
    min: ArrayMethod
    prod: ArrayMethod
    ptp: ArrayMethod
    ravel: ArrayMethod
    repeat: ArrayMethod
    reshape: ArrayMethod
    round: ArrayMethod
    searchsorted: ArrayMethod
    sort: ArrayMethod
    squeeze: ArrayMethod
    std: ArrayMethod
    sum: ArrayMethod
    swapaxes: ArrayMethod
    take: ArrayMethod
    to_device: ArrayMethod
    trace: ArrayMethod
    transpose: ArrayMethod
    var: ArrayMethod
    view: ArrayMethod

    copy_to_host_async: Callable[[], None]
    delete: Callable[[], None]
    devices: Callable[[], set[Any]]
    is_deleted: Callable[[], bool]
    item: Callable[..., Any]
    nonzero: Callable[..., tuple[jax.Array, ...]]
    tobytes: Callable[..., bytes]
    tolist: Callable[[], Any]
