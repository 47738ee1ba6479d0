"""The first objects of a program may be made under a transform of JAX: it traces as often as without liftnn."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAMS = {
    "a layer of liftnn's": """
from liftnn import Linear

make = lambda: Linear(2, 2, rngs=liftnn.Rngs(0))
""",
    "a program for Flax": """
from liftnn.compat import nnx

make = lambda: nnx.Linear(2, 2, rngs=nnx.Rngs(0))
""",
    "a layer of the user's": """
class Layer(liftnn.Module):
    def __init__(self):
        self.w = liftnn.Param(jnp.ones(2))

    def __call__(self, x):
        return x * self.w

make = Layer
""",
}
REST = """
n = []

def setup(key):
    n.append(1)
    return jax.tree.leaves(make())

key = jax.random.key(0)
jax.eval_shape(setup, key)
jax.jit(setup)(key)
print(len(n))
"""


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_jax_has_traced_is_not_traced_again(name):
    program = f"import jax, jax.numpy as jnp, liftnn\n{PROGRAMS[name]}\n{REST}"
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "1"
