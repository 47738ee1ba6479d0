"""Where pickle finds what liftnn defines: public names in `liftnn`, others in `liftnn._pickled`.

`import liftnn` does not load everything: layers, loops, mapped functions, optimizers, checkpoints, summaries, and some
rarer transforms are loaded when one of their names is first used (see `liftnn/__init__.py`). Such a file publishes its
own names, whoever loads it.
"""

import types
import typing
from typing import Any

from liftnn._src.annotations import annotations_of

PICKLED = "liftnn._pickled"
"""The module in which pickle finds what is not public."""


def publish(*objects: Any, module: str = "liftnn") -> None:
    """Set where pickle looks for classes and functions of liftnn; all other objects are left as they are.

    Args:
      *objects: The objects. One that has been published keeps its module.
      module: The module that has them under their names. The default is `liftnn`, for what is public.
    """
    for x in objects:
        set_module(x, module)


def set_module(x: Any, module: str) -> None:
    """Set where pickle looks for a class, with its methods, or for a function; nothing else, and nothing of others.

    Args:
      x: The class or function.
      module: The module, which has it under its qualified name.
    """
    name = getattr(x, "__qualname__", None)
    defined_in = getattr(x, "__module__", "")
    if name is None or not defined_in.startswith("liftnn.") or defined_in in (PICKLED, __name__):
        return
    if not isinstance(x, type):
        x.__module__ = module
        return
    _resolve_annotations(x)
    x.__module__ = module
    for method in vars(x).values():
        function = method if type(method) is types.FunctionType else getattr(method, "__func__", None)
        if type(function) is types.FunctionType and function.__qualname__.startswith(
            name
        ):  # not one of others
            function.__module__ = module


def _resolve_annotations(cls: type) -> None:
    """Replace the annotations of a class, which are text, by what they name where the class is defined.

    `typing.get_type_hints` would look the names up in the published module, which lacks some and has another `Any`.
    """
    annotations = annotations_of(cls)
    if annotations:
        hints = typing.get_type_hints(cls, include_extras=True)
        cls.__annotations__ = {name: hints[name] for name in annotations}
