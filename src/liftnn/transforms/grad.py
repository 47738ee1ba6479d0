"""`grad` and `value_and_grad`: gradients of arrays, and of the Variables of modules that a filter picks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from liftnn import errors
from liftnn.filters import Filter, to_predicate
from liftnn.graph import frames
from liftnn.graph.description import ARRAY
from liftnn.graph.state import State
from liftnn.graph.variable import make_variable
from liftnn.graph.variable_types import Param
from liftnn.lifting.configure import configurable
from liftnn.lifting.lift import Finish, Lifted, Options
from liftnn.lifting.pure import PureCall
from liftnn.lifting.result import Argument, Plan, Result
from liftnn.trees import Path, is_array


@dataclasses.dataclass(frozen=True)
class DiffState:
    """One differentiated argument with a filter of its own, inside `argnums`.

    Args:
      argnum: The position of the argument.
      filter: Which of its Variables are differentiated.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> only_bias = liftnn.DiffState(0, liftnn.PathContains("bias"))
      >>> list(liftnn.grad(lambda m, x: m(x).sum(), argnums=only_bias)(model, jnp.ones((1, 2))))
      ['bias']
    """

    argnum: int
    filter: Filter = Param


ArgNums = int | DiffState | Sequence[int | DiffState]


@configurable
def grad(
    f: Callable[..., Any],
    /,
    *,
    argnums: ArgNums = 0,
    wrt: Filter = Param,
    has_aux: bool = False,
    holomorphic: bool = False,
    allow_int: bool = False,
) -> Lifted:
    """The gradient of a scalar function, as `jax.grad`; the gradient of a module is a State.

    What the function does to modules (new values of BatchStats, counts of an Rngs, attributes) is done to them once.

    Args:
      f: A function, a bound method or a module; a method's module is argument 0. It returns a scalar of shape `()`,
        or a pair of a scalar and anything else if `has_aux`.
      argnums: The differentiated arguments: an int, which may be negative, a `DiffState`, or a sequence of them. The
        default is 0.
      wrt: Which Variables of a differentiated module. The default is `Param`.
      has_aux: Whether the function returns something else beside the scalar. The default is False.
      holomorphic: Whether it is holomorphic, with complex input and output. The default is False.
      allow_int: Whether integers may be differentiated, with gradients of dtype `float0`. The default is False.

    Returns:
      A function that returns the gradient, or the pair of gradient and auxiliary output. The gradient of a module
      is a State of its matching Variables, types and metadata kept; a shared Variable stands once, at its first
      path, with the sum. For several `argnums` it is a tuple.

    Raises:
      ArgumentError: When called, if an argument of `argnums` was not passed.
      ArgumentTypeError: If `argnums` is neither; when called, if something of integer or boolean dtype is to be
        differentiated, or if the function does not return a scalar array.
      FilterError: When called, if the filter matches nothing in a module.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> liftnn.grad(lambda model, x: model(x).sum())(model, jnp.ones((1, 2)))["bias"].value.tolist()
      [1.0, 1.0, 1.0]
    """
    finish: Finish = (lambda out, grads: (grads, out[1])) if has_aux else (lambda out, grads: grads)
    return _differentiated(
        f, "grad", finish, argnums, wrt, has_aux, holomorphic=holomorphic, allow_int=allow_int
    )


@configurable
def value_and_grad(
    f: Callable[..., Any],
    /,
    *,
    argnums: ArgNums = 0,
    wrt: Filter = Param,
    has_aux: bool = False,
    holomorphic: bool = False,
    allow_int: bool = False,
) -> Lifted:
    """The value and the gradient of a scalar function, as `jax.value_and_grad`; see `grad`.

    Args:
      f: A function, a bound method or a module; a method's module is argument 0. It returns a scalar of shape `()`,
        or a pair of a scalar and anything else if `has_aux`.
      argnums: The differentiated arguments: an int, which may be negative, a `DiffState`, or a sequence of them. The
        default is 0.
      wrt: Which Variables of a differentiated module. The default is `Param`.
      has_aux: Whether the function returns something else beside the scalar. The default is False.
      holomorphic: Whether it is holomorphic, with complex input and output. The default is False.
      allow_int: Whether integers may be differentiated, with gradients of dtype `float0`. The default is False.

    Returns:
      A function that returns the pair of the function's output and the gradient.

    Raises:
      ArgumentError: When called, if an argument of `argnums` was not passed.
      ArgumentTypeError: If `argnums` is neither; when called, if something of integer or boolean dtype is to be
        differentiated, or if the function does not return a scalar array.
      FilterError: When called, if the filter matches nothing in a module.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> loss, grads = liftnn.value_and_grad(lambda model, x: model(x).sum())(model, jnp.zeros((1, 2)))
      >>> float(loss), grads["bias"].value.tolist()
      (0.0, [1.0, 1.0, 1.0])
    """
    return _differentiated(
        f,
        "value_and_grad",
        lambda out, grads: (out, grads),
        argnums,
        wrt,
        has_aux,
        holomorphic=holomorphic,
        allow_int=allow_int,
    )


def _differentiated(
    f: Callable[..., Any],
    name: str,
    finish: Finish,
    argnums: ArgNums,
    wrt: Filter,
    has_aux: bool,
    **options: Any,
) -> Lifted:
    """`grad` and `value_and_grad`, which differ in what they return only."""
    single = isinstance(argnums, (int, DiffState))
    several: Any = (argnums,) if single else argnums
    if not isinstance(several, Sequence) or not all(isinstance(a, (int, DiffState)) for a in several):
        raise errors.ArgumentTypeError(
            f"argnums must be an int, a DiffState or a sequence of them, not {argnums!r}.", "Correct it."
        )
    chosen = [a if isinstance(a, DiffState) else DiffState(a, wrt) for a in several]

    def bind(plan: Plan, pure: PureCall) -> PureCall:
        selection = Selection(plan, chosen)

        def call(values: Sequence[Any], arrays: Sequence[Any]) -> Result:
            picked = selection.pick(values, arrays, options["allow_int"])

            def loss(diff: Any) -> tuple[Any, Result]:
                result = pure(*picked.put(diff, values, arrays))
                return _scalar(result, has_aux), result

            (_, result), grads = jax.value_and_grad(loss, has_aux=True, **options)(
                picked.take(values, arrays)
            )
            trees = picked.gradients(grads)
            return result._replace(extra=trees[0] if single else tuple(trees))

        return call

    return Lifted((f,), bind, Options(name, finish, check=_check_pair if has_aux else None))


def _check_pair(out: Any) -> Any:
    if not isinstance(out, tuple) or len(out) != 2:
        what = f"a tuple of {len(out)}" if isinstance(out, tuple) else f"a {type(out).__name__}"
        raise errors.ArgumentTypeError(
            "With has_aux=True the function must return a pair (scalar, auxiliary), not "
            f"{'an array' if is_array(out) else what}.",
            "Return a tuple of two, or leave has_aux out.",
        )
    return out


def _scalar(result: Result, has_aux: bool) -> Any:
    """The value to differentiate: the output, or the first of the pair."""
    treedef = result.change.treedef.children()[0] if has_aux else result.change.treedef
    if treedef != _LEAF or result.change.edges[0] is not ARRAY:
        raise errors.ArgumentTypeError(
            "The function to differentiate must return a scalar array" + (" first." if has_aux else "."),
            "Return an array of shape (), of a Variable its `.value`; for further outputs use has_aux=True.",
        )
    return result.arrays[0]


_LEAF = jax.tree.structure(0)


class Selection:
    """Which Variables and arrays are differentiated.

    Args:
      plan: The arguments.
      chosen: The differentiated arguments with their filters.

    Raises:
      ArgumentError: If one of them was not passed.
    """

    def __init__(self, plan: Plan, chosen: Sequence[DiffState]):
        self.plan = plan
        positional, _ = plan.arguments
        self.chosen: list[tuple[Argument, Any]] = []
        for argnum, wrt in ((c.argnum, c.filter) for c in chosen):
            if not -len(positional) <= argnum < len(positional):
                raise errors.ArgumentError(
                    f"argnums has {argnum}, but only {len(positional)} positional arguments were passed.",
                    "Pass the differentiated arguments by position.",
                )
            self.chosen.append((positional[argnum], to_predicate(wrt)))

    def pick(self, values: Sequence[Any], arrays: Sequence[Any], allow_int: bool) -> Picked:
        """Applies the filters to the values at hand.

        Args:
          values: The values of the Variables.
          arrays: The bare arrays.
          allow_int: Whether integers may be differentiated.

        Returns:
          What is differentiated.

        Raises:
          ArgumentTypeError: If something of integer or boolean dtype is to be.
          FilterError: If a filter matches nothing in a module.
        """
        picked = Picked(self.plan)
        for argument, predicate in self.chosen:
            leaves = [self._pick_leaf(leaf, predicate, values, arrays, picked) for leaf in argument.leaves]
            picked.arguments.append((argument.treedef, leaves))
        if not allow_int:
            _check_dtypes(self.plan, picked, values, arrays)
        return picked

    def _pick_leaf(
        self, leaf: int, predicate: Any, values: Sequence[Any], arrays: Sequence[Any], picked: Picked
    ) -> dict[Path, tuple[bool, int]] | int:
        """The differentiated parts of one leaf of an argument: by path for a module, one place for an array."""
        edge = self.plan.graph.edges[leaf]
        if type(edge) is not int:
            if leaf not in self.plan.leaf_arrays:
                raise errors.ArgumentTypeError(
                    f"{self.plan.leaf_names[leaf]} is to be differentiated, but is no array.",
                    "Correct `argnums`.",
                )
            return picked.add_array(self.plan.leaf_arrays[leaf])
        parts: dict[Path, tuple[bool, int]] = {}
        owner = frames.owner_now()
        for path, number, place in self.plan.parts_of(leaf):
            if number is not None:
                cls, slot = self.plan.graph.specs[number].type, self.plan.slots[number]
                variable = make_variable(cls, values[slot], self.plan.metadata_of(number), owner)
                if predicate(path, variable) and jax.tree.leaves(values[slot]):
                    parts[path] = (True, picked.add_value(slot))
            elif place is not None and predicate(path, arrays[place]):
                parts[path] = (False, picked.add_array(place))
        if not parts:
            name = self.plan.leaf_names[leaf]
            raise errors.FilterError(
                f"Nothing to differentiate: no Variable of {name} matches {predicate!r}.",
                "Correct `wrt`, or leave the argument out of `argnums`.",
            )
        return parts


class Picked:
    """The Variables and arrays that are differentiated, each once.

    Args:
      plan: The arguments.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        self.slots: dict[int, int] = {}
        self.places: dict[int, int] = {}
        self.arguments: list[tuple[Any, list[Any]]] = []

    def add_value(self, slot: int) -> int:
        """Adds a Variable; returns its position among the differentiated ones."""
        return self.slots.setdefault(slot, len(self.slots))

    def add_array(self, place: int) -> int:
        """Adds a bare array; returns its position among the differentiated ones."""
        return self.places.setdefault(place, len(self.places))

    def take(self, values: Sequence[Any], arrays: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """What is differentiated."""
        return [values[i] for i in self.slots], [arrays[i] for i in self.places]

    def put(
        self, diff: tuple[list[Any], list[Any]], values: Sequence[Any], arrays: Sequence[Any]
    ) -> tuple[list[Any], list[Any]]:
        """All values and arrays, those that are differentiated replaced: the inverse of `take`."""
        values, arrays = list(values), list(arrays)
        for i, x in zip(self.slots, diff[0], strict=True):
            values[i] = x
        for i, x in zip(self.places, diff[1], strict=True):
            arrays[i] = x
        return values, arrays

    def gradients(self, grads: tuple[list[Any], list[Any]]) -> list[Any]:
        """The gradient of each argument: its tree, with a State for a module."""
        specs, slots = self.plan.graph.specs, list(self.slots)
        taken: set[int] = set()
        owner = frames.owner_now()

        def variable(at: int) -> Any:
            number = self.plan.variables[slots[at]]
            return make_variable(specs[number].type, grads[0][at], self.plan.metadata_of(number), owner)

        def part(of: Any) -> Any:
            if isinstance(of, int):
                return grads[1][of]
            leaves = {}
            for path, (is_value, at) in of.items():
                if is_value and at in taken:
                    continue  # shared with an argument, or a part, further left
                taken.update([at] if is_value else [])
                leaves[path] = variable(at) if is_value else grads[1][at]
            return leaves[()] if () in leaves else State.from_flat(leaves)

        return [treedef.unflatten([part(leaf) for leaf in leaves]) for treedef, leaves in self.arguments]


def _check_dtypes(plan: Plan, picked: Picked, values: Sequence[Any], arrays: Sequence[Any]) -> None:
    """Only floating point and complex numbers have gradients."""
    places = [(values[s], plan.path_of(plan.variables[s])) for s in picked.slots]
    places += [(arrays[i], plan.array_name(i)) for i in picked.places]
    for value, path in places:
        for leaf in jax.tree.leaves(value):
            dtype = jnp.result_type(leaf)
            if not jnp.issubdtype(dtype, jnp.inexact):
                raise errors.ArgumentTypeError(
                    f"{path} is to be differentiated, but its dtype is {dtype}.",
                    "Leave it out with `wrt` or `argnums`, convert it to a floating point dtype, or pass "
                    "allow_int=True.",
                )
