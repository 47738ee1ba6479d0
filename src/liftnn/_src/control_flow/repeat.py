"""`repeat`: many steps of an ordinary step function in one compiled program."""

from __future__ import annotations

import functools
import inspect
import operator
import types
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from liftnn import errors
from liftnn._src.compilation.jit import jit
from liftnn._src.compilation.jitted import Jitted
from liftnn._src.control_flow.scan import scan
from liftnn._src.graph.graphdef import merge, split
from liftnn._src.graph.kinds import is_object
from liftnn._src.graph.recipes import Recipe
from liftnn._src.lifting.callables import unwrap_callable
from liftnn._src.lifting.configure import keep_items
from liftnn._src.lifting.contract import name_argument
from liftnn._src.lifting.lift import Lifted, LiftOptions
from liftnn._src.lifting.shown import show_as
from liftnn._src.modules.iterate import iter_graph
from liftnn._src.publish import publish
from liftnn._src.static_values.static import Static
from liftnn._src.tracebacks import boundary, warn
from liftnn._src.trees import (
    an,
    format_path,
    is_argument_array,
    is_jax_array,
    key_of,
    list_paths,
    treedef_text,
    type_of,
)


@boundary
def repeat(step: Callable[..., Any], n: int, /, *, unroll: int = 1, **options: Any) -> Jitted[..., Any]:
    """Run a step function several times in one compiled program, for models so small that calls dominate.

    A step is an ordinary function that changes modules in place, and `repeat(step, n)(model, optimizer, batches)` does
    what a loop over `step(model, optimizer, batch)` does. All steps get the same modules. Each array among the
    arguments has a leading axis with one entry for each step, and so have the outputs.

    The first step may change the structure of the modules. If later ones do, no loop can be compiled: then the program
    contains each step, which takes longer to compile, and a warning names what changes.

    Args:
      step: The function of one step, a bound method or a module; the module of a bound method is argument 0.
      n: The number of steps, at least 1.
      unroll: The number of steps to unroll into one iteration of the loop. The default is 1.
      **options: Options of `liftnn.jit`, such as `donate_argnums`.

    Returns:
      The compiled function of all steps. It takes the arguments of `step`, with stacked arrays, and returns the outputs
      of all steps, stacked along a leading axis of size n.

    Raises:
      ArgumentError: If `n` is less than 1; when called, if an array has no leading axis of size n.
      ArgumentTypeError: If `step` is not callable or `n` is not an integer.

    Example:
      >>> import jax.numpy as jnp, liftnn, optax
      >>> model = liftnn.Linear(2, 1, rngs=liftnn.Rngs(0))
      >>> optimizer = liftnn.Optimizer(model, optax.sgd(0.1))
      >>> def step(model, optimizer, x):
      ...   loss, grads = liftnn.value_and_grad(lambda model: (model(x) ** 2).mean())(model)
      ...   optimizer.update(model, grads)
      ...   return loss
      >>> losses = liftnn.repeat(step, 10)(model, optimizer, jnp.ones((10, 4, 2)))
      >>> losses.shape, int(optimizer.step.value)
      ((10,), 10)
    """
    try:
        count = operator.index(n)
    except TypeError:
        raise errors.ArgumentTypeError(
            f"The number of steps of liftnn.repeat is {an(type(n))}, not an integer: {n!r:.60}.",
            "Pass it as the second argument: `repeat(step, n)`.",
        ) from None
    if count < 1:
        raise errors.ArgumentError(f"liftnn.repeat got {count} steps.", "Pass a number that is at least 1.")

    function, owner, stored = unwrap_callable(step, "repeat")
    function = step if stored is not None else function

    @functools.wraps(function)
    def steps(*args: Any, **kwargs: Any) -> Any:
        arguments, n_args, names = (*args, *kwargs.values()), len(args), tuple(kwargs)
        static = {i: x for i, x in enumerate(arguments) if _is_static(x)}
        operands = tuple([None if i in static else x for i, x in enumerate(arguments)])
        axes = jax.tree.map(_axis, operands, is_leaf=is_object)
        _check_sizes(args, kwargs, count)

        def one(*args: Any) -> Any:
            every = [static.get(i, x) for i, x in enumerate(args)]
            return function(*every[:n_args], **dict(zip(names, every[n_args:], strict=True)))

        show_as(one, function, inspect.signature(one))
        try:
            return scan(one, length=count, unroll=unroll, in_axes=axes, out_axes=0)(*operands)
        except errors.StructureError as error:
            cause = error.cause.replace("liftnn.scan", "liftnn.repeat")
            warn(f"liftnn.repeat compiles {count} steps one by one: {cause}", errors.StructureWarning)
        return _one_by_one(one, count, operands)

    options = {name: keep_items(option) for name, option in options.items()}
    repeated = jit(types.MethodType(steps, *owner) if owner else steps, **options)
    repeated.__recipe__, repeated.__wrapped__ = Recipe(repeat, (count,), {"unroll": unroll, **options}), step
    return repeated


def _check_sizes(args: tuple[Any, ...], kwargs: dict[str, Any], n: int) -> None:
    """Raise ArgumentError, with all paths, for arrays that do not have one entry for each step."""
    entries, _ = jax.tree_util.tree_flatten_with_path((args, kwargs), is_leaf=is_object)
    wrong = [
        f"{name_argument(tuple(map(key_of, path)))}: {type_of(x)}"
        for path, x in entries
        if _is_stacked(x) and x.shape[:1] != (n,)
    ]
    if wrong:
        raise errors.ArgumentError(
            f"liftnn.repeat runs {n} steps, but these arrays have no leading axis of that size:\n"
            f"{list_paths(wrong)}",
            "Stack one entry for each step; store an array that all steps share in a Variable of a module.",
        )


