"""The names in code: which globals, attributes and Python modules it may use."""

from __future__ import annotations

import dis
import functools
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

from liftnn._src.captures.libraries import is_library
from liftnn._src.trees import module_of

ALL_ATTRIBUTES = ("vars", "__dict__")
"""Names in code that reads all attributes of an object."""


class Names(NamedTuple):
    """The names in a code object, and in those inside it.

    Args:
      loaded: The globals that it reads or sets, in order of use, including builtins.
      attributes: The attributes, including all strings that are identifiers, since `getattr` may use them.
      imports: The Python modules that it imports; a relative name starts with dots.
    """

    loaded: tuple[str, ...]
    attributes: frozenset[str]
    imports: tuple[str, ...]


@functools.lru_cache(maxsize=4096)
def names_in(code: types.CodeType) -> Names:
    """Return the names that a code object uses.

    Args:
      code: The code object.
    """
    instructions = [i for i in dis.get_instructions(code) if i.opname != "EXTENDED_ARG"]
    loaded = dict.fromkeys(i.argval for i in instructions if i.opname in _LOADS)
    imports = {
        "." * instructions[k - 2].argval + i.argval: None  # the level is loaded first, then the names
        for k, i in enumerate(instructions)
        if i.opname == "IMPORT_NAME"
    }
    every = set(code.co_names)
    for constant in code.co_consts:
        if type(constant) is str and constant.isidentifier():
            every.add(constant)
        if isinstance(constant, types.CodeType):
            inner = names_in(constant)
            loaded |= dict.fromkeys(inner.loaded)
            imports |= dict.fromkeys(inner.imports)
            every |= inner.attributes
    return Names(tuple(loaded), frozenset(every), tuple(imports))


@functools.lru_cache(maxsize=4096)
def names_read_in(code: types.CodeType) -> Names:
    """Return the names that a code object uses, of attributes only those that it may read.

    In code that creates, copies or prints objects, `__dict__` does not mean that all attributes are read, as in
    `self.__dict__.update(options)`.

    Args:
      code: The code object.
    """
    return names_in(code)._replace(attributes=frozenset(_attributes_read(code)))


@functools.lru_cache(maxsize=4096)
def names_of_library(cls: type) -> frozenset[str]:
    """Return the attributes that methods may read which a class inherits from a library, such as a layer of liftnn."""
    bases = (base for base in cls.__mro__ if is_library(module_of(base)))
    functions = (x for base in bases for x in vars(base).values() if type(x) is types.FunctionType)
    return frozenset(name for f in functions for name in _attributes_read(f.__code__)).difference(
        ALL_ATTRIBUTES
    )


def _attributes_read(code: types.CodeType) -> Iterator[str]:
    """Yield the names of attributes that code may read."""
    ignored = ALL_ATTRIBUTES if code.co_name in _OF_OBJECTS else ()
    loads = (i for i in dis.get_instructions(code) if i.opname in _READS)
    yield from (i.argval for i in loads if i.argval not in ignored)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _attributes_read(constant)
        else:
            yield from _identifiers(constant)


def _identifiers(constant: Any) -> Iterator[str]:
    """Yield the strings in a constant that are identifiers; in a tuple they may be the attributes in a pattern."""
    if type(constant) is str:
        yield from filter(str.isidentifier, constant.split("."))
    elif type(constant) in (tuple, frozenset):
        for x in constant:
            yield from _identifiers(x)


_LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL")
_READS = ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "LOAD_GLOBAL", "LOAD_NAME")
_OF_OBJECTS = frozenset(
    f"__{name}__"
    for name in (
        "init", "new", "post_init", "setattr", "delattr", "getstate", "setstate", "reduce", "reduce_ex", "copy",
        "deepcopy", "repr", "str", "dir", "eq", "ne", "hash",
    )
)  # fmt: skip
"""Methods that create, copy, compare or print objects."""
