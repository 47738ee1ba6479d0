"""The table of foreign names: where a name is used, whose name it is, and what to write in liftnn.

A row begins with `where: names (libraries)`; its indented lines are the remedy, where `{word}` stands for a sentence of
`sentences.py`.

`tests/foreign_names/test_table.py` runs the code of every remedy.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

from liftnn._src.foreign_names.arguments import FOREIGN_ARGUMENTS
from liftnn._src.foreign_names.equinox import EQUINOX_NAMES, FILTERED
from liftnn._src.foreign_names.flax import FLAX_NAMES
from liftnn._src.foreign_names.haiku import HAIKU_NAMES
from liftnn._src.foreign_names.jax import JAX_NAMES
from liftnn._src.foreign_names.keras import KERAS_NAMES
from liftnn._src.foreign_names.objects import FOREIGN_ATTRIBUTES
from liftnn._src.foreign_names.pytorch import ACTIVATIONS, OPTIMIZERS, PYTORCH_NAMES
from liftnn._src.foreign_names.sentences import SENTENCES

_TABLES = (
    PYTORCH_NAMES,
    KERAS_NAMES,
    FLAX_NAMES,
    HAIKU_NAMES,
    EQUINOX_NAMES,
    JAX_NAMES,
    FOREIGN_ATTRIBUTES,
    FOREIGN_ARGUMENTS,
)


class ForeignName(NamedTuple):
    """One or several names with the same remedy.

    Args:
      where: What the names are looked up in: `liftnn`, or a class. For the name of an argument: the parameter that
        liftnn has for it, or `*` for any layer. `call` is for functions that were called with other arguments.
      names: The names.
      library: Whose names they are.
      remedy: What to write in liftnn: sentences with code in backticks.
    """

    where: str
    names: tuple[str, ...]
    library: str
    remedy: str


@functools.cache
def rows() -> tuple[ForeignName, ...]:
    """Return all rows. For an argument, the first one applies whose parameter the function has."""
    found: list[ForeignName] = []
    for entry in re.split(r"\n(?=\S)", "".join(_TABLES).strip()):
        head, _, text = entry.partition("\n")
        where, names, library = _ROW_HEAD.fullmatch(head).groups()  # pyright: ignore[reportOptionalMemberAccess]
        remedy = " ".join(text.split()).format_map(SENTENCES)
        found.append(ForeignName(where, tuple(names.split()), library, remedy))
    for name, function in ACTIVATIONS.items():
        text = f"Activations are functions; a Sequential takes them too: `liftnn.{function}(x)`."
        found.append(ForeignName("liftnn", (name,), "PyTorch and Keras", text))
    for name, function in OPTIMIZERS.items():
        text = f"Pass a transformation of optax: `liftnn.Optimizer(model, optax.{function}(1e-3))`."
        found.append(ForeignName("liftnn", (name,), "PyTorch and Keras", text))
    for name in FILTERED:
        text = f"The transforms take modules as arguments: `liftnn.{name}`."
        found.append(ForeignName("liftnn", (f"filter_{name}",), "Equinox", text))
    return tuple(found)


_ROW_HEAD = re.compile(r"(\S+): (.+) \((.+)\)")


@functools.cache
def by_name() -> dict[tuple[str, str], ForeignName]:
    """Return the rows by what a name is looked up in, and name."""
    return {(row.where, name): row for row in reversed(rows()) for name in row.names}
