"""What griffe, which reads the docstrings for the API reference, cannot know by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import griffe

RESULTS = {
    "Jitted": "liftnn._src.compilation.jitted.Jitted",
    "CustomVjp": "liftnn._src.autodiff.custom_vjp.CustomVjp",
    "CustomJvp": "liftnn._src.autodiff.custom_jvp.CustomJvp",
    "SplitStreams": "liftnn._src.split_rngs.SplitStreams",
}
"""Classes that a user only gets as a return value. The reference shows their methods under these names."""
DEFAULTS = {"MappingProxyType({})": "{}", "MISSING": "..."}
"""Defaults whose code says less to a reader than what it stands for."""


class Reference(griffe.Extension):
    """Shows the section `Example` as code, defaults as their values, and the classes of return values."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename the section `Example` of the docstring to the name that griffe knows."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Called with the package, when all its files have been read."""
        if pkg.path != "liftnn":
            return
        for name, path in RESULTS.items():
            pkg.set_member(name, griffe.Alias(name, path))
        for function in functions_of(pkg):
            for parameter in function.parameters:
                parameter.default = shown_default(parameter.default, pkg)


def functions_of(x: griffe.Module | griffe.Class) -> Iterator[griffe.Function]:
    """Yield the functions that are defined in a module or class, and in those below it."""
    for member in x.members.values():
        if isinstance(member, griffe.Function):
            yield member
        elif isinstance(member, (griffe.Module, griffe.Class)):
            yield from functions_of(member)


def shown_default(default: str | griffe.Expr | None, pkg: griffe.Module) -> str | griffe.Expr | None:
    """Return the default of a parameter as the reference shows it: `lecun_normal()` for `default_kernel_init`."""
    if isinstance(default, griffe.ExprName) and default.name.startswith("default_"):
        return str(pkg[default.canonical_path.removeprefix("liftnn.")].value).removeprefix("initializers.")
    return DEFAULTS.get(str(default), default)
