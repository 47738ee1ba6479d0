"""The Variables of a module by name, for example `module.variables.w`: read them, or assign them to tie weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, overload

from liftnn import errors
from liftnn._src.graph.attributes import flatten_attributes
from liftnn._src.printing import call
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import an, at_start
from liftnn._src.variables.variable import Variable


@boundary
class VariablesView:
    """The Variables among a module's attributes, readable and assignable by name.

    Args:
      module: The module.
    """

    __slots__ = ("_module",)

    def __init__(self, module: Any):
        object.__setattr__(self, "_module", module)

    @boundary
    def __getattr__(self, name: str) -> Variable[Any]:
        variable = getattr(self._module, name, None)
        if not isinstance(variable, Variable):
            raise errors.AttributeNameError(
                f"{at_start(an(type(self._module)))} has no Variable {name!r}.",
                f"Its Variables: {', '.join(self) or 'none'}.",
            )
        return variable

    @boundary
    def __setattr__(self, name: str, variable: Variable[Any]) -> None:
        if not isinstance(variable, Variable):
            raise errors.ArgumentError(
                f"`variables.{name}` takes a Variable, not {an(type(variable))}.",
                f"To set the value, write `module.{name}.value = ...`.",
            )
        setattr(self._module, name, variable)

    __getitem__ = __getattr__
    __setitem__ = __setattr__

    def __iter__(self) -> Iterator[str]:
        _, names, children = flatten_attributes(self._module)
        return iter([n for n, x in zip(names, children, strict=True) if isinstance(x, Variable)])

    def __dir__(self) -> list[str]:
        return list(self)

    def __repr__(self) -> str:
        return call("Variables", [(name, repr(getattr(self, name))) for name in self])


class VariablesAttribute:
    """The attribute `variables` of every module, unless a module has an attribute of this name itself."""

    @overload
    def __get__(self, module: None, cls: type) -> VariablesAttribute: ...

    @overload
    def __get__(self, module: object, cls: type) -> VariablesView: ...

    def __get__(self, module: object | None, cls: type) -> VariablesAttribute | VariablesView:
        return self if module is None else VariablesView(module)
