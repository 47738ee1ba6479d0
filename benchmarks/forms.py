"""The forms that a call can have: arguments in containers, by name, static, bound or captured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import optax
import steps
from compare import compare, row
from measure import Row, Run

import liftnn


def form_rows(rounds: int) -> Iterator[Row]:
    """The smallest call with its arguments in other forms: what liftnn adds to the same form of call of JAX's."""
    x, _ = steps.batch()
    model, params = steps.STACKS[liftnn](2), steps.nested_params(2)
    infer, hand = steps.functions(liftnn, "liftnn")[0], steps.hand_written("jax")[0]

    def by_dict(f: Callable[..., Any]) -> Callable[..., Any]:
        return lambda model, batch: f(model, batch["x"])

    def by_flag(f: Callable[..., Any]) -> Callable[..., Any]:
        return lambda model, x, flag: f(model, x) if flag else x

    batch, static = {"x": x}, {"static_argnames": "flag"}
    for name, one, other in (
        (
            "a batch in a dict",
            _wait(liftnn.jit(by_dict(infer)), model, batch),
            _wait(jax.jit(by_dict(hand)), params, batch),
        ),
        ("a keyword argument", _wait(liftnn.jit(infer), model, x=x), _wait(jax.jit(hand), params, x=x)),
        (
            "a static argument",
            _wait(liftnn.jit(by_flag(infer), **static), model, x, flag=True),
            _wait(jax.jit(by_flag(hand), **static), params, x, flag=True),
        ),
        ("a bound method", _wait(liftnn.jit(model.__call__), x), _wait(jax.jit(hand), params, x)),
    ):
        times, retraces = compare({"liftnn": one, "jax": other}, rounds)
        figure = times.excess("liftnn", "jax", 1e6)
        title = f"infer, depth 2, {name}, overhead over JAX"
        yield Row(title, figure, None, "us", {}, times.microseconds(), retraces)


def _wait(f: Callable[..., Any], *args: Any, **kwargs: Any) -> Run:
    """Repeats a call, and waits for the last one."""

    def run(n: int) -> None:
        out = None
        for _ in range(n):
            out = f(*args, **kwargs)
        jax.block_until_ready(out)

    return run


def place_rows(rounds: int) -> Iterator[Row]:
    """What liftnn adds where the model of the smallest call is passed in another form than by position."""
    x, _ = steps.batch()
    model = steps.STACKS[liftnn](2)
    infer = steps.functions(liftnn, "liftnn")[0]
    held, named = (model,), {"model": model}
    position, keyword = liftnn.jit(infer), liftnn.jit(infer)
    in_tuple = liftnn.jit(lambda held, x: infer(held[0], x))
    in_dict = liftnn.jit(lambda held, x: infer(held["model"], x))
    captured = liftnn.jit(lambda x: infer(model, x))
    bound = liftnn.jit(model.__call__)
    static = liftnn.jit(lambda model, x, flag: infer(model, x) if flag else x, static_argnames="flag")
    # Each call is spelled out, since `f(*args, **kwargs)` would add time of its own to some of them.
    for name, call in (
        ("the model in a tuple", lambda: in_tuple(held, x)),
        ("the model in a dict", lambda: in_dict(named, x)),
        ("the model by keyword", lambda: keyword(model=model, x=x)),
        ("the model captured", lambda: captured(x)),
        ("the model as a bound method", lambda: bound(x)),
        ("an additional static argument", lambda: static(model, x, flag=True)),
    ):
        pair = {"liftnn": steps.calls(call), "by position": steps.calls(lambda: position(model, x))}
        times, retraces = compare(pair, rounds)
        figure = times.excess("liftnn", "by position", 1e6)
        title = f"infer, depth 2, {name}, overhead over a positional model"
        microseconds = {
            name if key == "liftnn" else key: value for key, value in times.microseconds().items()
        }
        yield Row(title, figure, 1.5, "us", {}, microseconds, retraces)


def captured_rows(rounds: int) -> Iterator[Row]:
    """A step whose model and optimizer come through its closure, over the same step with both as arguments."""
    x, y = steps.batch()
    for kind, depths in (("infer", (2, 16)), ("train", (16,))):
        for depth in depths:
            made: dict[str, Run] = {}
            for label in ("jax", "liftnn"):  # here "jax" is the one with arguments
                infer, train = steps.functions(liftnn, "liftnn")
                model = steps.STACKS[liftnn](depth)
                optimizer = liftnn.Optimizer(model, optax.adam(1e-3))
                modules, arrays = ((model,), (x,)) if kind == "infer" else ((model, optimizer), (x, y))
                step = infer if kind == "infer" else train
                if label == "liftnn":
                    made[label] = steps.calls(liftnn.jit(_capture(step, modules)), *arrays)
                else:
                    made[label] = steps.calls(liftnn.jit(step), *modules, *arrays)
            result = row(f"{kind}, depth {depth}, captured / passed", made, rounds, 1.10)
            result.microseconds = {
                "passed": result.microseconds["jax"],
                "captured": result.microseconds["liftnn"],
            }
            yield result


def _capture(step: Callable[..., Any], modules: tuple[Any, ...]) -> Callable[..., Any]:
    """The step as a function of its arrays alone."""
    return lambda *arrays: step(*modules, *arrays)
