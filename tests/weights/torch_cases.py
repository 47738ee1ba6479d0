"""Networks of PyTorch, each with the same network of liftnn's layers, for `recorded.npz` and for PyTorch itself.

Nothing here imports PyTorch: a case gets `torch.nn` as an argument.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

import liftnn


@dataclasses.dataclass(frozen=True)
class Case:
    """One network in both libraries.

    Args:
      theirs: Makes the PyTorch module from `torch.nn`.
      ours: Makes liftnn's module from an `Rngs`.
      shapes: The shapes of the inputs, in PyTorch's layout.
      channels_last: Whether liftnn has the axis 1 of inputs and output as the last.
      call: Calls liftnn's module; PyTorch's is called with the same inputs.
      most: The number of different integers if the inputs are integers.
    """

    theirs: Callable[[Any], Any]
    ours: Callable[[liftnn.Rngs], Any]
    shapes: tuple[tuple[int, ...], ...]
    channels_last: bool = False
    call: Callable[..., Any] = lambda module, *inputs: module(*inputs)
    most: int = 0

    def make_ours(self, seed: int = 0) -> Any:
        """Return liftnn's module, in the mode of evaluation."""
        module = self.ours(liftnn.Rngs(seed))
        for _, x in liftnn.iter_modules(module):
            if isinstance(x, liftnn.BatchNorm):
                x.eval()
        return module

    def inputs(self, seed: int = 0) -> list[np.ndarray]:
        """Return inputs in PyTorch's layout."""
        random = np.random.default_rng(seed)
        if self.most:
            return [random.integers(0, self.most, shape) for shape in self.shapes]
        return [random.normal(size=shape).astype(np.float32) for shape in self.shapes]

    def run_ours(self, module: Any, *inputs: np.ndarray) -> np.ndarray:
        """Return the output of liftnn's module for inputs in PyTorch's layout, in PyTorch's layout."""
        if not self.channels_last:
            return np.asarray(self.call(module, *map(jnp.asarray, inputs)))
        output = self.call(module, *(jnp.moveaxis(jnp.asarray(x), 1, -1) for x in inputs))
        return np.asarray(jnp.moveaxis(output, -1, 1))


def images(theirs: Any, ours: Any, *space: int, features: int = 4) -> Case:
    """A case with one input with channels."""
    return Case(theirs, ours, ((2, features, *space),), channels_last=True)


def vectors(theirs: Any, ours: Any, *shape: int) -> Case:
    """A case with one input whose last axis has the features."""
    return Case(theirs, ours, (shape or (5, 4),))


def chain(module: Any, x: Any) -> Any:
    """Call the elements of a list one after the other."""
    return functools.reduce(lambda x, layer: layer(x), module, x)


class Chain(liftnn.Module):
    """Layers in an attribute `layers`."""

    def __init__(self, layers: Any):
        self.layers = layers

    def __call__(self, x: Any) -> Any:
        return chain(self.layers, x) if isinstance(self.layers, list) else self.layers(x)


def chain_class(nn: Any) -> Any:
    """Return the class of PyTorch that is like `Chain`."""

    class TorchChain(nn.Module):
        def __init__(self, layers):
            super().__init__()
            self.layers = nn.ModuleList(layers) if isinstance(layers, list) else layers

        def forward(self, x):
            return chain(self.layers, x) if isinstance(self.layers, nn.ModuleList) else self.layers(x)

    return TorchChain


def called(module: Any, pick: Callable[[Any], Any] = lambda output: output[0]) -> Any:
    """Return a PyTorch module that is called as usual, but returns its first output only."""
    module.register_forward_hook(lambda module, inputs, output: pick(output))
    return module


def weight_norm(nn: Any) -> Callable[..., Any]:
    """Return PyTorch's function that normalizes the weight of a layer."""
    return nn.utils.parametrizations.weight_norm


def attention(embed: int, heads: int, **options: Any) -> Callable[[Any], Any]:
    """Return what makes an attention layer of PyTorch that returns no weights."""
    return lambda nn: called(nn.MultiheadAttention(embed, heads, batch_first=True, **options))


def recurrent(name: str, *sizes: int, **options: Any) -> Callable[[Any], Any]:
    """Return what makes a recurrent layer of PyTorch that returns its outputs only."""
    return lambda nn: called(getattr(nn, name)(*sizes, batch_first=True, **options))


def rnn(cell: Any, *sizes: int, **options: Any) -> Callable[[liftnn.Rngs], Any]:
    """Return what makes a recurrent layer of liftnn."""
    return lambda rngs: liftnn.RNN(cell(*sizes, rngs=rngs, **options))


