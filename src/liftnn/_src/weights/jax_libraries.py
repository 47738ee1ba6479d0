"""Weights from Flax NNX, whose layers have the same paths, and from Equinox, by the types of liftnn's layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from liftnn import errors
from liftnn._src.filters import Filter
from liftnn._src.modules.iterate import iter_graph
from liftnn._src.nn.attention import MultiHeadAttention
from liftnn._src.nn.batch_norm import BatchNorm
from liftnn._src.nn.cells import GRUCell
from liftnn._src.nn.conv import Conv
from liftnn._src.nn.conv_transpose import ConvTranspose
from liftnn._src.nn.embed import Embed
from liftnn._src.nn.linear import Linear
from liftnn._src.nn.lstm import LSTMCell, OptimizedLSTMCell
from liftnn._src.nn.normalization import GroupNorm, LayerNorm, RMSNorm
from liftnn._src.nn.prelu import PReLU
from liftnn._src.trees import ARRAY_TYPES, Path, an, key_of
from liftnn._src.variables.nested import flatten_nested
from liftnn._src.weights import torch_layers
from liftnn._src.weights.entries import name_of
from liftnn._src.weights.fill import ArraySource, Options
from liftnn._src.weights.layer_names import LayerNames, Place
from liftnn._src.weights.load import by_name
from liftnn._src.weights.origins import Flip, Origin, Reshape, Transpose
from liftnn._src.weights.report import LoadReport
from liftnn._src.weights.rule import Renaming, Rule
from liftnn._src.weights.torch import NO_WEIGHTS, fill_weights, find_weights

_NO_WEIGHTS = {"RngState", "Cache", "Intermediate", "OptState", "MetricState"}
"""The names of Flax's types of Variables that are not weights."""


def read_flax(
    module: Any,
    state: Mapping[Any, Any],
    rules: Sequence[Rule | Renaming] | None,
    only: Filter,
    options: Options,
) -> LoadReport:
    """Fill a module with the State of a Flax module; see `liftnn.from_flax`."""
    if not isinstance(state, Mapping):
        raise errors.ArgumentTypeError(
            f"from_flax takes a State or nested dicts of arrays, not {an(type(state))}.",
            "Pass `flax.nnx.state(flax_module)`.",
        )
    entries = find_weights("from_flax", module, only)
    paths = {path for entry in entries for path in (entry.path, *entry.aliases)}
    arrays = {
        name_of(path if path in paths else _with_numbers(path)): _value(x)
        for path, x in flatten_nested(state)
        if _NO_WEIGHTS.isdisjoint(cls.__name__ for cls in type(x).__mro__)
    }
    skipped = {name_of(path) for path, x in iter_graph(module) if isinstance(x, NO_WEIGHTS)}
    source = ArraySource("The State", arrays)
    return fill_weights(source, entries, rules, by_name, options, skipped.__contains__)


def _value(x: Any) -> Any:
    """Return the array of a Variable of Flax."""
    return x if isinstance(x, ARRAY_TYPES) or not hasattr(x, "get_value") else x.get_value()


def _with_numbers(path: Path) -> Path:
    """Return a path with numbers in place of texts of numbers."""
    return tuple(int(key) if isinstance(key, str) and key.isdecimal() else key for key in path)


def read_equinox(
    module: Any, tree: Any, rules: Sequence[Rule | Renaming] | None, only: Filter, options: Options
) -> LoadReport:
    """Fill a module with the arrays of an Equinox module; see `liftnn.from_equinox`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    arrays = {
        name_of(tuple(key_of(key) for key in path)): x for path, x in leaves if isinstance(x, ARRAY_TYPES)
    }
    entries, names = find_weights("from_equinox", module, only), LayerNames(module, EQUINOX, shorten=False)
    source = ArraySource("The Equinox module", arrays)
    return fill_weights(source, entries, rules, names, options, lambda name: False)


@dataclasses.dataclass(frozen=True)
class PadStart:
    """Put zeros before the tensor.

    Args:
      count: The number of zeros.
    """

    count: int

    def read(self, x: Any) -> Any:
        """Return the padded array."""
        return np.concatenate([np.zeros((self.count, *x.shape[1:]), x.dtype), x])

    def write(self, x: Any) -> Any:
        """Return the array without its start."""
        return x[self.count :]


def _conv(place: Place) -> Origin | None:
    """`weight` is as in PyTorch, and `bias` has an axis of size 1 for each spatial dimension."""
    if place.key != "bias":
        return torch_layers.conv(place)
    shape = (*place.shape, *(1 for _ in place.layer.kernel_size))
    return Origin((place.prefix + "bias",), (Reshape(shape, place.shape),))


def _conv_transpose(place: Place) -> Origin | None:
    """`weight` has the shape (out, in, *space) and is not flipped."""
    if place.key != "kernel":
        return _conv(place)
    space = range(2, len(place.shape))
    if not place.layer.transpose_kernel:
        return Origin((place.prefix + "weight",), (Transpose((*space, 1, 0)),))
    steps = (Transpose((*space, 0, 1)), Flip(tuple(range(len(space)))))
    return Origin((place.prefix + "weight",), steps)


def _attention(place: Place) -> Origin | None:
    """Each projection is a Linear."""
    return torch_layers.projection(place, _PROJECTIONS)


_PROJECTIONS = {"query": "query_proj", "key": "key_proj", "value": "value_proj", "out": "output_proj"}


def _lstm(place: Place) -> Origin | None:
    """The gates are in the same order, and there is one bias."""
    return _cell(place, "dense_h.bias")


def _separate_lstm(place: Place) -> Origin | None:
    """A product for each gate."""
    found = torch_layers.gate(place)
    if found is None:
        return None
    side, part = found
    if place.key.endswith("bias"):
        return Origin((place.prefix + "bias",), part=part)
    return Origin((f"{place.prefix}weight_{side}h",), (torch_layers.SWAP,), part)


def _gru(place: Place) -> Origin | None:
    """The gates are in the same order; `bias_n` is inside of the reset gate."""
    if place.key == "dense_h.bias":
        return Origin((place.prefix + "bias_n",), (PadStart(2 * place.layer.hidden_features),))
    return _cell(place, "dense_i.bias")


def _cell(place: Place, bias: str) -> Origin | None:
    """Return the origin of a Variable of a cell with one product for all gates."""
    if place.key == bias:
        return Origin((place.prefix + "bias",))
    return torch_layers.dense(place, lambda name: place.prefix + name)


EQUINOX = {
    Linear: torch_layers.linear,
    Conv: _conv,
    ConvTranspose: _conv_transpose,
    BatchNorm: torch_layers.AFFINE,
    LayerNorm: torch_layers.AFFINE,
    RMSNorm: torch_layers.AFFINE,
    GroupNorm: torch_layers.AFFINE,
    Embed: torch_layers.renaming(embedding="weight"),
    PReLU: torch_layers.renaming(negative_slope="negative_slope"),
    MultiHeadAttention: _attention,
    LSTMCell: _separate_lstm,
    OptimizedLSTMCell: _lstm,
    GRUCell: _gru,
}
"""What is known of each class of layer of `equinox.nn`."""
