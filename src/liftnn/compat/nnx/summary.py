"""Tables of models, as `flax.nnx.summary`."""

from liftnn._src.compat.tabulate import filter_rng_streams, tabulate
from liftnn._src.summary.calls import CallInfo

__all__ = [
    "CallInfo",
    "filter_rng_streams",
    "tabulate",
]
