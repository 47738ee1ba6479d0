"""What layers are made of, by module: `initializers` and `dtypes`. The layers themselves are in `liftnn`."""

import sys
from typing import TYPE_CHECKING

from liftnn import errors, initializers
from liftnn._src.nn import dtypes

__all__ = ["dtypes", "initializers"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name in sys.modules["liftnn"].__all__:
            try:
                raise errors.AttributeNameError(
                    f"module {__name__!r} has no attribute {name!r}.", f"Write `liftnn.{name}`."
                )
            except Exception as error:
                error.__traceback__ = None  # it ends in the user's line
                raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
