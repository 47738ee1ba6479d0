"""The tensors of PyTorch's layers that the Variables of liftnn's layers come from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

from liftnn._src.nn.arguments import normalize_axes
from liftnn._src.nn.attention import MultiHeadAttention
from liftnn._src.nn.batch_norm import BatchNorm
from liftnn._src.nn.bidirectional import Bidirectional
from liftnn._src.nn.cells import GRUCell, SimpleCell
from liftnn._src.nn.conv import Conv
from liftnn._src.nn.conv_transpose import ConvTranspose
from liftnn._src.nn.dropout import Dropout
from liftnn._src.nn.embed import Embed
from liftnn._src.nn.instance_norm import InstanceNorm
from liftnn._src.nn.linear import Linear
from liftnn._src.nn.linear_general import LinearGeneral
from liftnn._src.nn.lstm import LSTMCell, OptimizedLSTMCell
from liftnn._src.nn.normalization import GroupNorm, LayerNorm, RMSNorm
from liftnn._src.nn.prelu import PReLU
from liftnn._src.nn.rnn import RNN
from liftnn._src.nn.stack import Stack
from liftnn._src.nn.weight_norm import WeightNorm
from liftnn._src.variables.variable import Variable
from liftnn._src.weights.entries import name_of
from liftnn._src.weights.layer_names import Place
from liftnn._src.weights.origins import Flip, Origin, Part, Reshape, Sum, Transpose

SWAP = Transpose((1, 0))
GATES = ("i", "f", "g", "o")


def renaming(**names: str) -> Callable[[Place], Origin | None]:
    """Return the rule of a layer whose tensors differ in their names only."""

    def locate(place: Place) -> Origin | None:
        name = names.get(place.key)
        return None if name is None else Origin((place.prefix + name,))

    return locate


def linear(place: Place) -> Origin | None:
    """`weight` has the shape (out, in)."""
    if place.key == "kernel":
        return Origin((place.prefix + "weight",), (SWAP,))
    return renaming(bias="bias")(place)


def linear_general(place: Place) -> Origin | None:
    """All contracted axes, and all output axes, are one axis in PyTorch."""
    layer = place.layer
    if layer.batch_axis or place.key not in ("kernel", "bias"):
        return None
    rows, columns = math.prod(layer.in_features), math.prod(layer.out_features)
    if place.key == "bias":
        return Origin((place.prefix + "bias",), (Reshape((columns,), place.shape),))
    return Origin((place.prefix + "weight",), (SWAP, Reshape((rows, columns), place.shape)))


def conv(place: Place) -> Origin | None:
    """`weight` has the shape (out, in / groups, *space)."""
    if place.key == "kernel":
        space = range(2, len(place.shape))
        return Origin((place.prefix + "weight",), (Transpose((*space, 1, 0)),))
    return renaming(bias="bias")(place)


def conv_transpose(place: Place) -> Origin | None:
    """`weight` has the shape (in, out, *space), and is that of the convolution whose transpose the layer is."""
    if place.key == "kernel":
        space = range(2, len(place.shape))
        if place.layer.transpose_kernel:
            return Origin((place.prefix + "weight",), (Transpose((*space, 1, 0)),))
        steps = (Transpose((*space, 0, 1)), Flip(tuple(range(len(space)))))
        return Origin((place.prefix + "weight",), steps)
    return renaming(bias="bias")(place)


def prelu(place: Place) -> Origin | None:
    """`weight` has the shape (1,)."""
    if place.key != "negative_slope":
        return None
    return Origin((place.prefix + "weight",), (Reshape((1,), place.shape),))


def projection(place: Place, names: Mapping[str, str]) -> Origin | None:
    """Return the origin of a weight of a projection of an attention layer, which is a Linear elsewhere.

    Args:
      place: The weight in the attention layer.
      names: The names of the projections elsewhere, by their names here.

    Returns:
      The origin; None for other weights.
    """
    name, _, key = place.key.partition(".")
    if name not in names:
        return None
    prefix = f"{place.prefix}{names[name]}."
    return linear_general(
        dataclasses.replace(place, layer=getattr(place.layer, name), prefix=prefix, key=key)
    )


def attention(place: Place) -> Origin | None:
    """The projections of query, key and value are one tensor if their inputs have the same size."""
    origin = projection(place, {"query": "q", "key": "k", "value": "v", "out": "out_proj"})
    name, _, kind = place.key.partition(".")
    if origin is None or name == "out":
        return origin
    part = Part(("query", "key", "value").index(name), 3)
    if kind == "bias":
        return dataclasses.replace(origin, names=(place.prefix + "in_proj_bias",), part=part)
    if place.layer.in_features == place.layer.in_kv_features:
        return dataclasses.replace(origin, names=(place.prefix + "in_proj_weight",), part=part)
    return dataclasses.replace(origin, names=(f"{place.prefix}{name[0]}_proj_weight",))


def recurrent(place: Place) -> Callable[[str], str]:
    """Return the names of a cell's tensors in PyTorch, given their names in a PyTorch cell.

    A cell in an `RNN` is a layer of PyTorch's `LSTM`, `GRU` or `RNN`. The layers of one are a list, a Sequential or a
    Stack of `RNN` or `Bidirectional` here, perhaps with Dropout in between.
    """
    parents, names = [x for x, _ in place.parents], place.prefix.removesuffix(".").split(".")
    if not parents or not isinstance(parents[-1], RNN):
        return lambda name: place.prefix + name
    parents.pop()
    names.pop()  # `cell`
    suffix, number = "", 0
    if parents and isinstance(parents[-1], Bidirectional):
        parents.pop()
        suffix = "_reverse" if names.pop() == "backward_rnn" else ""
    above = parents[-1] if parents else None
    if isinstance(above, Stack):
        number = int(names.pop())
    elif isinstance(above, Sequence) and all(isinstance(x, (*_RECURRENT, Dropout)) for x in above):
        number = sum(isinstance(x, _RECURRENT) for x in list(above)[: int(names.pop())])
    prefix = "".join(f"{name}." for name in names)
    return lambda name: f"{prefix}{name}_l{number}{suffix}"


_RECURRENT = (RNN, Bidirectional)


def lstm(place: Place) -> Origin | None:
    """One product for all gates, in PyTorch's order."""
    name = recurrent(place)
    if place.key == "dense_h.bias":
        return Origin((name("bias_ih"), name("bias_hh")), combine=Sum())
    return dense(place, name)


