"""Errors of `from_torch`, `to_torch`, `from_flax` and `from_equinox`, and of their rules."""

from __future__ import annotations

import jax
import numpy as np

import liftnn
from liftnn import errors
from tests.messages.registry import message
from tests.user_modules import Holder


def linear():
    return liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))


def tensors():
    return {"weight": np.ones((3, 2), np.float32), "bias": np.ones(3, np.float32)}


@message(
    errors.CheckpointError,
    "The state_dict does not fit the module:",
    "missing:",
    "  bias: float32[3], from 'bias'",
    "unexpected:",
    "  'running_mean': float32[3]",
    "mismatched:",
    "  kernel: float32[2,3] in the module, float32[4,3] from 'weight': float32[3,4]",
    "Change the module or the rules to fit. A rule (pattern, None) skips tensors, `only` selects Variables, "
    "`cast=True` converts dtypes, and `strict=False` loads what fits and returns the rest as a report.",
)
def state_dict_that_does_not_fit():
    wrong = {"weight": np.ones((3, 4), np.float32), "running_mean": np.ones(3, np.float32)}
    liftnn.from_torch(linear(), wrong)


@message(
    errors.CheckpointError,
    "The state_dict does not fit the module:",
    "missing:",
    "  kernel: float32[2,3], from 'weight'",
    "  bias: float32[3], from 'bias'",
    "unexpected:",
    "  'module.weight': float32[3,2]",
    "  'module.bias': float32[3]",
    "The names of the tensors have 'module.' in front: add the rule ('^', 'module.') after all others.",
)
def state_dict_of_a_wrapped_module():
    liftnn.from_torch(linear(), {f"module.{name}": x for name, x in tensors().items()})


@message(
    errors.CheckpointError,
    "The state_dict holds something at 'version' that is not an array with values.",
    "Replace it by an array, or skip it with a rule (pattern, None).",
)
def state_dict_with_something_else_in_it():
    liftnn.from_torch(linear(), tensors() | {"version": object()})


@message(
    errors.CheckpointError,
    "The state_dict holds something at 'state_dict' that is not an array with values.",
    "Pass the dict at 'state_dict' itself if it has the weights; otherwise skip it with a rule (pattern, None).",
)
def a_checkpoint_as_state_dict():
    liftnn.from_torch(linear(), {"state_dict": tensors(), "epoch": 3})


@message(
    errors.ArgumentTypeError,
    "from_torch takes a state_dict or the path of a safetensors file, not a list.",
    "Pass `torch_module.state_dict()`.",
)
def state_dict_that_is_a_list():
    liftnn.from_torch(linear(), list(tensors().items()))


@message(
    errors.ArgumentError,
    "from_torch reads safetensors files, but model.pt has the extension of a PyTorch file, which is a pickle.",
    "Pass `torch.load(file, map_location='cpu', weights_only=True)`.",
)
def state_dict_in_a_pickle():
    liftnn.from_torch(linear(), "model.pt")


@message(
    errors.ArgumentTypeError,
    "The keys of a state_dict must be tensor names, but 0 is an int.",
    "Pass `torch_module.state_dict()`.",
)
def state_dict_with_numbers_as_names():
    liftnn.from_torch(linear(), {0: np.ones(3)})


@message(
    errors.ArgumentTypeError,
    "from_flax takes a State or nested dicts of arrays, not a Linear.",
    "Pass `flax.nnx.state(flax_module)`.",
)
def flax_module_in_place_of_its_state():
    liftnn.from_flax(linear(), linear())


@message(
    errors.ArgumentError,
    "kernel is a tracer: to_torch was called inside a transform, where arrays have no values.",
    "Call to_torch outside of the compiled function.",
)
def to_torch_inside_a_transform():
    liftnn.jit(lambda module: liftnn.to_torch(module))(linear())


@message(
    errors.ArgumentError,
    "to_torch converts arrays of numbers, but kernel is abstract.",
    "Exclude it with `only`, or with a Rule without names.",
)
def to_torch_of_an_abstract_module():
    liftnn.to_torch(liftnn.eval_shape(linear))


@message(
    errors.ArgumentError,
    "to_torch converts arrays of numbers, but noise is an array of random keys.",
    "Exclude it with `only`, or with a Rule without names.",
)
def to_torch_of_random_keys():
    liftnn.to_torch(Holder(noise=liftnn.Param(jax.random.key(0))))


@message(
    errors.DonatedError,
    "The buffer of bias was donated earlier and is gone.",
    "Use the Variable of the module that the call has updated, make a `liftnn.clone` before the call, or do not donate "
    "the argument.",
)
def to_torch_of_a_donated_array():
    layer = linear()
    layer.bias.value.delete()
    liftnn.to_torch(layer)


@message(
    errors.ArgumentError,
    "The rules do not say how to write each tensor: several Variables would be written to the tensor 'x'.",
    "Give each Variable a name or part of its own, or skip it with a Rule without names.",
)
def to_torch_of_two_variables_under_one_name():
    liftnn.to_torch(linear(), [(".*", "x")])


@message(
    errors.ArgumentError,
    "The rules do not say how to write each tensor: 1 of the 2 parts of the tensor 'kernels' would be written.",
    "Give each Variable a name or part of its own, or skip it with a Rule without names.",
)
def to_torch_of_a_tensor_without_all_parts():
    liftnn.to_torch(linear(), [liftnn.Rule("kernel", "kernels", part=(0, 2))])


@message(
    errors.ArgumentError,
    "The rules must be a sequence, not a single Rule.",
    'Pass a list such as [Rule("kernel", "weight")].',
)
def rule_in_place_of_a_list():
    liftnn.from_torch(linear(), tensors(), liftnn.Rule("kernel", "weight"))


@message(
    errors.ArgumentError,
    "A rule is a liftnn.Rule or a pair (pattern, template), not a str.",
    'Pass a list such as [("^encoder", "bert.encoder")].',
)
def pair_in_place_of_a_list():
    liftnn.from_torch(linear(), tensors(), ("weight", "kernel"))


@message(
    errors.ArgumentError,
    "The template 'w.\\\\2' does not fit the pattern '(weight)': invalid group reference 2 at position 3.",
    "Number the groups from 1, as in (r'layers\\.(\\d+)', r'blocks.\\1').",
)
def template_with_a_group_that_the_pattern_lacks():
    liftnn.from_torch(linear(), tensors(), [("(weight)", r"w.\2")])


@message(
    errors.ArgumentError,
    "The template of a rule must be a string or a function that returns one, but that of 'weight' gives an int.",
    "Pass a string such as 'encoder.weight', or None to skip.",
)
def template_that_is_a_number():
    liftnn.from_torch(linear(), tensors(), [("weight", 3)])
