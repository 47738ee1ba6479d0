"""Fill a module with tensors: first everything is checked, then one Variable after the other gets its value.

The first half looks at names, shapes and dtypes, and raises before anything has changed. The second half reads a tensor
when its Variable's turn has come, so that at most one tensor is in memory besides the values of the module.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from liftnn import errors
from liftnn._src.modules.verbs import update
from liftnn._src.variables import frames
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable, set_value_past_hooks
from liftnn._src.weights.entries import Entry, Spec
from liftnn._src.weights.origins import Origin, StackedOrigin
from liftnn._src.weights.report import LoadReport, misfit

_NUMBERS = (bool, int, float, complex)
Origins = Sequence[Origin | StackedOrigin]


class Source(Protocol):
    """Tensors by name."""

    text: str
    """What it is, at the start of a sentence."""
    metadata: Mapping[str, str]
    """Texts by name."""

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


def fill(source: Source, targets: Sequence[Target], skipped: Iterable[str], options: Options) -> LoadReport:
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
      TraceContextError: If a Variable belongs to another trace. Nothing is changed then.
    """
    fit = compare(source, targets, skipped, options.cast)
    if fit.report and options.strict:
        raise misfit(source.text, fit.report, options.remedy)
    for entry, _ in fit.chosen:
        if isinstance(entry.holder, Variable) and not frames.may_write(entry.holder._owner):
            raise frames.write_error(entry.holder, "the value")
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


def compare(source: Source, targets: Sequence[Target], skipped: Iterable[str], cast: bool) -> Fit:
    """Compare the tensors with the entries, by name, shape and dtype.

    Args:
      source: The tensors.
      targets: The entries, and where each comes from.
      skipped: Names of tensors that need not be used.
      cast: Whether another dtype of the same kind fits.

    Returns:
      What fits, and a report of what does not.
    """
    names, used = set(source.names()), set(skipped)
    missing: list[str] = []
    mismatched: list[str] = []
    chosen: list[tuple[Entry, Origin | StackedOrigin]] = []
    for entry, origins in targets:
        if not origins[0].names:
            continue
        present = [origin for origin in origins if names.issuperset(origin.names)]
        used.update(name for origin in origins for name in origin.names)
        if not present:
            lacking = [repr(name) for name in origins[0].names if name not in names]
            missing.append(f"{entry.text}: {entry.spec}, from {', '.join(lacking)}")
            continue
        problem = _find_problem(source, entry, present, cast)
        if problem is None:
            chosen.append((entry, present[0]))
        else:
            mismatched.append(f"{entry.text}: {problem}")
    unexpected = [f"{n!r}: {source.spec(n)}" for n in source.names() if n not in used]
    return Fit(LoadReport(tuple(missing), tuple(unexpected), tuple(mismatched), source.metadata), chosen)


def _find_problem(source: Source, entry: Entry, origins: Origins, cast: bool) -> str | None:
    """Return in which way a tensor does not fit an entry; None if it does."""
    origin = origins[0]
    named = " and ".join(repr(name) for name in dict.fromkeys(origin.names))
    tensors = " and ".join(str(source.spec(name)) for name in dict.fromkeys(origin.names))
    read = source.read if origin.depends_on_values else lambda name: _stand_in(source.spec(name))
    try:
        found: Any = origin.read(read)
    except ValueError as error:
        return f"{entry.spec} in the module, but {named}: {tensors} {error}"
    spec = Spec(tuple(found.shape), found.dtype)
    if spec.shape != entry.spec.shape or not _dtype_fits(spec.dtype, entry, cast):
        return f"{entry.spec} in the module, {spec} from {named}" + (
            f": {tensors}" if str(spec) != tensors else ""
        )
    for other in origins[1:]:
        if not _equal(origin.read(source.read), other.read(source.read)):
            names = " and ".join(repr(name) for name in other.names)
            return f"is shared in the module, but {named} and {names} have different values"
    return None


class _KeyStandIn:
    """Shape and dtype of an array of typed keys."""

    def __init__(self, spec: Spec):
        self.shape, self.dtype = spec


