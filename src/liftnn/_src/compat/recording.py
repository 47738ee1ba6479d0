"""`sow` and `perturb` with `capture_noop` of Flax NNX, which records nothing outside of `capture`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from liftnn._src.compat.modes import setting_of_flax
from liftnn._src.modules.module import Module
from liftnn._src.modules.recording import append, records_of
from liftnn._src.tracebacks import boundary
from liftnn._src.variables.variable import Variable
from liftnn._src.variables.variable_types import Perturbation

_Module = Module if TYPE_CHECKING else object

_perturb, _sow = Module.perturb, Module.sow


@boundary
class RecordingMethods(_Module):
    """The methods of a Module that record values."""

    def sow(
        self,
        type: type[Variable[Any]] | str,
        name: str,
        value: Any,
        reduce_fn: Callable[[Any, Any], Any] = append,
        init_fn: Callable[[], Any] = lambda: (),
        capture_noop: bool | None = None,
    ) -> bool:
        """Record a value in a Variable of the module, which is created when first needed.

        In a call of `capture` the value is recorded there instead, and the module stays as it is.

        Args:
          type: The type of the Variable, such as `Intermediate`, or a name for it, such as `intermediates`.
          name: The attribute that holds the Variable.
          value: The value to record.
          reduce_fn: Called with the recorded value so far and the new value; returns the value to store. The default
            appends to a tuple.
          init_fn: Returns the initial recorded value, used at first and after a `pop`. The default returns `()`.
          capture_noop: Whether nothing is recorded outside of a call of `capture`. The default, None, means the setting
            `nnx_sow_capture_noop` of Flax, False without Flax.

        Returns:
          True; False if nothing is recorded.

        Raises:
          ArgumentError: If the attribute is not a Variable of that type, or does not hold a tuple to append to.
          TraceContextError: If the module belongs to another trace.
        """
        return not _is_off(self, capture_noop) and _sow(self, type, name, value, reduce_fn, init_fn)

    def perturb(
        self,
        name: str,
        value: Any,
        variable_type: type[Variable[Any]] | str = Perturbation,
        capture_noop: bool | None = None,
    ) -> Any:
        """Add a zero Variable to a value; the gradient with respect to it is the gradient with respect to the value.

        In a call of `capture` the Variable is there instead; if the type is not captured, nothing is added.

        Args:
          name: The attribute that holds the Variable.
          value: An array of any shape, or a pytree of arrays.
          variable_type: The type of the Variable, which the first call creates, or a name for it. The default is
            `Perturbation`.
          capture_noop: Whether nothing is added outside of a call of `capture`. The default, None, means the setting
            `nnx_sow_capture_noop` of Flax, False without Flax.

        Returns:
          The value plus the Variable, or the value.

        Raises:
          ArgumentError: If the attribute exists and is not a Variable of that type.
          TraceContextError: If the Variable must be created but the module belongs to another trace.
        """
        return value if _is_off(self, capture_noop) else _perturb(self, name, value, variable_type)


def _is_off(module: Module, capture_noop: bool | None) -> bool:
    """Return whether a module records nothing: it would only do so in a call of `capture`, and is in none."""
    if capture_noop is None:
        capture_noop = setting_of_flax("nnx_sow_capture_noop", default=False)
    return capture_noop and records_of(module) is None
