"""Nested dicts and leaves by path: from one to the other, and the errors for what does not fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from liftnn import errors
from liftnn._src.printing import mapping, value_repr
from liftnn._src.trees import Key, Path, an, format_path, is_array, list_paths
from liftnn._src.variables.variable import Variable


def left_over(paths: Iterable[str]) -> errors.FilterError:
    """Return the error for Variables that match none of the filters."""
    return errors.FilterError(f"These Variables match none of the filters:\n{list_paths(paths)}")


def leaf_above_others(path: Path) -> errors.StructureError:
    """Return the error for a leaf at a path that leads to other leaves."""
    return errors.StructureError(
        f"{format_path(path)} cannot be a leaf of a State: other paths lead through it.",
        "Give each value a path that does not begin with the path of another one.",
    )


def mismatch(
    what: str, missing: Iterable[Path], unknown: Iterable[Path], remedy: str | None = None
) -> errors.StructureError:
    """Return the error for two sets of paths that should be the same.

    Args:
      what: What does not fit.
      missing: The paths that are missing.
      unknown: The paths that are unexpected.
      remedy: What to do; the default, None, is that of `StructureError`.

    Returns:
      The error.
    """
    lines = [what + ":"]
    for title, paths in (("missing", list(missing)), ("unexpected", list(unknown))):
        if paths:
            lines += [f"{title}:", list_paths((format_path(p) for p in paths), most=4)]
    return errors.StructureError("\n".join(lines), remedy)


def not_a_state(verb: str, x: Any) -> errors.ArgumentTypeError:
    """Return the error for an argument of a function that takes States.

    Args:
      verb: The function.
      x: The argument.

    Returns:
      The error.
    """
    is_module = hasattr(type(x), "__graph_node__") and not isinstance(x, Variable)
    return errors.ArgumentTypeError(
        f"{verb} takes States or nested dicts, not {an(type(x))}.",
        "Pass its State, `liftnn.state(model)`."
        if is_module
        else "Write `*states, graphdef = split(model)`: `split` returns the GraphDef last, and `merge(graphdef, "
        "*states)` takes it first. `State.from_flat` creates a State from values by path.",
    )


def flatten_nested(tree: Mapping[Key, Any], stop: Mapping[Path, Any] = {}) -> Iterator[tuple[Path, Any]]:
    """Yield path and leaf of a nested mapping, in order.

    Args:
      tree: The mapping.
      stop: Paths of leaves, as texts; mappings there are leaves.

    Yields:
      The path and the leaf.
    """
    stack: list[tuple[Path, Any]] = [((), tree)]
    while stack:
        path, x = stack.pop()
        if isinstance(x, Mapping) and tuple(map(str, path)) not in stop:
            stack += [((*path, key), child) for key, child in x.items()][::-1]
        else:
            yield path, x


def pair_paths(leaves: Mapping[Path, Any], values: Mapping[Key, Any]) -> dict[Path, Any]:
    """Return the entries of a nested mapping by the paths of the leaves that they stand for.

    Args:
      leaves: The leaves by path.
      values: Nested mappings, with all or some of the paths; integer keys may be given as strings.

    Returns:
      The entries.

    Raises:
      StructureError: If a path is unknown, or there twice.
    """
    by_text = {tuple(map(str, path)): path for path in leaves}
    found: dict[Path, Any] = {}
    unknown: list[Path] = []
    for path, x in flatten_nested(values, by_text):
        actual = path if path in leaves else by_text.get(tuple(map(str, path)))
        if actual is None or actual in found:
            unknown.append(path)
        else:
            found[actual] = x
    if unknown:
        raise mismatch("The values do not fit the State", (), unknown)
    return found


def nest(leaves: Iterable[tuple[Path, Any]]) -> Any:
    """Return plain nested dicts from leaves by path.

    Args:
      leaves: Pairs of path and leaf.

    Returns:
      The dicts; the leaf itself for the empty path.
    """
    tree: dict[Key, Any] = {}
    for path, x in leaves:
        if not path:
            return x
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = x
    return tree


def with_aside(
    path: Path, below: list[tuple[Path, Any]], aside: Mapping[Path, Any], with_metadata: bool
) -> list[tuple[Path, Any]]:
    """Return the entries of a State with the leaves that no key leads to, each behind its Variable.

    Args:
      path: The path of the State.
      below: The entries by path.
      aside: The leaves, by path from the State.
      with_metadata: Whether to include those in the metadata of Variables.

    Returns:
      The entries and leaves by path.
    """
    found = [(path, aside[()])] if () in aside else []
    for entry in below:
        found.append(entry)
        if with_metadata:
            found += [((*path, *p), x) for p, x in aside.items() if p and (*path, p[0]) == entry[0]]
    return found


def render(x: Any, depth: int = 0) -> str:
    """Format nested dicts of Variables.

    Args:
      x: The dicts, or a leaf.
      depth: The depth at which they are.

    Returns:
      The text.
    """
    if not isinstance(x, dict):
        return value_repr(x) if is_array(x) else repr(x)
    if depth > 48:
        return "{...}"
    return mapping((repr(key), render(child, depth + 1)) for key, child in x.items())
