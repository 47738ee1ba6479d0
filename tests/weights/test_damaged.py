"""Damaged, hostile and foreign files: each gives a CheckpointError, changes nothing, and runs no code."""

from __future__ import annotations

import json
import pathlib
import pickle
import random
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import liftnn
from tests.quick import quick
from tests.user_modules import Holder


def make(x):
    tied = liftnn.Param(jnp.full((4, 3), x))
    return Holder(
        a=liftnn.Param(jnp.full((40, 30), x)),
        list=[liftnn.Param(jnp.full(3, x, jnp.bfloat16)), liftnn.Variable(jax.random.key(int(x)))],
        n=np.full(4, x),
        small=liftnn.Param(jnp.full(5, x, jnp.int4)),
        tied=tied,
        again=[tied],
        plain=liftnn.Variable(float(x)),
    )


def bits(model):
    leaves = [x for x in jax.tree.leaves(model) if not isinstance(x, float)]
    is_key = [hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key) for x in leaves]
    return [
        np.asarray(jax.random.key_data(x) if key else x).tobytes()
        for x, key in zip(leaves, is_key, strict=True)
    ]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.safetensors"
    liftnn.save_weights(path, make(2.0), metadata={"epoch": "3"})
    return path


@pytest.fixture
def shards(tmp_path):
    """The index of several files."""
    liftnn.save_weights(tmp_path / "model.safetensors", make(2.0), max_shard_size=100)
    return tmp_path / "model.safetensors.index.json"


def assert_is_rejected(path, match=None, **options):
    model = make(5.0)
    before = bits(model)
    with pytest.raises(liftnn.CheckpointError, match=match):
        liftnn.load_weights(path, model, **options)
    assert bits(model) == before


def truncate(data, draw):
    return data[: draw.randrange(len(data))]


def flip_a_bit(data, draw):
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]


def flip_a_bit_of_the_header(data, draw):
    end = 8 + int.from_bytes(data[:8], "little")
    return flip_a_bit(data[:end], draw) + data[end:]


def change_the_length_of_the_header(data, draw):
    length = int.from_bytes(data[:8], "little")
    new = draw.choice([0, 1, length - 1, length - 8, length + 1, len(data), 2**31, 2**63, 2**64 - 1])
    return new.to_bytes(8, "little") + data[8:]


def swap_two_bytes(data, draw):
    changed = bytearray(data)
    while bytes(changed) == data:
        i, j = draw.randrange(len(data)), draw.randrange(len(data))
        changed[i], changed[j] = changed[j], changed[i]
    return bytes(changed)


def zero_a_part(data, draw):
    changed = data
    while changed == data:
        at, size = draw.randrange(len(data)), draw.randrange(1, 64)
        changed = data[:at] + bytes(len(data[at : at + size])) + data[at + size :]
    return changed


def append(data, draw):
    return data + draw.randbytes(3)


DAMAGES = [
    flip_a_bit, flip_a_bit_of_the_header, truncate, zero_a_part, append, swap_two_bytes,
    change_the_length_of_the_header,
]  # fmt: skip


def means_the_same(one, other):
    """Whether two files differ in the spaces of the header only."""
    ends = [8 + int.from_bytes(x[:8], "little") for x in (one, other)]
    try:
        headers = [json.loads(x[8:end]) for x, end in zip((one, other), ends, strict=True)]
    except ValueError:
        return False
    return headers[0] == headers[1] and one[ends[0] :] == other[ends[1] :]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("seed", quick(range(50), most=3))
def test_changed_bytes_of_a_file_are_found(file, damage, seed):
    before = file.read_bytes()
    file.write_bytes(damage(before, random.Random(seed)))
    if not means_the_same(before, file.read_bytes()):
        assert_is_rejected(file, "damaged|cannot be read|has version|dtype|does not fit")


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, zero_a_part])
@pytest.mark.parametrize("seed", quick(range(20), most=2))
def test_changed_bytes_of_shards_are_found(shards, damage, seed):
    draw = random.Random(seed)
    path = draw.choice(sorted(shards.parent.iterdir()))
    before = path.read_bytes()
    path.write_bytes(damage(before, draw))
    if path != shards or json.loads(before)["weight_map"] != weight_map_of(path):
        assert_is_rejected(shards, "damaged|cannot be read|does not fit|refers to|has version|dtype")


def weight_map_of(path):
    try:
        return json.loads(path.read_bytes())["weight_map"]
    except (ValueError, KeyError, TypeError):
        return None