def dense(place: Place, name: Callable[[str], str]) -> Origin | None:
    """Return the origin of a kernel of a cell with one product for all gates."""
    weights = {"dense_i.kernel": "weight_ih", "dense_h.kernel": "weight_hh"}
    return Origin((name(weights[place.key]),), (SWAP,)) if place.key in weights else None


def gate(place: Place) -> tuple[str, Part] | None:
    """Return the side, `i` or `h`, and the part of a weight of a cell with a product for each gate."""
    layer, _, kind = place.key.partition(".")
    side, gate = layer[:1], layer[1:2]
    if side not in ("i", "h") or gate not in GATES or kind not in ("kernel", "bias"):
        return None
    return side, Part(GATES.index(gate), len(GATES))


def separate_lstm(place: Place) -> Origin | None:
    """A product for each gate."""
    found, name = gate(place), recurrent(place)
    if found is None:
        return None
    side, part = found
    if place.key.endswith("bias"):
        return Origin((name("bias_ih"), name("bias_hh")), part=part, combine=Sum())
    return Origin((name(f"weight_{side}h"),), (SWAP,), part)


def gru(place: Place) -> Origin | None:
    """One product for all gates, in PyTorch's order; PyTorch has a bias inside of the reset gate too."""
    name, cell = recurrent(place), place.layer
    if place.key == "dense_h.bias":
        return Origin((name("bias_hh"),))
    if place.key == "dense_i.bias" and cell.dense_h.bias is not None:
        return Origin((name("bias_ih"),))
    if place.key == "dense_i.bias":
        return Origin((name("bias_ih"), name("bias_hh")), combine=Sum(cell.hidden_features))
    return dense(place, name)


def simple(place: Place) -> Origin | None:
    """An Elman network."""
    name = recurrent(place)
    if place.key == "dense_i.bias":
        return Origin((name("bias_ih"), name("bias_hh")), combine=Sum())
    return dense(place, name)


SCALE, DIRECTION = "parametrizations.weight.original0", "parametrizations.weight.original1"
OLD_NAMES = {SCALE: "weight_g", DIRECTION: "weight_v"}
"""The tensors of PyTorch's `parametrizations.weight_norm`, and their names in the older `utils.weight_norm`."""


def weight_norm(place: Place) -> Origin | None:
    """The scale has one entry for each feature; its other axes have size 1."""
    norm, layer = place.layer, place.layer.layer_instance
    locate = next((TORCH[cls] for cls in type(layer).__mro__ if cls in TORCH), None)
    if locate is None:
        return None
    inner = dataclasses.replace(place, layer=layer, key=place.key.removeprefix("layer_instance."))
    for path, scale in (norm.scales or {}).items():
        is_scale = place.key == name_of(("scales", path))
        if not is_scale and place.key != f"layer_instance.{name_of(path)}":
            continue
        shape = place.shape
        if is_scale:  # without the axes of each Stack
            shape = dict(norm._selected(Variable))[path].shape[scale.ndim - len(shape) :]
        weight = locate(dataclasses.replace(inner, key=name_of(path), shape=shape))
        if weight is None or weight.names != (place.prefix + "weight",):
            return None
        if not is_scale:
            return dataclasses.replace(weight, names=(place.prefix + DIRECTION,))
        features = normalize_axes(len(shape), norm.feature_axes)
        sizes = tuple(n if axis in features else 1 for axis, n in enumerate(shape))
        steps = (*weight.steps, Reshape(sizes, place.shape)) if features else ()
        return Origin((place.prefix + SCALE,), steps)
    return locate(inner) if inner.key != place.key else None


AFFINE = renaming(scale="weight", bias="bias")
TORCH = {
    Linear: linear,
    LinearGeneral: linear_general,
    Conv: conv,
    ConvTranspose: conv_transpose,
    BatchNorm: renaming(scale="weight", bias="bias", mean="running_mean", var="running_var"),
    LayerNorm: AFFINE,
    RMSNorm: AFFINE,
    GroupNorm: AFFINE,
    InstanceNorm: AFFINE,
    Embed: renaming(embedding="weight"),
    PReLU: prelu,
    MultiHeadAttention: attention,
    LSTMCell: separate_lstm,
    OptimizedLSTMCell: lstm,
    GRUCell: gru,
    SimpleCell: simple,
    WeightNorm: weight_norm,
}
"""What is known of each class of layer. A part of a layer, such as a Linear of a cell, is known by the layer."""
