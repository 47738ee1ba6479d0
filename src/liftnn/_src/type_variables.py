"""Type variables with defaults, for type checkers; at run time Python supports them from 3.13 on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import jax

if TYPE_CHECKING:
    import typing_extensions

    T = typing_extensions.TypeVar("T", default=jax.Array)
    Tree = typing_extensions.TypeVar("Tree", default=Any)
    P = typing_extensions.ParamSpec("P", default=...)
    R = typing_extensions.TypeVar("R", default=Any)
    Out = typing_extensions.TypeVar("Out", default=Any, covariant=True)
    Aux = typing_extensions.TypeVar("Aux", default=Any)
else:
    T = TypeVar("T")
    Tree = TypeVar("Tree")
    P = ParamSpec("P")
    R = TypeVar("R")
    Out = TypeVar("Out", covariant=True)
    Aux = TypeVar("Aux")
