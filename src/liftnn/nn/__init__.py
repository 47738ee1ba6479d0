"""What layers are made of, by module: `initializers` and `dtypes`. The layers themselves are in `liftnn`."""

from liftnn import initializers
from liftnn._src.nn import dtypes

__all__ = ["dtypes", "initializers"]
