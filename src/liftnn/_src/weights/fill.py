"""Fill a module with tensors: first everything is checked, then one Variable after the other gets its value.

The first half looks at names, shapes and dtypes, and raises before anything has changed. The second half reads a tensor
when its Variable's turn has come, so that at most one tensor is in memory besides the values of the module.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from liftnn import errors
from liftnn._src.checkpoints.targets import with_weak_type
from liftnn._src.modules.update import update
from liftnn._src.trees import is_truncated_dtype, list_paths
from liftnn._src.variables import frames
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable, set_value_past_hooks
from liftnn._src.variables.write_errors import write_error
from liftnn._src.weights.entries import Entry, Spec
from liftnn._src.weights.origins import Origin, StackedOrigin
from liftnn._src.weights.report import LoadReport, misfit

_NUMBERS = (bool, int, float, complex)
Origins = Sequence[Origin | StackedOrigin]


class TensorSource(Protocol):
    """Tensors by name."""

    text: str
    """What it is, at the start of a sentence."""
    metadata: Mapping[str, str]
    """Texts by name."""
    ties: Mapping[str, str]
    """For each further name of a tensor the name under which it is stored; `names` need not list it."""

    def names(self) -> Collection[str]:
        """Return the names of the tensors."""
        ...

    def spec(self, name: str) -> Spec:
        """Return shape and dtype of a tensor."""
        ...

    def read(self, name: str) -> Any:
        """Return a tensor as a numpy array, or as an array of typed keys."""
        ...


class Target(NamedTuple):
    """An entry of a module with the tensors that it may come from.

    Args:
      entry: The entry.
      origins: Where it comes from: under its first path, then under each other path. Without names it keeps its value.
    """

    entry: Entry
    origins: Origins


class Fit(NamedTuple):
    """How tensors fit a module.

    Args:
      report: What does not fit.
      chosen: The entries to fill, each with its origin.
    """

    report: LoadReport
    chosen: list[tuple[Entry, Origin | StackedOrigin]]


def fill(
    source: TensorSource, targets: Sequence[Target], skipped: Iterable[str], options: Options
) -> LoadReport:
    """Fill the entries of a module with tensors.

    Args:
      source: The tensors.
      targets: The entries, and where each comes from.
      skipped: Names of tensors that need not be used.
      options: What to do about differences.

    Returns:
      The report; empty if `options.strict`.

    Raises:
      CheckpointError: If tensors and entries differ and `options.strict` is True. Nothing is changed then.
      StructureError: If something immutable holds an array, such as a tuple. Nothing is changed then.
      TraceContextError: If a Variable belongs to another trace. Nothing is changed then.
    """
    fit = compare(source, targets, skipped, options.cast)
    if fit.report and options.strict:
        remedy = None if fit.chosen or fit.report.mismatched else _remedy_for_prefix(source, targets)
        raise misfit(source.text, fit.report, remedy or options.remedy)
    for entry, _ in fit.chosen:
        if isinstance(entry.holder, Variable) and not frames.may_write(entry.holder._owner):
            raise write_error(entry.holder, "the value")
    _commit(source, fit.chosen, options.tree)
    return fit.report


class Options(NamedTuple):
    """What to do about differences.

    Args:
      tree: The module.
      strict: Whether they raise.
      cast: Whether values are cast to the dtypes of the module.
      remedy: The remedy in the error.
    """

    tree: Any
    strict: bool
    cast: bool
    remedy: str


def compare(source: TensorSource, targets: Sequence[Target], skipped: Iterable[str], cast: bool) -> Fit:
    """Compare the tensors with the entries, by name, shape and dtype.

    Args:
      source: The tensors.
      targets: The entries, and where each comes from.
      skipped: Names of tensors that need not be used.
      cast: Whether another dtype of the same kind fits.

    Returns:
      What fits, and a report of what does not.
    """

    def stored_name(name: str) -> str:
        return source.ties.get(name, name)

    listed, used = set(source.names()), set(skipped)
    names = listed | source.ties.keys()
    missing: list[str] = []
    mismatched: list[str] = []
    chosen: list[tuple[Entry, Origin | StackedOrigin]] = []
    for entry, origins in targets:
        if not origins[0].names:
            continue
        present = [o.renamed(stored_name) for o in origins if names.issuperset(o.names)]
        used.update(n if n in listed else stored_name(n) for origin in origins for n in origin.names)
        if not present:
            lacking = [repr(name) for name in origins[0].names if name not in names]
            missing.append(f"{entry.text}: {entry.spec}, from {', '.join(lacking)}")
            continue
        problem = _find_problem(source, entry, list(dict.fromkeys(present)), cast)
        if problem is None:
            chosen.append((entry, present[0]))
        else:
            mismatched.append(f"{entry.text}: {problem}")
    unexpected = [f"{n!r}: {source.spec(n)}" for n in source.names() if n not in used]
    return Fit(LoadReport(tuple(missing), tuple(unexpected), tuple(mismatched), source.metadata), chosen)


def _remedy_for_prefix(source: TensorSource, targets: Sequence[Target]) -> str | None:
    """Return the remedy if all names of tensors have the same text in front, such as 'module.'; None otherwise."""
    names = {*source.names(), *source.ties}
    wanted = [[o.names for o in origins] for _, origins in targets if origins[0].names]
    heads = {option[0] for options in wanted[:1] for option in options}
    prefixes = {name.removesuffix(head) for name in names for head in heads if name.endswith(head)}
    for x in sorted(prefixes - {""}):
        if all(any(names.issuperset(x + n for n in option) for option in options) for options in wanted):
            return (
                f"The names of the tensors have {x!r} in front: add the rule ('^', {x!r}) after all others."
            )
    return None


def _find_problem(source: TensorSource, entry: Entry, origins: Origins, cast: bool) -> str | None:
    """Return in which way a tensor does not fit an entry; None if it does."""
    origin = origins[0]
    named = " and ".join(repr(name) for name in dict.fromkeys(origin.names))
    tensors = " and ".join(str(source.spec(name)) for name in dict.fromkeys(origin.names))
    try:
        spec = _spec_from(source, origin)
    except (ValueError, IndexError) as error:
        return f"{entry.spec} in the module, but {named}: {tensors} {error}"
    if spec.shape != entry.spec.shape or not _dtype_fits(spec.dtype, entry, cast):
        return f"{entry.spec} in the module, {spec} from {named}" + (
            f": {tensors}" if str(spec) != tensors else ""
        )
    if _is_too_wide(entry):
        return f"{entry.spec} in the module, but jax_enable_x64 is off; turn it on first"
    digest = _digest(source, origin) if len(origins) > 1 else None
    for other in origins[1:]:
        if _digest(source, other) != digest:
            names = " and ".join(repr(name) for name in other.names)
            return f"is shared in the module, but {named} and {names} have different values"
    return None


def _spec_from(source: TensorSource, origin: Origin | StackedOrigin) -> Spec:
    """Return shape and dtype of what an origin reads; raise ValueError or IndexError if the tensors do not fit it."""
    specs = [source.spec(name) for name in origin.names]
    if any(jnp.issubdtype(spec.dtype, jax.dtypes.extended) for spec in specs):
        if origin != Origin(origin.names[:1]):
            raise ValueError("cannot be divided, joined, transposed or reshaped")
        return specs[0]
    read = source.read if origin.depends_on_values else lambda name: _stand_in(source.spec(name))
    found: Any = origin.read(read)
    return Spec(tuple(found.shape), found.dtype)


def _stand_in(spec: Spec) -> Any:
    """Return an array of a shape and dtype that takes no memory, to see what steps do to it."""
    return np.broadcast_to(np.zeros((), spec.dtype), spec.shape)


def _digest(source: TensorSource, origin: Origin | StackedOrigin) -> tuple[Spec, bytes] | None:
    """Return what is equal for equal arrays only, so that only one is in memory; None if the tensors do not fit."""
    try:
        spec = _spec_from(source, origin)
    except (ValueError, IndexError):
        return None
    x: Any = origin.read(source.read)
    if jnp.issubdtype(x.dtype, jax.dtypes.extended):
        x = np.asarray(jax.random.key_data(x))
    x = np.ascontiguousarray(x).reshape(-1).view(np.uint8)
    return spec, hashlib.sha256(x).digest()


def _dtype_fits(dtype: Any, entry: Entry, cast: bool) -> bool:
    """Return whether a dtype is that of an entry, or of the same kind if casts are allowed or it is a Python number."""
    if dtype == entry.spec.dtype:
        return True
    kinds = (jnp.floating, jnp.integer, jnp.complexfloating)
    same_kind = any(jnp.issubdtype(dtype, k) and jnp.issubdtype(entry.spec.dtype, k) for k in kinds)
    return same_kind and (cast or issubclass(entry.type, _NUMBERS))


def _is_too_wide(entry: Entry) -> bool:
    """Return whether a jax.Array of 64 bits is to be filled while JAX has none and would drop half of the bits."""
    if issubclass(entry.type, (*_NUMBERS, np.ndarray, np.generic)):
        return False
    return is_truncated_dtype(entry.spec.dtype)


def _commit(source: TensorSource, chosen: list[tuple[Entry, Origin | StackedOrigin]], tree: Any) -> None:
    """Set the values; if something raises in between, such as a signal handler, the rest is set before it goes on."""
    leaves = {e.path: place(o.read(source.read), e) for e, o in chosen if not isinstance(e.holder, Variable)}
    if leaves:
        update(tree, State.from_flat(leaves))
    todo = list(_by_variable(chosen).values())[::-1]
    try:
        _fill_variables(source, todo)
    except BaseException as error:
        try:
            _fill_variables(source, todo)
        except Exception:
            _say_what_remains(error, [group[0][0] for group in todo[::-1]])
        raise


def _say_what_remains(error: BaseException, entries: list[Entry]) -> None:
    """Add the Variables that have not been loaded to an error, in place of its remedy if it has one."""
    paths = list_paths([entry.text for entry in entries])
    if isinstance(error, errors.CheckpointError):
        raise errors.CheckpointError(
            f"{error.cause}\nThese Variables have not been loaded; those before them have:\n{paths}",
            "Load all weights again, from another copy of the file.",
        ) from error.__cause__
    error.add_note(f"These Variables have not been loaded; those before them have:\n{paths}")


def _by_variable(
    chosen: list[tuple[Entry, Origin | StackedOrigin]],
) -> dict[int, list[tuple[Entry, Origin | StackedOrigin]]]:
    """Return the entries of each Variable together."""
    groups: dict[int, list[tuple[Entry, Origin | StackedOrigin]]] = {}
    for entry, origin in chosen:
        if isinstance(entry.holder, Variable):
            groups.setdefault(id(entry.holder), []).append((entry, origin))
    return groups


def _fill_variables(source: TensorSource, todo: list[list[tuple[Entry, Origin | StackedOrigin]]]) -> None:
    """Set the values of Variables, from the end of a list; each is removed from the list when it is done."""
    while todo:
        variable: Variable[Any] = todo[-1][0][0].holder  # pyright: ignore[reportAssignmentType]  # not an array leaf
        leaves, treedef = jax.tree.flatten(variable.raw_value)
        for entry, origin in todo[-1]:
            leaves[entry.position] = place(origin.read(source.read), entry)
        set_value_past_hooks(variable, jax.tree.unflatten(treedef, leaves))
        todo.pop()


def place(x: Any, entry: Entry) -> Any:
    """Return a tensor as the kind of value that an entry has, with its dtype and on its devices.

    Args:
      x: The tensor, of the right shape. Nothing else uses its memory.
      entry: The entry.

    Returns:
      A JAX array, a numpy array or a number.
    """
    if issubclass(entry.type, _NUMBERS):
        return entry.type(x.item())
    if x.dtype != entry.spec.dtype:
        x = x.astype(entry.spec.dtype)
    if isinstance(x, np.ndarray):
        x = _compact(x)
    if issubclass(entry.type, np.generic):
        return x[()]
    if issubclass(entry.type, np.ndarray):
        return x
    x = jax.device_put(x, entry.sharding)
    return with_weak_type(x) if entry.is_weak else x


def _compact(x: Any) -> Any:
    """Return an array as contiguous memory that does not keep a larger tensor alive, such as the whole of a part."""
    whole = x
    while isinstance(whole.base, np.ndarray):
        whole = whole.base
    if (
        whole.nbytes >= 2 * x.nbytes + 128 or not x.flags.c_contiguous
    ):  # more than what aligns a tensor of a file
        return np.array(x, order="C")
    return x


class ArraySource:
    """A mapping of arrays as a source.

    Args:
      text: What it is, at the start of a sentence.
      arrays: Arrays by name; those of other libraries become numpy arrays when they are read.
    """

    metadata: Mapping[str, str] = {}  # empty
    ties: Mapping[str, str] = {}  # empty

    def __init__(self, text: str, arrays: Mapping[str, Any]):
        self.text = text
        self._arrays = arrays

    def names(self) -> Collection[str]:
        """Return the names of the arrays."""
        return self._arrays.keys()

    def spec(self, name: str) -> Spec:
        """Return shape and dtype of an array."""
        x = as_numpy(self.text, name, self._arrays[name])
        return Spec(tuple(x.shape), x.dtype)

    def read(self, name: str) -> Any:
        """Return an array as one of numpy, or of typed keys; a copy, since JAX may use its memory from now on."""
        x = as_numpy(self.text, name, self._arrays[name])
        return x.copy() if isinstance(x, np.ndarray) else x


def as_numpy(text: str, name: str, x: Any) -> Any:
    """Return an array of any library as a numpy array, without a copy if possible.

    Args:
      text: What holds it, for messages.
      name: Its name there.
      x: The array: of numpy, JAX or PyTorch, or an object that numpy can convert.

    Returns:
      The numpy array; typed PRNG keys stay an array of JAX.

    Raises:
      CheckpointError: If it is not an array.
    """
    if isinstance(x, np.ndarray):
        return x
    if isinstance(x, jax.Array):
        return x if jnp.issubdtype(x.dtype, jax.dtypes.extended) else np.asarray(x)
    is_dict = isinstance(x, Mapping)
    try:
        if hasattr(x, "detach"):  # a tensor of PyTorch, which need not be imported
            try:
                return x.numpy(force=True)
            except TypeError:  # a dtype that numpy does not have, such as bfloat16
                return np.asarray(jnp.from_dlpack(x.detach().cpu().contiguous()))
        x = np.asarray(x)
    except (TypeError, ValueError, RuntimeError):
        x = np.asarray(None)
    if x.dtype == object:
        raise errors.CheckpointError(
            f"{text} holds something at {name!r} that is not an array with values.",
            f"Pass the dict at {name!r} itself if it has the weights; otherwise skip it with a rule (pattern, None)."
            if is_dict
            else "Replace it by an array, or skip it with a rule (pattern, None).",
        )
    return x
