"""Damaged, hostile and foreign checkpoints: each gives a CheckpointError, changes nothing, and runs no code."""

from __future__ import annotations

import gc
import json
import pathlib
import pickle
import random
import shutil
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from tests.quick import quick
from tests.user_modules import Holder

import liftnn

# Orbax leaves coroutines of a closed event loop behind when it cannot read an array.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _nothing_is_left_for_other_tests():
    yield
    gc.collect()


def make(x):
    return Holder(
        a=liftnn.Param(jnp.full((40, 30), x)),
        list=[liftnn.Param(jnp.full(3, x, jnp.bfloat16)), liftnn.Variable(jax.random.key(int(x)))],
        n=np.full(4, x),
        plain=liftnn.Variable(x),
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with one checkpoint."""
    folder = tmp_path_factory.mktemp("saved")
    liftnn.save(folder, 1, make(2.0), values={"epoch": 3, "losses": np.arange(5.0)})
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of the checkpoint, to be damaged."""
    return pathlib.Path(shutil.copytree(saved, tmp_path / "copy"))


def files_of(folder):
    return sorted(x for x in folder.rglob("*") if x.is_file())


def assert_is_rejected(folder, match=None):
    model = make(5.0)
    before = [*jax.tree.leaves(jax.tree.map(lambda x: x, liftnn.state(model, liftnn.Param))), model.n.copy()]
    with pytest.raises(liftnn.CheckpointError, match=match):
        liftnn.restore(folder, model)
    after = [*jax.tree.leaves(liftnn.state(model, liftnn.Param)), model.n]
    assert all(np.array_equal(one, two) for one, two in zip(before, after, strict=True))


def content_of(folder):
    """The files whose bytes matter: those of the arrays, and the index."""
    index = json.loads((folder / "1/state/liftnn_index").read_text().partition("\n")[2])
    return [folder / "1/state" / name for name in (*sorted(index["files"]), "liftnn_index")]


def truncate(data, draw):
    return data[: draw.randrange(len(data))]


def flip_a_bit(data, draw):
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]


def swap_two_bytes(data, draw):
    changed = bytearray(data)
    while bytes(changed) == data:
        i, j = draw.randrange(len(data)), draw.randrange(len(data))
        changed[i], changed[j] = changed[j], changed[i]
    return bytes(changed)


def zero_a_part(data, draw):
    at = draw.randrange(len(data))
    size = draw.randrange(1, 64)
    changed = data[:at] + bytes(len(data[at : at + size])) + data[at + size :]
    return changed if changed != data else b"\0" + data


def append(data, draw):
    return data + draw.randbytes(3)


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, zero_a_part, append, swap_two_bytes])
@pytest.mark.parametrize("seed", quick(range(60), most=3))
@pytest.mark.sample(4)
def test_changed_bytes_of_any_file_are_found(folder, damage, seed):
    draw = random.Random(seed)
    path = draw.choice([x for x in content_of(folder) if len(set(x.read_bytes())) > 1])
    path.write_bytes(damage(path.read_bytes(), draw))
    assert_is_rejected(folder, r"damaged|cannot be read|has format")


def test_a_file_that_is_missing_is_found(folder):
    for path in content_of(folder):
        if path.exists():
            moved = path.rename(path.with_name("moved"))
            assert_is_rejected(folder, "is missing|no readable file")
            moved.rename(path)
    liftnn.restore(folder, make(0.0))


def edit(folder, change):
    """Change the content of the index, with the checksum that it should have then."""
    path = folder / "1/state/liftnn_index"
    content = json.loads(path.read_text().partition("\n")[2])
    change(content)
    text = json.dumps(content)
    path.write_text(f"liftnn checkpoint 1 {zlib.crc32(text.encode()):08x}\n{text}\n")


def put(*keys, value):
    def change(content):
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


