"""Turn a function of modules into a pure function of arrays.

The pure function merges the leaves with the structure of the arguments into copies of the modules, calls the user's
function with them, and walks the output and the copies again. The `Result` describes the output and all changes.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from liftnn import errors
from liftnn._src.captures.plain_objects import note_written
from liftnn._src.graph.description import LeafPaths, NodeSpec, reach
from liftnn._src.graph.kinds import (
    BUILTIN_METHOD,
    FUNCTION,
    METHOD,
    MODULE,
    PARTIAL,
    TRANSFORMED,
    classify,
    is_object,
)
from liftnn._src.graph.merge import GraphDelta, Merged, find_changeable, merge_all
from liftnn._src.graph.rewalk import DiffWalk
from liftnn._src.graph.slots import ARRAY, value_slots
from liftnn._src.lifting.after import names_after
from liftnn._src.lifting.arguments import Uncopied, functions_in
from liftnn._src.lifting.auxiliary import check_pair, is_auxiliary_number
from liftnn._src.lifting.callables import call_in_frame
from liftnn._src.lifting.contract import CAPTURED, Plan, PureFunction, Purified, Result, VariableHooks
from liftnn._src.lifting.kept import WeakFunction
from liftnn._src.lifting.leaks import check_keys, check_static_values
from liftnn._src.lifting.offers import Offer, offer_for
from liftnn._src.lifting.shown import show_as
from liftnn._src.lifting.unchanged import captured_unchanged
from liftnn._src.lifting.values import decode, encode, static_leaf
from liftnn._src.static_values.static import Snapshot
from liftnn._src.trees import (
    Path,
    format_path,
    has_changed,
    holds_no_numbers,
    is_argument_array,
    is_array,
    is_jax_array,
    key_of,
)
from liftnn._src.variables import frames
from liftnn._src.variables.variable import Variable
from liftnn._src.variables.watch import Watch, set_watches


def purify(
    function: Callable[..., Any],
    initial_plan: Plan,
    name: str,
    returned: Sequence[bool] | None = None,
    has_aux: bool = False,
    commit: bool = True,
) -> Purified:
    """Return a pure function with the same effect as `function`.

    Args:
      function: The user's function.
      initial_plan: The arguments' structure; `resume_from` of the pure function replaces it.
      name: The name of the transform in messages.
      returned: For each node whether its arrays or value are returned even if unchanged, because they were donated.
        The default, None, means no node.
      has_aux: Whether the output is a pair, whose second element is passed on as it is. The default is False.
      commit: Whether the result will be propagated to the caller's objects. The default is True.

    Returns:
      The pure function `(leaves, hooks=None, resume_from=None) -> Result`.
    """

    def pure(
        leaves: Sequence[Any], hooks: VariableHooks | None = None, resume_from: Plan | None = None
    ) -> Result:
        called = function.function if isinstance(function, WeakFunction) else function
        offer, plan = offer_for(initial_plan), resume_from or initial_plan
        originals, guards = ((), None) if offer is None else (offer.find_objects(), offer.guards)
        with frames.push_frame(name) as frame:
            tree, merged = merge_all(plan.graph, list(map(decode, leaves)), frame)
            merged.note_changeable()
            tree = _with_uncopied(tree, plan, offer)
            copies = merged.objects[: len(originals)]
            captured = initial_plan.captured if isinstance(function, WeakFunction) else None
            frame.admit(originals, copies, plan.path_of, initial_plan.withheld, captured)
            before = _argument_leaves(tree[:CAPTURED])
            changeable = find_changeable(x for x in before[0] if not is_object(x))
            variables = [merged.objects[number] for number in plan.variables]
            if hooks is not None:
                hooks.before(variables)
            args, kwargs, (stored_args, stored_kwargs), *_ = (*tree, ((), {}))
            watches = _watch_captured(plan, merged, frame)
            functions = (called, *functions_in((*stored_args, *args), {**stored_kwargs, **kwargs}))
            with captured_unchanged(plan, originals, guards, frame, functions):
                out = call_in_frame(frame, called, (*stored_args, *args), {**stored_kwargs, **kwargs})
            note_written(plan.graph)
            if frame.missing:
                raise frames.RetryWithCaptures(frame.missing, frame.missed_at)
            if has_aux:
                out = check_pair(out)
            _check_arguments(tree[:CAPTURED], before, changeable, out)
            ended = _find_ended(watches, merged)
            given_away = returned if frame.outer is frames.PLAIN else None  # nested transforms donate nothing
            result, created = _make_result(called, out, plan, merged, frame, given_away, ended, has_aux)
            if hooks is not None:
                hooks.after(result, variables, created)
                result, _ = _make_result(called, out, plan, merged, frame, given_away, ended, has_aux)
            if commit:
                check_static_values(plan, result, frame)
            initial_plan.unreturnable = _find_unreturnable(plan, result)
            return result

    return show_as(pure, function)


def _find_ended(watches: Mapping[int, Watch], merged: Merged) -> set[int]:
    """Return the numbers of the captured modules that have changed, but for those that other code may change."""
    return {n for n, watch in watches.items() if not (watch.valid or merged.objects[n]._exposed)}


def _with_uncopied(tree: Any, plan: Plan, offer: Offer | None) -> Any:
    """Return the tree of arguments with those that the function gets as they are."""
    if not any(type(edge) is Uncopied for edge in plan.graph.edges):
        return tree
    uncopied = () if offer is None else offer.uncopied
    if not uncopied:
        raise frames.RetryNeeded  # this is a trace on the fast path; the call is made again
    return jax.tree.map(lambda x: uncopied[x.position] if type(x) is Uncopied else x, tree, is_leaf=is_object)


def untraced_copy(pure: PureFunction) -> PureFunction:
    """Wrap a pure function in a new one, so that JAX traces it again.

    JAX caches the trace of a function by its identity, together with the values in its closures.

    Args:
      pure: The pure function.

    Returns:
      A new function that calls it.
    """
    return show_as(lambda leaves: pure(leaves), pure)


def with_arrays(result: Result) -> Result:
    """Replace the numbers in a result by arrays.

    JAX returns numbers for scalar constants if it runs what it has traced without compiling it.

    Args:
      result: The result.

    Returns:
      The result, of which all leaves are arrays.
    """
    return jax.tree.map(lambda x: x if is_jax_array(x) else jax.numpy.asarray(x), result)


def _argument_leaves(tree: Any) -> tuple[list[Any], Any]:
    return jax.tree.flatten(tree, is_leaf=is_object)


def _check_arguments(
    tree: Any, before: tuple[list[Any], Any], changeable: list[tuple[Any, Snapshot]], out: Any
) -> None:
    """Raise if a container among the arguments was changed and is not returned: it is a copy, so that would be lost."""
    old, old_treedef = before
    new, new_treedef = _argument_leaves(tree)
    changed = [x for x, was in changeable if not was.matches(x)]
    is_same = not changed and len(new) == len(old) and all(a is b for a, b in zip(new, old, strict=True))
    if is_same and not has_changed(old_treedef, new_treedef, lambda: _argument_leaves(tree)[1]):
        return
    has_objects = any(map(is_object, old)) or any(map(is_object, new))
    if has_objects and _is_change_lost(old_treedef.unflatten(old), tree, changed, out):
        raise errors.StructureError(
            "A list, dict or other container that was passed as an argument was changed inside the function. The "
            "function gets a copy of the container, as in JAX, so the change would be lost.",
            "Return the container, change a copy of it (`batch = dict(batch)`), or make it an attribute of a module "
            "and pass that module.",
        )


def _is_change_lost(old: Any, new: Any, changed: Sequence[Any], out: Any) -> bool:
    """Return whether two trees differ outside of the containers that are in the output, or by a changed leaf."""
    nodes: list[Any] = []
    leaves = jax.tree.leaves(out, is_leaf=lambda x: nodes.append(x) or is_object(x))
    if {*map(id, changed)} - {*map(id, leaves)}:
        return True
    returned = {*map(id, nodes)} - {*map(id, (None, (), *leaves))}
    kept, treedef = jax.tree.flatten(new, is_leaf=lambda x: is_object(x) or id(x) in returned)
    try:
        before = treedef.flatten_up_to(old)
    except ValueError:
        return True
    return any(a is not b and id(b) not in returned for a, b in zip(before, kept, strict=True))


def _make_result(
    function: Any,
    out: Any,
    plan: Plan,
    merged: Merged,
    frame: frames.Frame,
    returned: Sequence[bool] | None,
    ended: set[int],
    has_aux: bool,
) -> tuple[Result, dict[int, Variable[Any]]]:
    """Walk the output and the arguments; return the result, and the Variables created inside by number."""

    def place(number: int) -> tuple[str, Path]:
        path = plan.node_paths[number][0]
        return plan.path_name(path[:2]), path[2:]

    walk = DiffWalk(merged, frame, returned, place, (function,))
    entries, treedef = jax.tree_util.tree_flatten_with_path(out, is_leaf=is_object)
    check_keys((path for path, _ in entries), frame)
    edges: list[Any] = []
    leaves: list[Any] = []
    for path, leaf in entries:
        walk.root = "the output"
        if (has_aux and is_auxiliary_number(path, leaf)) or not (
            is_object(leaf)
            or is_argument_array(leaf)
            or classify(leaf) in (METHOD, BUILTIN_METHOD, PARTIAL, FUNCTION, TRANSFORMED)
        ):
            edges.append(static_leaf(leaf, lambda path=path: format_path(map(key_of, path), walk.root)))
            continue
        edge, found = walk.visit(_as_output(leaf), tuple(map(key_of, path)))
        edges.append(edge)
        leaves += found
    walk.visit_known()
    specs = walk.finished_specs()
    if plan.captured:
        _check_captured(walk.altered | ended, specs, plan, frame.name)
    has_new_value = {n for n in plan.variables if merged.is_written(n)}
    written = [n for n in plan.variables if n in has_new_value or (returned and returned[n])]
    only_donated = (walk.changed - walk.altered) | (set(written) - has_new_value) if returned else ()
    change = GraphDelta(
        treedef,
        tuple(edges),
        walk.known,
        tuple([(number, specs[number]) for number in sorted(walk.changed)]),
        specs[walk.known :],
        tuple(walk.frozen),
        LeafPaths(path for path, _ in entries),
        tuple(written),
        tuple(sorted(only_donated)),
    )
    created = {slot.node: walk.objects[slot.node] for slot in value_slots(enumerate(change.new, walk.known))}
    order = [*sorted(walk.changed), *range(walk.known, len(walk.objects))]
    leaves += [a for number in order for a in walk.arrays[number]]
    leaves += [encode(variable._value, lambda: "the output") for variable in created.values()]
    leaves += [encode(merged.objects[n]._value, lambda n=n: plan.path_of(n)) for n in written]
    return Result(leaves, change), created


def _find_unreturnable(plan: Plan, result: Result) -> str:
    """Return the name of the first returned leaf that JAX does not take; an empty text if there is none."""
    at = next((i for i, x in enumerate(result.leaves) if holds_no_numbers(x)), None)
    return "" if at is None else names_after(plan, result.change)[result.slots[at]]


def _only_in_slices(plan: Plan) -> list[int]:
    """Return the nodes below mapped arguments that captured modules lead to through the mapped part only."""
    roots = {*plan.argument_roots}.intersection(plan.sliced)
    pairs = zip(plan.leaf_paths, plan.graph.edges, strict=True)
    others = reach(plan.graph.specs, [edge for path, edge in pairs if path[0] == CAPTURED], without=roots)
    return [n for n in plan.sliced if n not in others]


def _only_adds(old: NodeSpec, new: NodeSpec) -> bool:
    """Return whether a node has its old children and perhaps others, and no array leaf, which could have changed."""
    children = dict(zip(new.keys, new.edges, strict=True))
    pairs = zip(old.keys, old.edges, strict=True)
    return old.extra == new.extra and all(e is not ARRAY and children.get(k) == e for k, e in pairs)


def _watch_captured(plan: Plan, merged: Merged, frame: frames.Frame) -> dict[int, Watch]:
    """Watch the copy of each captured module, by number: the function may change it and change it back."""
    watches: dict[int, Watch] = {}
    for number in plan.captured:
        if plan.graph.specs[number].kind is MODULE:
            watch = watches[number] = Watch()
            watch.watcher = weakref.ref(frame)
            set_watches(merged.objects[number], (watch,))
    return watches


def _check_captured(altered: set[int], specs: Sequence[NodeSpec], plan: Plan, name: str) -> None:
    """Raise if the structure of an argument that is also captured has changed: the captured name has the old one.

    A slice may get new attributes: its values cannot be used through the captured name anyway.
    """
    changed = sorted(altered & plan.captured.keys())
    if plan.sliced and changed:
        added = [n for n in _only_in_slices(plan) if _only_adds(plan.graph.specs[n], specs[n])]
        changed = [n for n in changed if n not in added]
    if changed:
        number, captured = changed[0], plan.captured_name(changed[0])
        what = plan.typed_path(number)
        raise errors.TraceContextError(
            f"The structure, the metadata or an array leaf of {what} was changed in liftnn.{name}. The function also "
            f"captures it as {captured}, where the change would not be seen.",
            "Use only the argument inside the function, or change only the values of Variables.",
        )


def _as_output(leaf: Any) -> Any:
    """Return a leaf of the output; a number becomes an array, as in JAX."""
    return (
        jax.numpy.asarray(leaf)
        if is_argument_array(leaf) and not (is_object(leaf) or is_array(leaf) or isinstance(leaf, jax.Ref))
        else leaf
    )