def test_a_shard_that_is_missing_is_found(shards):
    for path in sorted(shards.parent.glob("*.safetensors")):
        moved = path.rename(path.with_name("moved"))
        assert_is_rejected(shards, "cannot be read: No such file")
        moved.rename(path)
    liftnn.load_weights(shards, make(0.0))


def rewrite(file, change, seal=True):
    """Change the header of a file, with liftnn's checksum of it as it should be then."""
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    notes = json.loads(header["__metadata__"]["liftnn"])
    body = change(header, notes, data[8 + length :])
    if seal and isinstance(notes, dict):
        notes["header"] = ""
        tensors = sorted(
            (k, x["shape"], NAMES.get(x["dtype"], "?")) for k, x in header.items() if k != "__metadata__"
        )
        rest = sorted((k, v) for k, v in header["__metadata__"].items() if k != "liftnn")
        text = json.dumps([notes, tensors, rest], sort_keys=True)
        notes["header"] = f"{zlib.crc32(text.encode()):08x}"
    header["__metadata__"]["liftnn"] = json.dumps(notes)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + (data[8 + length :] if body is None else body))


NAMES = {"F32": "float32", "F64": "float64", "BF16": "bfloat16", "U32": "uint32", "U8": "uint8", "I8": "int8"}


def test_a_header_that_is_rewritten_without_a_change_is_accepted(file):
    rewrite(file, lambda header, notes, body: None)
    liftnn.load_weights(file, make(5.0))


def test_a_file_of_version_1_is_read_without_its_checksums_which_are_others(file):
    def change(header, notes, body):
        notes["version"] = 1
        notes["checksums"] = dict.fromkeys(notes["checksums"], "00000000")

    rewrite(file, change)
    model = make(5.0)
    liftnn.load_weights(file, model)
    assert bits(model) == bits(make(2.0))
    rewrite(file, lambda header, notes, body: notes.update(version=2))
    assert_is_rejected(file, "the bytes of the tensors .* have changed")


def put(part, *keys, value):
    def change(header, notes, body):
        content = {"header": header, "notes": notes}[part]
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


def rename(header, notes, body):
    header["b"] = header.pop("a")


def swap(header, notes, body):
    header["plain"]["data_offsets"], header["n"]["data_offsets"] = [
        header["n"]["data_offsets"],
        header["plain"]["data_offsets"],
    ]


def overlap(header, notes, body):
    header["tied"]["data_offsets"] = [*header["a"]["data_offsets"][:1], header["a"]["data_offsets"][0] + 48]


HOSTILE = {
    "a renamed tensor": rename,
    "swapped positions": swap,
    "overlapping positions": overlap,
    "a shape of another rank": put("header", "a", "shape", value=[1200]),
    "a shape of another size": put("header", "a", "shape", value=[40, 31]),
    "a negative shape": put("header", "a", "shape", value=[-40, -30]),
    "a huge shape": put("header", "a", "shape", value=[2**62, 2**62]),
    "a shape of texts": put("header", "a", "shape", value=["40", "30"]),
    "another dtype": put("header", "a", "dtype", value="U32"),
    "an unknown dtype": put("header", "a", "dtype", value="O"),
    "a dtype of pointers": put("notes", "dtypes", "small", value="object"),
    "a dtype of pickles": put("notes", "dtypes", "small", value="O8"),
    "a dtype of another size": put("notes", "dtypes", "small", value="float64"),
    "a dtype for floats": put("notes", "dtypes", "a", value="int4"),
    "no dtypes": put("notes", "dtypes", value=None),
    "a list of dtypes": put("notes", "dtypes", value=["small"]),
    "a number as dtype": put("notes", "dtypes", "small", value=4),
    "an unknown kind of keys": put("notes", "keys", "list[1]", value="x"),
    "another kind of keys": put("notes", "keys", "list.1", value="rbg"),
    "keys of floats": put("notes", "keys", "a", value="threefry2x32"),
    "a tie to nothing": put("notes", "ties", "x", value="y"),
    "a tie to itself": put("notes", "ties", "a", value="a"),
    "a tie to another tensor": put("notes", "ties", "again.0", value="a"),
    "a tie to a list": put("notes", "ties", "x", value=["a"]),
    "a checksum of nothing": put("notes", "checksums", "x", value="00000000"),
    "a wrong checksum": put("notes", "checksums", "a", value="00000000"),
    "a checksum that is a number": put("notes", "checksums", "a", value=0),
    "an unknown field": put("notes", "code", value="import os"),
    "a later version": put("notes", "version", value=3),
    "a version that is a list": put("notes", "version", value=[[]]),
    "no version": lambda header, notes, body: notes.pop("version"),
    "fewer bytes": lambda header, notes, body: body[:-1],
    "more bytes": lambda header, notes, body: body + b"\0",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("seal", [True, False])
def test_a_header_of_something_else_is_rejected(file, name, seal):
    def change(header, notes, body):
        result = HOSTILE[name](header, notes, body)
        return result if isinstance(result, bytes) else None

    rewrite(file, change, seal)
    assert_is_rejected(file)


@pytest.mark.parametrize(
    "notes", ["", "{", "null", "[]", "3", '"x"', "{}", "[" * 10_000, '{"version": 1e400}']
)
def test_notes_of_something_else_are_rejected(file, notes):
    data = file.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    header["__metadata__"]["liftnn"] = notes
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + int.from_bytes(data[:8], "little") :])
    assert_is_rejected(file, "liftnn's part of its metadata cannot be read|has version")


