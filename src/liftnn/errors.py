"""Every error that liftnn raises: what happened, where (attribute path), what to do.

Each class derives from `LiftError` and from the built-in exception that fits, so both `except LiftError` and
`except ValueError` work. The text of an error is its cause followed by a remedy. Unless the place that raises
knows a better one, the remedy is the last paragraph of the class docstring, so message and documentation cannot
drift apart.
"""

from __future__ import annotations

import inspect


class LiftError(Exception):
    """Base class of every error raised by liftnn.

    Args:
      cause: What happened, with the attribute path of the object concerned.
      remedy: What to do about it. The default, None, takes the last paragraph of the class docstring.
    """

    def __init__(self, cause: str, remedy: str | None = None):
        super().__init__(cause, remedy)
        self.cause = cause
        self.remedy = remedy or _last_paragraph(type(self))

    def __str__(self) -> str:
        return f"{self.cause}\n{self.remedy}" if self.remedy else self.cause


def _last_paragraph(cls: type) -> str:
    """The remedy written in a class docstring: its last paragraph, on one line; none in that of the base class."""
    paragraphs = inspect.cleandoc(cls.__doc__ or "").split("\n\n")
    return " ".join(paragraphs[-1].split()) if len(paragraphs) > 1 and cls is not LiftError else ""


class ArgumentError(LiftError, ValueError):
    """An argument has a value that the function cannot use.

    See the function's documentation for the values it takes.
    """


class ArgumentTypeError(LiftError, TypeError):
    """An argument of a transformed function is neither an array, a module nor a tree of them.

    Pass the value through `static_argnums` or `static_argnames`, or store it as an attribute of a module.
    """


class FilterError(LiftError, ValueError):
    """A filter left something over, matched nothing, or is not a filter.

    Add `...` as the last filter to catch what the others leave, or correct the filter.
    """


class StructureError(LiftError, ValueError):
    """The structure of a module is not what the operation needs.

    Compare the paths above with the module: they must name the same Variables on both sides.
    """


class AliasingError(LiftError, ValueError):
    """One Variable reached the transform twice, with two different prefixes.

    Give both places the same prefix, or pass `liftnn.clone(module)` in one of them.
    """


class SharedWriteError(LiftError, ValueError):
    """A value that differs between the lanes of a vmap, or shards of a shard_map, was written to what they share.

    Map the Variable as well (an axis in `in_axes`, or `StateAxes`), reduce the value over the lanes before writing it
    (for example with `jax.lax.pmean` and an `axis_name`), or say in `reduce_writes` how the values are reduced.
    """


class DonatedError(LiftError, RuntimeError):
    """An array was used whose buffer had been donated to a program, which has reused it.

    Use the Variable of the module that came out of that call, take a `liftnn.clone` before it, or do not donate the
    argument.
    """


class RetraceError(LiftError, RuntimeError):
    """A compiled function would be traced more often than `max_traces` allows.

    Pass what varies as an array or in a Variable, pad arrays to a few shapes, or allow more traces.
    """


class RetraceWarning(UserWarning):
    """A compiled function has been traced again for the fifth time; the text says what differed this time.

    Pass what varies as an array or in a Variable, pad arrays to a few shapes, or set `max_traces` to find the line.
    """


class TraceContextError(LiftError, RuntimeError):
    """An object was used in a trace that it does not belong to.

    Pass the object as an argument of the transformed function; under a raw JAX transform (`jax.jit`, `jax.grad`,
    `jax.lax.scan` ...) use the liftnn transform of the same name instead.
    """


class AttributeNameError(LiftError, AttributeError):
    """An object has no attribute of that name.

    Check the spelling; a Variable forwards unknown names to its metadata and then to its value.
    """
