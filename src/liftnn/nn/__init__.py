"""What layers are made of, by module: `initializers` and `dtypes`. The layers themselves are in `liftnn`."""

import importlib
import sys
from typing import TYPE_CHECKING

from liftnn import initializers
from liftnn._src.nn import dtypes

__all__ = ["dtypes", "initializers"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name.startswith("_"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        explain = importlib.import_module("liftnn._src.foreign_names.explain")
        try:
            raise explain.unknown_name(name, sys.modules["liftnn"].__all__, sys._getframe(1), __name__)
        except Exception as error:
            error.__traceback__ = None  # it ends in the user's line
            raise
