"""`save_weights`: the safetensors library reads the values of the module, each stored once, under its path."""

from __future__ import annotations

import json
import os
import pathlib
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
from safetensors.numpy import load_file

import liftnn
from tests.raising import raises
from tests.user_modules import Affine, Holder, Pair

Param = liftnn.Param


def metadata_of(file):
    with safetensors.safe_open(file, framework="np") as f:
        return f.metadata()


def test_safetensors_reads_the_values_by_path(tmp_path):
    file = tmp_path / "model.safetensors"
    model = liftnn.Sequential(
        liftnn.Linear(3, 4, rngs=liftnn.Rngs(0)), liftnn.BatchNorm(4, rngs=liftnn.Rngs(0))
    )
    liftnn.save_weights(file, model)
    expected = {
        "layers.0.kernel": model.layers[0].kernel,
        "layers.0.bias": model.layers[0].bias,
        "layers.1.scale": model.layers[1].scale,
        "layers.1.bias": model.layers[1].bias,
        "layers.1.mean": model.layers[1].mean,
        "layers.1.var": model.layers[1].var,
    }
    found = load_file(file)
    assert found.keys() == expected.keys()
    for name, variable in expected.items():
        np.testing.assert_array_equal(found[name], np.asarray(variable.value), strict=True)


CODES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
    "complex64": "C64", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ", "float8_e8m0fnu": "F8_E8M0",
}  # fmt: skip
"""The codes of the format, https://github.com/huggingface/safetensors/blob/main/safetensors/src/tensor.rs"""


@pytest.mark.parametrize("dtype", CODES)
def test_dtypes_have_the_codes_of_the_format_and_the_same_bytes(tmp_path, dtype):
    file = str(tmp_path / "x.safetensors")
    x = np.arange(6).reshape(2, 3).astype(dtype)
    liftnn.save_weights(file, Holder(x=x))
    [(name, info)] = safetensors.deserialize(pathlib.Path(file).read_bytes())
    assert (name, info["dtype"], info["shape"], bytes(info["data"])) == (
        "x",
        CODES[dtype],
        [2, 3],
        x.tobytes(),
    )


def test_tensors_are_aligned_whatever_their_order(tmp_path):
    file = tmp_path / "x.safetensors"
    liftnn.save_weights(file, Holder(a=np.zeros(3, np.int8), b=np.zeros(3, np.int16), c=np.zeros(1)))
    length = int.from_bytes(file.read_bytes()[:8], "little")
    header = json.loads(file.read_bytes()[8 : 8 + length])
    assert length % 8 == 0
    assert {name: header[name]["data_offsets"] for name in "abc"} == {
        "c": [0, 8],
        "b": [8, 14],
        "a": [14, 17],
    }


def test_arrays_that_are_not_contiguous_are_written_in_order(tmp_path):
    file = tmp_path / "x.safetensors"
    x = np.arange(24.0).reshape(4, 6)
    liftnn.save_weights(file, Holder(a=x.T, b=x[::2, 1::2], c=np.broadcast_to(x[0], (3, 6))))
    found = load_file(file)
    for name, expected in (("a", x.T), ("b", x[::2, 1::2]), ("c", np.broadcast_to(x[0], (3, 6)))):
        np.testing.assert_array_equal(found[name], expected, strict=True)


def test_what_is_shared_is_stored_once(tmp_path):
    file = tmp_path / "x.safetensors"
    pair = Pair()
    liftnn.save_weights(file, Holder(a=pair, b=[pair, pair.first]))
    assert sorted(load_file(file)) == sorted(f"a.{'.'.join(map(str, p))}" for p in liftnn.state(pair).flat())


def test_a_filter_selects_what_is_saved(tmp_path):
    file = tmp_path / "x.safetensors"
    model = liftnn.BatchNorm(4, rngs=liftnn.Rngs(0))
    liftnn.save_weights(file, model, liftnn.BatchStat)
    assert sorted(load_file(file)) == ["mean", "var"]
    liftnn.save_weights(file, model, liftnn.BatchStat, lambda path, x: path[-1] == "scale")
    assert sorted(load_file(file)) == ["mean", "scale", "var"]


def test_names_keep_the_order_of_lists_and_the_types_of_keys_apart(tmp_path):
    file = tmp_path / "x.safetensors"
    keys = [1, "1", -1, "a.b", "", "ä", "__metadata__", (1, 2), True]
    x = {key: Param(jnp.full(2, i, jnp.float32)) for i, key in enumerate(keys[:-1])}
    liftnn.save_weights(file, Holder(layers=[Param(jnp.float32(i)) for i in range(12)], x=x))
    found = load_file(file)
    assert [float(found[f"layers.{i}"]) for i in range(12)] == list(range(12))
    names = [
        "x.1", "x['1']", "x[-1]", "x['a.b']", "x['']", "x.ä", "x.__metadata__", "x[(1, 2)]",
    ]  # fmt: skip
    assert [found[name].tolist() for name in names] == [[i, i] for i in range(8)]


