"""Recognize an attribute of a Variable that is set by mistake: it becomes metadata, and the value stays as it is."""

from __future__ import annotations

import difflib
from typing import Any

import jax
import numpy as np

from liftnn._src import lazy


def warn_if_mistaken(variable: Any, name: str, value: Any) -> None:
    """Warn if new metadata were probably meant as the value: by name and content, so that other metadata are silent.

    Args:
      variable: The Variable.
      name: The attribute that is set.
      value: What it is set to.
    """
    is_number = isinstance(value, (jax.Array, np.ndarray, np.generic, float, int)) and not isinstance(
        value, bool
    )
    is_misspelled = is_number and bool(
        difflib.get_close_matches(name.lower(), ("value", "raw_value"), 1, 0.75)
    )
    is_foreign = name == "requires_grad" or (is_number and name in ("data", "grad"))
    if (is_misspelled or is_foreign) and name not in variable._metadata:
        lazy.load("attribute_warnings").warn_of_metadata(variable, name, is_foreign)
