"""From a function of modules to a pure function of arrays: merge, call, walk again, say what changed."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax

from liftnn import errors
from liftnn.graph.description import LeafPaths
from liftnn.graph.kinds import FUNCTION, METHOD, MODULE, PARTIAL, VARIABLE, classify, is_object
from liftnn.graph.merge import Change, Merged, merge_all
from liftnn.graph.rewalk import Rewalk, changed_value
from liftnn.lifting.escape import check_static_values
from liftnn.lifting.kept import WeakFunction
from liftnn.lifting.result import Plan, Result
from liftnn.lifting.unchanged import captured_unchanged
from liftnn.lifting.values import decode, encode
from liftnn.trees import Path, has_changed, is_argument_array, is_array, key_of
from liftnn.variables import frames
from liftnn.variables.static import Static
from liftnn.variables.variable import Variable
from liftnn.variables.watch import Watch, set_watches

PureCall = Callable[[Sequence[Any], Sequence[Any]], Result]


class Around(Protocol):
    """What a transform does to the Variables inside, before and after the user's function has run."""

    def enter(self, variables: Sequence[Variable[Any]]) -> None:
        """Called before it runs.

        Args:
          variables: The copies of the argument's Variables, in the order of `Plan.variables`.
        """

    def leave(
        self, result: Result, variables: Sequence[Variable[Any]], made: Sequence[Variable[Any]]
    ) -> None:
        """Called when it has run; what this changes is part of the result.

        Args:
          result: What came out, as far as it is known.
          variables: As before.
          made: The Variables made inside, in the order of `Result.new`.
        """


class Purified(Protocol):
    """The pure call of a user's function, as `bind` gets it."""

    def __call__(
        self,
        values: Sequence[Any],
        arrays: Sequence[Any],
        around: Around | None = None,
        left: Plan | None = None,
    ) -> Result:
        """Calls the function with copies of the modules in its arguments, or of what a call has left of them."""
        ...


def purify(
    function: Callable[..., Any],
    given: Plan,
    name: str,
    returned: Sequence[bool] | None = None,
    check: Callable[[Any], Any] | None = None,
    commit: bool = True,
) -> Purified:
    """A pure call that does what `function` does to the modules in its arguments.

    Args:
      function: The user's function.
      given: The arguments' structure.
      name: The transform, for messages.
      returned: For each node whether its arrays, or value, are returned even if unchanged (they were donated). The
        default, None, means none.
      check: Called with what the function returned; raises if it is unfit.
      commit: Whether what the call does will be put into live objects. The default is True.

    Returns:
      The pure call `(values, arrays, around=None, left=None) -> Result`.
    """

    def pure(
        values: Sequence[Any], arrays: Sequence[Any], around: Around | None = None, left: Plan | None = None
    ) -> Result:
        called = function.__wrapped__ if isinstance(function, WeakFunction) else function
        (originals, guards), plan = frames.offered(given), left or given
        with frames.open_frame(name) as frame:
            tree, merged = merge_all(plan.graph, [decode(v) for v in values], arrays, frame)
            frame.admit(originals, merged.objects[: len(originals)], plan.path_of)
            before = _argument_leaves(tree)
            variables = [merged.objects[number] for number in plan.variables]
            if around is not None:
                around.enter(variables)
            args, kwargs, (stored_args, stored_kwargs), *_ = (*tree, ((), {}))
            watches = _watch_captured(plan, merged, frame)
            with captured_unchanged(plan, originals, guards, frame):
                out = called(*stored_args, *args, **{**stored_kwargs, **kwargs})
            if frame.missing:
                raise frames.Missing(frame.missing, frame.missed_at)
            if check is not None:
                check(out)
            _check_arguments(tree, before)
            ended = {n for n, watch in watches.items() if not (watch.valid or merged.objects[n]._exposed)}
            given_away = returned if frame.outer is frames.PLAIN else None  # further in nothing is donated
            result, made = _close(called, out, plan, merged, frame, given_away, ended)
            if around is not None:
                around.leave(result, variables, made)
                result, _ = _close(called, out, plan, merged, frame, given_away, ended)
            if commit:
                check_static_values(plan, result.change, frame)
            return result

    return pure


def renew(pure: PureCall) -> PureCall:
    """A pure call as a function that JAX has not seen before.

    JAX keeps the trace of a function that it has seen, and with it the values that the function found in closures.

    Args:
      pure: The pure call.

    Returns:
      A new function that does the same.
    """
    return lambda values, arrays: pure(values, arrays)


def _argument_leaves(tree: Any) -> tuple[list[Any], Any]:
    return jax.tree.flatten(tree, is_leaf=is_object)


