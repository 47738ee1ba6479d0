"""States and Variables have the methods of Flax NNX."""

import pytest
from tests.compat.oracle import assert_equal_in_both

import liftnn
from liftnn.compat import nnx

TEXTS = {
    "settings of a Variable": """
        variables = [nnx.Param(1.0), nnx.Param(1.0, eager_sharding=False), nnx.Param(1.0, hijax=False, ref=False)]
        result = [[x.hijax, x.ref, x.eager_sharding] for x in [*variables, *map(nnx.clone, variables)]]
        variables[0].set_metadata(eager_sharding=False)
        result.append(variables[0].eager_sharding)
        """,
    "a Variable that passes on the default index": """
        import flax.typing
        class Square(nnx.Param):
            def get_value(self, *, index=flax.typing.MISSING):
                return super().get_value(index=index) ** 2
            def set_value(self, value, *, index=flax.typing.MISSING):
                super().set_value(jnp.sqrt(value), index=index)
        v = Square(jnp.array([1.0, 2.0, 3.0]))
        read = [v.get_value(), v[...], v[1], v + 1, nnx.jit(lambda v: v * 2)(v)]
        v[0] = 16.0
        indexed = v.get_value()
        v.set_value(jnp.array([4.0, 9.0]))
        result = [read, indexed, v.get_value()]
        """,
    "flat_state": """
        state = nnx.state(nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Linear(3, 1, rngs=nnx.Rngs(1))))
        flat = state.flat_state()
        result = [flat.paths, flat.leaves, [(path, x[...]) for path, x in flat]]
        """,
    "from_flat_path": """
        state = nnx.state(nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0))))
        again = nnx.State.from_flat_path([(path, x) for path, x in state.flat_state() if "kernel" in path])
        result = [again, isinstance(again, nnx.State)]
        """,
    "raw_mapping": """
        result = list(nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0))).raw_mapping)
        """,
    "to_pure_dict": """
        state = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
        result = [state.to_pure_dict(), state.to_pure_dict(lambda x: x.shape), state.to_pure_dict(extract_fn=type)]
        result[-1] = {name: cls.__name__ for name, cls in result[-1].items()}
        """,
    "update with another dtype": """
model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
nnx.update(model, jax.tree.map(lambda x: x.astype(jnp.bfloat16), nnx.state(model)))
result = [nnx.state(model), model(jnp.ones(2, jnp.bfloat16)).dtype]
""",
    "replace_by_pure_dict with some of the paths": """
state = nnx.state(nnx.Sequential(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), nnx.Linear(2, 2, rngs=nnx.Rngs(1))))
state.replace_by_pure_dict({'layers': {0: {'kernel': jnp.ones((2, 2))}}})
result = [state]
state.replace_by_pure_dict({'layers': {'1': {'bias': jnp.ones(2)}}})
result.append(state)
""",
    "replace_by_pure_dict": """
        state = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
        values = {"bias": jnp.ones(3), "kernel": jnp.zeros((2, 3))}
        state.replace_by_pure_dict(values)
        replaced = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
        replaced.replace_by_pure_dict({"bias": jnp.ones(3)}, lambda x, value: x.replace(2 * value))
        result = [state, replaced]
        """,
    "difference": """
        state = nnx.state(nnx.BatchNorm(2, rngs=nnx.Rngs(0)))
        result = [state - nnx.filter_state(state, nnx.Param), list(state - state)]
        """,
    "to_state": """
        v = nnx.Param(jnp.ones(2), note=3)
        copied = v.to_state()
        v[...] = 5.0
        result = [copied, copied.note, type(copied).__name__, v]
        """,
    "copy": """
        v = nnx.Param(jnp.ones(2), note=3)
        copies = [v.copy(), v.copy(jnp.zeros(3)), v.copy(value=jnp.zeros(3), note=4), v.copy(tag="c")]
        result = [copies, [x.note for x in copies], copies[-1].tag, type(copies[0]).__name__, v, v.note]
        """,
    "copy of the value": """
        v = nnx.Param(jnp.ones(2))
        copied = v.copy()
        copied[...] = 5.0
        result = [v, copied]
        """,
    "copies of a dict": """
        v = nnx.Variable({"a": jnp.zeros(2)})
        copies = [v.copy(), v.replace(), v.to_state(), nnx.State({"v": v}).to_pure_dict()["v"]]
        for x in copies:
            x["a"] = 1.0
        result = [v.get_value(), [x["a"] for x in copies]]
        """,
    "replace": """
        v = nnx.Param(jnp.ones(2), note=3)
        copies = [v.replace(tag="c"), v.replace(jnp.zeros(3)), v.replace(value=jnp.zeros(3), tag="d")]
        result = [copies, [x.note for x in copies], copies[0].tag, copies[2].tag]
        """,
    "to_state with a value": """
        v = nnx.Param(jnp.ones(2), note=3)
        copied = v.to_state(jnp.zeros(3), tag="c")
        result = [copied, copied.note, copied.tag]
        """,
    "get_metadata": """
        v = nnx.Param(jnp.ones(2), note=3)
        result = [v.get_metadata(exclude_required=True), v.get_metadata("note"), v.get_metadata("other", 5)]
        """,
    "from_metadata": """
        v = nnx.Param(jnp.ones(2), note=3)
        again = nnx.BatchStat.from_metadata(2 * v[...], v.get_metadata())
        result = [again, again.note, type(again).__name__]
        """,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_a_method_does_what_it_does_in_flax(text):
    assert_equal_in_both(text)


@pytest.mark.parametrize("name", ["sharding", "sharding_names", "out_sharding"])
def test_a_declared_sharding_is_read_as_in_flax(name):
    assert_equal_in_both(f"""
        with nnx.use_eager_sharding(False):
            v = nnx.Param(jnp.ones((2, 2)), {name}=("embed", None))
        result = [v.out_sharding, v.sharding_names, nnx.get_partition_spec(v).get_value()]
        """)


def test_without_a_declared_sharding_its_names_act_as_in_flax():
    assert_equal_in_both("""
        v = nnx.Param(jnp.ones((2, 2)))
        result = [v.sharding_names, hasattr(v, "out_sharding"), getattr(v, "out_sharding", 5)]
        v.set_metadata(out_sharding=("embed", None))
        result += [v.sharding_names, v.out_sharding]
        """)


def test_a_kind_of_variable_that_liftnn_lacks_is_an_error():
    with pytest.raises(liftnn.ArgumentError, match="liftnn has no Variables with `ref=True`"):
        nnx.Param.from_metadata(1.0, {"ref": True})
