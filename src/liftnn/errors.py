"""The errors that liftnn raises. Each message names the cause, the attribute path, and a remedy.

Each class derives from `LiftError` and from the built-in exception that fits, so both `except LiftError` and
`except ValueError` work. Where JAX raises either of two built-ins for such a mistake, the class derives from both. The
text of an error is its cause followed by a remedy. The default remedy is the last paragraph of the class docstring, so
messages and documentation cannot drift apart.
"""

from __future__ import annotations

import inspect


class LiftError(Exception):
    """Base class of every error raised by liftnn.

    Args:
      cause: What went wrong, with the attribute path of the object concerned.
      remedy: What to do instead. The default, None, takes the last paragraph of the class docstring.
    """

    def __init__(self, cause: str, remedy: str | None = None):
        super().__init__(cause, remedy)
        self.cause = cause
        self.remedy = remedy or _last_paragraph(type(self))
        if isinstance(self, AttributeError):
            self.obj = None  # set, so that Python adds no suggestion of its own to the remedy

    def __str__(self) -> str:
        return f"{self.cause}\n{self.remedy}" if self.remedy else self.cause


def _last_paragraph(cls: type) -> str:
    """Return the remedy of a class: the last paragraph of its docstring, on one line; none for the base class."""
    paragraphs = inspect.cleandoc(cls.__doc__ or "").split("\n\n")
    return " ".join(paragraphs[-1].split()) if len(paragraphs) > 1 and cls is not LiftError else ""


class ArgumentError(LiftError, ValueError, TypeError):
    """An argument has a value that the function cannot use.

    See the function's documentation for the values it takes.
    """


class ArgumentTypeError(LiftError, TypeError):
    """An argument has a type that the function cannot use.

    Pass the value through `static_argnums` or `static_argnames`, or store it as an attribute of a module.
    """


class MissingRuleError(ArgumentError, AttributeError):
    """A function with a custom derivative was called before its rule was defined.

    Define the rule with `f.defvjp(fwd, bwd)` or `f.defjvp(rule)` before you call the function.
    """


class FilterError(LiftError, ValueError):
    """Filters left Variables unmatched, a filter matched nothing, or a value is not a filter.

    Add `...` as the last filter to match the remaining Variables, or change a filter to match them.
    """


class StructureError(LiftError, ValueError, TypeError):
    """The structure of a module does not fit the operation.

    Compare the paths above with those of the module: both sides must have the same Variables.
    """


class AliasingError(LiftError, ValueError):
    """A Variable was passed to a transform twice, with different prefixes (axes or shardings).

    Use the same prefix for both, or pass `liftnn.clone(module)` for one of them.
    """


class SharedWriteError(LiftError, ValueError):
    """A value that differs between batch elements (vmap) or shards (shard_map) was written to a shared Variable.

    Map the Variable as well (an axis in `in_axes`, or `StateAxes`), reduce the value over the axis before writing it
    (for example with `jax.lax.pmean` and an `axis_name`), or specify in `reduce_writes` how to reduce it.
    """


class ShardingError(LiftError, ValueError):
    """A sharding does not fit its mesh or its array.

    Declare axes of the mesh, or map the declared names to them with rules (`liftnn.axis_rules`); the size of an array
    along an axis must be a multiple of the number of devices over which it is sharded.
    """


class DonatedError(LiftError, RuntimeError, ValueError):
    """An array was used after its buffer had been donated to a program, which has reused it.

    Use the Variable of the module that the call has updated, make a `liftnn.clone` before the call, or do not donate
    the argument.
    """


class RetraceError(LiftError, RuntimeError):
    """A compiled function would be traced more often than `max_traces` allows.

    Pass varying values as arrays or in Variables, pad arrays to a few shapes, or raise `max_traces`.
    """


class CaptureWarning(UserWarning):
    """A compiled function reaches a module in a way that liftnn cannot follow, such as through an iterator.

    The module is an input of the program. If a later call reaches another module, liftnn does not notice. Pass the
    module as an argument.
    """


class RetraceWarning(UserWarning):
    """A compiled function has been traced again for the fifth time; the text names the difference.

    Pass varying values as arrays or in Variables, pad arrays to a few shapes, or set `max_traces` to find the line.
    """


class FilterWarning(UserWarning):
    """A string filter has selected nothing.

    A string selects the Variables with that tag: `Param(value, tag="lora")`. Use a type, `PathContains`, or a function
    of path and Variable to select by other properties.
    """


class AttributeWarning(UserWarning):
    """An assignment to an attribute does not do what it seems to do.

    Assign to `value` to set the value of a Variable.
    """


class ShardingWarning(UserWarning):
    """A rule matched no declared axis, or an axis that cannot be divided as declared was left unsharded.

    Declare the name in the metadata of a Variable, correct or remove the rule, or pass rules that activations or other
    models need too with `liftnn.axis_rules`, which does not warn. Declare mesh axes that divide the axes of the array.
    """


class StructureWarning(UserWarning):
    """A module or Variable is inside an object that is static, so its state is not part of the model.

    Make the class of the object a `liftnn.Module` or a dataclass, or store the module in an attribute, a list or a
    dict.
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


class NameImportError(LiftError, ImportError):
    """A name was imported that liftnn does not have.

    `dir(liftnn)` lists the public names.
    """


class LayerIndexError(LiftError, IndexError):
    """A Stack was indexed with the position of a layer that it does not have.

    Use a position from `-len(stack)` to `len(stack) - 1`.
    """


class CheckpointError(LiftError, ValueError):
    """A checkpoint or a weight file does not fit the modules, is damaged, or cannot be read.

    Compare the two sides above: change the modules to fit what was saved, or load another checkpoint.
    """


class MissingPackageError(LiftError, ImportError):
    """A function needs a package that is not installed.

    Install the package with the extra of liftnn that lists it.
    """
