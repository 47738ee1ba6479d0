"""Errors of `save_weights` and `load_weights`, of their files, and of `Rule`."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import struct
import tempfile
import unittest.mock

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

import liftnn
from liftnn import errors
from tests.messages.registry import message
from tests.user_modules import Holder

FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ANOTHER_COPY = "Nothing was changed. Load another copy of the file, or write it again."
FIT = (
    "Change the module or the rules to fit. A rule (pattern, None) skips tensors, `only` selects Variables, "
    "`cast=True` converts dtypes, and `strict=False` loads what fits and returns the rest as a report."
)


@contextlib.contextmanager
def empty_folder():
    """A current folder that is empty, so that messages have short paths."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        yield


def holder(n=2):
    return Holder(w=liftnn.Param(jnp.ones(n)))


def save(module, **options):
    with empty_folder():
        liftnn.save_weights(FILE, module, **options)


def load(write, module=None, file=FILE, **options):
    """Load a file that a function writes."""
    with empty_folder():
        write()
        liftnn.load_weights(file, holder() if module is None else module, **options)


def header(fields, metadata=None, body=b""):
    """Write a file with a header."""
    text = json.dumps(fields if metadata is None else {"__metadata__": metadata, **fields}).encode()
    pathlib.Path(FILE).write_bytes(struct.pack("<Q", len(text)) + text + body)


def notes(**fields):
    """Write a file of one tensor with a text of liftnn."""
    tensor = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    header(tensor, {"liftnn": json.dumps(fields)}, bytes(8))


def index(content):
    pathlib.Path(INDEX).write_text(json.dumps({"weight_map": content}))


@message(
    errors.CheckpointError,
    "model.safetensors does not fit the module:",
    "missing:",
    "  e: float32[], from 'e'",
    "unexpected:",
    "  'f': int32[]",
    "mismatched:",
    "  b: float32[4] in the module, float32[3] from 'b'",
    FIT,
)
def weights_that_do_not_fit():
    saved = Holder(b=liftnn.Param(jnp.ones(3)), f=liftnn.Param(jnp.array(1)))
    module = Holder(b=liftnn.Param(jnp.ones(4)), e=liftnn.Param(jnp.ones(())))
    load(lambda: liftnn.save_weights(FILE, saved), module)


@message(
    errors.ArgumentError,
    "save_weights takes arrays and numbers, but w is of type str.",
    "Select other Variables with a filter, or store the object as a static attribute of a module.",
)
def weights_of_a_text():
    save(Holder(w=liftnn.Variable("text")))


@message(
    errors.ArgumentError,
    "a[Key()] and a[Key()] have the same name 'a[Key()]' in a weight file.",
    "Use other keys in the dict.",
)
def two_weights_of_one_name():
    class Key:
        def __repr__(self):
            return "Key()"

    one, two = liftnn.Param(jnp.ones(1)), liftnn.Param(jnp.ones(1))
    save(Holder(a={Key(): one, Key(): two}))


@message(
    errors.ArgumentError,
    "save_weights cannot save w: it is abstract, without a value.",
    "Create the model outside of eval_shape, or load weights into it first.",
)
def weights_of_an_abstract_model():
    save(liftnn.eval_shape(holder))


@message(
    errors.TraceContextError,
    "save_weights cannot save w: it is a tracer, since save_weights was called inside a transform.",
    "Call save_weights outside of the compiled function.",
)
def weights_saved_inside_a_transform():
    liftnn.jit(save)(holder())


@message(
    errors.TraceContextError,
    "load_weights cannot fill w: it is a tracer, since load_weights was called inside a transform, which would read "
    "the file only once.",
    "Call load_weights outside of the compiled function.",
)
def weights_loaded_inside_a_transform():
    liftnn.jit(lambda module: liftnn.load_weights(FILE, module) and None)(holder())


@message(
    errors.DonatedError,
    "The buffer of w was donated earlier and is gone.",
    "Use the Variable of the module that the call has updated, make a `liftnn.clone` before the call, or do not donate "
    "the argument.",
)
def weights_of_a_donated_array():
    module = holder()
    module.w.value.delete()
    save(module)


@message(
    errors.ArgumentError,
    "save_weights cannot save w: a safetensors file has no complex128 arrays.",
    "Convert the Variable to another dtype, or exclude it with a filter.",
)
def weights_of_a_dtype_that_the_format_lacks():
    save(Holder(w=np.zeros(2, complex)))


@message(
    errors.ArgumentError,
    "save_weights cannot save w: it is a MaskedArray, of which a safetensors file would hold only the elements.",
    "Store a numpy array, or exclude it with a filter.",
)
def weights_of_a_subclass_of_numpy_arrays():
    save(Holder(w=np.ma.masked_array([1.0, 2.0], [False, True])))