def test_a_variable_may_have_the_name_of_the_metadata(tmp_path):
    file = tmp_path / "x.safetensors"
    liftnn.save_weights(file, {"__metadata__": Param(jnp.ones(2))})
    assert list(load_file(file)) == ["['__metadata__']"]
    module = {"__metadata__": Param(jnp.zeros(2))}
    liftnn.load_weights(file, module)
    assert module["__metadata__"].value.tolist() == [1, 1]


def test_metadata_are_stored_beside_those_of_liftnn(tmp_path):
    file = tmp_path / "x.safetensors"
    liftnn.save_weights(file, Affine(), metadata={"epoch": "3", "name": "ä \n"})
    found = metadata_of(file)
    assert {k: found[k] for k in found if k != "liftnn"} == {"epoch": "3", "name": "ä \n"}


def test_a_file_can_be_named_by_a_path_a_text_or_bytes(tmp_path):
    file = tmp_path / "x.safetensors"
    for name in (file, str(file), os.fsencode(file)):
        liftnn.save_weights(name, Affine(2.0))
        model = Affine(0.0)
        liftnn.load_weights(name, model)
        assert model.w.value.tolist() == Affine(2.0).w.value.tolist()


def test_sharded_arrays_are_written_whole(tmp_path):
    file = tmp_path / "x.safetensors"
    mesh = jax.make_mesh((8,), ("d",))
    x = jax.device_put(jnp.arange(32.0).reshape(16, 2), jax.NamedSharding(mesh, jax.P("d")))
    liftnn.save_weights(file, Holder(x=Param(x)))
    np.testing.assert_array_equal(load_file(file)["x"], np.arange(32, dtype=np.float32).reshape(16, 2))


def weights(n, x=1.0):
    return Holder(**{f"w{i}": Param(jnp.full(25, x + i)) for i in range(n)})


