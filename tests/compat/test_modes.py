"""Arguments and settings that liftnn does not need are checked, and change nothing."""

import concurrent.futures

import jax
import jax.numpy as jnp
import pytest
from tests.compat.oracle import assert_equal_in_both

import liftnn
from liftnn.compat import nnx

X = jnp.ones((1, 2))
MODEL = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
CALLS = {
    "split": lambda **modes: nnx.split(MODEL, **modes),
    "state": lambda **modes: nnx.state(MODEL, **modes),
    "jit": lambda **modes: nnx.jit(lambda x: x, **modes)(X),
    "grad": lambda **modes: nnx.grad(lambda m: m(X).sum(), **modes)(MODEL),
    "vmap": lambda **modes: nnx.vmap(lambda x: x, **modes)(X),
    "eval_shape": lambda **modes: nnx.eval_shape(lambda: X, **modes),
    "cond": lambda **modes: nnx.cond(True, lambda x: x, lambda x: x, X, **modes),
    "while_loop": lambda **modes: nnx.while_loop(lambda x: x < 3, lambda x: x + 1, 0, **modes),
    "remat": lambda **modes: nnx.remat(lambda x: x, **modes)(X),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize("name", ["graph", "graph_updates"])
def test_a_mode_is_a_bool_or_none(call, name):
    for value in (True, False, None):
        call(**{name: value})
    with pytest.raises(liftnn.ArgumentTypeError) as error:
        call(**{name: "tree"})
    assert str(error.value) == (
        f"`{name}` must be True, False or None, not a str.\n"
        "Leave it out: liftnn has one mode, with sharing, cycles and changes of structure."
    )


def test_set_attributes_takes_the_mode_of_graphs():
    model = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
    model.set_attributes(deterministic=True, graph=True)
    assert model.deterministic
    with pytest.raises(liftnn.ArgumentError, match="has an attribute named graph"):
        model.set_attributes(graph="tree")


def test_a_setting_holds_within_a_block_and_nested_blocks():
    seen = []
    with nnx.set_graph_mode(False):
        seen.append(nnx.set_graph_mode.current_value())
        with nnx.set_graph_mode(True):
            seen.append(nnx.set_graph_mode.current_value())
        seen.append(nnx.set_graph_mode.current_value())
    assert [*seen, nnx.set_graph_mode.current_value()] == [False, True, False, True]


@pytest.mark.parametrize("setting", ["set_graph_mode", "set_graph_updates"])
def test_streams_are_split_in_copies_by_the_settings(setting):
    assert_equal_in_both(f"""
        rngs = nnx.Rngs(0, dropout=1)
        @nnx.{setting}(False)
        def run():
            split, forked = nnx.split_rngs(rngs, splits=2, only='dropout'), nnx.fork_rngs(rngs, split=3)
            inside = nnx.fork_rngs(split=2)(lambda rngs: [nnx.as_pure(nnx.state(rngs)), rngs.dropout.key.shape])(rngs)
            return [nnx.state(split), nnx.state(forked), nnx.state(rngs), inside]
        result = run()
        with nnx.split_rngs(rngs, splits=2):
            result.append(nnx.state(rngs))
        with nnx.{setting}(False), nnx.split_rngs(rngs, splits=2, graph=True, graph_updates=True):
            result.append(nnx.state(rngs))
        """)


def test_a_setting_ends_with_an_exception():
    with pytest.raises(KeyError), nnx.use_eager_sharding(False):
        raise KeyError
    assert nnx.using_eager_sharding()


def test_a_setting_can_be_called():
    nnx.use_eager_sharding(False)
    try:
        assert not nnx.using_eager_sharding()
    finally:
        nnx.use_eager_sharding(True)
    assert nnx.using_eager_sharding()


def test_a_setting_decorates_a_function():
    @nnx.set_graph_updates(False)
    def f():
        return nnx.set_graph_updates.current_value()

    assert (f(), f(), nnx.set_graph_updates.current_value()) == (False, False, True)


@pytest.mark.parametrize("setting", [nnx.set_graph_mode, nnx.use_eager_sharding])
def test_a_setting_is_a_bool(setting):
    with pytest.raises(liftnn.ArgumentTypeError) as error:
        setting(None)
    assert str(error.value) == f"{setting.__name__} takes True or False, not a NoneType.\nPass a bool."


@pytest.mark.parametrize("name", ["hijax", "ref"])
@pytest.mark.parametrize(
    "call",
    [
        lambda **kinds: nnx.var_defaults(**kinds).__enter__(),
        lambda **kinds: nnx.var_defaults(**kinds)(lambda: None)(),
        lambda **kinds: nnx.with_vars(MODEL, **kinds),
    ],
    ids=["with var_defaults", "@var_defaults", "with_vars"],
)
def test_kinds_of_variables_that_liftnn_lacks_are_an_error(call, name):
    call(**{name: False})
    with pytest.raises(liftnn.ArgumentError) as error, call(**{name: True}):
        pass
    assert str(error.value) == (
        f"liftnn has no Variables with `{name}=True`.\n"
        "Leave the argument out: every Variable can be read and written in liftnn's transforms."
    )


def test_rules_end_with_the_block():
    w = nnx.Param(jnp.ones((2, 2)), sharding=("embed", None))
    with nnx.logical_axis_rules([("embed", "model")]):
        inside = nnx.get_partition_spec(w).value
    assert (inside, nnx.get_partition_spec(w).value) == (
        jax.sharding.PartitionSpec("model", None),
        jax.sharding.PartitionSpec("embed", None),
    )


def assert_equal_in_a_new_thread(text):
    """Compare a program under both libraries in a thread of its own, in which no setting was set."""
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        threads.submit(assert_equal_in_both, text).result()


@pytest.mark.parametrize("value", [True, False])
def test_eager_sharding_starts_from_the_setting_of_flax(value):
    assert_equal_in_a_new_thread(f"""
        import flax
        before = flax.config.flax_always_shard_variable
        seen = [nnx.using_eager_sharding()]
        flax.config.update("flax_always_shard_variable", {value})
        try:
            seen.append(nnx.using_eager_sharding())
            with nnx.use_eager_sharding(True):
                seen.append(nnx.using_eager_sharding())
            mesh = jax.make_mesh((1,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
            with jax.set_mesh(mesh):
                v = nnx.Param(jnp.ones(2), out_sharding=("model",))
            seen += [nnx.using_eager_sharding(), str(v[...].sharding.spec) if {value} else "anywhere"]
        finally:
            flax.config.update("flax_always_shard_variable", before)
        result = seen
        """)


def test_names_of_no_mesh_axis_are_allowed_where_flax_does_not_shard():
    assert_equal_in_a_new_thread("""
        import flax
        before = flax.config.flax_always_shard_variable
        flax.config.update("flax_always_shard_variable", False)
        try:
            with jax.set_mesh(jax.make_mesh((1,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))):
                result = nnx.Param(jnp.ones(2), out_sharding=("embed",)).out_sharding
        finally:
            flax.config.update("flax_always_shard_variable", before)
        """)
