"""Run the text of a program with `nnx` bound to Flax NNX or to liftnn.compat.nnx, and compare what it computes."""

from __future__ import annotations

import textwrap
import warnings

import flax.nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from liftnn.compat import nnx

LIBRARIES = {"flax": flax.nnx, "liftnn": nnx}


def run(text, library):
    """Execute a program, and return its globals.

    Args:
      text: The program; the names `nnx`, `jax`, `jnp`, `np` and `optax` are bound.
      library: A key of `LIBRARIES`.

    Returns:
      The globals.
    """
    names = {
        "nnx": LIBRARIES[library],
        "jax": jax,
        "jnp": jnp,
        "np": np,
        "optax": optax,
        "__name__": "program",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Flax deprecates what its users still write
        exec(compile(textwrap.dedent(text), f"<{library}>", "exec", dont_inherit=True), names)
    return names


def to_plain(x):
    """Return a result as plain nested containers of numpy arrays and static values, for comparison."""
    if isinstance(x, (flax.nnx.Variable, nnx.Variable)):
        return to_plain(x.get_raw_value() if isinstance(x, flax.nnx.Variable) else x.raw_value)
    if isinstance(x, (flax.nnx.State, nnx.State, dict)):
        return {key: to_plain(value) for key, value in sorted(x.items(), key=lambda item: str(item[0]))}
    if isinstance(x, (list, tuple)):
        return [to_plain(value) for value in x]
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    return np.asarray(x) if isinstance(x, (jax.Array, np.ndarray)) else x


def find_difference(a, b, path=()):
    """Return where two plain results differ first, with both; None if they are equal bit for bit."""
    if type(a) is not type(b):
        return path, type(a), type(b)
    if isinstance(a, np.ndarray):
        same = a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        return None if same else (path, a, b)
    if isinstance(a, dict):
        if list(a) != list(b):
            return path, list(a), list(b)
        return next(filter(None, (find_difference(a[key], b[key], (*path, key)) for key in a)), None)
    if isinstance(a, list):
        if len(a) != len(b):
            return path, len(a), len(b)
        pairs = enumerate(zip(a, b, strict=True))
        return next(filter(None, (find_difference(x, y, (*path, i)) for i, (x, y) in pairs)), None)
    return None if a == b else (path, a, b)


def assert_equal_in_both(text):
    """Run a program under both libraries: `result`, a tree of arrays and static values, must be equal bit for bit."""
    expected = to_plain(run(text, "flax")["result"])
    actual = to_plain(run(text, "liftnn")["result"])
    difference = find_difference(expected, actual)
    assert difference is None, difference


def run_file(path, library):
    """Execute a program in a file, which imports Flax NNX, and return what its `main` returns.

    Args:
      path: The file.
      library: A key of `LIBRARIES`; for liftnn the import is replaced.

    Returns:
      The result.
    """
    text = path.read_text()
    line = "from flax import nnx"
    assert text.count(line) == 1
    text = text.replace(line, {"flax": line, "liftnn": "from liftnn.compat import nnx"}[library])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return run(text, library)["main"]()