def deep(cell: Any, *inputs: int, **options: Any) -> Callable[[liftnn.Rngs], Any]:
    """Return what makes several recurrent layers with 4 features, given the number of inputs of each."""
    return lambda rngs: liftnn.Sequential(*(rnn(cell, n, 4, **options)(rngs) for n in inputs))


def both_ways(cell: Any, *inputs: int, **options: Any) -> Callable[[liftnn.Rngs], Any]:
    """Return what makes several layers in both directions."""
    return lambda rngs: liftnn.Sequential(
        *(
            liftnn.Bidirectional(rnn(cell, n, 4, **options)(rngs), rnn(cell, n, 4, **options)(rngs))
            for n in inputs
        )
    )


def one_step(module: Any, x: Any) -> Any:
    """Call a cell with its first carry and return the output."""
    return module(module.initialize_carry(x.shape, liftnn.Rngs(0)), x)[1]


SEQUENCE = (2, 6, 3)
HIDDEN_BIAS: dict[str, Any] = {"use_hidden_bias": True}
LSTM, GRU = liftnn.OptimizedLSTMCell, liftnn.GRUCell

LAYERS = {
    "Linear": vectors(lambda nn: nn.Linear(4, 3), lambda rngs: liftnn.Linear(4, 3, rngs=rngs)),
    "Linear without bias": vectors(
        lambda nn: nn.Linear(4, 3, bias=False), lambda rngs: liftnn.Linear(4, 3, use_bias=False, rngs=rngs)
    ),
    "LinearGeneral": vectors(
        lambda nn: nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.Unflatten(1, (4, 2))),
        lambda rngs: liftnn.Sequential(
            liftnn.identity, liftnn.LinearGeneral((3, 2), (4, 2), axis=(-2, -1), rngs=rngs), liftnn.identity
        ),
        5, 3, 2,
    ),
    "Conv1d": images(
        lambda nn: nn.Conv1d(4, 6, 3, stride=2, padding=1),
        lambda rngs: liftnn.Conv(4, 6, 3, strides=2, padding=1, rngs=rngs),
        9,
    ),
    "Conv2d": images(
        lambda nn: nn.Conv2d(4, 6, (3, 2), padding=(1, 0), dilation=(2, 1)),
        lambda rngs: liftnn.Conv(4, 6, (3, 2), padding=(1, 0), kernel_dilation=(2, 1), rngs=rngs),
        7, 6,
    ),
    "Conv2d in groups": images(
        lambda nn: nn.Conv2d(4, 6, 3, groups=2, bias=False),
        lambda rngs: liftnn.Conv(
            4, 6, (3, 3), padding=0, feature_group_count=2, use_bias=False, rngs=rngs
        ),
        5, 5,
    ),
    "Conv3d": images(
        lambda nn: nn.Conv3d(4, 2, (2, 1, 3)), lambda rngs: liftnn.Conv(4, 2, (2, 1, 3), padding=0, rngs=rngs),
        3, 2, 4,
    ),
    "ConvTranspose1d": images(
        lambda nn: nn.ConvTranspose1d(4, 3, 5, stride=2, padding=1),
        lambda rngs: liftnn.ConvTranspose(4, 3, 5, strides=2, padding=5 - 1 - 1, rngs=rngs),
        6,
    ),
    "ConvTranspose2d": images(
        lambda nn: nn.ConvTranspose2d(4, 3, (3, 2), stride=2, output_padding=1, dilation=(2, 1)),
        lambda rngs: liftnn.ConvTranspose(
            4, 3, (3, 2), strides=2, padding=((4, 5), (1, 2)), kernel_dilation=(2, 1), rngs=rngs
        ),
        3, 4,
    ),
    "ConvTranspose2d as the transpose of a Conv": images(
        lambda nn: nn.ConvTranspose2d(4, 3, (3, 2), stride=2),
        lambda rngs: liftnn.ConvTranspose(
            4, 3, (3, 2), strides=2, padding="VALID", transpose_kernel=True, rngs=rngs
        ),
        3, 4,
    ),
    "BatchNorm1d": vectors(lambda nn: nn.BatchNorm1d(4), lambda rngs: liftnn.BatchNorm(4, rngs=rngs)),
    "BatchNorm2d": images(lambda nn: nn.BatchNorm2d(4), lambda rngs: liftnn.BatchNorm(4, rngs=rngs), 3, 2),
    "BatchNorm2d without weights": images(
        lambda nn: nn.BatchNorm2d(4, eps=1e-3, affine=False),
        lambda rngs: liftnn.BatchNorm(4, epsilon=1e-3, use_bias=False, use_scale=False, rngs=rngs),
        3, 2,
    ),
    "LayerNorm": vectors(
        lambda nn: nn.LayerNorm(4), lambda rngs: liftnn.LayerNorm(4, epsilon=1e-5, rngs=rngs)
    ),
    "RMSNorm": vectors(
        lambda nn: nn.RMSNorm(4, eps=1e-6), lambda rngs: liftnn.RMSNorm(4, epsilon=1e-6, rngs=rngs)
    ),
    "GroupNorm": images(
        lambda nn: nn.GroupNorm(2, 4),
        lambda rngs: liftnn.GroupNorm(4, num_groups=2, epsilon=1e-5, rngs=rngs),
        3, 2,
    ),
    "InstanceNorm2d": images(
        lambda nn: nn.InstanceNorm2d(4, affine=True),
        lambda rngs: liftnn.InstanceNorm(4, epsilon=1e-5, rngs=rngs),
        3, 2,
    ),
    "Embedding": Case(
        lambda nn: nn.Embedding(7, 3), lambda rngs: liftnn.Embed(7, 3, rngs=rngs), ((2, 5),), most=7
    ),
    "weight_norm of Linear": vectors(
        lambda nn: weight_norm(nn)(nn.Linear(4, 3)),
        lambda rngs: liftnn.WeightNorm(liftnn.Linear(4, 3, rngs=rngs), rngs=rngs),
    ),
    "weight_norm of Conv2d in groups": images(
        lambda nn: weight_norm(nn)(nn.Conv2d(4, 6, (3, 2), groups=2)),
        lambda rngs: liftnn.WeightNorm(
            liftnn.Conv(4, 6, (3, 2), padding=0, feature_group_count=2, rngs=rngs), rngs=rngs
        ),
        5, 5,
    ),
    "weight_norm of Conv1d along the positions": images(
        lambda nn: weight_norm(nn)(nn.Conv1d(4, 6, 3), dim=2),
        lambda rngs: liftnn.WeightNorm(
            liftnn.Conv(4, 6, (3,), padding=0, rngs=rngs), feature_axes=0, rngs=rngs
        ),
        5,
    ),
    "weight_norm of ConvTranspose1d": images(
        lambda nn: weight_norm(nn)(nn.ConvTranspose1d(4, 6, 3)),
        lambda rngs: liftnn.WeightNorm(
            liftnn.ConvTranspose(4, 6, (3,), padding=2, rngs=rngs), feature_axes=-2, rngs=rngs
        ),
        5,
    ),
    "weight_norm with one norm": vectors(
        lambda nn: weight_norm(nn)(nn.Linear(4, 3), dim=None),
        lambda rngs: liftnn.WeightNorm(liftnn.Linear(4, 3, rngs=rngs), feature_axes=None, rngs=rngs),
    ),
    "PReLU": vectors(lambda nn: nn.PReLU(), lambda rngs: liftnn.PReLU()),
    "MultiheadAttention": Case(
        attention(8, 2), lambda rngs: liftnn.MultiHeadAttention(2, 8, rngs=rngs), ((2, 5, 8),) * 3
    ),
    "MultiheadAttention without bias": Case(
        attention(8, 4, bias=False),
        lambda rngs: liftnn.MultiHeadAttention(4, 8, use_bias=False, rngs=rngs),
        ((2, 5, 8), (2, 3, 8), (2, 3, 8)),
    ),
    "MultiheadAttention with kdim and vdim": Case(
        attention(8, 2, kdim=6, vdim=6),
        lambda rngs: liftnn.MultiHeadAttention(2, 8, in_kv_features=6, rngs=rngs),
        ((2, 5, 8), (2, 3, 6), (2, 3, 6)),
    ),
}  # fmt: skip
"""Layers whose tensors can be converted in both directions bit for bit."""

