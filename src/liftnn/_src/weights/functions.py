"""Save weights, load them, and convert those of other libraries: each function loads its code at first use."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from liftnn._src.files import as_file_name
from liftnn._src.filters import Filter
from liftnn._src.publish import publish
from liftnn._src.tracebacks import boundary
from liftnn._src.weights.report import LoadReport

if TYPE_CHECKING:
    import numpy as np

    from liftnn._src.weights.rule import Renaming, Rule

_HERE = __name__.rpartition(".")[0]


def _load(file: str) -> Any:
    """Return a file of this folder."""
    return importlib.import_module(f"{_HERE}.{file}")


def _options(module: Any, strict: bool, cast: bool) -> Any:
    return _load("fill").Options(module, strict, cast, _load("load").REMEDY)


@boundary
def save_weights(
    file: str | os.PathLike[str],
    module: Any,
    /,
    *filters: Filter,
    max_shard_size: int | None = None,
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write the arrays of a module to a safetensors file, which other programs can read.

    A tensor has the path of its Variable as its name, such as `layers.0.kernel`; a shared Variable is written once. The
    file has a checksum for each tensor. It gets its final name when it is complete, so that a process that dies leaves
    the previous file. All dtypes of JAX but complex128 can be saved, and typed PRNG keys.

    Args:
      file: The path of the file, such as `"model.safetensors"`. A symbolic link stays one: its target is replaced.
      module: A module, or any pytree with modules in it.
      *filters: The Variables to save: those that match one of the filters. Without filters, all are.
      max_shard_size: The size in bytes above which the tensors are divided into several files, beside an index
        `model.safetensors.index.json` as Hugging Face has it. The default, None, means one file of any size.
      metadata: Texts to store in the file, by name; none by default.

    Raises:
      ArgumentError: If a value cannot be saved: an abstract array, an object, or a dtype that the format lacks; if the
        metadata are not texts, `max_shard_size` is not a number of bytes, or the path is that of an index.
      CheckpointError: If the file cannot be written. The previous file is as before then.
      DonatedError: If the buffer of a Variable was donated.
      FilterError: If an argument is not a filter, or if no Variable matches the filters.
      TraceContextError: If a value is a tracer, since the call is inside a transform.

    Example:
      >>> import liftnn, os, tempfile
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> file = os.path.join(tempfile.mkdtemp(), "model.safetensors")
      >>> liftnn.save_weights(file, model)
      >>> other = liftnn.Linear(2, 3, rngs=liftnn.Rngs(1))
      >>> report = liftnn.load_weights(file, other)
      >>> bool((other.kernel == model.kernel).all())
      True

    References:
      The safetensors format, https://huggingface.co/docs/safetensors
    """
    name = as_file_name(file, "liftnn.save_weights(file, module)")
    _load("save").save(name, module, filters, max_shard_size, metadata)


@boundary
def load_weights(
    file: str | os.PathLike[str],
    module: Any,
    /,
    rules: Sequence[Rule | Renaming] | None = None,
    *,
    only: Filter = ...,
    strict: bool = True,
    cast: bool = False,
    verify: bool = True,
) -> LoadReport:
    """Fill a module with the tensors of a safetensors file, in place.

    Everything is checked first, so that a file that is damaged or does not fit changes nothing. Then the tensors are
    read one after the other, each when it replaces the value of its Variable; arrays outside of Variables come first,
    together. The module may be abstract, from `eval_shape`; arrays have the devices and shardings of those that they
    replace.

    Args:
      file: The path of a safetensors file, or of an index of several such as `model.safetensors.index.json`.
      module: A module, or any pytree with modules in it.
      rules: What differs between the paths of the module and the names in the file: pairs `(pattern, template)`,
        applied to the name of each Variable as `re.sub` does; pairs `(pattern, None)` for tensors to skip; and `Rule`s.
        The default, None, means equal names.
      only: A filter that selects the Variables to fill; all by default. The others keep their values, and their tensors
        are not used.
      strict: Whether everything must fit; True by default. Otherwise what fits is loaded.
      cast: Whether floats are converted to the float dtypes of the module, integers to its integers and complex numbers
        to its complex numbers, as by `numpy.ndarray.astype`; False by default.
      verify: Whether the tensors are compared with the checksums that `save_weights` has written, which reads the file
        twice; True by default.

    Returns:
      What did not fit; with `strict`, an empty report with the metadata of the file.

    Raises:
      ArgumentError: If a rule is neither a Rule nor a pair, if the pattern of a Rule matches no Variable, or if a value
        of the module is not an array.
      ArgumentTypeError: If the rules are not a sequence.
      CheckpointError: If the file cannot be read or is damaged, or if something does not fit: the message lists each
        path with both sides. Nothing is changed then. If the disk fails while values are set, the message lists the
        Variables that have not been loaded.
      FilterError: If `only` is not a filter, or matches no Variable.
      MissingPackageError: If safetensors is not installed.
      StructureError: If something immutable holds an array, such as a tuple. Nothing is changed then.
      TraceContextError: If a value is a tracer, since the call is inside a transform, or if a Variable belongs to
        another trace. Nothing is changed then.

    Example:
      >>> import liftnn, os, tempfile
      >>> file = os.path.join(tempfile.mkdtemp(), "model.safetensors")
      >>> liftnn.save_weights(file, {"net": liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))}, metadata={"epoch": "7"})
      >>> layer = liftnn.Linear(2, 3, rngs=liftnn.Rngs(1))
      >>> liftnn.load_weights(file, layer, rules=[("^", "net.")]).metadata["epoch"]
      '7'
    """
    options = _options(module, strict, cast)
    name = as_file_name(file, "liftnn.load_weights(file, module)")
    return _load("load").load(name, module, rules, only, options, verify)


