"""The static part of a registered pytree captures modules: a module itself, and functions that refer to one.

The oracle is the plain call.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest

import liftnn
from tests.captures.captures import both, k


@functools.partial(jax.tree_util.register_dataclass, data_fields=["x"], meta_fields=["part"])
@dataclasses.dataclass(eq=False)
class Batch:
    x: object
    part: object


KINDS = {
    "module": (lambda m: m, lambda part: part.k + part.v.value),
    "in a tuple": (lambda m: (m, 1), lambda part: part[0].k + part[0].v.value),
    "function": (lambda m: lambda: both(m), lambda part: part()),
    "function of the static attribute": (lambda m: lambda: m.k, lambda part: part()),
    "in a dict": (lambda m: Keywords(f=lambda: m.k), lambda part: part["f"]()),
}


class Keywords(dict):
    __hash__ = object.__hash__


def places(kind):
    """Yields functions of an object with such a static part, and the arguments of the calls."""
    make, read = KINDS[kind]
    yield lambda batch: batch.x * read(batch.part), lambda m: Batch(jnp.float32(2.0), make(m))
    yield (
        lambda batches: batches["a"][0].x * read(batches["a"][0].part),
        lambda m: {"a": [Batch(jnp.float32(2.0), make(m))]},
    )
    yield (
        lambda holder: holder.batch.x * read(holder.batch.part),
        lambda m: hold(Batch(jnp.float32(2.0), make(m))),
    )


def hold(batch):
    holder = k(1)
    holder.batch = batch
    return holder


@pytest.mark.filterwarnings("ignore::liftnn.RetraceWarning", "ignore::liftnn.StructureWarning")
@pytest.mark.parametrize("place", range(3), ids=["argument", "in containers", "attribute"])
@pytest.mark.parametrize("kind", KINDS)
def test_changes_of_a_module_in_the_static_part_of_a_pytree_are_seen(kind, place):
    f, argument_of = list(places(kind))[place]
    call = liftnn.jit(f)
    first, second = k(2), k(3)
    arguments = [argument_of(first), argument_of(second)]
    for m, number in [(first, 2), (first, 5), (second, 3), (second, 7), (first, 5), (first, 4)]:
        m.k = number
        argument = arguments[m is second]
        for _ in range(2):
            assert float(call(argument)) == float(f(argument))
            m.v.value += 1


def test_a_function_in_the_static_part_writes_to_what_it_captures():
    m = k(2)

    def add():
        m.v.value += 1
        return m.v.value

    batch = Batch(jnp.float32(2.0), add)
    call = liftnn.jit(lambda batch: liftnn.grad(lambda batch: batch.x * batch.part())(batch).x)
    for n in range(1, 4):
        assert float(call(batch)) == float(m.v.value) == 2 + n


def test_a_function_that_captures_a_module_takes_the_place_of_one_that_does_not():
    m = k(2)
    call = liftnn.jit(lambda batch: batch.x * batch.part())
    plain, capturing = Batch(jnp.float32(2.0), lambda: 3), Batch(jnp.float32(2.0), lambda: m.k)
    assert float(call(plain)) == 6
    for number in (2, 5):
        m.k = number
        assert float(call(capturing)) == 2 * number
        assert float(call(plain)) == 6
