"""The contents of an exported function as JSON: the same after reading, and no code of the file runs."""

from __future__ import annotations

import collections
import hashlib
import json
import os
import random

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import liftnn
from liftnn import errors
from liftnn._src.compilation.plain import from_json, to_json
from tests.user_modules import Affine

Pair = collections.namedtuple("Pair", "a b")
PLAIN = [
    None, True, 3, 2**80, 0.5, float("inf"), "text", 1 + 2j, b"\0\xff", [1, (2, {3})], {(1, "a"): [None], 1.5: {}},
    frozenset({1}), np.dtype("int8"), jnp.dtype("bfloat16"), float, jnp.float32, np.float16, Affine, Pair(1, (2,)),
    collections.OrderedDict, optax.EmptyState(), liftnn.Empty,
]  # fmt: skip


@pytest.mark.parametrize("x", PLAIN, ids=repr)
def test_plain_data_is_read_as_it_was_written(x):
    found = from_json(to_json(x))
    assert type(found) is type(x)
    assert found == x


@pytest.mark.parametrize(
    "tree",
    [0, None, (), [0, (0, {"a": 0, "b": [0]})], Pair(0, (0, None)), {"x": liftnn.Empty}, {3: 0, 1: 0}],
    ids=repr,
)
def test_the_structure_of_a_tree_is_read_as_it_was_written(tree):
    treedef = jax.tree.structure(tree)
    assert from_json(to_json(treedef)) == treedef


@pytest.mark.parametrize(
    "x",
    [print, os.system, lambda: 1, object(), os, jax.nn.relu, np.ones(2), np.dtype(">f4"), np.dtype("f4,i4")],
    ids=["builtin", "posix", "lambda", "object", "module", "jax", "array", "byte order", "record"],
)
def test_functions_and_other_objects_are_not_plain(x):
    with pytest.raises(errors.StructureError, match=r"cannot be written with `plain=True`"):
        to_json([x])


ran = []


class Watching(liftnn.Module):
    """A module that notes when its own code runs."""

    def __init__(self):
        ran.append("init")

    def __setattr__(self, name, value):
        ran.append(name)
        super().__setattr__(name, value)


def hostile():
    """Texts that name what must not be called, looked up or imported."""
    call = {"is": "made", "by": "call_factory", "items": ["os", "system", {"is": "dict", "items": []}]}
    yield call
    yield {**call, "by": "public_function", "items": ["os", "system"]}
    yield {**call, "by": "third"}
    yield {**call, "by": "__builtins__"}
    yield {**call, "by": "Metadata.of.__globals__"}
    yield {"is": "constant", "name": "call_factory"}
    yield {"is": "constant", "name": "set_module"}
    yield {"is": "class", "module": "os", "name": "system"}
    yield {"is": "class", "module": "subprocess", "name": "Popen"}
    yield {"is": "class", "module": "this", "name": "s"}
    yield {"is": "class", "name": "object"}
    yield {
        "is": "named",
        "class": {"is": "class", "module": "subprocess", "name": "Popen"},
        "items": [["true"]],
    }
    yield {"is": "named", "class": {"is": "class", "name": "int"}, "items": [1]}
    yield {
        "is": "tree",
        "class": {"is": "class", "module": "os", "name": "system"},
        "data": None,
        "children": [],
    }
    yield {"is": "tree", "class": {"is": "class", "name": "set"}, "data": None, "children": []}


@pytest.mark.parametrize("data", list(hostile()), ids=json.dumps)
def test_nothing_that_a_file_names_is_called(data):
    with pytest.raises(errors.StructureError):
        from_json(json.dumps(data))


def test_classes_are_looked_up_and_not_called():
    name = {"is": "class", "module": Watching.__module__, "name": "Watching"}
    assert from_json(json.dumps(name)) is Watching
    assert ran == []


@pytest.mark.sample(10)
@pytest.mark.parametrize("seed", range(100))
def test_bytes_that_were_changed_are_an_error(seed):
    pytest.importorskip("flatbuffers")
    blob = bytearray(liftnn.export(liftnn.jit(lambda m: m.w * 2))(Affine()).serialize(plain=True))
    draw = random.Random(seed)
    blob[draw.randrange(len(blob))] ^= 1 << draw.randrange(8)
    with pytest.raises((errors.ArgumentError, errors.StructureError)):
        liftnn.deserialize(bytes(blob), plain=True)


@pytest.mark.sample(10)
@pytest.mark.parametrize("seed", range(100))
def test_a_text_that_was_changed_with_its_checksum_is_an_error_or_is_read(seed):
    pytest.importorskip("flatbuffers")
    mark = b"liftnn plain exported function 1\n"
    data = bytearray(
        liftnn.export(liftnn.jit(lambda m: m.w * 2))(Affine()).serialize(plain=True)[len(mark) + 32 :]
    )
    draw = random.Random(seed)
    size = int.from_bytes(data[:8], "little")
    data[draw.randrange(8, 8 + size)] ^= 1 << draw.randrange(8)
    try:
        found = liftnn.deserialize(mark + hashlib.sha256(data).digest() + data, plain=True)
    except (errors.ArgumentError, errors.StructureError):
        return
    assert isinstance(found, liftnn.Exported)
