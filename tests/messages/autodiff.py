"""Errors of the autodiff transforms: tangents and cotangents that do not fit, and rules that are not right."""

from __future__ import annotations

import jax.numpy as jnp

import liftnn
from liftnn import errors
from tests.messages.registry import message
from tests.user_modules import Affine, Holder, Pair, step

X = jnp.ones(3)
DIFFERENTIATED = (
    "Leave it out. Only floating point and complex Variables that `wrt` selects are differentiated."
)
SHAPES = "A {} has the shape and dtype of its value, or dtype float0 if its value is an integer."


def with_rule(fwd, bwd, f=step, **options):
    """A custom_vjp function of a model and an array."""
    function = liftnn.custom_vjp(f, **options)
    function.defvjp(fwd, bwd)
    return function


def total(f):
    """The gradient of its sum."""
    return liftnn.grad(lambda m, x: f(m, x).sum())(Affine(), X)


# --- tangents and cotangents


@message(
    errors.StructureError,
    "The cotangent of the output[0] does not match its structure:",
    "unexpected:",
    "  first.v",
    "  third",
    "Compare the paths above with those of the module: both sides must have the same Variables.",
)
def cotangent_of_an_unknown_variable():
    _, pull_back = liftnn.vjp(lambda m, x: (m, m(x)), Pair(), X)
    pull_back(({"first": {"w": X, "v": X}, "third": X}, None))


@message(
    errors.StructureError,
    "A tangent was passed for leaves that are not differentiated:",
    "  args[0].first.calls",
    DIFFERENTIATED,
)
def tangent_of_integers():
    liftnn.jvp(step, (Pair(), X), ({"first": {"calls": jnp.ones((), jnp.int32)}}, None))


@message(
    errors.StructureError,
    "A tangent was passed for leaves that are not differentiated:",
    "  args[2].name",
    DIFFERENTIATED,
)
def tangent_of_text():
    liftnn.jvp(lambda m, x, how: m(x), (Affine(), X, {"name": "text"}), (None, None, {"name": X}))


@message(
    errors.StructureError,
    "The cotangent of the output has the structure [*, *], not {'a': *, 'b': (*, *)}.",
    "Pass a cotangent with the structure of the value and a State in place of each module; None means zero.",
)
def cotangent_of_another_tree():
    _, pull_back = liftnn.vjp(lambda m, x: {"a": m, "b": (x, x)}, Affine(), X)
    pull_back([Affine(), X])


@message(
    errors.StructureError,
    "The tangent of args[0].w has the structure [*, *], but its value has the structure {'a': *, 'b': *}.",
    "Pass a tangent with the structure of the value; None means zero.",
)
def tangent_of_another_tree_than_the_value():
    model = Affine()
    model.w.value = {"a": X, "b": X}
    liftnn.jvp(lambda m: m.w.value["a"], (model,), ({"w": [X, X]},))


@message(
    errors.ArgumentError,
    "The tangent of args[0].w is float32[2], but must be float32[3].",
    SHAPES.format("tangent"),
)
def tangent_of_another_shape():
    liftnn.jvp(step, (Affine(), X), ({"w": jnp.ones(2)}, None))


@message(
    errors.ArgumentError,
    "The cotangent of the output[1] is a str, but must be float0[].",
    SHAPES.format("cotangent"),
)
def cotangent_that_is_text():
    liftnn.vjp(lambda model, x: (x, 3), Affine(), X)[1]((X, "text"))


@message(
    errors.AliasingError,
    "args[0].second.w has two tangents: it is the same Variable as args[0].first.w.",
    "Pass one tangent for a shared Variable, at one of its paths.",
)
def two_tangents():
    liftnn.jvp(step, (Pair(), X), ({"first": {"w": X}, "second": {"w": 2 * X}}, None))


@message(
    errors.ArgumentTypeError,
    "`tangents` of jvp must be a tuple or list with one entry for each argument, not a State.",
    "For a single argument pass `(tangents,)`.",
)
def tangents_that_are_no_tuple():
    liftnn.jvp(lambda m: m.w, (Affine(),), liftnn.State({"w": liftnn.Param(X)}))  # type: ignore[arg-type]


