"""Errors of what functions capture, what static values hold, and what was written past liftnn."""

from __future__ import annotations

import collections
import functools
import pickle
import queue

import jax
import jax.numpy as jnp
import numpy as np

import liftnn
from liftnn import errors
from liftnn._src.tracebacks import boundary
from tests.messages.registry import message
from tests.user_modules import Affine, Holder

# --- passed and captured


@message(
    errors.TraceContextError,
    "The structure, the metadata or an array leaf of args[0] (an Affine) was changed in liftnn.jit. The function also "
    "captures it as model, where the change would not be seen.",
    "Use only the argument inside the function, or change only the values of Variables.",
)
def passed_module_changed_that_is_captured_too():
    model = Affine()
    liftnn.jit(lambda m: setattr(m, "mode", model.mode + "!"))(model)


# --- captured things changed


@message(
    errors.TraceContextError,
    "A list that holds captured modules was changed in liftnn.jit. The function captures it, and only the values "
    "of captured Variables can be changed.",
    "Make it an attribute of a module if it is not one, and pass that module as an argument to the function given to "
    "liftnn.jit.",
)
def captured_plain_list_grown():
    models = [Affine()]
    liftnn.jit(lambda x: models.append(models[0]))(1.0)


@message(
    errors.TraceContextError,
    "A variable that holds captured modules was changed in liftnn.grad. The function captures it, and only the values "
    "of captured Variables can be changed.",
    "Make it an attribute of a module if it is not one, and pass that module as an argument to the function given to "
    "liftnn.grad.",
)
def captured_name_rebound():
    model = Affine()

    def f(x):
        nonlocal model
        model = None
        return x

    liftnn.grad(f)(1.0)


@message(
    errors.TraceContextError,
    "'model', which holds captured modules, was changed in liftnn.vmap. The function captures it, and only the values "
    "of captured Variables can be changed.",
    "Make it an attribute of a module if it is not one, and pass that module as an argument to the function given to "
    "liftnn.vmap.",
)
def attribute_of_a_captured_plain_object_rebound():
    class Trainer:
        def __init__(self):
            self.model = Affine()

        def step(self, x):
            y = self.model(x)
            self.model = None
            return y

    trainer = Trainer()
    liftnn.vmap(lambda x: trainer.step(x))(jnp.ones((2, 3)))


@message(
    errors.TraceContextError,
    "A numpy array that a captured module holds was changed in liftnn.jit. The function captures it, and only the "
    "values of captured Variables can be changed.",
    "Make it an attribute of a module if it is not one, and pass that module as an argument to the function given to "
    "liftnn.jit.",
)
def captured_numpy_array_changed_in_place():
    model = Holder(table=np.zeros(3))
    liftnn.jit(lambda x: model.table.fill(1))(1.0)


# --- modules of the trace stored in captured objects


@message(
    errors.TraceContextError,
    "pool['a'], which the function captures, was set to an Affine created inside liftnn.jit. It would leak: its arrays "
    "exist only in that trace.",
    "Create the module before the call, or make it an attribute of a module, and pass that module as an argument to "
    "the function given to liftnn.jit.",
)
def new_module_stored_in_a_captured_dict():
    pool = {}

    def f(x):
        pool["a"] = Affine()
        return pool["a"](x)

    liftnn.jit(f)(jnp.ones(3))


# --- static values that hold a copy


class Box:
    """An object that liftnn does not know."""

    def __init__(self, content):
        self.content = content


@message(
    errors.StructureError,
    "args[0].act is a Box that holds the copy of args[0] (an Affine) inside liftnn.jit. That object would leak, "
    "because liftnn treats this Box as static.",
    "Store the module in an attribute, a list, a dict, a bound method or a functools.partial.",
)
def object_with_an_argument_kept():
    liftnn.jit(lambda m: setattr(m, "act", Box(m)))(Affine())


@message(
    errors.StructureError,
    "the value of args[0].w (a Param) is a partial that holds the copy of args[0] (an Affine) inside liftnn.jit. That "
    "object would leak, because liftnn treats this partial as static.",
    "Store the module in an attribute, a list, a dict, a bound method or a functools.partial.",
)
def value_with_an_argument_kept():
    liftnn.jit(lambda m: setattr(m.w, "value", functools.partial(len, m)))(Affine())


@message(
    errors.StructureError,
    "args[0].act.default_factory is a function that holds the copy of args[0] (an Affine) inside liftnn.jit. That "
    "object would leak, because liftnn treats this function as static.",
    "Store the module in an attribute, a list, a dict, a bound method or a functools.partial.",
)
def factory_with_an_argument_kept():
    liftnn.jit(lambda m: setattr(m, "act", collections.defaultdict(lambda: m)))(Affine())


