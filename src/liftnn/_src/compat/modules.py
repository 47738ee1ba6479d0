"""`Module` in the manner of Flax NNX: JAX's functions take its instances as pytrees."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

from liftnn._src.modules import module as own

if TYPE_CHECKING:
    from liftnn._src.modules.module import Module as Module
else:

    class AnyModule(abc.ABCMeta):
        """The metaclass of `Module`, of which all modules of liftnn are instances; Flax's derives from ABCMeta too."""

        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, own.Module) if cls is Module else super().__instancecheck__(instance)

        def __subclasscheck__(cls, subclass: type) -> bool:
            return issubclass(subclass, own.Module) if cls is Module else super().__subclasscheck__(subclass)

    class Module(own.Module, metaclass=AnyModule, pytree=True):
        """Base class of models and layers, whose instances are also pytrees for JAX's own functions.

        `jax.tree.map(f, model)` returns a new model with the same sharing and cycles, and JAX's transforms take and
        return models. In such a transform a model can be read, but a write raises an error, since it would be lost.
        The instances of `class Model(nnx.Module, pytree=False)` are not pytrees, nor are liftnn's own layers.

        Example:
          >>> import jax, jax.numpy as jnp
          >>> from liftnn.compat import nnx
          >>> class Scale(nnx.Module):
          ...   def __init__(self, factor):
          ...     self.factor = nnx.Param(jnp.asarray(factor))
          ...   def __call__(self, x):
          ...     return x * self.factor
          >>> model = Scale(2.0)
          >>> gradient = jax.grad(lambda model: jax.jit(model)(3.0) ** 2)(model)
          >>> jax.tree.map(lambda w, g: w - 0.125 * g, model, gradient).factor.tolist()
          -2.5
        """

        __slots__ = ()