def _axis(x: Any) -> int | None:
    """Return the axis of a leaf of the arguments: arrays are scanned, modules and static values are shared."""
    return 0 if _is_stacked(x) else None


def _is_static(argument: Any) -> bool:
    """Return whether an argument holds neither arrays nor modules: a loop would trace the numbers in it."""
    leaves = jax.tree.leaves(argument, is_leaf=is_object)
    return not any(is_object(x) or _is_stacked(x) for x in leaves)


def _is_stacked(x: Any) -> bool:
    """Return whether a leaf is an array; under `jax.disable_jit`, `jit` passes on numpy arrays as they are."""
    return is_jax_array(x) or isinstance(x, np.ndarray)


def _one_by_one(step: Callable[..., Any], n: int, operands: Any) -> Any:
    """Run all steps in a Python loop, each with the checks of a transform; return their outputs, stacked."""
    checked = Lifted((step,), lambda plan, pure: pure, LiftOptions("repeat"))
    leaves, treedef = jax.tree.flatten(operands, is_leaf=is_object)
    steps = [treedef.unflatten([x[i] if _is_stacked(x) else x for x in leaves]) for i in range(n)]
    return _stack([checked(*arguments) for arguments in steps])


def _stack(outputs: Sequence[Any]) -> Any:
    """Stack the outputs of all steps; an object that each step returns stays as it is, as in `scan`."""
    _check_alike(outputs, is_object)
    _, treedef = jax.tree.flatten(outputs[0], is_leaf=is_object)
    steps = [treedef.flatten_up_to(out) for out in outputs]
    created = [is_object(xs[0]) and any(x is not xs[0] for x in xs) for xs in zip(*steps, strict=True)]
    stacked: Any = steps[0]
    if any(created):
        parts = [[x if new else None for x, new in zip(step, created, strict=True)] for step in steps]
        stacked = treedef.flatten_up_to(_stack_objects(list(map(treedef.unflatten, parts))))
    columns = zip(created, stacked, zip(*steps, strict=True), strict=True)
    return treedef.unflatten([y if new else _stack_leaf(xs) for new, y, xs in columns])


def _stack_leaf(steps: Sequence[Any]) -> Any:
    """Stack an array or number of all steps; return an object or a static value of the first."""
    return jnp.stack(steps) if _is_array_leaf(steps[0]) else steps[0]


def _is_array_leaf(x: Any) -> bool:
    """Return whether a leaf of an output is an array or a number; others are objects or static."""
    return is_argument_array(x) and not is_object(x)


def _stack_objects(trees: Sequence[Any]) -> Any:
    """Return a tree of new objects with stacked arrays, from trees of objects.

    Raises:
      StructureError: If two trees have different structures, or share a module or Variable.
    """
    states, graphdefs = zip(*map(split, trees), strict=True)
    lines = next(filter(None, map(graphdefs[0].diff, graphdefs)), "").splitlines()
    other = {id(x) for _, x in iter_graph(trees[1])}
    shared = [p for p, x in iter_graph(trees[0]) if id(x) in other and hasattr(type(x), "__graph_node__")]
    lines += [f"{format_path(path, 'the output')}: the same object in each step" for path in shared[:1]]
    if lines:
        raise errors.StructureError(
            f"The modules that the steps of liftnn.repeat return cannot be stacked:\n{list_paths(lines)}",
            "Return new modules of the same structure in each step, or arrays.",
        )
    _check_alike(states)
    return merge(graphdefs[0], jax.tree.map(lambda *xs: _stack_leaf(xs), *states))


def _check_alike(outputs: Sequence[Any], is_leaf: Callable[[Any], bool] | None = None) -> None:
    """Raise StructureError if the trees, shapes or static values of the outputs of two steps differ."""
    (first, treedef), *others = [
        jax.tree_util.tree_flatten_with_path(out, is_leaf=is_leaf) for out in outputs
    ]
    for step, (entries, structure) in enumerate(others, 1):
        lines = [f"the output: {treedef_text(treedef)}, in step {step} {treedef_text(structure)}"]
        if structure == treedef:
            lines = [
                f"{_name(path)}: {_describe(x)}, in step {step} {_describe(y)}"
                for (path, x), (_, y) in zip(first, entries, strict=True)
                if _kind(x) != _kind(y)
            ]
        if lines:
            raise errors.StructureError(
                f"The outputs of the steps of liftnn.repeat cannot be stacked:\n{list_paths(lines)}",
                "Return the same tree, shapes and static values in each step.",
            )


def _name(path: Sequence[Any]) -> str:
    """Return a path in an output as text; a Variable that is the output has the path `()` in its State."""
    return format_path([key for key in map(key_of, path) if key != ()], "the output")


def _kind(x: Any) -> Any:
    """Return what must agree in all steps: the shape of an array, a static value; nothing of an object."""
    if is_object(x):
        return None
    return jnp.shape(x) if is_argument_array(x) else Static(x)


def _describe(x: Any) -> str:
    return type_of(x) if _is_array_leaf(x) else an(type(x)) if is_object(x) else f"{x!r:.60}"


publish(repeat)
