"""The examples for several devices: numbers and collectives are those of bare JAX, and the programs run as commands.

The model of each example is split into arrays, and trained by functions of arrays that are written here: on one device,
and under `jax.jit` and `jax.shard_map` on eight. The shardings are written here too.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec as P

import liftnn

EXAMPLE = Path(__file__).parents[2] / "examples" / "parallel"
HELPERS = ("devices", "collectives", "command_line", "training")
SEED, STEPS = 3, 3


class Case(NamedTuple):
    """What is known of an example: its mesh, its shardings, and its loss by hand."""

    axes: tuple[str, ...]
    batch: P
    specs: dict[str, P]
    """By the end of the path; the first that fits."""
    loss: Callable[[Any, Any, dict[str, Any], Any, Any], Any] | None = None
    """The loss of one device under `shard_map`; without it the compiler shards the plain loss."""
    one_device: Mapping[str, Any] = MappingProxyType({})
    """Arguments of `make` for a model without collectives."""


def sequence_loss(program, model, arrays, x, y):
    return jax.lax.pmean(program.loss_fn(merge(model, arrays), x, y), "sequence")


def pipeline_loss(program, model, arrays, x, y):
    whole, block = merge(model, arrays), program.Block(liftnn.Rngs(0))
    stacked = {path: v for path, v in arrays.items() if path[0] == "blocks"}
    n, stage = jax.lax.axis_size("stage"), jax.lax.axis_index("stage")

    def apply(x, layer):
        return merge(block, {path[1:]: v for path, v in layer.items()})(x), None

    def tick(x, t):
        x = jax.lax.ppermute(x, "stage", [(i, i + 1) for i in range(n - 1)])
        x = jnp.where(stage == 0, inputs[t], x)
        x, _ = jax.lax.scan(apply, x, stacked)
        return x, x

    x = jax.lax.pcast(x, "stage", to="varying")
    inputs = jnp.concatenate([whole.embed(x), jnp.zeros((n - 1, *x.shape[1:-1], program.FEATURES))])
    start = jax.lax.pcast(jnp.zeros(inputs.shape[1:]), "stage", to="varying")
    _, outputs = jax.lax.scan(tick, start, jnp.arange(len(inputs)))
    losses = optax.softmax_cross_entropy_with_integer_labels(whole.head(outputs[n - 1 :]), y)
    return jax.lax.psum(jnp.where(stage == n - 1, losses.mean(), 0), "stage")


def experts_loss(program, model, arrays, x, y):
    whole, expert = merge(model, arrays), program.Expert(liftnn.Rngs(0))
    stacked = {path[1:]: v for path, v in arrays.items() if path[0] == "experts"}
    exchange = functools.partial(jax.lax.all_to_all, axis_name="expert", tiled=True)
    probabilities = jax.nn.softmax(whole.router(x))
    dispatch, combine = program.route(probabilities)
    z = exchange(jnp.einsum("gtec,gtf->gecf", dispatch, x), split_axis=1, concat_axis=0)
    z = jax.vmap(lambda arrays, z: merge(expert, arrays)(z), (0, 1), 1)(stacked, z)
    outputs = x + jnp.einsum("gtec,gecf->gtf", combine, exchange(z, split_axis=0, concat_axis=1))
    loss = ((outputs - y) ** 2).mean() + 0.01 * program.imbalance(probabilities)
    return jax.lax.pmean(loss, "expert")


CASES = {
    "experts": Case(
        ("expert",),
        P("expert"),
        {"up.kernel": P("expert"), "down.kernel": P("expert"), "": P()},
        experts_loss,
        {"axis_name": None},
    ),
    "fsdp": Case(("data",), P("data"), {"": P("data")}),
    "tensor_parallel": Case(
        ("data", "model"),
        P("data"),
        {
            **{f"{name}.kernel": P(None, "model") for name in ("query", "key", "value", "up")},
            **{f"{name}.bias": P("model") for name in ("query", "key", "value", "up")},
            **{f"{name}.kernel": P("model") for name in ("out", "down")},
            "": P(),
        },
    ),
    "sequence_parallel": Case(
        ("sequence",),
        P(None, "sequence"),
        {"": P()},
        sequence_loss,
        {"attention_fn": liftnn.dot_product_attention},
    ),
    "pipeline": Case(
        ("stage",),
        P(),
        {f"{name}.{leaf}": P("stage") for name in ("up", "down") for leaf in ("kernel", "bias")} | {"": P()},
        pipeline_loss,
    ),
}
QUICK, *OTHERS = CASES
programs = pytest.mark.parametrize(
    "name", [QUICK, *[pytest.param(name, marks=pytest.mark.thorough) for name in OTHERS]]
)


@pytest.fixture(scope="module")
def program():
    """Imports a module of the examples; what is imported is forgotten afterwards, and the environment restored."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLE)
        patch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"])
        yield importlib.import_module
    for name in (*CASES, *HELPERS):
        sys.modules.pop(name, None)


