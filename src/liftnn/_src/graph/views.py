"""Text forms of structures: a description as text, and the difference between two by attribute path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from liftnn import errors
from liftnn._src.graph.description import GraphSpec, NodeSpec, find_all_paths, static_of
from liftnn._src.graph.kinds import CELL, DICT, FUNCTION, LIST, MODULE, TRANSFORMED, VARIABLE
from liftnn._src.graph.slots import ARRAY
from liftnn._src.printing import MAX_DEPTH, call, mapping, ordered_repr, value_repr
from liftnn._src.static_values.object_content import ObjectContent
from liftnn._src.static_values.static import Static, static_key
from liftnn._src.trees import Path, format_path, list_paths, same_tree, treedef_text


def render_edge(graphdef: GraphSpec, edge: Any, seen: set[int], depth: int = 0) -> str:
    """Format one edge: a nested definition at the first visit, then only its number."""
    if edge is ARRAY:
        return "Array"
    if type(edge) is not int:
        return value_repr(static_of(edge))
    if edge in seen:
        return str(edge)
    seen.add(edge)
    spec = graphdef.specs[edge]
    if depth > MAX_DEPTH:
        return f"{_name_of(spec)}(...)"
    if spec.kind is VARIABLE:
        return _render_variable(graphdef, edge, spec, seen, depth)
    if spec.kind is MODULE:
        return _render_module(graphdef, edge, spec, seen, depth)
    if spec.kind is CELL:
        return render_edge(graphdef, spec.edges[0], seen, depth) if spec.edges else "cell()"
    children = [
        (k, render_edge(graphdef, e, seen, depth + 1)) for k, e in zip(spec.keys, spec.edges, strict=True)
    ]
    if spec.kind in (LIST, DICT):
        return mapping((repr(k), text) for k, text in children)
    if spec.kind is FUNCTION:
        shown = children[:-1] if children[-1][1] == mapping(()) else children
        return call(spec.extra.name, [(str(k), text) for k, text in shown])
    return call(_name_of(spec), [(str(k), text) for k, text in children])


def _name_of(spec: NodeSpec) -> str:
    """Return the class of a node; of a transformed function, the transform with its options."""
    return repr(spec.extra) if spec.kind is TRANSFORMED else spec.type.__name__


def _render_variable(graphdef: GraphSpec, number: int, spec: NodeSpec, seen: set[int], depth: int) -> str:
    """Format a Variable. Its metadata are edges if they hold nodes, such as functions, and static otherwise."""
    edges = zip(spec.keys, spec.edges, strict=True)
    nodes = [(repr(k), render_edge(graphdef, edge, seen, depth + 1)) for k, edge in edges]
    entries = mapping(nodes or [(repr(k), value_repr(v)) for k, v in spec.extra.items()])
    return call("VariableDef", [("type", spec.type.__name__), ("index", str(number)), ("metadata", entries)])


def _render_module(graphdef: GraphSpec, number: int, spec: NodeSpec, seen: set[int], depth: int) -> str:
    """Format a module: submodules, static values and Variables in separate groups."""
    subgraphs, static, variables = [], [], []
    for key, edge in zip(spec.keys, spec.edges, strict=True):
        is_node = type(edge) is int
        kind = graphdef.specs[edge].kind if is_node else None
        group = variables if kind is VARIABLE else subgraphs if is_node or edge is ARRAY else static
        group.append((repr(key), render_edge(graphdef, edge, seen, depth + 1)))
    entries = [
        ("type", spec.type.__name__),
        ("index", str(number)),
        ("attributes", repr(spec.keys)),
        ("subgraphs", mapping(subgraphs)),
        ("static_fields", mapping(static)),
        ("variables", mapping(variables)),
        ("metadata", repr(spec.type)),
    ]
    return call("GraphDef", entries)


def describe_difference(
    old: GraphSpec, new: GraphSpec, name: Callable[[Path], str] = format_path, most: int = 8
) -> str:
    """Describe the differences between two structures, one line per attribute path.

    Args:
      old: The first structure.
      new: The second structure.
      name: Formats a path.
      most: The maximum number of lines.

    Returns:
      The lines; the empty string if nothing differs.
    """
    if old == new:
        return ""
    before, after = describe_paths(old, name), describe_paths(new, name)
    lines: list[str] = []
    for path in dict.fromkeys([*before, *after]):
        a, b = before.get(path), after.get(path)
        if a is not None and b is not None and a[0] == b[0]:
            continue
        where, was, now = name(path), a and a[1], b and b[1]
        if was is None:
            lines.append(f"{where}: added, {now}")
        elif now is None:
            lines.append(f"{where}: removed, was {was}")
        else:
            lines.append(f"{where}: {was} -> {now}{' with different content' if was == now else ''}")
    lines = lines or _describe_orders(old, new, name)
    return list_paths(lines, most, indent="")


def _describe_orders(old: GraphSpec, new: GraphSpec, name: Callable[[Path], str]) -> list[str]:
    """Describe the differences between two structures that agree at every path."""
    if not same_tree(old.treedef, new.treedef):
        return [_describe_trees(old.treedef, new.treedef, name)]
    after = {path: new.specs[number].keys for number, (path, *_) in find_all_paths(new).items()}
    pairs = [(path, old.specs[n].keys, after[path]) for n, (path, *_) in find_all_paths(old).items()]
    return [
        f"{name(path)}: the order {', '.join(map(str, a))} -> {', '.join(map(str, b))}"
        for path, a, b in pairs
        if a != b
    ]


def _describe_trees(old: Any, new: Any, name: Callable[[Path], str], path: Path = ()) -> str:
    """Describe the difference between two tree structures with the same paths, such as a tuple and a list."""
    a, b = old.node_data(), new.node_data()
    if a is not None and b is not None and a[0] is b[0] and (a[0] is not dict or a[1] == b[1]):
        children = list(zip(old.children(), new.children(), strict=False))
        keys = a[1] if a[0] is dict else range(len(children))
        for key, (x, y) in zip(keys, children, strict=True):
            if not same_tree(x, y):
                return _describe_trees(x, y, name, (*path, key))
    where = f"{name(path)}: " if path else ""
    return f"{where}{treedef_text(old)} -> {treedef_text(new)}"


def describe_paths(graphdef: GraphSpec, name: Callable[[Path], str]) -> dict[Path, tuple[Any, str]]:
    """Return, by path, a comparable value and its text."""
    leaves = [(p, e) for p, e in zip(graphdef.paths, graphdef.edges, strict=True) if type(e) is not int]
    divided = [
        (p, e.value) for p, e in leaves if type(e) is Static and hasattr(type(e.value), "describe_parts")
    ]
    result = {p: _describe_leaf(e) for p, e in leaves}
    paths = find_all_paths(graphdef)
    for number, (path, *others) in paths.items():
        spec = graphdef.specs[number]
        is_variable = spec.kind is VARIABLE
        text = f"the function {spec.extra.name}" if spec.kind is FUNCTION else spec.type.__name__
        result[path] = ((spec.type, None if is_variable else spec.extra), text)
        for other in others:
            result[other] = (("same as", path), f"the same object as {name(path)}")
        if is_variable:
            result |= {(*path, key): (static_key(x), _text_of(x)) for key, x in spec.extra.entries.items()}
        for key, edge in zip(spec.keys, spec.edges, strict=True):
            if type(edge) is not int:
                result[(*path, key)] = _describe_leaf(edge)
            if type(edge) is Static and edge.content is not None:
                result |= _describe_content((*path, key), edge.content)
    for path, value in divided:  # what is captured, which has parts with paths of their own
        del result[path]
        result |= value.describe_parts(path, paths)
    return result


def _describe_content(path: Path, content: ObjectContent) -> dict[Path, tuple[Any, str]]:
    """Return, by path, a comparable value and the text of each attribute of plain objects."""
    return {
        (*path, *x.path, name): (value, x.texts[name])
        for x in content.objects.values()
        for name, value in x.values.items()
    }


def _describe_leaf(edge: Any) -> tuple[Any, str]:
    """Return a comparable value and the text of an array leaf or static value."""
    if edge is ARRAY:
        return ARRAY, "an array"
    value = static_of(edge)
    try:
        return static_key(value), _text_of(value)
    except errors.StructureError:  # a function holds it
        return static_key(value, inside=True), _text_of(value)


def _text_of(value: Any) -> str:
    """Return the text of a static value on one line of limited length."""
    text = " ".join(ordered_repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