RECURRENT = {
    "GRU with a bias of the hidden state": vectors(
        recurrent("GRU", 3, 4), rnn(GRU, 3, 4, **HIDDEN_BIAS), *SEQUENCE
    ),
    "GRU of two layers in both directions": vectors(
        recurrent("GRU", 3, 4, 2, bidirectional=True), both_ways(GRU, 3, 8, **HIDDEN_BIAS), *SEQUENCE
    ),
    "GRUCell": Case(
        lambda nn: nn.GRUCell(3, 4),
        lambda rngs: GRU(3, 4, rngs=rngs, **HIDDEN_BIAS),
        ((2, 3),),
        call=one_step,
    ),
}
"""Recurrent layers whose tensors can be converted in both directions bit for bit."""

SUMS = {
    "LSTM": vectors(recurrent("LSTM", 3, 4), rnn(LSTM, 3, 4), *SEQUENCE),
    "LSTM with a product for each gate": vectors(
        recurrent("LSTM", 3, 4), rnn(liftnn.LSTMCell, 3, 4), *SEQUENCE
    ),
    "LSTM of three layers": vectors(recurrent("LSTM", 3, 4, 3), deep(LSTM, 3, 4, 4), *SEQUENCE),
    "LSTM of two layers in both directions": vectors(
        recurrent("LSTM", 3, 4, 2, bidirectional=True), both_ways(LSTM, 3, 8), *SEQUENCE
    ),
    "LSTMCell": Case(
        lambda nn: called(nn.LSTMCell(3, 4)), lambda rngs: LSTM(3, 4, rngs=rngs), ((2, 3),), call=one_step
    ),
    "RNN": vectors(recurrent("RNN", 3, 4), rnn(liftnn.SimpleCell, 3, 4), *SEQUENCE),
    "RNN with relu": vectors(
        recurrent("RNN", 3, 4, nonlinearity="relu"),
        rnn(liftnn.SimpleCell, 3, 4, activation_fn=liftnn.relu),
        *SEQUENCE,
    ),
    "RNNCell": Case(
        lambda nn: nn.RNNCell(3, 4),
        lambda rngs: liftnn.SimpleCell(3, 4, rngs=rngs),
        ((2, 3),),
        call=one_step,
    ),
}
"""Recurrent layers with two biases in PyTorch that are added, and with one in liftnn."""

