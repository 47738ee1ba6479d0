"""The bridge to Linen, as `flax.nnx.bridge`; what Flax has for Linen-like modules of its own raises when it is used."""

import importlib as _importlib
from typing import TYPE_CHECKING, Any

from liftnn import errors as _errors
from liftnn._src.compat.unsupported import Unsupported as _Unsupported
from liftnn.compat.nnx.nn import initializers

if TYPE_CHECKING:
    from liftnn._src.compat.linen.boxes import NNXMeta, with_partitioning
    from liftnn._src.compat.linen.functional import Functional, functional
    from liftnn._src.compat.linen.to_linen import ToLinen, to_linen
    from liftnn._src.compat.linen.to_module import ToNNX, lazy_init

__all__ = [
    "Functional",
    "NNXMeta",
    "ToLinen",
    "ToNNX",
    "functional",
    "initializers",
    "lazy_init",
    "to_linen",
    "with_partitioning",
]

_FILES = {
    "Functional": "functional",
    "NNXMeta": "boxes",
    "ToLinen": "to_linen",
    "ToNNX": "to_module",
    "functional": "functional",
    "lazy_init": "to_module",
    "to_linen": "to_linen",
    "with_partitioning": "boxes",
}
"""Where a name is, in `liftnn._src.compat.linen`: these files import Flax."""
_REASON = "it is for modules in the style of Linen, which Flax has for experiments"
_REMEDY = "Write a module, and put Linen modules into it with nnx.bridge.ToNNX."


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in _FILES:
        return _Unsupported(f"bridge.{name}", _REASON, _REMEDY)
    try:
        found = getattr(_importlib.import_module(f"liftnn._src.compat.linen.{_FILES[name]}"), name)
    except ModuleNotFoundError as error:
        raise _errors.MissingPackageError(
            f"nnx.bridge.{name} wraps modules of Flax Linen, and the package flax is not installed.",
            "Run `pip install flax`.",
        ) from error
    globals()[name] = found
    return found
