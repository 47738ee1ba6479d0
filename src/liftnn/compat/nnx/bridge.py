"""The bridge to Linen, which liftnn does not have: its names raise when they are used."""

from typing import Any

from liftnn._src.compat.unsupported import REASONS, Unsupported


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return Unsupported(f"bridge.{name}", *REASONS["bridge"])