@message(
    errors.StructureError,
    "args[0].w.note is a Box that holds the copy of args[0] (an Affine) inside liftnn.jit. That object would leak, "
    "because liftnn treats this Box as static.",
    "Store the module in an attribute, a list, a dict, a bound method or a functools.partial.",
)
def metadata_with_an_argument_kept():
    liftnn.jit(lambda m: m.w.set_metadata("note", Box(m)))(Affine())


@message(
    errors.StructureError,
    "a key of args[0].act is a Box that holds the copy of args[0] (an Affine) inside liftnn.jit. That object would "
    "leak, because liftnn treats this Box as static.",
    "Store the module in an attribute, a list, a dict, a bound method or a functools.partial.",
)
def key_with_an_argument_kept():
    liftnn.jit(lambda m: setattr(m, "act", {Box(m): 1}))(Affine())


@message(
    errors.StructureError,
    "args[0].act is a map, which can be read only once, but a compiled function makes one object for all of its calls.",
    "Make it a list or a tuple of its elements.",
)
def iterator_kept():
    liftnn.jit(lambda m: setattr(m, "act", map(str, (1, 2))))(Affine())


@message(
    errors.StructureError,
    "args[0].total is a mutable array (jax.Ref), which liftnn.jit cannot return or store.",
    "Return or store what it holds, `ref[...]`. One that is an argument is changed in place.",
)
def mutable_array_kept():
    liftnn.jit(lambda m: setattr(m, "total", jax.new_ref(m.w.value)))(Affine())


@message(
    errors.StructureError,
    "the output.pair[1]: A dict has an Affine as a key, but keys must be static.",
    "Return it as a value, under a string key.",
)
def module_as_key_of_the_output():
    liftnn.jit(lambda m: {"pair": (1.0, {m: m.w * 2})})(Affine())


@message(
    errors.StructureError,
    "args[0].act is a Box that holds an Affine created inside liftnn.jit. That object would leak, because liftnn "
    "treats this Box as static.",
    "Store the module in an attribute, a list, a dict, a bound method or a functools.partial.",
)
def object_with_a_new_module_kept():
    liftnn.jit(lambda m: setattr(m, "act", Box(Affine())))(Affine())


@message(
    errors.StructureError,
    "The code of the function graphdef_with_a_closure_pickled.<locals>.<lambda> cannot be pickled. The function is "
    "part of the model's structure, since it holds a module, a Variable, an array or a container of the model.",
    "Use a method of a module, or a functools.partial of a function at the top level of a file.",
)
def graphdef_with_a_closure_pickled():
    model = Affine()
    model.act = lambda x: x + model.w
    _, graphdef = liftnn.split(model)
    boundary(pickle.dumps)(graphdef)


# --- written past Module.__setattr__, leaked, static, shared


@message(
    errors.StructureError,
    "The attribute 'a3' of args[0] was set without Module.__setattr__, for example by object.__setattr__. The last "
    "calls of this compiled function may have used the old value.",
    "Use setattr or vars(module) instead; liftnn detects both.",
)
def attribute_of_a_large_module_written_past_setattr():
    model = Holder(**{f"a{i}": i for i in range(40)})
    f = liftnn.jit(lambda model, x: x * model.a3)
    f(model, 1.0)
    object.__setattr__(model, "a3", 70)
    for _ in range(8):
        f(model, 1.0)


@message(
    errors.StructureError,
    "args[0]: this Affine was created inside a transform that has returned (leaked).",
    "Return it from that transform, or store it in a module that was an argument of that transform.",
)
def leaked_copy_passed_to_jit():
    leaked = queue.SimpleQueue()  # liftnn does not look into it
    liftnn.jit(leaked.put)(Affine())
    liftnn.jit(lambda model: model.mode)(leaked.get())


@message(
    errors.ArgumentError,
    "args[0] contains an Affine, so it cannot be static: later changes to the module would not be seen.",
    "Remove it from static_argnums and static_argnames; static attributes of modules are part of the cache key anyway.",
)
def module_inside_a_static_argument():
    liftnn.jit(lambda models, x: x, static_argnums=0)((Affine(),), 1.0)


@message(
    errors.StructureError,
    "args[0].b.value and args[0].a.value are the same dict. Each Variable has its own dict inside a "
    "transform, so a change through one would not be visible through the other.",
    "Share the Variable instead of the dict, or copy the dict for one of them.",
)
def one_dict_as_the_value_of_two_variables():
    value = {"n": jnp.zeros(())}
    liftnn.jit(lambda model: None)(Holder(a=liftnn.Variable(value), b=liftnn.Variable(value)))


@message(
    errors.StructureError,
    "args[0].a.value.cache is a dict with keys that JAX cannot sort: they are of type int and str.",
    "Use strings or integers as keys, or store Variables in a dict of a Module, which takes any keys.",
)
def dict_with_keys_of_several_types_as_a_value():
    value = {"cache": {1: jnp.zeros(()), "n": jnp.zeros(())}}
    liftnn.jit(lambda model: None)(Holder(a=liftnn.Variable(value)))
