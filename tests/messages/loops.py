"""Errors of loops and branches: structures that do not stay the same, branches that do not agree, carries and axes."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import optax

import liftnn
from liftnn import Carry, errors
from tests.messages.registry import message
from tests.user_modules import Affine, Holder

STEADY = (
    "Make these changes before or after the loop, and write values with the shape and dtype of the old value."
)
AGREE = (
    "Structure, shapes and dtypes must not depend on the branch that runs. Make the same changes in all branches, or "
    "make them after the call."
)
UNSTEADY = "A step of liftnn.{} changes structure, shapes or dtypes, but the next step needs them unchanged:"
MARK = (
    "Return the carry with the same structure; in a scan, mark it with liftnn.Carry in both `in_axes` and "
    "`out_axes`."
)
PAIR = (
    "Return `(carry, None)` if a step has no output; for other forms, set `out_axes`, such as "
    "`out_axes=liftnn.Carry` for the carry alone."
)
XS = jnp.ones((2, 3))


# --- loops


@message(
    errors.ArgumentTypeError,
    "liftnn.scan takes a function and keyword options, and returns a function that takes the arguments.",
    "Write `liftnn.scan(f)(*args)`. The options are length, reverse, unroll, in_axes, out_axes, split_rngs, "
    "transform_metadata.",
)
def scan_in_the_form_of_jax():
    liftnn.scan(lambda c, x: (c, x), 0, XS)


@message(
    errors.ArgumentTypeError,
    "The function of liftnn.scan must return a pair (carry, output), but it returns one value.",
    PAIR,
)
def step_that_returns_the_carry_alone():
    liftnn.scan(lambda model, x: model)(Affine(), XS)


@message(
    errors.ArgumentTypeError,
    "The function of liftnn.scan must return a pair (carry, output), but it returns None.",
    PAIR,
)
def step_that_returns_nothing():
    liftnn.scan(lambda model, x: None)(Affine(), XS)


@message(
    errors.ArgumentTypeError,
    "The function of liftnn.scan must return a pair (carry, output), but it returns (*, {'a': *}, *).",
    PAIR,
)
def step_that_returns_three_values():
    liftnn.scan(lambda model, x: (model, {"a": x}, x))(Affine(), XS)


@message(
    errors.StructureError,
    UNSTEADY.format("scan"),
    "  args[0].steps: 1 -> 2",
    "  args[0].layers[2]: added, Affine",
    "  args[0].layers[2].mode: added, 'train'",
    "  args[0].layers[2].w: added, Param",
    "  args[0].layers[2].b: added, Param",
    "  args[0].layers[2].calls: added, Variable",
    STEADY,
)
def steps_that_change_structure():
    def body(model, x):
        model.mode = "eval"  # the first step alone may do this
        model.steps += 1
        model.layers.append(Affine())

    model = Holder(mode="train", steps=0, layers=[Affine()])
    liftnn.scan(body, in_axes=(None, 0), out_axes=None)(model, jnp.ones((3, 3)))


@message(
    errors.StructureError,
    UNSTEADY.format("while_loop"),
    "  init_val.model.calls (a Variable): int32[] -> float32[2]",
    "  init_val.x: float32[3] -> int32[3]",
    STEADY,
)
def step_that_changes_shapes_and_dtypes():
    def body(state):
        state["model"].calls.value = jnp.ones(2)
        return {"model": state["model"], "x": state["x"].astype(int)}

    liftnn.while_loop(lambda s: True, body, {"model": Affine(), "x": jnp.ones(3)})


@message(
    errors.StructureError,
    UNSTEADY.format("fori_loop"),
    "  init_val[0]: replaced by an object that is or was at another path too",
    "  init_val[1]: replaced by an object that is or was at another path too",
    STEADY,
)
def modules_that_change_places():
    liftnn.fori_loop(0, 3, lambda i, pair: pair[::-1], (Affine(), Affine()))


@message(
    errors.StructureError,
    UNSTEADY.format("fori_loop"),
    "  init_val.b (a Param): written and replaced in the same step",
    STEADY,
)
def variable_written_and_replaced():
    def body(i, model):
        model.b.value = model.b + 1
        model.b = liftnn.Param(model.b * 2)
        return model

    liftnn.fori_loop(0, 3, body, Affine())


@message(
    errors.StructureError,
    UNSTEADY.format("scan"),
    "  args[0].note (a Variable): a new object in each step",
    STEADY,
)
def shared_variable_made_in_each_step():
    axes = liftnn.StateAxes({liftnn.Param: 0, ...: None})

    def body(layer):
        layer.note = liftnn.Variable(jnp.ones(2))

    liftnn.scan(body, in_axes=axes, out_axes=None)(liftnn.vmap(Affine)(jnp.ones(2)))


@message(
    errors.StructureError,
    "The carry of liftnn.scan has the structure * before a step, but {'a': *} after it.",
    MARK,
)
def carry_of_another_structure():
    liftnn.scan(lambda model, c, x: ({"a": c}, None), in_axes=(None, liftnn.Carry, 0))(Affine(), 1.0, XS)


@message(
    errors.StructureError,
    "The carry of liftnn.scan has the structure () before a step, but * after it.",
    MARK,
)
def carry_that_is_only_returned():
    liftnn.scan(lambda model, x: (model(x), x), in_axes=(None, 0))(Affine(), XS)


@message(
    errors.ArgumentError,
    "`out_axes` is None for the output[1].y (a Variable), but each step returns a new value.",
    "Use an axis in `out_axes` to stack the values along, or liftnn.Carry.",
)
def output_of_a_scan_without_an_axis():
    liftnn.scan(lambda c, x: (c, Holder(y=liftnn.Variable(x))), out_axes=(Carry, None))(1.0, XS)


@message(
    errors.ArgumentError,
    "scan has nothing to scan: no argument with an axis contains an array.",
    "Set an axis in `in_axes` for an argument with arrays, or pass `length`.",
)
def nothing_to_scan():
    liftnn.scan(lambda model, x: x, in_axes=(None, Carry), out_axes=Carry)(Affine(), 1.0)


@message(
    errors.ArgumentError,
    "The arguments of scan have different sizes along their scanned axes:",
    "  4: length",
    "  2: axis 0 of args[1].w (a Param)",
    "  3: axis 1 of args[2]",
    "Pass arrays of the same size, or use None in `in_axes` for those that all steps share.",
)
def scanned_sizes_that_differ():
    layers = liftnn.vmap(Affine)(jnp.ones(2))
    run = liftnn.scan(lambda c, layer, x: c, length=4, in_axes=(Carry, 0, 1), out_axes=Carry)
    run(1.0, layers, XS)


@message(
    errors.ArgumentError,
    "args[1].calls (a Variable) cannot be scanned over axis 0: its shape is ().",
    "Use another axis for it in `in_axes`, or None to share it between the steps.",
)
def scanned_scalar():
    liftnn.scan(lambda c, layer: (c, None))(1.0, Affine())


@message(
    errors.ArgumentError,
    "Cannot stack args[0].sum (a Variable) along axis 1: its shape in each step is ().",
    "Use an axis from -1 to 0 in `out_axes` or, for a part of an argument, in `in_axes`.",
)
def axis_that_a_new_variable_has_no_room_for():
    def attach(layer):
        layer.sum = liftnn.Variable(layer.w.value.sum())

    liftnn.scan(attach, in_axes=1, out_axes=None)(Holder(w=liftnn.Param(XS)))


@message(
    errors.ArgumentError,
    "`max_steps` must not be negative, but it is -1.",
    "Pass the maximum number of steps, such as 100, or None for no bound.",
)
def negative_max_steps():
    liftnn.while_loop(lambda x: x < 3, lambda x: x, 0, max_steps=-1)


@message(
    errors.StructureError,
    "cond_fun of liftnn.while_loop must not write, but it writes to:",
    "  init_val.calls (a Variable)",
    "  init_val (an Affine)",
    "Move these updates to body_fun.",
)
def condition_that_writes():
    def cond(model):
        model.mode = "eval"
        return model(1.0).sum() < 3

    liftnn.while_loop(cond, lambda model: model, Affine())


@message(
    errors.ArgumentTypeError,
    "cond_fun of liftnn.while_loop must return a bool[], but it returns bool[3].",
    "Return a boolean array of shape ().",
)
def condition_that_is_no_scalar():
    liftnn.while_loop(lambda c: c[1] < 3, lambda c: c, (Affine(), jnp.ones(3)))


@message(
    errors.ArgumentTypeError,
    "cond_fun of liftnn.while_loop must return a bool[], but it returns a container of bool[].",
    "Return a boolean array of shape ().",
)
def condition_that_returns_a_tuple():
    liftnn.while_loop(lambda c: (c[1] < 3,), lambda c: (c[0], c[1] + 1), (Affine(), 0))


@message(
    errors.StructureError,
    "step 0 and step 2 of liftnn.scan produce different shapes or dtypes (step 0 -> step 2):",
    "  the output[1]: float32[3] -> float32[1]",
    "Structure, shapes and dtypes must not depend on the step. Make the same changes in all steps, or make them after "
    "the loop.",
)
def steps_without_jit_that_return_other_shapes():
    def step(model, x):
        return model, jnp.ones(3 if x < 2 else 1)

    with jax.disable_jit():
        liftnn.scan(step)(Affine(), jnp.arange(3))


# --- branches


@message(
    errors.StructureError,
    "true_fun and false_fun of liftnn.cond produce different structures (true_fun -> false_fun):",
    "  the output[1]: an array -> 'nothing'",
    "  operands[0].mode: 'train' -> 'eval'",
    "  operands[0].extra: added, Param",
    AGREE,
)
def branches_that_change_structure_differently():
    def yes(model, x):
        return model(x), x

    def no(model, x):
        model.mode = "eval"
        model.extra = liftnn.Param(x)
        return x, "nothing"

    liftnn.cond(True, yes, no, Affine(), jnp.ones(3))


@message(
    errors.StructureError,
    "true_fun and false_fun of liftnn.cond produce different structures (true_fun -> false_fun):",
    "  the output.pair: (*, *) -> [*, *]",
    AGREE,
)
def a_tuple_in_one_branch_and_a_list_in_the_other():
    liftnn.cond(True, lambda m: {"pair": (m.w.value, 1)}, lambda m: {"pair": [m.w.value, 1]}, Affine())


@message(
    errors.StructureError,
    "true_fun and false_fun of liftnn.cond produce different structures (true_fun -> false_fun):",
    "  the output: the same object as operands[0] -> the same object as operands[1]",
    "Which object is returned must not depend on the branch that runs. Return `liftnn.clone(x)` in each branch: a new "
    "object with the values of the chosen one.",
)
def branches_that_return_two_modules():
    liftnn.cond(True, lambda a, b: a, lambda a, b: b, Affine(), Affine())


@message(
    errors.StructureError,
    "true_fun and false_fun of liftnn.cond produce different structures (true_fun -> false_fun):",
    "  the output: the same object as operands[0] -> Variable",
    "Which object is returned must not depend on the branch that runs. Return `liftnn.clone(x)` in each branch: a new "
    "object with the values of the chosen one.",
)
def branches_that_return_an_argument_and_a_new_object():
    liftnn.cond(True, lambda a: a, lambda a: liftnn.Variable(1.0), liftnn.Variable(0.0))


@message(
    errors.StructureError,
    "branches[0] and branches[2] of liftnn.switch produce different shapes or dtypes (branches[0] -> branches[2]):",
    "  the output: float32[3] -> int32[]",
    "  branches[0].__self__.calls (a Variable): int32[] -> {'n': float32[2]}",
    AGREE,
)
def branches_that_leave_other_shapes_and_dtypes():
    class Net(liftnn.Module):
        def __init__(self):
            self.calls = liftnn.Variable(jnp.array(0))

        def count(self, x):
            self.calls.value = self.calls + 1
            return x

        def wreck(self, x):
            self.calls.value = {"n": jnp.ones(2)}
            return 0

    net = Net()
    liftnn.switch(1, [net.count, net.count, net.wreck], jnp.ones(3))


@message(
    errors.StructureError,
    "true_fun and false_fun of liftnn.cond produce different structures (true_fun -> false_fun):",
    "  only one of them replaces an object by a new one, or swaps two objects",
    AGREE,
)
def variable_replaced_in_one_branch():
    def replace(model):
        model.b = liftnn.Param(model.b + 1)

    liftnn.cond(True, replace, lambda model: None, Affine())


RETURN_NOTHING = (
    "One of the branches returns None, and the other does not. Where the output is not needed, return nothing in each "
    "branch: write `def step(): optimizer.update(model, grads)`, since `lambda: optimizer.update(model, grads)` "
    "returns the updates. Otherwise return outputs of the same structure."
)


@message(
    errors.StructureError,
    "true_fun and false_fun of liftnn.cond produce different structures (true_fun -> false_fun):",
    "  the output.b: removed, was Param",
    "  the output.w: removed, was Param",
    RETURN_NOTHING,
)
def updates_returned_by_one_branch():
    model = Affine()
    optimizer = liftnn.Optimizer(model, optax.sgd(0.1))
    grads = liftnn.grad(lambda model: model(1.0).sum())(model)
    liftnn.cond(True, lambda: optimizer.update(model, grads), lambda: None)


@message(
    errors.StructureError,
    "branches[0] and branches[1] of liftnn.switch produce different structures (branches[0] -> branches[1]):",
    "  the output: added, the same object as operands[0]",
    RETURN_NOTHING,
)
def module_returned_by_the_second_branch():
    liftnn.switch(1, [lambda model: None, lambda model: model], Affine())


@message(
    errors.StructureError,
    "true_fun and false_fun of liftnn.cond produce different structures (true_fun -> false_fun):",
    "  the output: removed, was the same object as operands[0]",
    "  operands[0].mode: 'train' -> 'eval'",
    AGREE,
)
def branches_that_differ_in_the_output_and_elsewhere():
    def no(model):
        model.mode = "eval"

    liftnn.cond(True, lambda model: model, no, Affine())


@message(errors.ArgumentError, "The `branches` of liftnn.switch are empty.", "Pass at least one function.")
def no_branches():
    liftnn.switch(0, [])


@message(errors.ArgumentTypeError, "liftnn.cond needs a function, not an int.", "Pass a callable.")
def branch_that_cannot_be_called():
    liftnn.cond(True, 1, lambda: 2)


@message(
    errors.ArgumentTypeError,
    "liftnn.cond got both positional operands (their number is 1) and the keyword `operand`.",
    "Pass all operands by position.",
)
def operand_by_position_and_by_name():
    liftnn.cond(True, lambda x: x, lambda x: x, XS, operand=XS)


# --- repeat


@message(
    errors.ArgumentError,
    "liftnn.repeat runs 3 steps, but these arrays have no leading axis of that size:\n"
    "  args[1]: float32[2,3]\n"
    "  kwargs['scale']: float32[]",
    "Stack one entry for each step; store an array that all steps share in a Variable of a module.",
)
def steps_of_arrays_without_an_entry_for_each():
    liftnn.repeat(lambda model, x, scale: model.w * x * scale, 3)(Affine(), XS, scale=jnp.array(1.0))


@message(errors.ArgumentError, "liftnn.repeat got 0 steps.", "Pass a number that is at least 1.")
def no_steps():
    liftnn.repeat(lambda model: None, 0)


@message(
    errors.ArgumentTypeError,
    "The number of steps of liftnn.repeat is a float, not an integer: 1.5.",
    "Pass it as the second argument: `repeat(step, n)`.",
)
def steps_that_are_not_a_number():
    liftnn.repeat(lambda model: None, 1.5)  # pyright: ignore[reportArgumentType]


@message(
    errors.ArgumentError,
    "(Carry, 0) has 2 entries, but the call has 1 positional argument.",
    "Pass an argument for each entry: None where there is nothing, such as the slices of a `scan` with `length`.",
)
def scan_without_slices():
    liftnn.scan(lambda model, _: (model, None), length=3)(Affine())


@message(
    errors.ArgumentError,
    "(0, Carry, None) has 3 entries, but the function returned one value: *.",
    "Return a tuple with a value for each entry, such as None where there is nothing.",
)
def step_that_returns_one_of_three_outputs():
    liftnn.scan(lambda model, x: model, out_axes=(0, liftnn.Carry, None))(Affine(), jnp.ones(3))


@message(
    errors.ArgumentError,
    "(0, None) has 2 entries, but the function returned a tuple of 3: (*, *, *).",
    "Return a tuple with a value for each entry, such as None where there is nothing.",
)
def mapped_function_that_returns_three_of_two_outputs():
    liftnn.vmap(lambda model, x: (x, x, x), in_axes=(None, 0), out_axes=(0, None))(Affine(), jnp.ones(3))


@message(
    errors.ArgumentError,
    "scan takes the slices of a mutable array (jax.Ref) along axis 0 only, as jax.lax.scan, but its axis is 1.",
    "Create the mutable array with the scanned axis in front, and pass axis 0 in `in_axes`.",
)
def mutable_array_scanned_along_another_axis():
    step = liftnn.scan(lambda model, ref: None, in_axes=(None, 1), out_axes=None)
    step(Affine(), jax.new_ref(jnp.ones((3, 4))))


@message(
    errors.StructureError,
    "The outputs of the steps of liftnn.repeat cannot be stacked:\n"
    "  the output.last: 'a', in step 1 'aa'\n"
    "  the output.seen: float32[1], in step 1 float32[2]",
    "Return the same tree, shapes and static values in each step.",
)
def outputs_of_steps_that_grow():
    def grow(holder, x):
        holder.items.append(liftnn.Variable(x))
        return {"seen": jnp.stack([item.value for item in holder.items]), "last": "a" * len(holder.items)}

    with warnings.catch_warnings(action="ignore"):
        liftnn.repeat(grow, 3)(Holder(items=[]), jnp.arange(3.0))


@message(
    errors.StructureError,
    "The modules that the steps of liftnn.repeat return cannot be stacked:\n"
    "  the output.new.layer: the same object in each step",
    "Return new modules of the same structure in each step, or arrays.",
)
def new_modules_of_each_step_that_hold_the_same_module():
    def grow(holder, x):
        holder.items.append(liftnn.Variable(x))
        return {"new": Holder(layer=holder.layer)}

    with warnings.catch_warnings(action="ignore"):
        liftnn.repeat(grow, 3)(Holder(layer=Affine(), items=[]), jnp.arange(3.0))