HOSTILE = {
    "shape": put("leaves", 0, 1, "shape", value=[30, 40]),
    "shape_of_another_length": put("leaves", 0, 1, "shape", value=[1200]),
    "negative": put("leaves", 0, 1, "shape", value=[-1]),
    "shape_text": put("leaves", 0, 1, "shape", value="40"),
    "dtype": put("leaves", 0, 1, "dtype", value="float64"),
    "object": put("leaves", 0, 1, "dtype", value="object"),
    "dtype_list": put("leaves", 0, 1, "dtype", value=["i4"]),
    "name": put("leaves", 0, 1, "name", value="modules[0].other"),
    "name_up": put("leaves", 0, 1, "name", value="../../x"),
    "name_number": put("leaves", 0, 1, "name", value=3),
    "another_array": put("leaves", 0, 1, "name", value="modules[0].n"),
    "no_array": put("leaves", 0, 1, "name", value=None),
    "path": put("leaves", 0, 0, value=[0, "renamed"]),
    "path_number": put("leaves", 0, 0, value=3),
    "path_key": put("leaves", 0, 0, value=[0, {"x": 1}]),
    "path_string_key": put("leaves", 0, 0, value=["0", "a"]),
    "kind": put("leaves", 0, 1, "kind", value="pickle"),
    "impl": put("leaves", 2, 1, "impl", value="other"),
    "impl_number": put("leaves", 2, 1, "impl", value=1),
    "leaf": put("leaves", 0, 1, value="float32"),
    "empty": put("leaves", 0, 1, value=None),
    "leaves": put("leaves", value={"a": 1}),
    "no_leaves": put("leaves", value=[]),
    "shared": put("shared", value=[[1]]),
    "values": put("values", value=3),
    "values_tag": put("values", value={"is": "os.system"}),
    "values_items": put("values", "items", value=7),
    "values_array": put("values", "items", 1, 1, "array", "name", value="none"),
    "metrics": put("metrics", value=[1]),
    "metric": put("metrics", value={"x": "much"}),
    "files": put("files", value=[1]),
    "file_numbers": put("files", value={"manifest.ocdbt": "x"}),
    "file_outside": put("files", value={"../../../x": [0, 0]}),
    "file_absolute": put("files", value={"/etc/passwd": [0, 0]}),
    "nothing": lambda content: content.clear(),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.sample(6)
def test_an_index_with_other_content_is_rejected(folder, name):
    if name == "path":  # what fits no longer: the same as another model
        edit(folder, HOSTILE[name])
        assert_is_rejected(folder, "does not fit")
        return
    edit(folder, HOSTILE[name])
    assert_is_rejected(folder)


@pytest.mark.parametrize(
    "text",
    [b"", b"\n", b"liftnn checkpoint ", b"liftnn checkpoint x 0\n", b"[" * 10_000, bytes(100), b"\xff" * 9],
)
def test_a_file_of_something_else_is_rejected(folder, text):
    index = folder / "1/state/liftnn_index"
    for data in (text, b"liftnn checkpoint 1 %08x\n%s\n" % (zlib.crc32(text), text)):
        index.write_bytes(data)
        assert_is_rejected(folder)


class Attack:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (pathlib.Path.touch, (pathlib.Path("attacked"),))


@pytest.mark.parametrize("place", ["index", "arrays", "all"])
def test_pickled_data_is_never_loaded(folder, tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps(Attack())
    paths = content_of(folder)
    for path in {"index": paths[-1:], "arrays": paths[:-1], "all": files_of(folder)}[place]:
        path.write_bytes(data)
    if place == "arrays":  # with the checksums that they should have
        from liftnn._src.checkpoints.checksums import checksum

        def change(content):
            content["files"] = {name: checksum(folder / "1/state" / name) for name in content["files"]}

        edit(folder, change)
    assert_is_rejected(folder)
    assert not (tmp_path / "attacked").exists()


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # of Orbax's closed event loops
@pytest.mark.parametrize("seed", quick(range(40), most=2))
def test_files_that_were_changed_together_with_their_checksums_are_rejected_or_hold_other_numbers(
    folder, seed
):
    from liftnn._src.checkpoints.checksums import checksum

    draw = random.Random(seed)
    path = draw.choice([x for x in content_of(folder)[:-1] if x.stat().st_size > 1])
    path.write_bytes(flip_a_bit(path.read_bytes(), draw))

    def change(content):
        content["files"] = {name: checksum(folder / "1/state" / name) for name in content["files"]}

    edit(folder, change)
    model = make(5.0)
    try:
        liftnn.restore(folder, model)
    except liftnn.CheckpointError:
        np.testing.assert_array_equal(model.a.value, np.full((40, 30), 5.0))
        assert model.plain.raw_value == 5.0
    else:
        assert model.a.value.shape == (40, 30)
        assert model.plain.raw_value == 2.0


def test_a_checkpoint_of_orbax_is_rejected(tmp_path):
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(1, args=ocp.args.StandardSave({"a": jnp.ones(3)}))
        manager.wait_until_finished()
    assert_is_rejected(tmp_path, "which `liftnn.save` writes")


def test_a_damaged_checkpoint_leaves_the_others(saved, tmp_path):
    folder = pathlib.Path(shutil.copytree(saved, tmp_path / "copy"))
    liftnn.save(folder, 2, make(3.0))
    content = folder / "2/state/liftnn_index"
    content.write_bytes(content.read_bytes()[:-9])
    assert_is_rejected(folder, "copy/2 is damaged")
    assert liftnn.restore(folder, make(0.0), step=1).values["epoch"] == 3
    with liftnn.Checkpoints(folder, max_to_keep=2, best="x") as checkpoints:
        checkpoints.save(3, make(4.0), metrics={"x": 1})
    assert liftnn.restore(folder, make(0.0)).step == 3


@pytest.mark.parametrize("at", [0.1, 0.5, 0.999])
def test_a_flipped_bit_in_a_file_that_is_checked_while_orbax_reads_it(tmp_path, at):
    values = np.random.default_rng(0).standard_normal((1000, 800)).astype(np.float32)
    liftnn.save(tmp_path, 1, liftnn.Param(jnp.asarray(values)))
    largest = max(content_of(tmp_path), key=lambda file: file.stat().st_size)
    assert largest.stat().st_size > 2 << 20
    data = bytearray(largest.read_bytes())
    data[int(at * len(data))] ^= 4
    largest.write_bytes(data)
    target = liftnn.Param(jnp.zeros((1000, 800)))
    with pytest.raises(liftnn.CheckpointError, match=f"{largest.name} has changed"):
        liftnn.restore(tmp_path, target)
    assert not target.value.any()
