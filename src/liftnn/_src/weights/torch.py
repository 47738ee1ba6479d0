"""Weights from and to PyTorch, by the types of liftnn's layers; PyTorch itself is not needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from liftnn import errors
from liftnn._src.filters import Filter
from liftnn._src.trees import an, is_deleted, is_tracer
from liftnn._src.variables.variable import Variable
from liftnn._src.variables.variable_types import Cache, Intermediate, MetricState, OptState, RngState
from liftnn._src.weights.entries import Entry, check_match, find_entries
from liftnn._src.weights.fill import ArraySource, Options, TensorSource
from liftnn._src.weights.index import Files
from liftnn._src.weights.layer_names import LayerNames
from liftnn._src.weights.load import Locate, fill_by_rules
from liftnn._src.weights.origins import Origin, StackedOrigin, join_parts
from liftnn._src.weights.report import LoadReport
from liftnn._src.weights.rule import Renaming, Rule
from liftnn._src.weights.rules import Rules
from liftnn._src.weights.torch_layers import OLD_NAMES, TORCH

NO_WEIGHTS = (RngState, Cache, Intermediate, OptState, MetricState)
"""The types of Variables that are not weights: other libraries have nothing for them."""


def find_weights(verb: str, module: Any, only: Filter) -> list[Entry]:
    """Return the arrays of a module, without those in Variables that only a run needs.

    Args:
      verb: The function that needs them, for messages.
      module: The module.
      only: A filter that selects some of them.

    Returns:
      The entries.

    Raises:
      FilterError: If `only` matches nothing.
    """
    weights = find_entries(verb, module, lambda path, x: not isinstance(x, NO_WEIGHTS))
    if only is ...:
        return weights
    check_match("convert", " as `only`", module, only)
    selected = {entry.path for entry in find_entries(verb, module, only)}
    return [entry for entry in weights if entry.path in selected]


def fill_weights(
    source: TensorSource,
    entries: Sequence[Entry],
    rules: Sequence[Rule | Renaming] | None,
    locate: Locate,
    options: Options,
    skips: Callable[[str], bool],
) -> LoadReport:
    """Fill the weights of a module; arrays outside of Variables keep their values if there is no tensor for them.

    Args:
      source: The tensors.
      entries: The weights.
      rules: The user's rules.
      locate: Where an entry comes from without rules.
      options: What to do about differences.
      skips: Whether a tensor is not needed, by name.

    Returns:
      The report.
    """
    parsed, names = Rules.of(rules), {*source.names(), *source.ties}
    found = [
        entry
        for entry in entries
        if isinstance(entry.holder, Variable) or names.issuperset(parsed.origin(entry, locate(entry)).names)
    ]
    return fill_by_rules(source, found, rules, locate, options, skips)


def read_torch(
    module: Any,
    state_dict: Mapping[str, Any] | str | os.PathLike[str],
    rules: Sequence[Rule | Renaming] | None,
    only: Filter,
    options: Options,
) -> LoadReport:
    """Fill a module with the tensors of a PyTorch module; see `liftnn.from_torch`."""
    entries, names = find_weights("from_torch", module, only), LayerNames(module, TORCH, shorten=True)

    def fill(source: TensorSource) -> LoadReport:
        locate = _by_old_names(names) if _has_old_names(source) else names
        skips = _counters(entries, Rules.of(rules), locate).__contains__
        return fill_weights(source, entries, rules, locate, options, skips)

    if isinstance(state_dict, Mapping):
        _check_names(state_dict)
        return fill(ArraySource("The state_dict", state_dict))
    if not isinstance(state_dict, (str, os.PathLike)):
        raise errors.ArgumentTypeError(
            f"from_torch takes a state_dict or the path of a safetensors file, not {an(type(state_dict))}.",
            "Pass `torch_module.state_dict()`.",
        )
    path = os.fspath(state_dict)
    if path.endswith((".pt", ".pth", ".bin", ".ckpt")):
        raise errors.ArgumentError(
            f"from_torch reads safetensors files, but {path} has the extension of a PyTorch file, which is a "
            "pickle.",
            "Pass `torch.load(file, map_location='cpu', weights_only=True)`.",
        )
    with Files("from_torch", path) as files:
        return fill(files)


def _has_old_names(source: TensorSource) -> bool:
    """Return whether tensors have the names that PyTorch's `weight_norm` gave them before version 2.1."""
    found = {name.rpartition(".")[2] for name in source.names()}
    return found.issuperset(OLD_NAMES.values()) and not found & {x.rpartition(".")[2] for x in OLD_NAMES}


