"""Which Python modules are of libraries, in which no search for captured modules has to go on."""

from __future__ import annotations

import functools
import pathlib
import sys
import types
from typing import Any

from liftnn._src.static_values.static import is_foreign
from liftnn._src.trees import module_of

_INSTALLED = frozenset(["site-packages", "dist-packages"])
"""Folders into which packages are installed."""


@functools.lru_cache(maxsize=4096)
def is_library(name: str | None) -> bool:
    """Whether a Python module is of a library that knows nothing of liftnn.

    It is foreign, or of a package that has been installed and in which nothing refers to liftnn. What such a library
    refers to could take a search through the whole program.

    Args:
      name: The dotted name of the Python module; None counts as a library.

    Returns:
      Whether it is of a library.
    """
    if name is None or is_foreign(name):
        return True
    package = name.partition(".")[0]
    return _is_installed(package) and not _refers_to_liftnn(package, len(sys.modules))


@functools.cache
def _is_installed(package: str) -> bool:
    """Whether the files of a package lie where packages are installed."""
    module = sys.modules.get(package)
    files = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return any(type(f) is str and not _INSTALLED.isdisjoint(pathlib.PurePath(f).parts) for f in files)


@functools.lru_cache(maxsize=1024)
def _refers_to_liftnn(package: str, n_modules: int) -> bool:
    """Whether a module of a package, as far as they are loaded, has liftnn or something of liftnn's among its globals.

    Args:
      package: The name of the package.
      n_modules: How many Python modules are loaded; others may have been added since the last answer.
    """
    own = [m for n, m in list(sys.modules.items()) if n == package or n.startswith(f"{package}.")]
    return any(_is_of_liftnn(x) for module in own for x in list(getattr(module, "__dict__", {}).values()))


def _is_of_liftnn(x: Any) -> bool:
    """Whether an object is of liftnn, or of a class that is or has a base of liftnn's."""
    cls = type(x)
    if cls is types.ModuleType:
        names = [x.__name__]
    elif cls is types.FunctionType:
        names = [x.__module__]
    else:
        names = map(module_of, type.__getattribute__(x if issubclass(cls, type) else cls, "__mro__"))
    return any(type(name) is str and name.partition(".")[0] == "liftnn" for name in names)
