"""Tables of models, as `flax.nnx.summary`."""

from liftnn._src.compat.call_records import CallInfo
from liftnn._src.compat.tabulate import filter_rng_streams, tabulate

__all__ = [
    "CallInfo",
    "filter_rng_streams",
    "tabulate",
]
