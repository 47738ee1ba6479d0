"""Arguments can be passed by the names that they have in Flax NNX."""

import pytest
from tests.compat.oracle import assert_equal_in_both

START = """
    model, x = nnx.Linear(2, 3, rngs=nnx.Rngs(0)), jnp.arange(6.0).reshape(3, 2)
    state = nnx.state(model)
    def loss(m, x):
        return (m(x) ** 2).sum()
    class Sowing(nnx.Module):
        def __call__(self, x):
            self.sow(variable_type=nnx.Intermediate, name="seen", value=x)
            self.sow(nnx.Intermediate, name="twice", value=2 * x)
            return x
    """
CALLS = {
    "sow": "[(m := Sowing())(x), m(2 * x), nnx.pop(m, nnx.Intermediate)]",
    "sow in capture": "nnx.capture(Sowing(), nnx.Intermediate)(x)",
    "jit": "nnx.jit(fun=loss)(model, x)",
    "grad": "nnx.as_pure(nnx.grad(f=loss)(model, x))",
    "grad with options": "nnx.grad(f=loss, argnums=1)(model, x)",
    "value_and_grad": "nnx.value_and_grad(f=loss)(model, x)[0]",
    "vmap": "nnx.vmap(f=loss, in_axes=(None, 0))(model, x)",
    "pmap": "nnx.pmap(f=loss, in_axes=(None, 0))(model, x[:1])",
    "scan": "nnx.scan(f=lambda c, x: (c + x, c))(jnp.zeros(2), x)",
    "scan with a split transpose": "nnx.grad(lambda x: nnx.scan(lambda c, x: (c * x, c), _split_transpose=True)"
    "(jnp.ones(2), x)[0].sum())(x)",
    "remat": "nnx.remat(f=loss)(model, x)",
    "vjp": "nnx.vjp(f=lambda x: 2 * x, graph_updates=False)(x)[1](x)",
    "jvp": "nnx.jvp(f=lambda x: 2 * x, primals=(x,), tangents=(x,), graph_updates=False)",
    "eval_shape": "nnx.eval_shape(f=lambda: x).shape",
    "cached_partial": "nnx.cached_partial(f=nnx.jit(lambda: x))()",
    "transform_metadata": "nnx.transform_metadata(f=lambda x: 2 * x, partition='layers')(x)",
    "checkify": "nnx.checkify(f=loss)(model, x)[1]",
    "split": "nnx.split(node=model)[1]",
    "state": "nnx.state(node=model)",
    "as_pure": "nnx.as_pure(tree=state)",
    "to_flat_state": "nnx.to_flat_state(state=state).paths",
    "from_flat_state": "nnx.from_flat_state(flat_state=nnx.to_flat_state(state))",
    "to_pure_dict": "nnx.to_pure_dict(state=state)",
    "restore_int_paths": "nnx.restore_int_paths(pure_dict={'0': 1})",
    "replace_by_pure_dict": "[nnx.replace_by_pure_dict(state=state, pure_dict={'bias': jnp.ones(3)}), state]",
    "State.replace_by_pure_dict": "[state.replace_by_pure_dict(pure_dict={'bias': jnp.ones(3)}), state]",
    "diff": "nnx.statelib.diff(state=state, other=nnx.filter_state(state, nnx.PathContains('bias')))",
    "filters_to_predicates": "len(nnx.filterlib.filters_to_predicates(filters=[nnx.Param, ...]))",
    "check_pytree": "nnx.check_pytree(pytree=model)",
    "GraphDef.apply": "nnx.graphdef(model).apply(state=state)(x)[0]",
    "TrainState.apply": "nnx.TrainState.create(nnx.graphdef(model), params=state, tx=optax.sgd(0.1)).apply("
    "state='params')(x)[0]",
    "map_state": "nnx.map_state(f=lambda path, x: x.get_value() + 1, state=state)",
    "Rngs.split": "nnx.state(nnx.Rngs(0, dropout=1).split(k=3))",
    "Rngs.split of some": "nnx.state(nnx.Rngs(0, dropout=1).split(k={'dropout': 3, ...: 2}))",
    "RngStream.split": "nnx.state(nnx.Rngs(0).default.split(k=3))",
    "List.pop": "[(m := nnx.List([1, 2, 3])).pop(index=0), m.pop(), list(m)]",
    "Dict.pop": "[(m := nnx.Dict(a=1, b=2)).pop(key='a'), m.pop('z', 5), m.pop(key='z', default=6), list(m)]",
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_an_argument_has_the_name_that_it_has_in_flax(call):
    assert_equal_in_both(f"{START}\n    result = {call}\n")


def test_shard_map_takes_its_function_by_name():
    assert_equal_in_both("""
        mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        spec = jax.sharding.PartitionSpec("data")
        run = nnx.shard_map(f=lambda x: 2 * x, mesh=mesh, in_specs=(spec,), out_specs=spec)
        result = run(jnp.arange(4.0))
        """)


def test_jit_partial_takes_its_function_by_name():
    assert_equal_in_both("""
        nnx.set_graph_updates(False)
        try:
            result = nnx.jit_partial(fun=lambda: jnp.ones(2))()
        finally:
            nnx.set_graph_updates(True)
        """)
