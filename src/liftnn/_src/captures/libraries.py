"""Recognition of libraries that do not use liftnn, which the search for captured modules skips."""

from __future__ import annotations

import functools
import pathlib
import sys
import types
from typing import Any

from liftnn._src.static_values.static import is_foreign
from liftnn._src.trees import module_of

HOLDER_LIBRARIES = ("types", "collections", "weakref", "argparse", "_thread")
"""Python modules with classes that hold user objects in attributes of any name; all attributes of their instances are
followed, and of instances of subclasses."""
_INSTALLED = frozenset(["site-packages", "dist-packages"])
"""Folders into which packages are installed."""


@functools.lru_cache(maxsize=4096)
def is_library(name: str | None) -> bool:
    """Return whether a Python module belongs to a library that does not use liftnn.

    This is true of foreign modules and of installed packages in which no global refers to liftnn. The search skips
    them, because their references may lead through the whole program.

    Args:
      name: The dotted name of the Python module; None counts as a library.

    Returns:
      Whether it belongs to such a library.
    """
    if name is None or is_foreign(name):
        return True
    package = name.partition(".")[0]
    return _is_installed(package) and not _refers_to_liftnn(package, len(sys.modules))


@functools.cache
def _is_installed(package: str) -> bool:
    """Return whether the files of a package are in a folder for installed packages."""
    module = sys.modules.get(package)
    files = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return any(type(f) is str and not _INSTALLED.isdisjoint(pathlib.PurePath(f).parts) for f in files)


@functools.lru_cache(maxsize=1024)
def _refers_to_liftnn(package: str, n_modules: int) -> bool:
    """Return whether a loaded module of a package has liftnn, or an object of liftnn, among its globals.

    Args:
      package: The name of the package.
      n_modules: The number of loaded Python modules: part of the cache key, since later imports may change the answer.
    """
    modules = [m for n, m in list(sys.modules.items()) if n == package or n.startswith(f"{package}.")]
    return any(_is_of_liftnn(x) for module in modules for x in list(getattr(module, "__dict__", {}).values()))


def _is_of_liftnn(x: Any) -> bool:
    """Return whether an object belongs to liftnn, or its class is or inherits from a class of liftnn."""
    cls = type(x)
    if cls is types.ModuleType:
        names = [x.__name__]
    elif cls is types.FunctionType:
        names = [x.__module__]
    else:
        names = map(module_of, type.__getattribute__(x if issubclass(cls, type) else cls, "__mro__"))
    return any(type(name) is str and name.partition(".")[0] == "liftnn" for name in names)