def _stand_in(spec: Spec) -> Any:
    """Return an array of a shape and dtype that takes no memory, to see what steps do to it."""
    if jnp.issubdtype(spec.dtype, jax.dtypes.extended):
        return _KeyStandIn(spec)
    return np.broadcast_to(np.zeros((), spec.dtype), spec.shape)


def _equal(a: Any, b: Any) -> bool:
    """Return whether two arrays have the same shape, dtype and bytes."""
    if jnp.issubdtype(a.dtype, jax.dtypes.extended):
        a, b = (np.asarray(jax.random.key_data(x)) for x in (a, b))
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def _dtype_fits(dtype: Any, entry: Entry, cast: bool) -> bool:
    """Return whether a dtype is that of an entry, or of the same kind if casts are allowed or it is a Python number."""
    if dtype == entry.spec.dtype:
        return True
    kinds = (jnp.floating, jnp.integer, jnp.complexfloating)
    same_kind = any(jnp.issubdtype(dtype, k) and jnp.issubdtype(entry.spec.dtype, k) for k in kinds)
    return same_kind and (cast or issubclass(entry.type, _NUMBERS))


def _commit(source: Source, chosen: list[tuple[Entry, Origin | StackedOrigin]], tree: Any) -> None:
    """Set the values; if something raises in between, such as a signal handler, the rest is set before it goes on."""
    leaves = {e.path: place(o.read(source.read), e) for e, o in chosen if not isinstance(e.holder, Variable)}
    if leaves:
        update(tree, State.from_flat(leaves))
    todo = list(_by_variable(chosen).values())[::-1]
    try:
        _fill_variables(source, todo)
    except BaseException as error:
        remaining = len(todo)
        try:
            _fill_variables(source, todo)
        except Exception:
            error.add_note(f"{remaining} Variables have not been loaded, the others have.")
        raise


def _by_variable(
    chosen: list[tuple[Entry, Origin | StackedOrigin]],
) -> dict[int, list[tuple[Entry, Origin | StackedOrigin]]]:
    """Return the entries of each Variable together."""
    groups: dict[int, list[tuple[Entry, Origin | StackedOrigin]]] = {}
    for entry, origin in chosen:
        if isinstance(entry.holder, Variable):
            groups.setdefault(id(entry.holder), []).append((entry, origin))
    return groups


def _fill_variables(source: Source, todo: list[list[tuple[Entry, Origin | StackedOrigin]]]) -> None:
    """Set the values of Variables, from the end of a list; each is removed from the list when it is done."""
    while todo:
        variable: Variable[Any] = todo[-1][0][0].holder  # pyright: ignore[reportAssignmentType]  # not an array leaf
        leaves, treedef = jax.tree.flatten(variable.raw_value)
        for entry, origin in todo[-1]:
            leaves[entry.position] = None  # frees the old array as soon as nothing else holds it
            leaves[entry.position] = place(origin.read(source.read), entry)
        set_value_past_hooks(variable, jax.tree.unflatten(treedef, leaves))
        todo.pop()


def place(x: Any, entry: Entry) -> Any:
    """Return a tensor as the kind of value that an entry has, with its dtype and on its devices.

    Args:
      x: The tensor, of the right shape.
      entry: The entry.

    Returns:
      A JAX array, a numpy array or a number.
    """
    if issubclass(entry.type, _NUMBERS):
        return entry.type(x.item())
    if x.dtype != entry.spec.dtype:
        x = x.astype(entry.spec.dtype)
    if issubclass(entry.type, np.generic):
        return np.array(x)[()]
    if issubclass(entry.type, np.ndarray):
        return np.array(x)
    if isinstance(x, np.ndarray):
        x = np.ascontiguousarray(x).reshape(x.shape)
    return jax.device_put(x, entry.sharding)


class ArraySource:
    """A mapping of arrays as a source.

    Args:
      text: What it is, at the start of a sentence.
      arrays: Arrays by name; those of other libraries become numpy arrays when they are read.
    """

    metadata: Mapping[str, str] = {}  # empty

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
            "Replace it by an array, or skip it with a rule (pattern, None).",
        )
    return x