@boundary
def from_torch(
    module: Any,
    state_dict: Mapping[str, Any] | str | os.PathLike[str],
    /,
    rules: Sequence[Rule | Renaming] | None = None,
    *,
    only: Filter = ...,
    strict: bool = True,
    cast: bool = False,
) -> LoadReport:
    """Fill a module with the weights of a PyTorch module, in place.

    If the attributes of both have the same names, no rules are needed: liftnn knows the tensors of its layers' PyTorch
    counterparts and how their layouts differ. `nn.Linear`, convolutions, normalizations, `nn.Embedding`, `nn.PReLU`,
    `nn.MultiheadAttention`, `nn.LSTM`, `nn.GRU`, `nn.RNN` and their cells are known. A `Sequential` here is one there,
    and a list or `Stack` is an `nn.ModuleList`; a list, `Sequential` or `Stack` of `RNN` or `Bidirectional` is one
    `nn.LSTM` with several layers.

    A state_dict has no settings: give `epsilon` (1e-5 in PyTorch), `momentum` (1 minus PyTorch's) and
    `use_hidden_bias=True` (for a GRU) to the layers.

    Args:
      module: A module, or any pytree with modules in it. Its random keys, caches, metrics and optimizer states are left
        as they are, and so are arrays outside of Variables for which there is no tensor.
      state_dict: The tensors by name: `torch_module.state_dict()`, other arrays, or the path of a safetensors file or
        index. A file `.pt` is read by `torch.load(file, map_location="cpu", weights_only=True)`.
      rules: What else differs: pairs `(pattern, template)`, applied to PyTorch's name of each tensor as `re.sub` does;
        pairs `(pattern, None)` for tensors to skip, by their whole names; and `Rule`s, which replace what is known of a
        layer. None by default.
      only: A filter that selects the Variables to fill; all by default.
      strict: Whether everything must fit; True by default. Otherwise what fits is loaded.
      cast: Whether floats are converted to the float dtypes of the module, integers to its integers and complex numbers
        to its complex numbers; False by default.

    Returns:
      What did not fit; with `strict`, an empty report.

    Raises:
      ArgumentError: If a rule is neither a Rule nor a pair, if its template does not fit its pattern, if the pattern of
        a Rule matches no Variable, if a value of the module is not an array, or if the path has the name of a file of
        PyTorch, such as `model.pt`.
      ArgumentTypeError: If `state_dict` is neither a mapping from texts nor a path.
      CheckpointError: If a file cannot be read, or if something does not fit: the message lists each path with both
        sides. Nothing is changed then.
      FilterError: If `only` is not a filter, or matches no Variable.
      TraceContextError: If a Variable belongs to another trace. Nothing is changed then.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> class Net(liftnn.Module):
      ...   def __init__(self, rngs):
      ...     self.hidden = liftnn.Linear(2, 3, rngs=rngs)
      >>> net = Net(liftnn.Rngs(0))
      >>> tensors = {"fc.weight": jnp.ones((3, 2)), "fc.bias": jnp.zeros(3)}  # in PyTorch: fc.state_dict()
      >>> report = liftnn.from_torch(net, tensors, rules=[("^hidden", "fc")])
      >>> net.hidden.kernel.shape
      (2, 3)
    """
    options = _options(module, strict, cast)
    return _load("torch").read_torch(module, state_dict, rules, only, options)