def read_as_hugging_face(folder):
    """The tensors, read through the index as `transformers` does."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    found = {}
    for name in sorted(set(index["weight_map"].values())):
        found |= {k: x for k, x in load_file(folder / name).items() if index["weight_map"][k] == name}
    assert found.keys() == index["weight_map"].keys()
    assert index["metadata"]["total_size"] == sum(x.nbytes for x in found.values())
    return found


@pytest.mark.parametrize("size, count", [(100, 5), (199, 5), (200, 3), (300, 2), (1, 5)])
def test_a_large_model_is_divided_as_hugging_face_has_it(tmp_path, size, count):
    file = tmp_path / "model.safetensors"
    liftnn.save_weights(file, weights(5), max_shard_size=size)
    assert not file.exists()
    assert len(list(tmp_path.glob("*.safetensors"))) == count
    found = read_as_hugging_face(tmp_path)
    assert {name: x.tolist() for name, x in found.items()} == {f"w{i}": [1.0 + i] * 25 for i in range(5)}


def test_a_model_that_fits_is_one_file(tmp_path):
    liftnn.save_weights(tmp_path / "model.safetensors", weights(5), max_shard_size=500)
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_each_shard_is_a_file_of_its_own(tmp_path):
    tied = Param(jnp.ones(25))
    keys = liftnn.Variable(jax.random.split(jax.random.key(1), 4))
    model = Holder(a=tied, b=keys, c=Param(jnp.ones(50, jnp.int4)), d=tied)
    liftnn.save_weights(tmp_path / "model.safetensors", model, max_shard_size=60)
    for name, other in (("a", "d"), ("b", None), ("c", None)):
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        names = {k: k for k in (name, other) if k}
        module = Holder(**{k: getattr(model, k).replace(zeros_like(getattr(model, k).value)) for k in names})
        assert not liftnn.load_weights(tmp_path / index["weight_map"][name], module)


def zeros_like(x):
    is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.random.split(jax.random.key(0), x.shape) if is_key else jnp.zeros_like(x)


@pytest.mark.parametrize("sizes", [(100, 200), (100, None), (None, 100), (None, None), (100, 100)])
def test_saving_again_leaves_only_what_belongs_to_the_new_weights(tmp_path, sizes):
    (tmp_path / "model-other.safetensors").write_bytes(b"")
    (tmp_path / "model2-00000000-00001-of-00002.safetensors").write_bytes(b"")
    for x, size in enumerate(sizes):
        liftnn.save_weights(tmp_path / "model.safetensors", weights(5, x), max_shard_size=size)
    count = {100: 6, 200: 4, None: 1}[sizes[-1]]
    assert len(os.listdir(tmp_path)) == count + 2
    module = weights(5, 9)
    liftnn.load_weights(tmp_path / "model.safetensors", module)
    assert [float(getattr(module, f"w{i}").value[0]) for i in range(5)] == [1.0 + i for i in range(5)]


def test_threads_that_save_to_one_file_leave_one_of_their_files(tmp_path):
    file = tmp_path / "model.safetensors"
    models = [weights(40, float(100 * i)) for i in range(8)]
    threads = [threading.Thread(target=liftnn.save_weights, args=(file, model)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.listdir(tmp_path) == ["model.safetensors"]
    module = weights(40)
    liftnn.load_weights(file, module)
    first = float(module.w0.value[0])
    assert first in {100.0 * i for i in range(8)}
    assert [float(getattr(module, f"w{i}").value[0]) for i in range(40)] == [first + i for i in range(40)]


@pytest.mark.parametrize("size", [None, 100])
def test_what_cannot_be_saved_leaves_the_files_as_they_were(tmp_path, size):
    file = tmp_path / "model.safetensors"
    liftnn.save_weights(file, weights(3), max_shard_size=size)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for bad in (liftnn.Variable("text"), liftnn.Variable(2**70), liftnn.Variable(np.zeros(2, complex))):
        model = weights(3, 5)
        model.z = bad
        with pytest.raises(liftnn.LiftError):
            liftnn.save_weights(file, model, max_shard_size=size)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


class Disk:
    """Stands for `os.replace` on a disk that is full after some files."""

    def __init__(self, files):
        self.files = files
        self.replace = os.replace

    def __call__(self, old, new):
        if not self.files:
            raise OSError(28, "No space left on device")
        self.files -= 1
        self.replace(old, new)


@pytest.mark.parametrize("size, files", [(None, 0), (100, 0), (100, 1), (100, 3)])
def test_a_full_disk_is_an_error_and_leaves_the_files_as_they_were(tmp_path, monkeypatch, size, files):
    file = tmp_path / "model.safetensors"
    liftnn.save_weights(file, weights(3), max_shard_size=size)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr("os.replace", Disk(files))
    with pytest.raises(liftnn.CheckpointError, match="cannot be written: No space left on device"):
        liftnn.save_weights(file, weights(3, 5), max_shard_size=size)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("size", [None, 100])
def test_a_folder_that_does_not_exist_is_an_error(tmp_path, size):
    with pytest.raises(liftnn.CheckpointError, match="cannot be written: No such file or directory"):
        liftnn.save_weights(tmp_path / "no" / "model.safetensors", weights(3), max_shard_size=size)


def test_a_link_stays_a_link_and_its_target_is_written(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link, target = tmp_path / "latest.safetensors", tmp_path / "elsewhere" / "real.safetensors"
    for value in (1.0, 2.0):  # the target is created, then replaced
        link.unlink(missing_ok=True)
        link.symlink_to("elsewhere/real.safetensors")
        liftnn.save_weights(link, Affine(value))
        assert link.is_symlink()
        np.testing.assert_array_equal(load_file(target)["w"], Affine(value).w.value)
    assert os.listdir(tmp_path / "elsewhere") == ["real.safetensors"]


def test_a_filter_that_matches_nothing_writes_no_file(tmp_path):
    text = (
        "Nothing to save: no Variable of the module matches OfType(LoRAParam) or OfType(BatchStat).\n"
        "Pass a filter that matches Variables of the module, such as liftnn.Param."
    )
    with raises(liftnn.errors.FilterError, text):
        liftnn.save_weights(tmp_path / "w.safetensors", Affine(1.0), liftnn.LoRAParam, liftnn.BatchStat)
    assert not os.listdir(tmp_path)


def test_shards_through_a_link_are_beside_its_target(tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    link, target = tmp_path / "latest.safetensors", folder / "real.safetensors"
    link.symlink_to("elsewhere/real.safetensors")
    for value, size in enumerate([None, 8, 16, None, 8], 1):
        liftnn.save_weights(link, Affine(float(value)), max_shard_size=size)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "latest.safetensors"]
        assert target.exists() == (size is None)
        for file in (link, target):
            model = Affine(0.0)
            liftnn.load_weights(file, model)
            assert model.w.value.tolist() == [value] * 3
