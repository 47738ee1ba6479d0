"""Abstract methods: a module class with one cannot be instantiated, as if it derived from `abc.ABC`."""

from __future__ import annotations


def mark_abstract(cls: type) -> None:
    """Let a class with abstract methods raise TypeError when it is instantiated.

    `abc.ABCMeta` does the same for classes below `nnx.Module`; liftnn's own classes, such as layers, do not have it.

    Args:
      cls: The class, which has just been created.
    """
    inherited = {name for base in cls.__mro__[1:] for name in vars(base).get("__abstractmethods__", ())}
    names = {
        name
        for name in {*inherited, *vars(cls)}
        if getattr(getattr(cls, name, None), "__isabstractmethod__", False) is True
    }
    if names:
        type.__setattr__(cls, "__abstractmethods__", frozenset(names))
