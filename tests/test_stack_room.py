"""What a trace calls finds room on Python's stack, however deep the trace starts."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import liftnn

resource = pytest.importorskip("resource", reason="page faults are counted on Unix only")

CALLS = 200
DEPTHS = 300
"""Several chunks of frames."""


def small() -> None:
    """A function that is called at each depth."""


small.__code__ = small.__code__.replace(
    co_stacksize=200
)  # so that at some depth it does not fit into the chunk


def count_page_faults(depth: int) -> int:
    """The pages of memory that calls take, `depth` functions deeper: one for each call that gets a chunk of its own."""
    if depth:
        return count_page_faults(depth - 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(CALLS):
        small()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def most_page_faults() -> int:
    """The most pages that the calls take at any depth; the first round takes pages that the second has."""
    return max(min(count_page_faults(depth) for _ in range(2)) for depth in range(DEPTHS))


TRANSFORMS: dict[str, Callable[[Callable[..., Any], Any], Any]] = {
    "jit": lambda f, model: liftnn.jit(f)(model, jnp.ones(2)),
    "jit of arrays": lambda f, model: liftnn.jit(lambda x: f(None, x))(jnp.ones(2)),
    "eval_shape": lambda f, model: liftnn.eval_shape(f, model, jnp.ones(2)),
    "make_jaxpr": lambda f, model: liftnn.make_jaxpr(f)(model, jnp.ones(2)),
    "scan": lambda f, model: liftnn.scan(lambda c, x: (c, f(c, x)))(model, jnp.ones((3, 2))),
    "scan of arrays": lambda f, model: liftnn.scan(lambda c, x: (c + f(None, x), x))(0.0, jnp.ones((3, 2))),
    "fori_loop": lambda f, model: liftnn.fori_loop(0, 3, lambda i, x: x + f(model, x * jnp.ones(2)), 0.0),
    "remat": lambda f, model: liftnn.remat(f)(model, jnp.ones(2)),
    "checkify": lambda f, model: liftnn.checkify(f)(model, jnp.ones(2)),
    "grad in jit": lambda f, model: liftnn.jit(liftnn.grad(f))(model, jnp.ones(2)),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_calls_of_a_traced_function_take_no_memory_at_any_depth(transform: str) -> None:
    if most_page_faults() < CALLS:
        pytest.skip("this Python keeps the memory of its stack")
    found: list[int] = []

    def f(model: Any, x: jax.Array) -> jax.Array:
        found.append(most_page_faults())
        return jnp.sum(x) if model is None else jnp.sum(model(x))

    TRANSFORMS[transform](f, liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)))
    assert found
    assert max(found) < CALLS // 4
