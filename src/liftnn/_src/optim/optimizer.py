"""`Optimizer`: an optax transformation with its state, which updates the Variables of a module in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from liftnn import errors
from liftnn._src import lazy
from liftnn._src.filters import Filter, tag_error, to_predicate
from liftnn._src.foreign_names.attributes import answer
from liftnn._src.graph.attributes import attributes_of
from liftnn._src.graph.kinds import is_object
from liftnn._src.graph.undo import to_the_end
from liftnn._src.modules.module import Module
from liftnn._src.modules.update import update
from liftnn._src.modules.verbs import find_variables
from liftnn._src.optim.layout import (
    ParameterLayout,
    check_arrays,
    check_values,
    find_leaves,
    has_arrays,
    same_shapes,
    same_structure,
    shapes,
    shapes_text,
)
from liftnn._src.optim.opt_state import pair_values, set_changed, set_values, to_optax, to_variables
from liftnn._src.optim.packing import InLists, InStates, Packing, choose_packing
from liftnn._src.optim.transformations import call_update, check_transformation, init_state
from liftnn._src.publish import publish
from liftnn._src.trees import Path, an, format_path, key_of, list_paths
from liftnn._src.variables import frames
from liftnn._src.variables.nested import mismatch
from liftnn._src.variables.operators import unwrap_raw
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable
from liftnn._src.variables.variable_types import OptState, Param
from liftnn._src.variables.write_errors import write_error


class _Step(NamedTuple):
    """What a transformation returned, as it is packed.

    Args:
      updates: The updates.
      params: The parameters after them.
      opt_state: The new state.
      writes: The Variables of the state with their new values; None if the new state has another structure.
    """

    updates: Any
    params: Any
    opt_state: Any
    writes: list[tuple[Any, Any]] | None


class Optimizer(Module):
    """An optax gradient transformation with its state; `update` applies gradients to a model in place.

    Functions in the transformation, such as masks and labels, get parameters and gradients as a `State` by path, so
    what `State.map` returns matches them. The state of the transformation is `opt_state`: the tree that optax makes,
    with an `OptState` Variable at each leaf, such as `opt_state[0].mu.kernel` for adam. Assigning to an entry sets the
    value of the Variable, as in `opt_state.hyperparams["learning_rate"] = 1e-4` with `optax.inject_hyperparams`.
    Assigning a whole tree to `opt_state` sets all values, or replaces the state if the structure differs.

    Args:
      model: The module, or tree of modules, to optimize. The optimizer keeps no reference to it.
      tx: A gradient transformation of optax, or an `optax.MultiSteps`.
      wrt: A filter that selects what is optimized: Variables, and arrays that are attributes of modules. The default is
        `Param`.

    Raises:
      ArgumentError: If the mask or labels of `tx` are a dict.
      ArgumentTypeError: If `tx` is not a transformation.
      FilterError: If nothing in the model matches `wrt`.

    Example:
      >>> import jax.numpy as jnp, liftnn, optax
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> optimizer = liftnn.Optimizer(model, optax.sgd(0.5))
      >>> grads = liftnn.grad(lambda m, x: m(x).sum())(model, jnp.ones((1, 2)))
      >>> updates = optimizer.update(model, grads)
      >>> model.bias.value.tolist(), int(optimizer.step.value)
      ([-0.5, -0.5, -0.5], 1)
    """

    opt_state: Any

    def __init__(self, model: Any, tx: Any, *, wrt: Filter = Param):
        check_transformation(tx, model)
        self.step = OptState(jnp.zeros((), jnp.uint32))
        self.tx = tx
        self.wrt = wrt
        leaves = find_leaves(model, wrt)
        if not leaves:
            what = (
                "the model has no Variables"
                if wrt is ...
                else f"no Variable of the model matches {to_predicate(wrt)!r}"
            )
            error = tag_error(to_predicate(wrt), list(find_variables(model, ...)))
            raise error or errors.FilterError(
                f"Nothing to optimize: {what}.",
                "Pass a module with Variables, not a function."
                if wrt is ...
                else "Pass a filter as `wrt` that matches Variables of the model, such as liftnn.Param.",
            )
        check_arrays(leaves, "an Optimizer cannot update it")
        self._layout = ParameterLayout(leaves)
        try:
            opt_state = init_state(tx, self._layout.state(leaves))
        except Exception:
            check_values(leaves, "the transformation of optax cannot create its state")
            raise
        self.opt_state, self._alike = to_variables(opt_state, self._layout, leaves)

    if not TYPE_CHECKING:  # hidden, so that type checkers infer attributes from `__init__` alone

        def __setattr__(self, name: str, value: Any) -> None:
            if name != "opt_state" or name not in attributes_of(self):
                if name in ("lr", "learning_rate") and type(self) is Optimizer:
                    lazy.load("attribute_warnings").warn_of_rate(self, name)
                super().__setattr__(name, value)
            elif value is not self.opt_state and not set_values(self.opt_state, value):
                self._replace_state(value)

    def _replace_state(self, opt_state: Any, parameters: Mapping[Path, Any] = {}) -> None:
        """Replace the state by one of another structure, for the parameters if they are known."""
        tree, self._alike = to_variables(opt_state, self._layout, parameters)
        super().__setattr__("opt_state", tree)

    def update(  # pyright: ignore[reportIncompatibleMethodOverride]  # the field's name for a step
        self, model: Any, grads: Any, **extra: Any
    ) -> State:
        """Apply gradients: update the Variables of the model, the state of the transformation, and `step`.

        Args:
          model: The module, or tree of modules, that the optimizer was created for, or one with the same Variables.
            Those that hold None are left alone.
          grads: The gradients, with the shapes of the Variables: the State that `liftnn.grad` returns for a module, the
            tree of States that it returns for a tree of modules, or nested dicts of arrays. Those of Variables that
            `wrt` does not select are ignored.
          **extra: Keyword arguments for the transformation, such as `value`, `grad` and `value_fn` for `optax.lbfgs`. A
            `value_fn` is called with a State of the parameters. Trees over the parameters have the forms of `grads`.

        Returns:
          The updates that were added to the parameters, as a State.

        Raises:
          ArgumentTypeError: If the gradients come first, or are the whole pair of `value_and_grad`; or if a Variable of
            the model is abstract.
          StructureError: If gradients, model and optimizer do not have the same Variables, in the same shapes; the
            message names the paths, and nothing is changed.
          TraceContextError: If the model belongs to another trace.
        """
        _check_order(model, grads)
        layout, leaves = self._layout, find_leaves(model, self.wrt)
        gradients = _flatten(grads)
        _check_pair(grads, gradients, layout)
        gradients = _without_others(gradients, layout, model)
        _check(layout, leaves, gradients)
        extra_args = {
            name: layout.state(gradients) if x is grads else self._convert(x) for name, x in extra.items()
        }
        packing = choose_packing(self.tx, layout, leaves, self.opt_state, extra_args)
        step = self._transform(packing, leaves, gradients, extra_args)
        if step.writes is None and isinstance(packing, InLists):  # users see the new state, with States in it
            packing = InStates(layout)
            step = self._transform(packing, leaves, gradients, extra_args)
        params, returned = packing.unpack(step.params), packing.state(step.updates)
        count = self.step.value + 1

        def write() -> None:
            _write(model, leaves, params)
            if step.writes is None:
                self._replace_state(step.opt_state, leaves)
            else:
                set_changed(step.writes)
            self.step.value = count

        to_the_end(write)
        return returned

    def optax_state(self) -> Any:
        """Return the state of the transformation as optax has it, for functions of optax that read it.

        Returns:
          `opt_state` with arrays in place of Variables, and for each tree over the parameters a `State` of Variables of
          the parameters' types, which matches `liftnn.state(model, wrt)`.

        Example:
          >>> import jax.numpy as jnp, liftnn, optax
          >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
          >>> optimizer = liftnn.Optimizer(model, optax.contrib.schedule_free_sgd(0.1))
          >>> params = liftnn.state(model, liftnn.Param)
          >>> averaged = optax.contrib.schedule_free_eval_params(optimizer.optax_state(), params)
          >>> averaged.kernel.shape
          (2, 3)
        """
        return to_optax(self.opt_state, InStates(self._layout), {}, ())[0]

    def _transform(
        self,
        packing: Packing,
        leaves: Mapping[Path, Any],
        gradients: Mapping[Path, Any],
        extra: dict[str, Any],
    ) -> _Step:
        """Call the transformation; nothing is written."""
        params = packing.pack(leaves)
        before, structure = to_optax(self.opt_state, packing, leaves, self._alike)
        try:
            updates, after = call_update(self.tx, packing.pack(gradients), before, params, extra)
            _check_shapes("updates", packing.unpack(updates), leaves, _fits_update)
            params = optax.apply_updates(params, updates)
        except TypeError as error:
            _check_integers(gradients, error)
            raise
        return _Step(updates, params, after, pair_values(self.opt_state, before, structure, after))

    def _convert(self, x: Any) -> Any:
        """Return an extra argument as the transformation expects it: a tree over the parameters is a State."""
        if isinstance(x, (State, dict, list, tuple)):
            values = _by_path(x)
            if values.keys() == self._layout.paths.keys():
                return self._layout.state(values)
        return unwrap_raw(x)


def _check_order(model: Any, grads: Any) -> None:
    """Raise ArgumentTypeError if model and gradients are exchanged."""
    if _holds_module(grads) and not _holds_module(model):
        raise errors.ArgumentTypeError(
            "Optimizer.update got the gradients first.", "Write optimizer.update(model, grads)."
        )


def _check_pair(grads: Any, gradients: Mapping[Path, Any], layout: ParameterLayout) -> None:
    """Raise ArgumentTypeError if the gradients are the pair of value and gradients of `value_and_grad`."""
    if type(grads) is not tuple or len(grads) != 2 or gradients.keys() >= layout.paths.keys():
        return
    entries = jax.tree.leaves(grads[1], is_leaf=_is_gradient)
    if entries and all(map(_is_gradient, entries)) and _flatten(grads[1]).keys() >= layout.paths.keys():
        raise errors.ArgumentTypeError(
            "Optimizer.update got the pair that liftnn.value_and_grad returns: the value and the gradients.",
            "Write `loss, grads = liftnn.value_and_grad(f)(model)`, then `optimizer.update(model, grads)`.",
        )


def _holds_module(tree: Any) -> bool:
    return any(isinstance(x, Module) for x in jax.tree.leaves(tree, is_leaf=is_object))


def _flatten(grads: Any) -> dict[Path, Any]:
    """Return gradients by path, from a State, a tree of States, or nested dicts."""
    entries, _ = jax.tree_util.tree_flatten_with_path(grads, is_leaf=_is_gradient)
    if not entries or (not entries[0][0] and not _is_gradient(grads)):
        raise errors.StructureError(
            f"The gradients must be a State, not {an(type(grads))}.",
            "Pass the gradient that liftnn.grad returns for the model.",
        )
    return _by_path(grads)


def _by_path(tree: Any) -> dict[Path, Any]:
    """Return the leaves of a State, a tree of States, or nested dicts by path."""
    entries, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_gradient)
    flat: dict[Path, Any] = {}
    for entry, x in entries:
        root = tuple(map(key_of, entry))
        flat |= {(*root, *p): leaf for p, leaf in x.flat().items()} if isinstance(x, State) else {root: x}
    return {path: x for path, x in flat.items() if has_arrays(x)}


def _without_others(gradients: dict[Path, Any], layout: ParameterLayout, model: Any) -> dict[Path, Any]:
    """Return gradients without those of Variables of the model that the optimizer does not update, if it has all."""
    if not gradients.keys() > layout.paths.keys():
        return gradients
    others = find_leaves(model, ...).keys() - layout.paths.keys()
    return {path: x for path, x in gradients.items() if path not in others}


def _is_gradient(x: Any) -> bool:
    return isinstance(x, (State, Variable))


def _check(layout: ParameterLayout, leaves: Mapping[Path, Any], gradients: Mapping[Path, Any]) -> None:
    """Raise an error if model or gradients do not fit the optimizer, or the model cannot be written."""
    _check_paths(
        leaves,
        tuple(layout.paths),
        "The model does not have the Variables that the optimizer was created for",
        "Create a new Optimizer for the changed model.",
    )
    check_values(leaves, "an Optimizer cannot update it")
    for x in leaves.values():
        if isinstance(x, Variable) and not frames.may_write(x._owner):
            raise write_error(x, "the value")
    _check_paths(
        gradients,
        tuple(layout.paths),
        "The gradients do not cover the Variables that the optimizer updates",
        _remedy_for_owner(layout, gradients),
    )
    _check_shapes("gradients", gradients, leaves, _fits_gradient)


def _remedy_for_owner(layout: ParameterLayout, gradients: Mapping[Path, Any]) -> str | None:
    """Return the remedy for gradients of an object that has the model as an attribute; None for others."""
    first = next(iter(layout.paths), ())
    owners = [path[: -len(first)] for path in gradients if first and path[-len(first) :] == first]
    for owner in filter(None, owners):
        if all((*owner, *path) in gradients for path in layout.paths):
            return (
                f"These are the gradients of an object with the model at {format_path(owner)}. If it is the `self` "
                "of a bound method, it is argument 0 of the derivative: pass `argnums=1` for the first of the call."
            )
    return None


def _fits_gradient(gradient: Any, x: Any) -> bool:
    """Return whether a gradient has the shapes of a parameter, perhaps with a leading axis for the examples."""
    if same_shapes(gradient, x):
        return True
    found, expected = shapes(gradient), shapes(x)
    return [shape[1:] for shape in found if shape] == expected and same_structure(gradient, x)


def _check_integers(gradients: Mapping[Path, Any], error: TypeError) -> None:
    """Raise ArgumentTypeError in place of an error if there are gradients of integers, which optax does not support."""
    found = [
        format_path(path)
        for path, x in gradients.items()
        if any(getattr(leaf, "dtype", None) == jax.dtypes.float0 for leaf in jax.tree.leaves(unwrap_raw(x)))
    ]
    if found:
        raise errors.ArgumentTypeError(
            f"An Optimizer cannot update integers, whose gradients have dtype float0:\n{list_paths(found)}",
            "Keep integers in Variables that `wrt` does not select, such as a `liftnn.Variable`.",
        ) from error


def _fits_update(update: Any, x: Any) -> bool:
    """Return whether an update has the shapes of a parameter; optax may have no update for it."""
    return same_shapes(update, x) or not shapes(update)


def _check_shapes(
    what: str, actual: Mapping[Path, Any], leaves: Mapping[Path, Any], fits: Callable[[Any, Any], bool]
) -> None:
    """Raise StructureError for gradients or updates with shapes that do not fit the model."""
    lines = [
        f"{format_path(path)}: {shapes_text(actual[path])} in the {what}, {shapes_text(x)} in the model"
        for path, x in leaves.items()
        if not fits(actual[path], x)
    ]
    if lines:
        raise errors.StructureError(
            f"The {what} do not have the shapes of the model:\n{list_paths(lines)}",
            "Pass the gradient that liftnn.grad returns for this model.",
        )


def _check_paths(actual: Mapping[Path, Any], expected: Sequence[Path], what: str, remedy: str | None) -> None:
    """Raise StructureError if gradients, or a model, do not have the expected Variables."""
    if set(actual) != set(expected):
        missing = [path for path in expected if path not in actual]
        unknown = [path for path in actual if path not in set(expected)]
        raise mismatch(what, missing, unknown, remedy)


def _write(model: Any, leaves: Mapping[Path, Any], new: Mapping[Path, Any]) -> None:
    """Write new parameters to the model: first the arrays, which may be where nothing can be set."""
    arrays = [(path, new[path]) for path, x in leaves.items() if not isinstance(x, Variable)]
    if arrays:
        update(model, State.from_flat(arrays))
    for path, x in leaves.items():
        if isinstance(x, Variable):
            x.raw_value = unwrap_raw(new[path])  # without hooks, as it was read


answer(Optimizer)
publish(Optimizer)