class Bomb:
    def __reduce__(self):
        return (pathlib.Path.touch, (pathlib.Path("exploded"),))


CONTENTS = {
    "nothing": b"",
    "seven bytes": b"\0" * 7,
    "an empty header": (0).to_bytes(8, "little"),
    "a list": (2).to_bytes(8, "little") + b"[]",
    "deep lists": (100_000).to_bytes(8, "little") + b"[" * 100_000,
    "a length without an end": b"\xff" * 8 + b"{}",
    "a pickle": pickle.dumps(Bomb()),
    "a pickle as the header": len(pickle.dumps(Bomb())).to_bytes(8, "little") + pickle.dumps(Bomb()),
    "text": b"import os; os.abort()\n" * 10,
    "not unicode": (4).to_bytes(8, "little") + b'{"\xff"',
}


@pytest.mark.parametrize("name", CONTENTS)
def test_a_file_of_something_else_is_rejected_and_runs_nothing(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(CONTENTS[name])
    assert_is_rejected(path, "its header is not that of a safetensors file")
    path.rename(tmp_path / "model.safetensors.index.json")
    assert_is_rejected(tmp_path / "model.safetensors.index.json", "it is not an index")
    assert not (tmp_path / "exploded").exists()


INDEXES = {
    "a list": [],
    "no map": {},
    "a list as map": {"weight_map": []},
    "no map of texts": {"weight_map": {"a": 3}},
    "a folder": {"weight_map": {"a": "../model.safetensors"}},
    "a path": {"weight_map": {"a": "/etc/model.safetensors"}},
    "another folder": {"weight_map": {"a": "x/model.safetensors"}},
    "a path of Windows": {"weight_map": {"a": "C:model.safetensors"}},
    "a pickle": {"weight_map": {"a": "model.bin"}},
    "nothing": {"weight_map": {"a": ""}},
    "dots": {"weight_map": {"a": ".."}},
    "a zero byte": {"weight_map": {"a": "\0.safetensors"}},
    "a file that is not there": {"weight_map": {"a": "no.safetensors"}},
    "a tensor that is not there": {"weight_map": {"x": "one.safetensors"}},
    "not all tensors": {"weight_map": {}},
}


@pytest.mark.parametrize("name", INDEXES)
def test_an_index_of_something_else_is_rejected(tmp_path, name):
    save_file({"a": np.zeros(2), "b": np.zeros(2)}, tmp_path / "one.safetensors")
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps(INDEXES[name]))
    assert_is_rejected(path)


def test_an_index_of_other_tensors_than_its_files_is_rejected(tmp_path):
    save_file({"a": np.zeros(2), "b": np.zeros(2)}, tmp_path / "one.safetensors")
    save_file({"b": np.zeros(2)}, tmp_path / "two.safetensors")
    path = tmp_path / "model.safetensors.index.json"
    for weight_map, text in (
        ({"a": "one.safetensors"}, "the tensor 'b' is in one.safetensors, and not in the index"),
        ({"a": "two.safetensors", "b": "two.safetensors"}, "the tensor 'a' is not in two.safetensors"),
    ):
        path.write_text(json.dumps({"weight_map": weight_map}))
        assert_is_rejected(path, text)


def test_verify_can_be_left_out(file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 1  # in the last tensor
    file.write_bytes(data)
    assert_is_rejected(file, "the bytes of the tensors '.*' have changed")
    liftnn.load_weights(file, make(5.0), verify=False)


def test_a_folder_and_a_path_without_a_file_are_rejected(tmp_path):
    assert_is_rejected(tmp_path, "cannot be read: Is a directory")
    assert_is_rejected(tmp_path / "no.safetensors", "cannot be read: No such file or directory")
    (tmp_path / "x.safetensors.index.json").mkdir()
    assert_is_rejected(tmp_path / "x.safetensors", "cannot be read: Is a directory")
