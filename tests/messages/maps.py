"""Errors of maps and of random streams: reductions, metadata of mapped axes, split streams."""

from __future__ import annotations

import jax.numpy as jnp

import liftnn
from liftnn import errors
from tests.messages.registry import message
from tests.transforms.modules import Holder

# --- vmap


@message(
    errors.ArgumentTypeError,
    "`reduce_writes` has 'mean', which is no function.",
    "Give a function of an array and `axis`, such as jnp.mean.",
)
def reduction_that_is_text():
    liftnn.vmap(lambda x: x, reduce_writes={liftnn.BatchStat: "mean"})


@message(
    errors.ArgumentError,
    "`transform_metadata` calls the mapped axis 'layers', but axis 0 of args[0].w (a Param) is called 'in' in its "
    "metadata 'sharding': ('in', 'out').",
    "Correct one of the two.",
)
def mapped_axis_of_another_name():
    model = Holder(w=liftnn.Param(jnp.ones((2, 2)), sharding=("in", "out")))
    liftnn.vmap(lambda m: m.w.sum(), transform_metadata={liftnn.PARTITION_NAME: "layers"})(model)


# --- split_rngs


@message(errors.ArgumentError, "`splits` must be an int or a tuple of ints, not 2.0.", "Correct it.")
def splits_that_are_no_shape():
    liftnn.split_rngs(splits=2.0)


@message(errors.ArgumentError, "squeeze=True needs splits=1, not 2.", "Leave one of them out.")
def squeeze_of_two():
    liftnn.split_rngs(liftnn.Rngs(0), splits=2, squeeze=True)


@message(errors.FilterError, "No random stream matches WithTag(tag='dropuot').", "Correct `only`.")
def split_of_a_stream_that_is_not_there():
    liftnn.split_rngs(liftnn.Rngs(0, dropout=1), splits=2, only="dropuot")
