"""Descriptors for foreign names of attributes: reading one is an AttributeError that says what to write in liftnn.

A descriptor costs nothing in reads of other attributes, unlike a method `__getattr__`. It is used only if neither the
object, nor a class before or after it in the order of inheritance, has the attribute.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from liftnn._src.tracebacks import hide_frames

_OF_MODULES = (
    "add_loss", "add_module", "add_weight", "apply", "bfloat16", "bind", "buffers", "build", "call", "children",
    "compile", "count_params", "cpu", "cuda", "double", "evaluate", "fit", "float", "forward", "get_layer",
    "get_submodule", "get_weights", "half", "init", "init_with_output", "lazy_init", "load_state_dict",
    "load_weights", "losses", "make_rng", "modules", "named_buffers", "named_children", "named_modules",
    "named_parameters", "non_trainable_variables", "non_trainable_weights", "param", "parameters", "predict",
    "register_buffer", "register_forward_hook", "register_module", "register_parameter", "requires_grad_", "save",
    "save_weights", "set_weights", "setup", "state_dict", "summary", "tabulate", "to", "train_on_batch",
    "trainable", "trainable_variables", "trainable_weights", "training", "variable", "weights", "zero_grad",
)  # fmt: skip
_OF_OPTIMIZERS = (
    "add_param_group", "apply", "apply_gradients", "init", "learning_rate", "load_state_dict", "lr", "minimize",
    "model", "param_groups", "params", "state_dict", "zero_grad",
)  # fmt: skip
_OF_LAYERS = {
    "BatchNorm": ("beta", "gamma", "moving_mean", "moving_variance", "running_mean", "running_var", "weight"),
    "Conv": ("weight",),
    "ConvTranspose": ("weight",),
    "Dropout": ("p",),
    "Embed": ("embeddings", "weight"),
    "GroupNorm": ("beta", "gamma", "weight"),
    "InstanceNorm": ("weight",),
    "LayerNorm": ("beta", "gamma", "weight"),
    "Linear": ("weight",),
    "Metric": ("reset_state", "reset_states", "result", "update_state"),
    "RMSNorm": ("weight",),
}
NAMES = {"Module": _OF_MODULES, "Optimizer": _OF_OPTIMIZERS, **_OF_LAYERS}
"""The names by class, so that the table need not be loaded; `tests/foreign_names` compares them."""


class Absent:
    """A descriptor that raises AttributeNameError, unless a class further up has an attribute of that name.

    Args:
      holder: The class that holds the descriptor.
      name: The name of the attribute.
    """

    __slots__ = ("_holder", "_name")

    def __init__(self, holder: type, name: str):
        self._holder, self._name = holder, name

    def __get__(self, instance: Any, owner: type) -> Any:
        order = owner.__mro__
        try:
            if any(self._name in vars(cls) for cls in order[order.index(self._holder) + 1 :]):
                return getattr(super(self._holder, owner if instance is None else instance), self._name)
            raise load_explanations().unknown_attribute(instance, owner, self._name)
        except Exception as error:
            hide_frames(error)
            raise


class ForeignAttributes:
    """Base class of modules, behind all others: foreign names are answered, and `dir` does not show them."""

    __slots__ = ()

    if not TYPE_CHECKING:  # hidden, as it says nothing about the attributes

        def __dir__(self) -> list[str]:
            absent = {name for names in NAMES.values() for name in names}
            # a class may name attributes by numbers, as a List does
            names = [name for name in super().__dir__() if isinstance(name, str)]
            return [name for name in names if name not in absent or hasattr(self, name)]


def answer(*classes: type) -> None:
    """Let classes answer to the foreign names of their attributes; the table has them by the name of the class."""
    for cls in classes:
        _answer(cls, cls.__name__)


def _answer(cls: type, where: str) -> None:
    for name in NAMES[where]:
        type.__setattr__(cls, name, Absent(cls, name))


def answer_calls(cls: type) -> None:
    """Let a class that defines `forward` or `call`, as in PyTorch or Keras, say that `__call__` is missing.

    Args:
      cls: The class.
    """
    if {"forward", "call"} & vars(cls).keys() and not any("__call__" in vars(base) for base in cls.__mro__):
        type.__setattr__(cls, "__call__", Absent(cls, "__call__"))


def load_explanations() -> Any:
    """Return the file with the errors, which is loaded at first use."""
    return importlib.import_module("liftnn._src.foreign_names.explain")


_answer(ForeignAttributes, "Module")