NETWORKS = {
    "Sequential in a Sequential": images(
        lambda nn: nn.Sequential(
            nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU()), nn.Conv2d(6, 2, 1)
        ),
        lambda rngs: liftnn.Sequential(
            liftnn.Sequential(
                liftnn.Conv(4, 6, (3, 3), padding=0, rngs=rngs), liftnn.BatchNorm(6, rngs=rngs), liftnn.relu
            ),
            liftnn.Conv(6, 2, (1, 1), rngs=rngs),
        ),
        5, 5,
    ),
    "ModuleList of twelve": vectors(
        lambda nn: chain_class(nn)([nn.Linear(4, 4) for _ in range(12)]),
        lambda rngs: Chain([liftnn.Linear(4, 4, rngs=rngs) for _ in range(12)]),
    ),
    "ModuleList as a Stack": vectors(
        lambda nn: chain_class(nn)(
            [nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Tanh()) for _ in range(12)]
        ),
        lambda rngs: Chain(
            liftnn.Stack(
                12,
                lambda rngs: liftnn.Sequential(
                    liftnn.Linear(4, 4, rngs=rngs), liftnn.LayerNorm(4, epsilon=1e-5, rngs=rngs), liftnn.tanh
                ),
                rngs=rngs,
            )
        ),
    ),
    "LSTM as a Stack": vectors(
        recurrent("LSTM", 4, 4, 3),
        lambda rngs: liftnn.Stack(3, lambda rngs: rnn(LSTM, 4, 4)(rngs), rngs=rngs),
        2, 6, 4,
    ),
    "LSTM of two layers with dropout": vectors(
        recurrent("LSTM", 3, 4, 2, dropout=0.5),
        lambda rngs: liftnn.Sequential(
            rnn(LSTM, 3, 4)(rngs), liftnn.Dropout(0.5, deterministic=True, rngs=rngs), rnn(LSTM, 4, 4)(rngs)
        ),
        2, 6, 3,
    ),
    "Sequential of LSTMs in an attribute `layers`": vectors(
        lambda nn: chain_class(nn)(recurrent("LSTM", 3, 4, 2)(nn)),
        lambda rngs: Chain(deep(LSTM, 3, 4)(rngs)),
        2, 6, 3,
    ),
    "Sequential of a Linear and an LSTM": vectors(
        lambda nn: nn.Sequential(nn.Linear(5, 3), recurrent("LSTM", 3, 4)(nn), nn.Linear(4, 2)),
        lambda rngs: liftnn.Sequential(
            liftnn.Linear(5, 3, rngs=rngs), rnn(LSTM, 3, 4)(rngs), liftnn.Linear(4, 2, rngs=rngs)
        ),
        2, 6, 5,
    ),
}  # fmt: skip
"""Networks of several layers."""

CASES = LAYERS | RECURRENT | SUMS | NETWORKS
