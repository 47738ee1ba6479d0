"""Errors for names, attributes and arguments of other libraries."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

import liftnn
from liftnn import errors, nn
from liftnn.compat import nnx
from tests.messages.registry import message
from tests.user_modules import Affine

LINEAR = "liftnn.Linear(2, 3, use_bias=False, rngs=liftnn.Rngs(0))"


def linear(**options):
    return liftnn.Linear(2, 3, rngs=liftnn.Rngs(0), **options)


class Forward(liftnn.Module):
    """A class as in PyTorch."""

    def forward(self, x):
        return x


class WithSetup(liftnn.Module):
    """A class as in Flax Linen."""

    features: int

    def setup(self):
        self.layer = linear()


class Fields(liftnn.Module):
    """A class with fields, as in Equinox."""

    features: int


# --- names of the package


@message(
    errors.AttributeNameError,
    "module 'liftnn' has no attribute 'Conv2d', which is a name from PyTorch.",
    "Write `liftnn.Conv(3, 8, (3, 3), rngs=liftnn.Rngs(0))`, with one kernel size per axis. Inputs are channels last.",
)
def layer_of_pytorch():
    liftnn.Conv2d  # noqa: B018


@message(
    errors.AttributeNameError,
    "module 'liftnn' has no attribute 'layernorm'.",
    "The most similar public name is `liftnn.LayerNorm`.",
)
def misspelled_layer():
    liftnn.layernorm  # noqa: B018


@message(
    errors.AttributeNameError,
    "module 'liftnn' has no attribute 'qqq'.",
    "`dir(liftnn)` lists the public names.",
)
def unknown_name():
    liftnn.qqq  # noqa: B018


@message(
    errors.NameImportError,
    "cannot import name 'filter_jit' from 'liftnn', which is a name from Equinox.",
    "The transforms take modules as arguments: `liftnn.jit`.",
)
def import_of_a_transform_of_equinox():
    from liftnn import filter_jit  # noqa: F401


@message(errors.AttributeNameError, "module 'liftnn.nn' has no attribute 'Linear'.", "Write `liftnn.Linear`.")
def layer_in_nn():
    nn.Linear  # noqa: B018


@message(
    errors.AttributeNameError,
    "module 'liftnn.nn' has no attribute 'Mish', which is a name from PyTorch and Keras.",
    "Activations are functions; a Sequential takes them too: `jax.nn.mish(x)`.",
)
def layer_of_pytorch_in_nn():
    nn.Mish  # noqa: B018


@message(
    errors.AttributeNameError,
    "module 'liftnn.compat.nnx' has no attribute 'with_sharding_constraint', which Flax NNX has removed.",
    "Write `jax.lax.with_sharding_constraint(state, nnx.get_named_sharding(state, mesh))`.",
)
def name_that_flax_nnx_has_removed():
    nnx.with_sharding_constraint  # noqa: B018


@message(
    errors.NameImportError,
    "cannot import name 'Upsample' from 'liftnn.nn', which is a name from PyTorch.",
    "Write `jax.image.resize(image, (2, 8, 8, 3), 'nearest')`, or with `'bilinear'`. Inputs are channels last.",
)
def import_of_a_layer_of_pytorch_from_nn():
    from liftnn.nn import Upsample  # noqa: F401


@message(
    errors.AttributeNameError,
    "module 'liftnn' has no attribute 'stop_gradient', which is a name from JAX.",
    "Write `jax.lax.stop_gradient`.",
)
def function_of_jax():
    liftnn.stop_gradient  # noqa: B018


@message(
    errors.AttributeNameError,
    "module 'liftnn' has no attribute 'lecun_normal'.",
    "Write `liftnn.initializers.lecun_normal`.",
)
def initializer_in_the_package():
    liftnn.lecun_normal  # noqa: B018


# --- attributes


@message(
    errors.AttributeNameError,
    "'Affine' object has no attribute 'parameters', which is a name from PyTorch.",
    "`liftnn.state(model, liftnn.Param)` is a State of all Params, and its `flat()` a dict by path.",
)
def parameters_of_a_module():
    Affine().parameters()


@message(
    errors.AttributeNameError,
    "type object 'Linear' has no attribute 'init', which is a name from Flax Linen and Haiku.",
    "Weights are created with the module, from `liftnn.Rngs(0)`. The model is an object that holds its weights, so "
    "call it: `model(x)`.",
)
def init_of_a_class():
    liftnn.Linear.init(jax.random.key(0))


@message(
    errors.AttributeNameError,
    "'Forward' object is not callable: it has no `__call__`, and 'forward' is an ordinary method.",
    "Rename the method `forward` to `__call__`.",
)
def call_of_a_class_with_forward():
    Forward()(1.0)


@message(
    errors.AttributeNameError,
    "A Param has no attribute 'detach': it is neither a metadata entry nor an attribute of the value (array).",
    "Write `jax.lax.stop_gradient(model.scale.value)`.",
)
def detach_of_a_variable():
    Affine().w.detach()


@message(
    errors.AttributeNameError,
    "'Optimizer' object has no attribute 'state_dict', which is a name from PyTorch.",
    "`liftnn.save(folder, 1, model, optimizer)` saves model and optimizer, here as step 1, and `liftnn.restore(folder, "
    "model, optimizer)` restores them.",
)
def state_dict_of_an_optimizer():
    liftnn.Optimizer(Affine(), optax.sgd(0.1)).state_dict()


@message(
    errors.ArgumentTypeError,
    "An OptState cannot be called: it holds a value, such as the number of steps so far in `optimizer.step`.",
    "Write `optimizer.update(model, grads)` to apply gradients.",
)
def step_of_an_optimizer_as_in_pytorch():
    liftnn.Optimizer(Affine(), optax.sgd(0.1)).step()


@message(
    errors.ArgumentTypeError,
    "WithSetup takes no arguments: it has no `__init__`.",
    "Rename its method `setup` to `__init__`.",
)
def arguments_of_a_class_with_setup():
    WithSetup(features=3)


@message(
    errors.ArgumentTypeError,
    "Fields takes no arguments: it has no `__init__`.",
    "Define `__init__`, or decorate the class with `@dataclasses.dataclass`.",
)
def arguments_of_a_class_with_fields():
    Fields(features=3)


# --- arguments


@message(
    errors.ArgumentTypeError,
    "Linear.__init__() got an unexpected keyword argument 'bias', which is a name from PyTorch and Haiku for "
    "`use_bias`.",
    f"Write, for example, `{LINEAR}`.",
)
def bias_of_a_layer():
    linear(bias=False)


@message(
    errors.ArgumentTypeError,
    "Affine.__call__() got an unexpected keyword argument 'training', which is a name from Keras, Flax Linen and "
    "Haiku.",
    "`model.train()` and `model.eval()` switch the mode of all layers.",
)
def mode_in_the_call_of_the_users_module():
    Affine()(jnp.ones(3), training=True)


@message(
    errors.ArgumentTypeError,
    "Optimizer.__init__() got an unexpected keyword argument 'lr', which is a name from PyTorch and Flax.",
    "Pass a transformation of optax: `optimizer = liftnn.Optimizer(model, optax.adam(1e-3))`.",
)
def learning_rate_of_an_optimizer():
    liftnn.Optimizer(Affine(), lr=1e-3)


@message(
    errors.ArgumentTypeError,
    "Linear.__init__() got an unexpected keyword argument 'usebias'.",
    "The most similar parameter is `use_bias`.",
)
def misspelled_argument():
    linear(usebias=False)


@message(
    errors.ArgumentTypeError,
    "Linear.__init__() missing 1 required keyword-only argument: 'rngs'.",
    "Pass rngs=liftnn.Rngs(0), where 0 is the seed.",
)
def layer_without_rngs():
    liftnn.Linear(2, 3)


@message(
    errors.ArgumentTypeError,
    "Linear.__init__() missing 1 required positional argument: 'out_features'.",
    "The parameters are: in_features, out_features, *, use_bias, dtype, param_dtype, precision, kernel_init, and 7 "
    "more.",
)
def layer_without_its_size():
    liftnn.Linear(2, rngs=liftnn.Rngs(0))


@message(
    errors.ArgumentTypeError,
    "Optimizer.update() missing 1 required positional argument: 'grads'.",
    "The model comes first: `optimizer.update(model, grads)`.",
)
def update_without_the_model():
    model = linear()
    liftnn.Optimizer(model, optax.sgd(0.1)).update(liftnn.state(model))


@message(
    errors.ArgumentTypeError,
    "Module.train() takes 1 positional argument but 2 were given.",
    "`model.train()` and `model.eval()` take no arguments and only switch the mode: PyTorch's train(False) is "
    "`model.eval()`. To run the model, write `model(x)`.",
)
def train_with_a_mode():
    Affine().train(False)


# --- functions


@message(
    errors.ArgumentError,
    "liftnn.jit got the method `train` of an Affine, which switches the mode of the layers and computes nothing.",
    "Call `model.train()` outside, and pass the model, as in `liftnn.jit(model)`, or a function of it.",
)
def jit_of_train():
    liftnn.jit(Affine().train)


@message(
    errors.ArgumentTypeError,
    "liftnn.jit needs a function, not a Module.",
    "Define its `__call__`, or pass one of its methods.",
)
def jit_of_a_module_without_call():
    liftnn.jit(liftnn.Module())
