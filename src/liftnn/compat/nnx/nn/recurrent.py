"""Recurrent layers, as `flax.nnx.nn.recurrent`."""

from liftnn._src.compat.modules import Module
from liftnn._src.compat.recurrent import flip_sequences
from liftnn._src.nn.bidirectional import Bidirectional
from liftnn._src.nn.cells import GRUCell, RNNCellBase, SimpleCell
from liftnn._src.nn.linear import Linear, default_bias_init, default_kernel_init
from liftnn._src.nn.lstm import LSTMCell, OptimizedLSTMCell
from liftnn._src.nn.orthogonal import orthogonal_then_cast as modified_orthogonal
from liftnn._src.nn.rnn import RNN

__all__ = [
    "RNN",
    "Bidirectional",
    "GRUCell",
    "LSTMCell",
    "Linear",
    "Module",
    "OptimizedLSTMCell",
    "RNNCellBase",
    "SimpleCell",
    "default_bias_init",
    "default_kernel_init",
    "flip_sequences",
    "modified_orthogonal",
]
