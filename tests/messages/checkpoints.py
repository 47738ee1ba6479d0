"""Errors of `save`, `restore` and `Checkpoints`."""

from __future__ import annotations

import contextlib
import json
import pathlib
import tempfile
import unittest.mock
import zlib

import jax
import jax.numpy as jnp

import liftnn
from liftnn import errors
from liftnn._src.checkpoints import failures, orbax
from tests.messages.registry import message
from tests.user_modules import Holder

OTHER_STEP = "Restore another step: `liftnn.saved_steps(folder)` lists them."
CONVERT = (
    "Convert it to numbers, strings, arrays, or lists, tuples and dicts of them; pass modules and Variables before the "
    "options."
)


@contextlib.contextmanager
def empty_folder():
    """A current folder that is empty, so that messages have short paths."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        yield


def save(*modules, **options):
    with empty_folder():
        liftnn.save("runs", 1, *modules, **options)


def restore(saved, wanted, *, edit=None):
    """Save a module, edit the index, and restore another module."""
    with empty_folder():
        liftnn.save("runs", 1, *saved)
        if edit is not None:
            edit_index(pathlib.Path("runs/1/state/liftnn_index"), edit)
        liftnn.restore("runs", *wanted)


def edit_index(path, edit):
    """Change the content of an index, and give it the checksum that it should have then."""
    text = json.dumps(edit(json.loads(path.read_text().partition("\n")[2])))
    path.write_text(f"liftnn checkpoint 1 {zlib.crc32(text.encode()):08x}\n{text}\n")


@message(
    errors.CheckpointError,
    "The checkpoint runs/1 does not fit the modules:",
    "different:",
    "  modules[0].a: float64[2] in the checkpoint, but jax_enable_x64 is off",
    'For arrays of 64 bits call `jax.config.update("jax_enable_x64", True)` first. Change the modules to fit what was '
    "saved, pass `...` in place of modules to skip, or pass `strict=False` to restore only what fits.",
)
def arrays_of_64_bits_while_jax_has_none():
    with jax.enable_x64(True):
        saved = Holder(a=liftnn.Param(jnp.ones(2, jnp.float64)))
    restore([saved], [liftnn.eval_shape(lambda: saved)])


@message(
    errors.CheckpointError,
    "The checkpoint runs/1 does not fit the modules:",
    "missing in the checkpoint:",
    "  modules[0].c: float32[2] in the module",
    "unexpected in the checkpoint:",
    "  modules[0].a: float32[3] in the checkpoint",
    "different:",
    "  modules[0].b: float32[] in the checkpoint, int32[] in the module",
    "  modules[0].d: shared with modules[0].e in the checkpoint, separate in the module",
    "Change the modules to fit what was saved, pass `...` in place of modules to skip, or pass `strict=False` to "
    "restore only what fits.",
)
def checkpoint_that_does_not_fit():
    one, array = liftnn.Param(jnp.ones(2)), liftnn.Param
    saved = Holder(a=array(jnp.ones(3)), b=array(jnp.ones(())), e=one, d=one)
    wanted = Holder(b=array(jnp.array(1)), c=array(jnp.ones(2)), e=array(jnp.ones(2)), d=array(jnp.ones(2)))
    restore([saved], [wanted])


@message(
    errors.CheckpointError,
    "There is no checkpoint in the folder runs.",
    "Check the path; to start a new run if there is none, test `liftnn.saved_steps(folder)` first.",
)
def restored_from_an_empty_folder():
    with empty_folder():
        liftnn.restore("runs", Holder())


@message(
    errors.CheckpointError,
    "There is no checkpoint in the folder runs/3.",
    "It is the checkpoint of one step: pass the folder that contains it, and step=3.",
)
def restored_from_the_folder_of_a_step():
    with empty_folder():
        liftnn.save("runs", 3, Holder(a=liftnn.Param(jnp.ones(2))))
        liftnn.restore("runs/3", Holder(a=liftnn.Param(jnp.ones(2))))


@message(
    errors.CheckpointError,
    "The folder runs has no checkpoint of step 2; it has: 1.",
    "Pass one of these steps.",
)
def restored_step_that_is_not_there():
    with empty_folder():
        liftnn.save("runs", 1, Holder())
        liftnn.restore("runs", Holder(), step=2)


@message(
    errors.CheckpointError,
    "The checkpoint runs/1 cannot be read: there is no readable file state/liftnn_index, which `liftnn.save` writes.",
    "Read a checkpoint of Orbax with Orbax, into a State, and pass it to `liftnn.update`.",
)
def restored_from_a_folder_of_something_else():
    with empty_folder():
        pathlib.Path("runs/1").mkdir(parents=True)
        liftnn.restore("runs", Holder())


@message(
    errors.CheckpointError,
    "The checkpoint runs/1 has format 2; this version of liftnn reads format 1.",
    "Update liftnn.",
)
def checkpoint_of_a_later_version():
    with empty_folder():
        liftnn.save("runs", 1, Holder())
        index = pathlib.Path("runs/1/state/liftnn_index")
        index.write_text(index.read_text().replace("checkpoint 1", "checkpoint 2"))
        liftnn.restore("runs", Holder())


@message(
    errors.CheckpointError,
    "The checkpoint runs/1 is damaged: some bytes of its index are missing or were changed.",
    OTHER_STEP,
)
def checkpoint_with_a_damaged_index():
    with empty_folder():
        liftnn.save("runs", 1, Holder())
        index = pathlib.Path("runs/1/state/liftnn_index")
        index.write_text(index.read_text().replace("{", "[", 1))
        liftnn.restore("runs", Holder())


@message(
    errors.CheckpointError,
    'The index of the checkpoint runs/1 has an entry that liftnn does not write: {"dtype": "object", "shape": [2], '
    '"kind": "jax", "name": "mo.',
    "Restore another step.",
)
def checkpoint_with_an_entry_of_something_else():
    def edit(content):
        content["leaves"][0][1]["dtype"] = "object"
        return content

    restore([Holder(a=liftnn.Param(jnp.ones(2)))], [Holder(a=liftnn.Param(jnp.ones(2)))], edit=edit)


@message(
    errors.CheckpointError,
    "The checkpoint runs/1 has an array of dtype float99, which this version of JAX does not have.",
    "Update JAX.",
)
def checkpoint_with_a_dtype_of_a_later_jax():
    def edit(content):
        entry = {"dtype": "float99", "shape": [0], "kind": "jax"}
        content["values"]["items"] = [["x", {"is": "array", "array": entry}]]
        return content

    restore([Holder()], [Holder()], edit=edit)


@message(
    errors.ArgumentError,
    "The folder runs already has a checkpoint of step 1.",
    "Save another step, or in another folder.",
)
def step_saved_twice():
    with empty_folder():
        liftnn.save("runs", 1, Holder())
        liftnn.save("runs", 1, Holder())


@message(
    errors.ArgumentError,
    "The folder runs already has a file named 1.",
    "Save another step, or in another folder.",
)
def step_with_the_name_of_a_file():
    with empty_folder():
        pathlib.Path("runs").mkdir()
        pathlib.Path("runs/1").touch()
        liftnn.save("runs", 1, Holder())


@message(errors.ArgumentError, "The step is -1, not a non-negative integer.", "Pass 0 or more.")
def step_below_zero():
    liftnn.save("runs", -1, Holder())


@message(
    errors.ArgumentError,
    "The step is -1, not a non-negative integer.",
    "Pass 0 or more, or None for the latest step.",
)
def step_to_restore_below_zero():
    liftnn.restore("runs", Holder(), step=-1)


@message(
    errors.ArgumentError,
    "The step is a Holder, not a non-negative integer.",
    "The step is the second argument: `save(folder, step, model)`.",
)
def save_without_a_step():
    liftnn.save("runs", Holder())


@message(
    errors.ArgumentTypeError,
    "restore takes modules, Variables and States, but modules[0] is an int.",
    "Pass the step by name, as in `restore(folder, model, step=3)`. What was saved as `values` is in the result.",
)
def step_of_restore_by_position():
    with empty_folder():
        liftnn.save("runs", 1, Holder())
        liftnn.restore("runs", 1, Holder())


@message(errors.ArgumentError, "The step is a str, not a non-negative integer.", "Pass an int.")
def step_that_is_a_string():
    liftnn.restore("runs", Holder(), step="0")


@message(errors.ArgumentError, "The step is float32[], not a non-negative integer.", "Pass an int.")
def step_that_is_a_float_array():
    liftnn.save("runs", jnp.ones(()), Holder())


@message(
    errors.ArgumentTypeError,
    "The step is a tracer: save was called inside a transform, where arrays have no values.",
    "Call save outside of the compiled function.",
)
def step_that_is_a_tracer():
    liftnn.jit(lambda step: liftnn.save("runs", step, Holder()))(jnp.array(1))


@message(
    errors.CheckpointError,
    "The folder runs has checkpoints of later steps than 1: 10, 20; with max_to_keep=2 the new one would be removed "
    "before them.",
    "Save in another folder, remove the later checkpoints, or omit `max_to_keep`.",
)
def step_below_those_of_an_earlier_run():
    with empty_folder():
        liftnn.save("runs", 10, Holder())
        liftnn.save("runs", 20, Holder())
        liftnn.save("runs", 1, Holder(), max_to_keep=2)


@message(
    errors.CheckpointError,
    "The folder runs cannot be written: Not a directory.",
    "Check its path and its permissions.",
)
def saved_in_a_folder_that_is_a_file():
    with empty_folder():
        pathlib.Path("runs").touch()
        liftnn.save("runs", 1, Holder())


ODD_PATH = "Use a path without brackets, backslashes and bytes that are not UTF-8."


@message(
    errors.CheckpointError,
    "Orbax cannot write checkpoints in the folder 'runs[1]': it misreads 'runs[1]' in the path.",
    ODD_PATH,
)
def saved_in_a_folder_with_brackets():
    with empty_folder():
        liftnn.save("runs[1]", 1, Holder())


@message(
    errors.CheckpointError,
    "Orbax cannot read checkpoints in the folder 'r\\\\un': it misreads 'r\\\\un' in the path.",
    ODD_PATH,
)
def restored_from_a_folder_with_a_backslash():
    with empty_folder():
        liftnn.save("runs", 1, Holder())
        pathlib.Path("runs").rename("r\\un")
        liftnn.restore("r\\un", Holder())


@message(
    errors.ArgumentTypeError,
    "modules[0].w is a tracer: restore was called inside a transform, where arrays have no values.",
    "Call restore outside of the compiled function.",
)
def restored_inside_a_transform():
    with empty_folder():
        module = Holder(w=liftnn.Param(jnp.ones(2)))
        liftnn.save("runs", 1, module)
        liftnn.jit(lambda module: liftnn.restore("runs", module).step)(module)


@message(
    errors.ArgumentError,
    "max_to_keep is a str, not a number; at least one checkpoint must be kept.",
    "Pass 1 or more, or None to keep all.",
)
def number_of_checkpoints_that_is_a_string():
    liftnn.Checkpoints("runs", max_to_keep="2")


@message(
    errors.ArgumentError,
    "max_to_keep is 0; at least one checkpoint must be kept.",
    "Pass 1 or more, or None to keep all.",
)
def no_checkpoint_to_keep():
    liftnn.Checkpoints("runs", max_to_keep=0)


@message(errors.ArgumentError, "best_mode must be 'max' or 'min', not 'low'.", 'Pass "max" or "min".')
def best_mode_of_another_name():
    liftnn.Checkpoints("runs", best="loss", best_mode="low")


@message(
    errors.ArgumentError,
    "The metric 'loss' is missing, which decides which checkpoints are kept.",
    "Pass `metrics={'loss': ...}`.",
)
def saved_without_the_metric():
    liftnn.Checkpoints("runs", best="loss").save(1, Holder())


@message(
    errors.ArgumentError,
    "best_step needs the name of a metric.",
    'Write `Checkpoints(folder, best="accuracy")`.',
)
def best_step_without_a_metric():
    liftnn.Checkpoints("runs").best_step()


@message(
    errors.ArgumentTypeError,
    "save takes modules, Variables and States, but modules[1].epoch is an int.",
    "Pass numbers, strings and arrays by name in `values` of `save`; `restore` returns them.",
)
def number_saved_as_a_module():
    save(Holder(), {"epoch": 3})


@message(
    errors.ArgumentTypeError,
    "modules[0].w is abstract: it has a shape and a dtype, but no value.",
    "Save the module after its Variables have values.",
)
def abstract_module_saved():
    save(liftnn.eval_shape(lambda: Holder(w=liftnn.Param(jnp.ones(2)))))


@message(
    errors.ArgumentTypeError,
    "modules[0].w is a tracer: save was called inside a transform, where arrays have no values.",
    "Call save outside of the compiled function.",
)
def saved_inside_a_transform():
    liftnn.jit(save)(Holder(w=liftnn.Param(jnp.ones(2))))


@message(
    errors.DonatedError,
    "The buffer of modules[0].w was donated earlier and is gone.",
    "Use the Variable of the module that the call has updated, make a `liftnn.clone` before the call, or do not donate "
    "the argument.",
)
def donated_module_saved():
    module = Holder(w=liftnn.Param(jnp.ones(2)))
    module.w.value.delete()
    save(module)


@message(
    errors.ArgumentTypeError,
    "modules[0].w holds an object, which a checkpoint cannot hold.",
    "Store numbers, strings, or arrays of numbers in Variables.",
)
def object_in_a_variable_saved():
    save(Holder(w=liftnn.Variable(object())))


@message(errors.ArgumentTypeError, "values.key is a set, which a checkpoint cannot hold.", CONVERT)
def set_among_the_values():
    save(Holder(), values={"key": {1}})


@message(
    errors.ArgumentTypeError,
    "The key of values.key[(1, 2)] is a tuple, which a checkpoint cannot hold.",
    "Use strings or numbers as keys.",
)
def tuple_as_a_key_of_the_values():
    save(Holder(), values={"key": {(1, 2): 3}})


@message(
    errors.ArgumentTypeError,
    "`values` must be a dict with names as keys, not a list.",
    "Pass `values={'epoch': 3}`.",
)
def values_that_are_a_list():
    save(Holder(), values=[3])


@message(
    errors.ArgumentTypeError,
    "`metrics` must be a dict with names as keys, not a list.",
    "Pass numbers: `metrics={'accuracy': 0.98}`.",
)
def metrics_that_are_a_list():
    save(Holder(), metrics=[0.98])


@message(
    errors.ArgumentTypeError,
    "`metrics` must be a dict with names as keys, not one with other keys.",
    "Pass numbers: `metrics={'accuracy': 0.98}`.",
)
def metrics_with_a_tuple_as_key():
    save(Holder(), metrics={("accuracy", 1): 0.98})


@message(
    errors.ArgumentTypeError,
    "The metric 'count' is too large for a float.",
    "Pass numbers: `metrics={'accuracy': 0.98}`.",
)
def metric_that_is_too_large():
    save(Holder(), metrics={"count": 10**400})


@message(
    errors.ArgumentError,
    "Two arrays have the path modules[0].names[Same], but a checkpoint can hold only one under each path.",
    "Use keys with different `repr`s, such as strings.",
)
def keys_with_the_same_text():
    class Same:
        def __repr__(self):
            return "Same"

    save(Holder(names={Same(): liftnn.Variable(1), Same(): liftnn.Variable(2)}))


@message(
    errors.ArgumentTypeError,
    "The metric 'loss' is a str, not a number.",
    "Pass numbers: `metrics={'accuracy': 0.98}`.",
)
def metric_that_is_a_string():
    save(Holder(), metrics={"loss": "low"})


@message(
    errors.MissingPackageError,
    "Checkpoints need the package orbax-checkpoint, which is not installed.",
    "Run `pip install 'liftnn[checkpoint]'`.",
)
def saved_without_orbax():
    orbax.load_orbax.cache_clear()
    with unittest.mock.patch.dict("sys.modules", {"orbax.checkpoint": None}):
        save(Holder())


@message(
    errors.CheckpointError,
    "The checkpoint was written here, but not in another process:",
    "  process 1: OSError: No space left on device",
    "The last complete checkpoint is intact. Fix the cause, such as a full disk, and save again.",
)
def write_that_fails_in_another_process():
    with empty_folder(), liftnn.Checkpoints("run") as checkpoints:
        checkpoints.save(0, Holder())
        checkpoints.wait()
        outcome = failures.SharedOutcome("run", ())
        outcome._file.write_text("process 1: OSError: No space left on device")
        with unittest.mock.patch.object(orbax.Manager, "wait", side_effect=outcome.result):
            checkpoints.wait()


@message(
    errors.ArgumentTypeError,
    "The first argument must be a path, not a Linear.",
    "Write `liftnn.save(folder, step, module)`.",
)
def module_in_place_of_a_folder():
    liftnn.save(liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)), 1, "run")  # pyright: ignore[reportArgumentType]