def split(model):
    """The arrays of a model by path."""
    return {path: v.value for path, v in liftnn.state(model).flat().items()}


def merge(model, arrays):
    """A model with these arrays in place of its own."""
    state, graphdef = liftnn.split(model)
    return liftnn.merge(graphdef, state.map(lambda path, v: arrays[path]))


def spec_of(name: str, path) -> P:
    text = ".".join(map(str, path))
    return next(spec for end, spec in CASES[name].specs.items() if text.endswith(end))


def batches(program):
    rng = np.random.default_rng(SEED)
    return [program.draw_batch(rng) for _ in range(STEPS)]


def mesh_of(program, name: str):
    return program("devices").make_mesh(*CASES[name].axes)


def context(example, mesh):
    """What an example has around its steps."""
    rules = getattr(example, "RULES", None)
    if rules is not None:
        return liftnn.axis_rules(rules, mesh)
    return jax.set_mesh(mesh) if hasattr(example, "train_step") else contextlib.nullcontext()


class Outcome(NamedTuple):
    losses: list[float]
    arrays: dict[Any, jax.Array]
    collectives: dict[str, int]


def train_arrays(loss, tx, arrays, shardings, batches, sharding=None) -> tuple[list[float], Any, str]:
    """Trains a tree of arrays with bare JAX."""

    def step(arrays, opt_state, x, y):
        value, grads = jax.value_and_grad(loss)(arrays, x, y)
        updates, opt_state = tx.update(grads, opt_state, arrays)
        return value, optax.apply_updates(arrays, updates), opt_state

    opt_state, placed = tx.init(arrays), None
    if shardings is not None:
        whole = NamedSharding(sharding.mesh, P())
        places = jax.tree_util.tree_map_with_path(
            lambda path, _: next((shardings[e.key] for e in path if hasattr(e, "key")), whole), opt_state
        )
        arrays, opt_state = jax.device_put((arrays, opt_state), (shardings, places))
        batches, placed = jax.device_put(batches, sharding), (None, shardings, places)
    compiled = jax.jit(step, out_shardings=placed).lower(arrays, opt_state, *batches[0]).compile()
    losses = []
    for batch in batches:
        value, arrays, opt_state = compiled(arrays, opt_state, *batch)
        losses.append(float(value))
    return losses, arrays, compiled.as_text()


@pytest.fixture(scope="module")
def on_one_device(program):
    """Trains the model of an example with bare JAX, on one device."""

    @functools.cache
    def train(name: str) -> Outcome:
        example = program(name)
        model, optimizer = example.make(SEED, **CASES[name].one_device)

        def loss(arrays, x, y):
            return example.loss_fn(merge(model, arrays), x, y)

        losses, arrays, text = train_arrays(loss, optimizer.tx, split(model), None, batches(example))
        return Outcome(losses, arrays, program("collectives").count(text))

    return train


