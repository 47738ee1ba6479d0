"""Deliberate differences from Flax NNX: rows of the table in `docs/coming_from/flax_nnx.md`, each in both libraries."""

import pytest
from tests.compat.oracle import find_difference, run, to_plain

from liftnn.errors import StructureError

DIFFERENCES = {
    "a stream given to another Rngs": (
        """
        rngs = nnx.Rngs(params=1)
        other = nnx.Rngs(noise=rngs.params)
        keys = [jax.random.key_data(key).tolist() for key in (other.noise(), rngs.params())]
        result = keys[0] == keys[1], other.noise.tag
        """,
        (True, "noise"),
        (False, "params"),
    ),
    "the position of the default stream": (
        "result = list(nnx.Rngs(0, params=1))",
        ["params", "default"],
        ["default", "params"],
    ),
    "Pytrees among modules": (
        """
        class Scale(nnx.Pytree):
            def __init__(self):
                self.value = nnx.Param(jnp.ones(2))
        class Model(nnx.Module):
            def __init__(self):
                self.scale = Scale()
        result = [path for path, _ in nnx.iter_modules(Model())], isinstance(Scale(), nnx.Module)
        """,
        ([()], False),
        ([("scale",), ()], True),
    ),
    "the gradient of what a bound method in an attribute uses": (
        """
        class Model(nnx.Module):
            def __init__(self):
                self.embed = nnx.Embed(2, 1, embedding_init=nnx.initializers.ones, rngs=nnx.Rngs(0))
                self.head = self.embed.attend
        grads = nnx.grad(lambda model: model.head(jnp.ones(1)).sum())(Model())
        result = grads["embed"]["embedding"][...].tolist()
        """,
        [[0], [0]],
        [[1], [1]],
    ),
    "the name of the value in the repr of a Variable": (
        "result = [name for name in ('raw_value=', ' value=') if name in repr(nnx.Param(jnp.ones(2)))]",
        [" value="],
        ["raw_value="],
    ),
}


@pytest.mark.parametrize("text, in_flax, in_liftnn", DIFFERENCES.values(), ids=DIFFERENCES.keys())
def test_a_program_has_another_result(text, in_flax, in_liftnn):
    assert run(text, "flax")["result"] == in_flax
    assert run(text, "liftnn")["result"] == in_liftnn


def test_the_key_of_a_stream_starts_the_same_stream_in_both():
    text = """
        rngs = nnx.Rngs(params=1)
        other = nnx.Rngs(noise=rngs.params.key[...])
        result = [other.noise(), rngs.params(), other.noise.tag]
        """
    flax, ours = (to_plain(run(text, library)["result"]) for library in ("flax", "liftnn"))
    assert find_difference(flax, ours) is None
    assert (flax[0] == flax[1]).all()


def test_a_dict_that_is_changed_beside_a_module_must_be_returned():
    text = """
        def change(model, batch):
            batch["x"] = batch["x"] / 2
            return model(batch["x"])
        result = nnx.jit(change)(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), {"x": jnp.ones(2)})
        """
    assert run(text, "flax")["result"].shape == (2,)
    with pytest.raises(StructureError):
        run(text, "liftnn")


def test_the_carry_of_a_loop_may_be_a_dict_that_each_step_changes_in_both():
    text = """
        def step(i, carry):
            carry["x"] = carry["model"](carry["x"])
            return carry
        carry = {"model": nnx.Linear(2, 2, rngs=nnx.Rngs(0)), "x": jnp.ones(2)}
        result = nnx.fori_loop(0, 3, step, carry)["x"], carry["x"]
        """
    flax, ours = (to_plain(run(text, library)["result"]) for library in ("flax", "liftnn"))
    assert find_difference(flax, ours) is None


def test_branches_return_copies_of_captured_modules_in_both():
    text = """
        proposal, state = nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Linear(2, 3, rngs=nnx.Rngs(1))
        step = nnx.jit(lambda accepted: nnx.cond(accepted, lambda: {0}, lambda: {1}))
        result = [step(jnp.array(accepted)).kernel[...] for accepted in (True, False)]
        """
    copies = text.format("nnx.clone(proposal)", "nnx.clone(state)")
    expected = run(text.format("proposal", "state"), "flax")["result"]
    for library in ("flax", "liftnn"):
        assert find_difference(to_plain(expected), to_plain(run(copies, library)["result"])) is None
    with pytest.raises(StructureError, match="Which object is returned must not depend on the branch"):
        run(text.format("proposal", "state"), "liftnn")