@message(
    errors.ArgumentError,
    "Got 1 tangent for 2 arguments.",
    "Pass one tangent for each argument; None means zero.",
)
def too_few_tangents():
    liftnn.linearize(step, Affine(), X)[1](X)


@message(
    errors.ArgumentTypeError,
    "Cannot differentiate the output.n: its dtype is int32.",
    "Convert it to a floating point dtype, or return it as auxiliary output with has_aux=True.",
)
def jacobian_of_integers():
    liftnn.jacrev(lambda m: {"x": m.w, "n": jnp.arange(2)})(Affine())


# --- rules


@message(
    errors.MissingRuleError,
    "This custom_vjp function has no differentiation rule.",
    "Define a rule with `f.defvjp(fwd, bwd)` before you call the function.",
)
def custom_vjp_without_a_rule():
    liftnn.custom_vjp(step)(Affine(), X)


@message(
    errors.MissingRuleError,
    "This custom_jvp function has no differentiation rule.",
    "Define a rule with `f.defjvp(rule)` before you call the function.",
)
def custom_jvp_without_a_rule():
    liftnn.custom_jvp(step)(Affine(), X)


@message(
    errors.ArgumentTypeError,
    "liftnn.custom_vjp passes all arguments to its rules by position, but 'scale' can only be passed by keyword.",
    "Make it a positional parameter of the function.",
)
def keyword_only_argument_of_a_custom_rule():
    with_rule(step, step, f=Affine.__call__)(Affine(), X, scale=2.0)


@message(
    errors.ArgumentTypeError,
    "fwd of custom_vjp must return a pair (output, residuals), not an array.",
    "Return `(output, residuals)`; the residuals may be None.",
)
def forward_pass_without_residuals():
    total(with_rule(step, step))


@message(
    errors.StructureError,
    "The residuals of fwd contain a function that holds an array. It is static, so it cannot carry the array to bwd.",
    "Return arrays, modules, States or trees of them as residuals.",
)
def residual_that_is_a_closure():
    total(liftnn.jit(with_rule(lambda m, x: (m(x), lambda ct: ct * x), lambda f, ct: (None, f(ct)))))


@message(
    errors.ArgumentTypeError,
    "bwd of custom_vjp must return a tuple of 2 cotangents, not a tuple of 1.",
    "Return one cotangent for each differentiated argument; None means zero.",
)
def too_few_cotangents():
    total(with_rule(lambda m, x: (m(x), None), lambda _, ct: (ct,)))


@message(
    errors.StructureError,
    "The cotangent of args[0] does not match its structure:",
    "unexpected:",
    "  kernel",
    "Compare the paths above with those of the module: both sides must have the same Variables.",
)
def rule_that_returns_an_unknown_variable():
    total(with_rule(lambda m, x: (m(x), None), lambda _, ct: ({"kernel": ct}, None)))


@message(
    errors.StructureError,
    "bwd of custom_vjp changed its arguments, but these changes would be lost:",
    "  args[0].model",
    "  args[0].model.w",
    "Change modules in the function and in fwd instead; bwd may only change modules that it creates.",
)
def backward_pass_that_changes_a_module():
    def backward(residuals, ct):
        residuals["model"].w.value = ct
        residuals["model"].mode = "backward"
        return None, ct

    total(with_rule(lambda m, x: (m(x), {"model": m}), backward))


@message(
    errors.TraceContextError,
    "bwd of custom_vjp uses captured.w (a Param) from a closure, but it runs after the function's call, when "
    "captured objects can no longer become inputs.",
    "Pass it as an argument of the function, or to the backward pass as a residual.",
)
def backward_pass_that_captures():
    captured = Affine()
    total(with_rule(lambda m, x: (m(x), None), lambda _, ct: (None, ct * captured.w)))