@pytest.fixture(scope="module")
def by_hand(program):
    """Trains the model of an example with bare JAX, sharded over eight devices."""

    @functools.cache
    def train(name: str) -> Outcome:
        example, case, mesh = program(name), CASES[name], mesh_of(program, name)
        model, optimizer = example.make(SEED)
        with context(example, mesh):  # compiled, as in the example, or the weights differ by rounding
            weights = split(liftnn.make_sharded(lambda: example.make(SEED)[0], mesh))
        specs = {path: spec_of(name, path) for path in weights}
        shardings = {path: NamedSharding(mesh, spec) for path, spec in specs.items()}

        def loss(arrays, x, y):
            return example.loss_fn(merge(model, arrays), x, y)

        if case.loss is not None:
            local = functools.partial(case.loss, example, model)
            loss = jax.shard_map(local, mesh=mesh, in_specs=(specs, case.batch, case.batch), out_specs=P())
        sharding = NamedSharding(mesh, case.batch)
        with context(example, mesh):
            losses, arrays, text = train_arrays(
                loss, optimizer.tx, weights, shardings, batches(example), sharding
            )
        return Outcome(losses, arrays, program("collectives").count(text))

    return train


@pytest.fixture(scope="module")
def with_liftnn(program):
    """Trains an example as it is."""

    @functools.cache
    def train(name: str) -> Outcome:
        example, mesh = program(name), mesh_of(program, name)
        with context(example, mesh):
            model, optimizer = liftnn.make_sharded(lambda: example.make(SEED), mesh)
            step = example.train_step if hasattr(example, "train_step") else example.make_train_step(mesh)
            placed = jax.device_put(batches(example), NamedSharding(mesh, CASES[name].batch))
            compiled = step.lower(model, optimizer, *placed[0]).compile()
            losses = [float(compiled(model, optimizer, *batch)) for batch in placed]
        return Outcome(losses, split(model), program("collectives").count(compiled.as_text()))

    return train


@pytest.mark.thorough
@programs
def test_the_losses_are_those_of_one_device(with_liftnn, on_one_device, name):
    ours, plain = with_liftnn(name), on_one_device(name)

    np.testing.assert_allclose(ours.losses, plain.losses, rtol=1e-5)
    assert not any(plain.collectives.values())


@pytest.mark.thorough
@programs
def test_the_losses_and_the_collectives_are_those_of_bare_jax(with_liftnn, by_hand, name):
    ours, bare = with_liftnn(name), by_hand(name)

    assert ours.losses == bare.losses
    assert ours.collectives == bare.collectives
    assert any(ours.collectives.values())


@programs
def test_each_weight_stays_where_it_is_declared(program, with_liftnn, name):
    mesh = mesh_of(program, name)

    for path, x in with_liftnn(name).arrays.items():
        assert x.sharding.is_equivalent_to(NamedSharding(mesh, spec_of(name, path)), x.ndim), path


def run_command(name: str, **environment: str) -> tuple[list[float], dict[str, int]]:
    """Runs an example in a process of its own; returns the losses and the collectives that it prints."""
    command = [sys.executable, str(EXAMPLE / f"{name}.py"), "--steps", str(STEPS), "--seed", str(SEED)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **environment}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)

    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    steps = [re.fullmatch(rf"step (\d)/{STEPS}: loss (\d+\.\d{{4}})", line) for line in lines[:STEPS]]
    assert [step and int(step[1]) for step in steps] == list(range(1, STEPS + 1))
    assert lines[STEPS] == "collectives of the compiled step:"
    table = [line.split() for line in lines[STEPS + 1 :]]
    return [float(step[2]) for step in steps if step], {kind: int(number) for kind, number in table}


@pytest.mark.thorough
@programs
def test_the_command_prints_the_losses_and_the_collectives_on_eight_devices(on_one_device, by_hand, name):
    losses, table = run_command(name)

    np.testing.assert_allclose(losses, on_one_device(name).losses, atol=1e-4, rtol=1e-5)
    assert table == by_hand(name).collectives


