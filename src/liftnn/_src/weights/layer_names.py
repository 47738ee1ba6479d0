"""The tensors of a Variable by the type of its layer, for modules whose names agree with those of another library.

A table has a function for each class of layer. It gets what is needed to say where a Variable of the layer comes from,
and returns its `Origin`; a Variable that no table knows has the tensor of its own name. A layer in a `Stack` is looked
up once for each position, and its Variables are stacked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from liftnn._src.modules.iterate import iter_graph
from liftnn._src.modules.verbs import find_shared
from liftnn._src.nn.attention import MultiHeadAttention
from liftnn._src.nn.cells import RNNCellBase
from liftnn._src.nn.sequential import Sequential
from liftnn._src.nn.stack import Stack
from liftnn._src.nn.weight_norm import WeightNorm
from liftnn._src.trees import Path
from liftnn._src.weights.entries import Entry, Spec, name_of
from liftnn._src.weights.origins import Origin, StackedOrigin


@dataclasses.dataclass(frozen=True)
class Place:
    """A Variable in its layer.

    Args:
      layer: The layer.
      prefix: The name of the layer in the other library, with a dot at the end; empty for the root.
      key: The path from the layer to the Variable, as a name.
      shape: The shape of the Variable in one layer.
      parents: The modules and containers above the layer, with their names, the outermost first.
    """

    layer: Any
    prefix: str
    key: str
    shape: tuple[int, ...]
    parents: tuple[tuple[Any, Path], ...]


WHOLES = (MultiHeadAttention, RNNCellBase, WeightNorm)
"""Layers that are one layer in other libraries too, though their parts are layers here: they are asked first."""
LayerTable = Mapping[type, Callable[[Place], Origin | None]]


class LayerNames:
    """Says where the Variables of a module come from, by the types of its layers.

    Args:
      module: The module.
      table: A function for each class of layer; the innermost layer with an answer counts.
      shorten: Whether the `layers` of a Sequential are left out of names, as PyTorch does.
    """

    def __init__(self, module: Any, table: LayerTable, shorten: bool):
        self._objects = dict(iter_graph(module))
        self._first = {other: first for first, others in find_shared(module).items() for other in others}
        self._table = table
        self._shorten = shorten

    def __call__(self, entry: Entry) -> Origin | StackedOrigin:
        """Return where an entry comes from."""
        return self._locate(entry.path, entry.spec)

    def _object(self, path: Path) -> Any:
        """Return what is at a path, which may go through other paths of shared objects."""
        while path not in self._objects:
            depth = next((d for d in range(len(path), 0, -1) if path[:d] in self._first), 0)
            if not depth:
                return None
            path = (*self._first[path[:depth]], *path[depth:])
        return self._objects[path]

    def _locate(self, path: Path, spec: Spec, known: Mapping[Path, int] = {}) -> Origin | StackedOrigin:
        """Return where a Variable comes from, with the position of the layer in each Stack that is known."""
        above = [(self._object(path[:depth]), path[:depth]) for depth in range(len(path))]
        for x, stack in above:
            if isinstance(x, Stack) and path[len(stack)] == "layers" and stack not in known:
                one = Spec(spec.shape[1:], spec.dtype)
                layers = (self._locate(path, one, {**known, stack: i}) for i in range(len(x)))
                return StackedOrigin(tuple(layers))
        order = sorted(range(len(above)), key=lambda d: (not isinstance(above[d][0], WHOLES), -d))
        for depth in order:
            layer, at = above[depth]
            place = Place(
                layer, self.prefix(at, known), name_of(path[depth:]), spec.shape, tuple(above[:depth])
            )
            for cls in type(layer).__mro__:
                found = self._table[cls](place) if cls in self._table else None
                if found is not None:
                    return found
        return Origin((self._name(path, known),))

    def prefix(self, path: Path, known: Mapping[Path, int] = {}) -> str:
        """Return the name of a layer in the other library, with a dot at the end; empty for the root."""
        name = self._name(path, known)
        return f"{name}." if name else ""

    def _name(self, path: Path, known: Mapping[Path, int]) -> str:
        """Return the name of a path in the other library."""
        keys: list[Any] = []
        for depth, key in enumerate(path):
            holder = self._object(path[:depth])
            if isinstance(holder, Stack) and key == "layers" and path[:depth] in known:
                keys.append(known[path[:depth]])
            elif not (self._shorten and isinstance(holder, Sequential) and key == "layers"):
                keys.append(key)
        return name_of(tuple(keys))