@message(
    errors.TraceContextError,
    "The rule uses captured.layers[0].w (a Param) from a closure, but it runs after the function's call, when "
    "captured objects can no longer become inputs.",
    "Pass it as an argument of the function, or to the backward pass as a residual.",
)
def late_rule_that_captures():
    captured = Holder(layers=[Affine()])
    f = liftnn.custom_jvp(lambda x: x)
    f.defjvp(lambda primals, tangents: (primals[0], tangents[0] * captured.layers[0].w))
    liftnn.jvp(liftnn.jit(f), (X,), (X,))


@message(
    errors.StructureError,
    "The outputs or module updates of fwd and the function differ:",
    "  args[0].b: written by fwd only",
    "  args[0].calls: written by the function only",
    "Call the function inside fwd, or make the same updates there.",
)
def forward_pass_that_does_something_else():
    def forward(model, x):
        model.b.value = x
        return model.w * x, None

    total(liftnn.jit(with_rule(forward, lambda _, ct: (None, ct))))


@message(
    errors.TraceContextError,
    "model.w is differentiated, but the function given to liftnn.custom_vjp captures it in a closure, so the rule "
    "gives no derivative for it.",
    "Pass the module as an argument of the function given to liftnn.custom_vjp.",
)
def captured_variable_of_a_custom_function_differentiated():
    def loss(model, x):
        f = liftnn.custom_vjp(lambda x: (model.w * x).sum())
        f.defvjp(lambda x: (f(x), None), lambda _, ct: (ct,))
        return f(x)

    liftnn.grad(loss)(Affine(), 1.0)


@message(
    errors.ArgumentTypeError,
    "The rule of custom_jvp must return a pair (output, tangent), not a dict.",
    "Return `(output, tangent)`; a tangent of None means zero.",
)
def rule_without_a_tangent():
    f = liftnn.custom_jvp(step)
    f.defjvp(lambda primals, tangents: {})
    liftnn.jvp(f, (Affine(), X), (None, X))


@message(
    errors.ArgumentTypeError,
    "`defjvps` does not support arguments in `nondiff_argnums` or `nondiff_argnames`.",
    "Define one rule for all arguments with `defjvp`.",
)
def defjvps_with_arguments_without_derivatives():
    liftnn.custom_jvp(step, nondiff_argnums=1).defjvps(None)


@message(
    errors.ArgumentError,
    "`defjvps` got 1 rule, but the function has 2 arguments.",
    "Pass one rule for each argument; None means that it contributes nothing.",
)
def defjvps_with_too_few_rules():
    function = liftnn.custom_jvp(step)
    function.defjvps(lambda tangent, out, model, x: tangent["w"])
    total(function)


@message(
    errors.ArgumentTypeError,
    "A rule of `defjvps` returns None instead of a tangent of the output.",
    "Return the tangent; for an argument that contributes nothing, pass None in place of the rule.",
)
def defjvps_with_a_rule_that_returns_nothing():
    function = liftnn.custom_jvp(step)
    function.defjvps(lambda tangent, out, model, x: None, lambda tangent, out, model, x: tangent)
    total(function)


@message(
    errors.ArgumentError,
    "`defjvps` got 3 rules, but the function has 1 argument.",
    "Pass one rule for each argument; None means that it contributes nothing.",
)
def defjvps_of_arrays_with_too_many_rules():
    function = liftnn.custom_jvp(jnp.sin)
    function.defjvps(lambda tangent, out, x: tangent, None, None)
    liftnn.grad(function)(1.0)


@message(
    errors.ArgumentError,
    "liftnn.vjp does not support 'saveable' in calls with modules.",
    "Leave it out, or call the function with arrays only, where JAX's own options apply.",
)
def option_that_only_jax_may_know():
    liftnn.vjp(step, Affine(), X, saveable=True)


@message(
    errors.ArgumentError,
    "`prevent_cse` has one value for each argument, but there are modules among the arguments.",
    "Pass prevent_cse=True or prevent_cse=False.",
)
def prevent_cse_by_argument():
    liftnn.checkpoint(step, prevent_cse=(True, False))(Affine(), X)
