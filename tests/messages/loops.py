"""Errors of loops and branches: structures that do not stay the same, branches that do not agree, carries and axes."""

from __future__ import annotations

import jax.numpy as jnp

import liftnn
from liftnn import Carry, errors
from tests.messages.registry import message
from tests.user_modules import Affine, Holder

STEADY = (
    "Structure, shapes and dtypes must be the same after each step: change them before the loop or after it, and "
    "convert what is written."
)
AGREE = (
    "Which branch runs is known only when the program does. Change structure, shapes and dtypes in all branches alike, "
    "or after the call."
)
UNSTEADY = "A step of liftnn.{} leaves something else than it found, so that no other step can follow it:"
MARK = "Return the carry as it was given; in a scan, mark it with Carry in `in_axes` and `out_axes` alike."
XS = jnp.ones((2, 3))


# --- loops


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
    "  init_val[0]: another object takes its place, which stands, or stood, elsewhere too",
    "  init_val[1]: another object takes its place, which stands, or stood, elsewhere too",
    STEADY,
)
def modules_that_change_places():
    liftnn.fori_loop(0, 3, lambda i, pair: pair[::-1], (Affine(), Affine()))


@message(
    errors.StructureError,
    UNSTEADY.format("fori_loop"),
    "  init_val.b (a Param): written, and another one put in its place, in the same step",
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
    "  args[0].note (a Variable): another one in each step",
    STEADY,
)
def shared_variable_made_in_each_step():
    axes = liftnn.StateAxes({liftnn.Param: 0, ...: None})

    def body(layer):
        layer.note = liftnn.Variable(jnp.ones(2))

    liftnn.scan(body, in_axes=axes, out_axes=None)(liftnn.vmap(Affine)(jnp.ones(2)))


@message(
    errors.StructureError,
    "A step of liftnn.scan is given a carry of the structure * and returns {'a': *}.",
    MARK,
)
def carry_of_another_structure():
    liftnn.scan(lambda model, c, x: ({"a": c}, None), in_axes=(None, liftnn.Carry, 0))(Affine(), 1.0, XS)


@message(
    errors.StructureError,
    "A step of liftnn.scan is given a carry of the structure nothing and returns *.",
    MARK,
)
def carry_that_is_only_returned():
    liftnn.scan(lambda model, x: (model(x), x), in_axes=(None, 0))(Affine(), XS)


@message(
    errors.ArgumentError,
    "`out_axes` is None for the output[1].y (a Variable), but each step returns another one.",
    "Give it an axis, along which the steps are stacked, or Carry.",
)
def output_of_a_scan_without_an_axis():
    liftnn.scan(lambda c, x: (c, Holder(y=liftnn.Variable(x))), out_axes=(Carry, None))(1.0, XS)


@message(
    errors.ArgumentError,
    "scan has nothing to scan: no argument with an axis has an array in it.",
    "Give an argument an axis in `in_axes`, or pass `length`.",
)
def nothing_to_scan():
    liftnn.scan(lambda model, x: x, in_axes=(None, Carry), out_axes=Carry)(Affine(), 1.0)


@message(
    errors.ArgumentError,
    "The arguments of scan have different sizes along their scanned axes:",
    "  4: length",
    "  2: axis 0 of args[1].w (a Param)",
    "  3: axis 1 of args[2]",
    "Give them the same size, or None in `in_axes` to what all steps share.",
)
def scanned_sizes_that_differ():
    layers = liftnn.vmap(Affine)(jnp.ones(2))
    run = liftnn.scan(lambda c, layer, x: c, length=4, in_axes=(Carry, 0, 1), out_axes=Carry)
    run(1.0, layers, XS)


@message(
    errors.ArgumentError,
    "args[1].calls (a Variable) cannot be scanned over axis 0: its shape is ().",
    "Give it another axis in `in_axes`, or None to share it between the steps.",
)
def scanned_scalar():
    liftnn.scan(lambda c, layer: (c, None))(1.0, Affine())


@message(
    errors.ArgumentError,
    "args[0].sum (a Variable) has the shape () in each step, so there is no axis 1 to stack the steps along.",
    "Correct the axis in `out_axes` or, for what belongs to an argument, in `in_axes`.",
)
def axis_that_a_new_variable_has_no_room_for():
    def attach(layer):
        layer.sum = liftnn.Variable(layer.w.value.sum())

    liftnn.scan(attach, in_axes=1, out_axes=None)(Holder(w=liftnn.Param(XS)))


@message(errors.ArgumentError, "max_steps is -1.", "Pass a number of steps, or leave it out.")
def negative_max_steps():
    liftnn.while_loop(lambda x: x < 3, lambda x: x, 0, max_steps=-1)


@message(
    errors.StructureError,
    "cond_fun of liftnn.while_loop writes to:",
    "  init_val.calls (a Variable)",
    "  init_val (an Affine)",
    "It may only read: write in body_fun.",
)
def condition_that_writes():
    def cond(model):
        model.mode = "eval"
        return model(1.0).sum() < 3

    liftnn.while_loop(cond, lambda model: model, Affine())


@message(
    errors.ArgumentTypeError,
    "cond_fun of liftnn.while_loop returns bool[3].",
    "Return a boolean array of shape ().",
)
def condition_that_is_no_scalar():
    liftnn.while_loop(lambda c: c[1] < 3, lambda c: c, (Affine(), jnp.ones(3)))


# --- branches


@message(
    errors.StructureError,
    "true_fun and false_fun of liftnn.cond leave different structures (true_fun -> false_fun):",
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
    "branches[0] and branches[2] of liftnn.switch leave different shapes or dtypes (branches[0] -> branches[2]):",
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
    "true_fun and false_fun of liftnn.cond leave different structures (true_fun -> false_fun):",
    "  one of them puts a new object in place of an old one, or exchanges two",
    AGREE,
)
def variable_replaced_in_one_branch():
    def replace(model):
        model.b = liftnn.Param(model.b + 1)

    liftnn.cond(True, replace, lambda model: None, Affine())


@message(errors.ArgumentError, "liftnn.switch has no branches to choose from.", "Pass at least one function.")
def no_branches():
    liftnn.switch(0, [])


@message(errors.ArgumentTypeError, "liftnn.cond needs a function, not an int.", "Pass a callable.")
def branch_that_cannot_be_called():
    liftnn.cond(True, 1, lambda: 2)


@message(
    errors.ArgumentError,
    "liftnn.cond got 1 operands by position, and `operand`.",
    "Pass all by position.",
)
def operand_by_position_and_by_name():
    liftnn.cond(True, lambda x: x, lambda x: x, XS, operand=XS)