@boundary
def to_torch(
    module: Any, /, rules: Sequence[Rule | Renaming] | None = None, *, only: Filter = ...
) -> dict[str, np.ndarray[Any, Any]]:
    """Return the weights of a module as those of a PyTorch module; the inverse of `from_torch`.

    Arrays outside of Variables are not written: PyTorch does not store tensors that are neither parameters nor buffers.

    `torch_module.load_state_dict({k: torch.from_numpy(x) for k, x in to_torch(module).items()})` loads them.

    Args:
      module: A module, or any pytree with modules in it.
      rules: The rules, as for `from_torch`; none by default.
      only: A filter that selects the Variables; all by default.

    Returns:
      Numpy arrays by name, copies of the values. A sum of two biases is written to the first; the other is zero.

    Raises:
      ArgumentError: If two Variables would be written to one tensor, if parts of a tensor are missing, if the pattern
        of a Rule matches no Variable, or if a value is not an array of numbers: it is abstract, a tracer or random
        keys.
      DonatedError: If the buffer of a Variable was donated.
      FilterError: If `only` is not a filter, or matches no Variable.

    Example:
      >>> import liftnn
      >>> {name: x.shape for name, x in liftnn.to_torch(liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))).items()}
      {'weight': (3, 2), 'bias': (3,)}
    """
    return _load("torch").write_torch(module, rules, only)


@boundary
def from_flax(
    module: Any,
    state: Mapping[Any, Any],
    /,
    rules: Sequence[Rule | Renaming] | None = None,
    *,
    only: Filter = ...,
    strict: bool = True,
    cast: bool = False,
) -> LoadReport:
    """Fill a module with the weights of a Flax NNX module, in place.

    Args:
      module: A module, or any pytree with modules in it. Its random keys, caches, metrics and optimizer states are left
        as they are, and so are arrays outside of Variables for which there is no tensor.
      state: The State of the Flax module, `flax.nnx.state(flax_module)`, or nested dicts of arrays. Keys that are
        numbers may be texts, as in checkpoints. Random keys, caches, metrics and optimizer states in it are skipped.
      rules: What differs between the paths, as for `load_weights`. The default, None, means equal paths, which liftnn's
        layers have.
      only: A filter that selects the Variables to fill; all by default.
      strict: Whether everything must fit; True by default. Otherwise what fits is loaded.
      cast: Whether dtypes of the same kind are converted, as for `from_torch`; False by default.

    Returns:
      What did not fit; with `strict`, an empty report.

    Raises:
      ArgumentError: If a rule is neither a Rule nor a pair, if its template does not fit its pattern, if the pattern of
        a Rule matches no Variable, or if a value of the module is not an array.
      ArgumentTypeError: If `state` is not a mapping.
      CheckpointError: If something does not fit: the message lists each path with both sides. Nothing is changed then.
      FilterError: If `only` is not a filter, or matches no Variable.
      TraceContextError: If a Variable belongs to another trace. Nothing is changed then.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> layer = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> report = liftnn.from_flax(layer, {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)})
      >>> layer(jnp.ones(2)).tolist()
      [2.0, 2.0, 2.0]
    """
    return _load("jax_libraries").read_flax(module, state, rules, only, _options(module, strict, cast))


@boundary
def from_equinox(
    module: Any,
    tree: Any,
    /,
    rules: Sequence[Rule | Renaming] | None = None,
    *,
    only: Filter = ...,
    strict: bool = True,
    cast: bool = False,
) -> LoadReport:
    """Fill a module with the weights of an Equinox module, in place.

    If the attributes of both have the same names, no rules are needed: liftnn knows the layers of `equinox.nn`. The
    running statistics of an `eqx.nn.BatchNorm` are in Equinox's State: load the Params, with `only=liftnn.Param`, and
    set `mean` and `var` yourself.

    Args:
      module: A module, or any pytree with modules in it. Its random keys, caches, metrics and optimizer states are left
        as they are, and so are arrays outside of Variables for which there is no tensor.
      tree: The Equinox module, or any pytree of arrays.
      rules: What else differs, as for `from_torch`; None by default.
      only: A filter that selects the Variables to fill; all by default.
      strict: Whether everything must fit; True by default. Otherwise what fits is loaded.
      cast: Whether dtypes of the same kind are converted, as for `from_torch`; False by default.

    Returns:
      What did not fit; with `strict`, an empty report.

    Raises:
      ArgumentError: If a rule is neither a Rule nor a pair, if its template does not fit its pattern, if the pattern of
        a Rule matches no Variable, or if a value of the module is not an array.
      CheckpointError: If something does not fit: the message lists each path with both sides. Nothing is changed then.
      FilterError: If `only` is not a filter, or matches no Variable.
      TraceContextError: If a Variable belongs to another trace. Nothing is changed then.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> layer = liftnn.Linear(2, 3, use_bias=False, rngs=liftnn.Rngs(0))
      >>> report = liftnn.from_equinox(layer, {"weight": jnp.ones((3, 2))})  # in Equinox: eqx.nn.Linear(2, 3, ...)
      >>> layer(jnp.ones(2)).tolist()
      [2.0, 2.0, 2.0]
    """
    return _load("jax_libraries").read_equinox(module, tree, rules, only, _options(module, strict, cast))


publish(from_equinox, from_flax, from_torch, load_weights, save_weights, to_torch)
