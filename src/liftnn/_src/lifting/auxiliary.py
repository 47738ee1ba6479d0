"""The auxiliary output of functions with `has_aux=True`, which JAX's transforms pass on as it is."""

from __future__ import annotations

from typing import Any

import jax

from liftnn import errors
from liftnn._src.trees import an, is_array

_PYTHON_NUMBERS = (bool, int, float, complex)


def is_auxiliary_number(path: Any, leaf: Any) -> bool:
    """Return whether a leaf of an output pair is a Python number in its second element: it stays one, as in JAX.

    Args:
      path: The path of the leaf as a JAX key path.
      leaf: The leaf.
    """
    return type(leaf) in _PYTHON_NUMBERS and path[0] == jax.tree_util.SequenceKey(1)


def check_pair(out: Any) -> Any:
    """Return the output as a plain tuple, as JAX does; raise ArgumentTypeError if it is not a tuple or list of two."""
    if not isinstance(out, (tuple, list)) or len(out) != 2:
        raise errors.ArgumentTypeError(
            f"With has_aux=True the function must return a pair (output, auxiliary), not {in_words(out)}.",
            "Return a tuple `(output, auxiliary)`, or leave has_aux out.",
        )
    return tuple(out)


def in_words(out: Any) -> str:
    """Describe an output in a message about a missing tuple."""
    if isinstance(out, (tuple, list)):
        return f"a {'tuple' if isinstance(out, tuple) else 'list'} of {len(out)}"
    return "an array" if is_array(out) else f"{an(type(out))}"