def _check_arguments(tree: Any, before: tuple[list[Any], Any]) -> None:
    """A list or dict of modules that was passed is a copy inside; changing it would be lost."""
    old, old_treedef = before
    new, new_treedef = _argument_leaves(tree)
    is_same = len(new) == len(old) and all(a is b for a, b in zip(new, old, strict=True))
    if is_same and not has_changed(old_treedef, new_treedef, lambda: _argument_leaves(tree)[1]):
        return
    if any(map(is_object, old)) or any(map(is_object, new)):
        raise errors.StructureError(
            "A container of modules that was passed as an argument was changed inside the function. It is a copy "
            "there, as in JAX, so the change would be lost.",
            "Make the container an attribute of a module and pass that, or return the new container.",
        )


def _close(
    function: Any,
    out: Any,
    plan: Plan,
    merged: Merged,
    frame: frames.Frame,
    returned: Sequence[bool] | None,
    ended: set[int],
) -> tuple[Result, list[Variable[Any]]]:
    """Walks what the function returned and what it was given; what is new, and the Variables among it."""

    def place(number: int) -> tuple[str, Path]:
        path = plan.node_paths[number][0]
        return plan.name(path[:2]), path[2:]

    walk = Rewalk(merged, frame, returned, place, (function,))
    entries, treedef = jax.tree_util.tree_flatten_with_path(out, is_leaf=is_object)
    edges: list[Any] = []
    arrays: list[Any] = []
    for path, leaf in entries:
        walk.root = "the output"
        if not (is_object(leaf) or is_argument_array(leaf) or classify(leaf) in (METHOD, PARTIAL, FUNCTION)):
            edges.append(Static(leaf))
            continue
        edge, found = walk.visit(_as_output(leaf), tuple(map(key_of, path)))
        edges.append(edge)
        arrays += found
    walk.visit_known()
    if plan.captured:
        _check_captured(walk.altered | ended, plan, frame.name)
    specs = walk.finished_specs()
    order = [*sorted(walk.changed), *range(walk.known, len(walk.objects))]
    arrays += [a for number in order for a in walk.arrays[number]]
    updates = [_update(number, plan, merged, returned) for number in plan.variables]
    made = [
        walk.objects[number]
        for number in range(walk.known, len(walk.objects))
        if specs[number].kind is VARIABLE
    ]
    new = [encode(variable._value, lambda: "the output") for variable in made]
    change = Change(
        treedef,
        tuple(edges),
        walk.known,
        tuple([(number, specs[number]) for number in sorted(walk.changed)]),
        specs[walk.known :],
        tuple(_frozen_order(walk)),
        LeafPaths(path for path, _ in entries),
    )
    return Result(arrays, new, updates, change), made


def _watch_captured(plan: Plan, merged: Merged, frame: frames.Frame) -> dict[int, Watch]:
    """A watch on the copy of each captured module, by number: a change may be gone again when the function returns."""
    watches: dict[int, Watch] = {}
    for number in plan.captured:
        if plan.graph.specs[number].kind is MODULE:
            watch = watches[number] = Watch()
            watch.plan = weakref.ref(frame)
            set_watches(merged.objects[number], (watch,))
    return watches


def _check_captured(altered: set[int], plan: Plan, name: str) -> None:
    """Refuses a change of structure of what is captured too: who reads the captured name would see the old one."""
    changed = sorted(altered & plan.captured.keys())
    if changed:
        number, captured = changed[0], plan.captured_name(changed[0])
        what = f"{plan.path_of(number)} (a {plan.graph.specs[number].type.__name__})"
        raise errors.TraceContextError(
            f"The structure, the metadata or an array leaf of {what} was changed in liftnn.{name}, and the function "
            f"also reaches it through a closure, as {captured}, where the change would not be seen.",
            "Use it through the argument only, or change nothing but values of Variables.",
        )


def _as_output(leaf: Any) -> Any:
    """A leaf of the output; a number becomes an array, as under JAX."""
    return (
        jax.numpy.asarray(leaf)
        if is_argument_array(leaf) and not (is_object(leaf) or is_array(leaf))
        else leaf
    )


def _update(number: int, plan: Plan, merged: Merged, returned: Sequence[bool] | None) -> Any:
    """The new value of an input Variable, None if it was not written and need not be returned."""
    variable = merged.objects[number]
    if not changed_value(variable, merged.given[number]) and not (returned and returned[number]):
        return None
    return encode(variable._value, lambda: plan.path_of(number))


def _frozen_order(walk: Rewalk) -> list[int]:
    """Frozen nodes to build, each after those it holds: renewed known ones, then new ones as they were finished."""
    renewed = [i for i in walk.before.frozen if i in walk.changed]
    return [*renewed, *walk.frozen]
