"""Functions that Flax NNX has in its submodules only do what they do there."""

import pytest
from tests.compat.oracle import assert_equal_in_both

TEXTS = {
    "statelib.create_path_filters": """
        state = nnx.State({"a": nnx.Param(0), "b": {"c": nnx.Param("x"), "d": nnx.Param(0)}, "e": 3})
        filters = nnx.statelib.create_path_filters(state)
        result = {str(value): sorted(f.paths) for f, value in filters.items()}
        """,
    "graphlib.map_state": """
        state = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
        result = nnx.graphlib.map_state(lambda path, x: x[...] + 1, state)
        """,
    "optimizer.to_opt_state": """
        v = nnx.Param(jnp.ones(2), optimizer_sharding=("data",), note=1, eager_sharding=False)
        w = nnx.Param(jnp.ones(2), out_sharding=("model",), eager_sharding=False)
        made = nnx.optimizer.to_opt_state({"v": v, "w": w, "x": jnp.zeros(3)})
        kinds = [isinstance(x, nnx.OptState) for x in made.values()]
        result = [made, kinds, made["v"].out_sharding, made["v"].note, made["v"].has_metadata("optimizer_sharding"),
                  made["w"].out_sharding, v.has_metadata("out_sharding")]
        """,
    "filterlib.to_predicate": """
        f = nnx.filterlib
        filters = [nnx.Param, "lora", ..., None, (nnx.Param, "lora"), nnx.All(nnx.Param, "lora"), nnx.Not(nnx.Param),
                   nnx.PathContains("a", exact=False), nnx.filterlib.PathIn(("a", 0))]
        classes = [f.OfType, f.WithTag, f.Everything, f.Nothing, f.Any, f.All, f.Not, f.PathContains, f.PathIn]
        of_type, tag, _, _, any_, all_, not_, contains, paths = predicates = [f.to_predicate(x) for x in filters]
        parts = [not_.predicate == of_type, any_.predicates == all_.predicates == (of_type, tag), tag.tag, contains.key]
        result = [[isinstance(p, c) for c in classes] for p in predicates], parts, paths.paths
        """,
    "spmd.get_var_pspec": """
        with nnx.use_eager_sharding(False):
            v = nnx.Param(jnp.ones((2, 2)), out_sharding=("embed", None))
        spec = nnx.spmd.get_var_pspec
        with nnx.logical_axis_rules([("embed", "model")]):
            named = spec(v)
        result = [spec(v), named, spec(nnx.Param(jnp.ones(2))), spec(nnx.Param("text"))]
        """,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_a_function_does_what_it_does_in_flax(text):
    assert_equal_in_both(text)