def _by_old_names(locate: Locate) -> Locate:
    """Return the same places under PyTorch's old names."""

    def rename(name: str) -> str:
        new = next((x for x in OLD_NAMES if name.endswith(x)), None)
        return name if new is None else name.removesuffix(new) + OLD_NAMES[new]

    return lambda entry: locate(entry).renamed(rename)


def _check_names(state_dict: Mapping[Any, Any]) -> None:
    """Raise ArgumentTypeError if the tensors of a state_dict do not have texts as names."""
    for name in state_dict:
        if not isinstance(name, str):
            raise errors.ArgumentTypeError(
                f"The keys of a state_dict must be tensor names, but {name!r} is {an(type(name))}.",
                "Pass `torch_module.state_dict()`.",
            )


def _origins(entry: Entry, rules: Rules, locate: Locate) -> Iterable[Origin | StackedOrigin]:
    """Return where an entry comes from, under each of its paths; each origin once."""
    named = (entry, *(entry.at(path) for path in entry.aliases))
    return dict.fromkeys(rules.origin(e, locate(e)) for e in named)


def _counters(entries: Sequence[Entry], rules: Rules, locate: Locate) -> set[str]:
    """Return the names of the counters of batches, which PyTorch's layers of BatchNorm have beside their means."""
    names = {name for e in entries for origin in _origins(e, rules, locate) for name in origin.names}
    return {name.removesuffix(_MEAN) + "num_batches_tracked" for name in names if name.endswith(_MEAN)}


_MEAN = "running_mean"


def _check_convertible(x: Any, path: str) -> None:
    """Raise an error if a value is not an array of numbers."""
    if is_tracer(x):
        raise errors.ArgumentError(
            f"{path} is a tracer: to_torch was called inside a transform, where arrays have no values.",
            "Call to_torch outside of the compiled function.",
        )
    if is_deleted(x):
        raise errors.DonatedError(f"The buffer of {path} was donated earlier and is gone.")
    if isinstance(x, jax.ShapeDtypeStruct) or jnp.issubdtype(jnp.result_type(x), jax.dtypes.extended):
        what = "abstract" if isinstance(x, jax.ShapeDtypeStruct) else "an array of random keys"
        raise errors.ArgumentError(
            f"to_torch converts arrays of numbers, but {path} is {what}.",
            "Exclude it with `only`, or with a Rule without names.",
        )


def write_torch(module: Any, rules: Sequence[Rule | Renaming] | None, only: Filter) -> dict[str, np.ndarray]:
    """Return the tensors of the PyTorch module; see `liftnn.to_torch`."""
    names, parsed = LayerNames(module, TORCH, shorten=True), Rules.of(rules)
    entries = find_weights("to_torch", module, only)
    parsed.check_match(entries, module)
    written: list[Any] = []
    for entry in entries:
        if not isinstance(entry.holder, Variable):
            continue
        x = entry.value()
        _check_convertible(x, entry.text)
        for origin in _origins(entry, parsed, names):
            written += origin.write(np.asarray(x)) if origin.names else []
    try:
        tensors = join_parts(written)
    except ValueError as error:
        raise errors.ArgumentError(
            f"The rules do not say how to write each tensor: {error}.",
            "Give each Variable a name or part of its own, or skip it with a Rule without names.",
        ) from None
    return {name: np.array(y, order="C") for name, y in tensors.items()}  # copies, which may be written