@pytest.mark.thorough
@pytest.mark.parametrize("name, count", [("pipeline", 1), ("sequence_parallel", 1), ("tensor_parallel", 3)])
def test_the_command_also_runs_on_fewer_devices(on_one_device, name, count):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={count}"

    losses, _ = run_command(name, XLA_FLAGS=flags)

    np.testing.assert_allclose(losses, on_one_device(name).losses, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--steps", "0"], "argument --steps: '0' is not a whole number from 1 on"),
        (["--seed", "-1"], "argument --seed: '-1' is not a whole number from 0 to 4294967295"),
    ],
)
def test_a_wrong_option_is_named_with_exit_code_2(program, monkeypatch, capsys, options, message):
    monkeypatch.setattr(sys, "argv", ["fsdp.py", *options])

    with pytest.raises(SystemExit) as end:
        program("command_line").parse_options(None)

    assert end.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"fsdp.py: error: {message}"


@pytest.mark.thorough
@pytest.mark.parametrize("dtype, tolerance", [(jnp.float32, 1e-5), (jnp.bfloat16, 0.05)])
def test_ring_attention_and_its_gradient_are_those_of_causal_attention(program, dtype, tolerance):
    ring, mesh = program("sequence_parallel").RING, mesh_of(program, "sequence_parallel")
    query, key, value, weights = jax.random.normal(jax.random.key(0), (4, 2, 32, 3, 4), dtype)
    spec = P(None, "sequence")
    sharded = jax.shard_map(
        functools.partial(ring, is_causal=True), mesh=mesh, in_specs=(spec,) * 3, out_specs=spec
    )

    def outcome(attention):
        def weighted(*inputs):
            y = attention(*inputs)
            return (y * weights).sum(), y

        grads, y = jax.jit(jax.grad(weighted, argnums=(0, 1, 2), has_aux=True))(query, key, value)
        return [*grads, y]

    expected = outcome(functools.partial(jax.nn.dot_product_attention, is_causal=True))
    for ours, theirs in zip(outcome(sharded), expected, strict=True):
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours.astype(float), theirs.astype(float), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(
    "wrong", [{}, {"is_causal": True, "mask": True}, {"is_causal": True, "dropout_rate": 0.1}]
)
def test_ring_attention_does_nothing_else_than_causal_attention(program, wrong):
    x = jnp.ones((1, 2, 1, 2))

    with pytest.raises(
        NotImplementedError, match=r"This attention is causal, without a mask and without dropout\."
    ):
        program("sequence_parallel").RING(x, x, x, **wrong)


@pytest.mark.thorough
def test_tokens_go_to_their_two_likeliest_experts_while_there_is_room(program):
    experts = program("experts")
    shape = (2, experts.TOKENS, experts.EXPERTS)
    likely = jax.random.normal(jax.random.key(1), shape) + jnp.arange(experts.EXPERTS) / 4
    probabilities = np.asarray(jax.nn.softmax(likely))
    expected = np.zeros((2, *shape, experts.CAPACITY))  # where each token goes, and the weight of its output
    full = 0
    for group in range(2):
        used = [0] * experts.EXPERTS
        best = np.argsort(-probabilities[group], axis=-1)[:, : experts.CHOICES]
        for choice in range(experts.CHOICES):
            for token, chosen in enumerate(best):
                expert, among = chosen[choice], probabilities[group, token, chosen]
                if used[expert] < experts.CAPACITY:
                    place = (group, token, expert, used[expert])
                    expected[0][place], expected[1][place] = 1, among[choice] / among.sum()
                    used[expert] += 1
                else:
                    full += 1

    dispatch, combine = experts.route(jnp.asarray(probabilities))

    assert full
    np.testing.assert_array_equal(dispatch, expected[0])
    np.testing.assert_allclose(combine, expected[1], rtol=1e-6)