@message(
    errors.ArgumentError,
    "The metadata of a safetensors file must map strings to strings, and liftnn reserves the key 'liftnn'.",
    "Convert the values with `str` or `json.dumps`.",
)
def metadata_that_are_numbers():
    save(holder(), metadata={"epoch": 3})


@message(
    errors.ArgumentError,
    "max_shard_size is '5GB'; it must be a number of bytes.",
    "Pass an int such as 5 * 10**9.",
)
def size_of_shards_in_words():
    save(holder(), max_shard_size="5GB")


@message(
    errors.ArgumentError,
    "weights/model.safetensors.index.json is the name of an index, which is written beside shards.",
    "Pass 'model.safetensors'; `load_weights` takes either name.",
)
def weights_with_the_name_of_an_index():
    liftnn.save_weights("weights/model.safetensors.index.json", holder())


@message(
    errors.CheckpointError,
    "no/model.safetensors cannot be written: No such file or directory.",
    "Check the folder and the free space of the disk.",
)
def weights_in_a_folder_that_does_not_exist():
    with empty_folder():
        liftnn.save_weights("no/model.safetensors", holder())


@message(
    errors.CheckpointError,
    "model.safetensors cannot be read: No such file or directory.",
    "Check the path of the file.",
)
def weights_that_do_not_exist():
    load(lambda: None)


@message(
    errors.CheckpointError,
    "model.safetensors.index.json cannot be read: Is a directory.",
    "Check the path of the file.",
)
def index_that_is_a_folder():
    load(lambda: os.mkdir(INDEX))


@message(
    errors.CheckpointError,
    "model.safetensors.index.json is damaged: it is not an index of safetensors files.",
    ANOTHER_COPY,
)
def index_of_something_else():
    load(lambda: index(["w"]))


@message(
    errors.CheckpointError,
    "model.safetensors.index.json refers to '../w.safetensors', which is not the name of a safetensors file in its "
    "folder.",
    "Nothing was changed. Do not use this index: its files must be beside it.",
)
def index_that_refers_to_another_folder():
    load(lambda: index({"w": "../w.safetensors"}))


@message(
    errors.CheckpointError,
    "model.safetensors.index.json does not fit its files: the tensor 'v' is not in w.safetensors.",
    "Nothing was changed. Copy the index and all its files again.",
)
def index_of_other_files():
    def write():
        save_file({"w": np.ones(2)}, "w.safetensors")
        index({"w": "w.safetensors", "v": "w.safetensors"})

    load(write)


@message(
    errors.CheckpointError,
    "model.safetensors is damaged: its header is not that of a safetensors file.",
    ANOTHER_COPY,
)
def weights_that_are_text():
    load(lambda: pathlib.Path(FILE).write_text("text"))


@message(
    errors.CheckpointError,
    "The tensor 'w' in model.safetensors has the dtype F4, which liftnn does not read.",
    "Convert the tensor to another dtype with the program that wrote the file.",
)
def weights_of_a_dtype_that_numpy_lacks():
    load(lambda: header({"w": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}, body=bytes(1)))


@message(
    errors.CheckpointError,
    "model.safetensors is damaged: liftnn's part of its metadata cannot be read.",
    ANOTHER_COPY,
)
def weights_with_notes_of_something_else():
    load(lambda: notes(version=1, code="import os"))


@message(
    errors.CheckpointError,
    "model.safetensors has version 3 of liftnn's weight files; this version of liftnn reads versions 1 and 2.",
    "Update liftnn.",
)
def weights_of_a_later_version():
    load(lambda: notes(version=3))


@message(
    errors.CheckpointError,
    "model.safetensors is damaged: its header has changed since it was written.",
    ANOTHER_COPY,
)
def weights_with_a_changed_header():
    load(lambda: notes(version=1))


@message(
    errors.CheckpointError,
    "model.safetensors is damaged: the bytes of the tensors 'w' have changed.",
    ANOTHER_COPY,
)
def weights_with_changed_bytes():
    def write():
        liftnn.save_weights(FILE, holder())
        pathlib.Path(FILE).write_bytes(pathlib.Path(FILE).read_bytes()[:-1] + b"x")

    load(write)


@message(
    errors.CheckpointError,
    "model.safetensors is damaged: it cannot be read (Input/output error).",
    ANOTHER_COPY,
)
def weights_on_a_disk_that_fails():
    with unittest.mock.patch("os.preadv", side_effect=OSError(5, "Input/output error")):
        load(lambda: liftnn.save_weights(FILE, holder()))


@message(
    errors.CheckpointError,
    "The disk is gone.",
    "These Variables have not been loaded; those before them have:",
    "  w",
    "Load all weights again, from another copy of the file.",
)
def weights_that_are_gone_half_way():
    gone = errors.CheckpointError("The disk is gone.")
    with unittest.mock.patch("liftnn._src.weights.tensor_file.TensorFile.read", side_effect=gone):
        load(lambda: liftnn.save_weights(FILE, holder()))


@message(
    errors.MissingPackageError,
    "load_weights needs the package safetensors, which is not installed.",
    "Install it with `pip install 'liftnn[weights]'`.",
)
def weights_loaded_without_safetensors():
    with unittest.mock.patch.dict("sys.modules", {"safetensors.numpy": None}):
        load(lambda: liftnn.save_weights(FILE, holder()))


@message(
    errors.ArgumentTypeError,
    "load_weights takes one module and a list of rules, but the rules are a Holder.",
    "Pass several modules as a dict, to load_weights as to save_weights.",
)
def weights_loaded_into_two_modules():
    liftnn.load_weights(FILE, holder(), holder())


@message(
    errors.ArgumentError,
    "The pattern 'layers.(' of a rule is not a regular expression: missing ), unterminated subpattern at position 7.",
    r"Escape special characters, as in r'layers\.0'.",
)
def pattern_that_is_not_one():
    liftnn.Rule("layers.(", "w")


@message(
    errors.ArgumentError,
    "The names of a Rule must be a string, a function, a list of these, or None, not 3.",
    'Pass "weight", or ["query.weight", "key.weight"] to join two tensors.',
)
def rule_with_a_number_as_name():
    liftnn.Rule("w", 3)


@message(
    errors.ArgumentError,
    "`part` of a Rule is (3, 3).",
    "Pass a pair (i, n) with 0 <= i < n such as (0, 3).",
)
def rule_with_a_part_that_is_not_there():
    liftnn.Rule("w", "w", part=(3, 3))


@message(
    errors.StructureError,
    "w[0] cannot be set in place: no module, list or dict holds it.",
    "Store it as an attribute of a Module, or take the new value from the State.",
)
def weights_loaded_into_a_tuple():
    load(lambda: liftnn.save_weights(FILE, {"w": (jnp.ones(2),)}), {"w": (jnp.ones(2),)})


@message(
    errors.CheckpointError,
    "model.safetensors does not fit the module:",
    "mismatched:",
    "  k: key<fry>[2] in the module, but 'k': key<fry>[4] cannot be divided, joined, transposed or reshaped",
    FIT,
)
def part_of_random_keys():
    saved = Holder(k=liftnn.Variable(jax.random.split(jax.random.key(0), 4)))
    module = Holder(k=liftnn.Variable(jax.random.split(jax.random.key(0), 2)))
    load(lambda: liftnn.save_weights(FILE, saved), module, rules=[liftnn.Rule("k", "k", part=(0, 2))])


@message(
    errors.FilterError,
    "Nothing to save: no Variable of the module matches OfType(LoRAParam).",
    "Pass a filter that matches Variables of the module, such as liftnn.Param.",
)
def weights_saved_with_a_filter_that_matches_nothing():
    with empty_folder():
        liftnn.save_weights(FILE, holder(), liftnn.LoRAParam)


@message(
    errors.FilterError,
    "Nothing to load: no Variable of the module matches PathContains(key='v').",
    "Pass a filter as `only` that matches Variables of the module, such as liftnn.Param.",
)
def weights_loaded_with_a_filter_that_matches_nothing():
    load(lambda: liftnn.save_weights(FILE, holder()), only=liftnn.PathContains("v"))


@message(
    errors.FilterError,
    "Nothing to convert: no Variable of the module matches OfType(LoRAParam).",
    "Pass a filter as `only` that matches Variables of the module, such as liftnn.Param.",
)
def weights_converted_with_a_filter_that_matches_nothing():
    liftnn.from_torch(holder(), {}, only=liftnn.LoRAParam)


@message(
    errors.ArgumentError,
    "The pattern 'kernl' of a Rule matches no Variable of the module; the most similar name is 'kernel'.",
    "Write a pattern that matches the whole name of a Variable, or remove the Rule.",
)
def rule_for_no_variable():
    module = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
    load(lambda: liftnn.save_weights(FILE, module), module, rules=[liftnn.Rule("kernl", "kernel")])


@message(
    errors.CheckpointError,
    "model.safetensors cannot be written: it is a device or a pipe, not a regular file.",
    "Pass the path of a new file, or of one to replace.",
)
def weights_saved_to_a_pipe():
    with empty_folder():
        os.mkfifo(FILE)
        liftnn.save_weights(FILE, holder())


@message(
    errors.ArgumentTypeError,
    "The first argument must be a path, not a Linear.",
    "Write `liftnn.save_weights(file, module)`.",
)
def module_in_place_of_a_file():
    liftnn.save_weights(liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)), FILE)  # pyright: ignore[reportArgumentType]
