"""Arguments, defaults and decorators of Flax NNX's transforms: a program gives the same result under both imports."""

import jax
import jax.numpy as jnp
import pytest
from tests.compat.oracle import assert_equal_in_both

import liftnn
from liftnn.compat import nnx

MODEL = """
class Block(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(3, 3, rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
    def __call__(self, x):
        return self.dropout(self.norm(self.linear(x)))
x = jnp.arange(12.0).reshape(4, 3)
"""
WEIGHTS = """
class Weights(nnx.Module):
    def __init__(self):
        self.w = nnx.Param(jnp.arange(3.0))
        self.n = nnx.BatchStat(jnp.array(0))
def f(m, x):
    return (m.w[...] * x).sum()
m, x = Weights(), jnp.array([4.0, 5.0, 6.0])
"""

PROGRAMS = {
    "gradients are in the order of the parameters": """
class Net(nnx.Module):
    def __init__(self, rngs):
        self.inp, self.cls = nnx.Linear(2, 2, rngs=rngs), nnx.Linear(2, 2, rngs=rngs)
    def __call__(self, x):
        self.sow(nnx.Intermediate, 'z', x)
        self.sow(nnx.Intermediate, 'a', x)
        return self.cls(self.inp(x)).sum()
model, x = Net(nnx.Rngs(0)), jnp.ones(2)
grads = nnx.jit(nnx.grad(lambda m: m(x)))(model)
by_position = nnx.grad(argnums=(1, 0))(lambda x, m: m(x))(x, model)[0]
value, both = nnx.value_and_grad(lambda a, b: a(x) + b(x), argnums=(0, 1))(model, Net(nnx.Rngs(1)))
orders = [[list(g), list(g['inp'])] for g in (nnx.state(model, nnx.Param), grads, by_position, *both)]
result = [orders, list(nnx.pop(model, nnx.Intermediate)), value]
""",
    "numbers in the auxiliary output are numbers": """
@nnx.jit
def step(m, x):
    def loss(m):
        return m(x).sum(), {'n': x.shape[0], 'debug': False}
    (value, aux), grads = nnx.value_and_grad(loss, has_aux=True)(m)
    return value, jnp.zeros(aux['n']) if not aux['debug'] else None
result = step(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), jnp.ones((3, 2)))
""",
    "a list of layers, some without parameters": """
layers = [nnx.Linear(2, 2, rngs=nnx.Rngs(0)), nnx.Dropout(0.5, rngs=nnx.Rngs(1))]
def loss(layers, x):
    for layer in layers:
        x = layer(x)
    return x.sum()
result = nnx.grad(loss)(layers, jnp.ones(2))
""",
    "prefix by filters, of an abstract model, for outputs and inputs": MODEL
    + """
axes = nnx.prefix(nnx.eval_shape(lambda: Block(nnx.Rngs(0))), {(nnx.Param, nnx.RngState): 0, ...: None})
rngs = nnx.Rngs(0)
create = nnx.vmap(Block, in_axes=(0,), out_axes=axes, graph_updates=False)
model = create(rngs.split(4))
run = nnx.vmap(lambda m, x: m(x), in_axes=(axes, 0), graph_updates=False)
result = [nnx.state(model), nnx.state(rngs)]
""",
    "prefix by a function, of several modules": MODEL
    + """
a, b = nnx.Linear(3, 3, rngs=nnx.Rngs(0)), nnx.Linear(3, 3, rngs=nnx.Rngs(1))
axes = nnx.prefix((a, b), lambda path, v: 0 if path[0] == 1 and path[-1] == 'kernel' else None)
result = nnx.vmap(lambda a, b, x: b(a(x)), in_axes=(*axes, None), graph_updates=False)(
    a, nnx.map(lambda p, v: v.replace(jnp.stack([v[...]] * 2)) if p == ('kernel',) else v, b), x)
""",
    "prefix gives the values as attributes": """
axes = nnx.prefix(nnx.BatchNorm(3, rngs=nnx.Rngs(0)), {nnx.Param: 'param', ...: 'rest'}, graph=False)
result = [axes.scale, axes.mean]
""",
    "a stream without an axis gives each batch element the same numbers": """
rngs = nnx.Rngs(params=0, dropout=1)
axes = nnx.StateAxes({'params': 0, ...: None})
@nnx.split_rngs(splits=3, only='params')
@nnx.vmap(in_axes=(axes,), graph_updates=True)
def draw(rngs):
    return rngs.params.uniform((2,)), rngs.dropout.uniform((2,))
result = [draw(rngs), nnx.state(rngs)]
""",
    "StateAxes is a mapping of filter to axis": """
axes = nnx.StateAxes({nnx.Param: 0, 'cache': 1, ...: None})
names = [f.__name__ if isinstance(f, type) else f for f in axes]
copies = nnx.StateAxes(axes) == nnx.StateAxes(dict(axes)) == nnx.StateAxes(axes.items()) == axes
sharding = nnx.StateSharding({'cache': jax.P('x'), ...: None})
result = [
    names, len(axes), bool(nnx.StateAxes({})), axes.filters == tuple(axes), axes.axes, list(axes.values()),
    axes[nnx.Param], axes[...], nnx.Param in axes, copies,
    {**axes} == dict(axes), list(axes) == list(axes.keys()),
    sharding.filters, sharding.shardings,
]
""",
    "a shared stream in a mapped constructor": """
axes = nnx.StateAxes({nnx.BatchStat: 0, ...: None})
class Block(nnx.Module):
    def __init__(self, rngs, x):
        self.w = nnx.Param(rngs.normal((2,)))
        self.mean = nnx.BatchStat(x)
block = nnx.vmap(Block, in_axes=(None, 0), out_axes=axes)(nnx.Rngs(0), jnp.arange(4.0))
result = nnx.state(block)
""",
    "transform_metadata around a constructor and a scan": """
kernel_init = nnx.with_partitioning(nnx.initializers.lecun_normal(), ('in', 'out'))
seen = []
@nnx.vmap(in_axes=(0,), out_axes=1, graph_updates=False)
@nnx.transform_metadata(in_axes=(0,), out_axes=1, partition='layers')
def init(key):
    return nnx.Linear(3, 3, kernel_init=kernel_init, rngs=nnx.Rngs(key))
@nnx.scan(in_axes=(1, nnx.Carry), out_axes=nnx.Carry, graph_updates=False)
@nnx.transform_metadata(in_axes=(1, nnx.Carry), out_axes=nnx.Carry, partition='layers')
def run(layer, x):
    seen.append(layer.kernel.out_sharding)
    return layer(x)
names = ('in', 'out', 'layers')
mesh = jax.make_mesh((1, 1, 1), names, axis_types=(jax.sharding.AxisType.Auto,) * 3)
with jax.set_mesh(mesh):
    layers = init(jax.random.split(jax.random.key(0), 4))
    y = run(layers, jnp.ones((1, 3)))
result = [layers.kernel.out_sharding, layers.kernel.shape, seen[0], y]
""",
    "vjp as a decorator": WEIGHTS
    + """
@nnx.vjp(graph=True, graph_updates=False)
def g(m, x):
    return f(m, x)
out, pull_back = g(m, x)
m_g, x_g = pull_back(jnp.ones(()))
result = [out, m_g.w[...], x_g]
""",
    "jvp as a decorator": WEIGHTS
    + """
g = nnx.jvp(graph=True, graph_updates=False)(lambda x, y: (x * y).sum())
result = g((x, 2 * x), (jnp.ones(3), x))
""",
    "vjp and jvp in steps": """
x = jnp.arange(3.0)
modes = {'graph_updates': False}
pull = nnx.vjp(lambda x: (x ** 2, x), has_aux=True, **modes)
result = [nnx.vjp(**modes)(jnp.sin, x)[1](x), pull(x)[1](x), nnx.jvp(**modes)(jnp.sin, (x,), (x,)),
          nnx.jvp(jnp.sin, **modes)((x,), (x,)), nnx.jvp(jnp.sin, **modes)(primals=(x,), tangents=(x,))]
""",
    "custom_vjp returns cotangents of integers too": WEIGHTS
    + """
g = nnx.custom_vjp(f)
def backward(res, g):
    (m_g, _), out_g = g
    m_g.w[...] = 2 * out_g * res
    return m_g, 3 * out_g * res
g.defvjp(lambda m, x: (g(m, x), x), backward)
result = nnx.grad(g)(m, x)
""",
    "custom_vjp of some Variables": WEIGHTS
    + """
chosen = nnx.DiffState(0, nnx.PathContains('w'))
g = nnx.custom_vjp(lambda m: f(m, x), nondiff_argnums=(chosen,))
def backward(res, g):
    (m_g,), out_g = g
    return (nnx.State({'w': m_g.w.replace(2 * out_g * x)}),)
g.defvjp(lambda m: (g(m), None), backward)
result = nnx.grad(g, argnums=chosen)(m)
""",
    "custom_vjp follows set_graph_updates": WEIGHTS
    + """
with nnx.set_graph_updates(False):
    g = nnx.custom_vjp(lambda x: x ** 2)
    g.defvjp(lambda x: (x ** 2, x), lambda res, g: (5 * g * res,))
result = jax.grad(g)(2.0)
""",
    "jit_partial is lowered and compiled": WEIGHTS
    + """
def step(m, x):
    m.n[...] += 1
    return f(m, x)
g = nnx.jit_partial(step, m, graph=True, graph_updates=False)
compiled = g.lower(x).compile()
result = [compiled(x), compiled(2 * x), g(x), nnx.state(m)]
""",
    "a State of specs for a State": WEIGHTS
    + """
P = jax.sharding.PartitionSpec
mesh = jax.make_mesh((1,), ('a',), axis_types=(jax.sharding.AxisType.Auto,))
state = nnx.state(m, nnx.Param)
spec = nnx.State({'w': P('a')})
result = nnx.shard_map(lambda s: jax.lax.psum(s['w'][...].sum(), 'a'), mesh=mesh, in_specs=(spec,), out_specs=P(),
                       graph_updates=False)(state)
""",
}


@pytest.mark.parametrize("text", PROGRAMS.values(), ids=PROGRAMS.keys())
@pytest.mark.sample(4)
def test_a_program_computes_the_same_in_both(text):
    assert_equal_in_both(text)


def test_prefix_holds_for_shardings():
    model = nnx.Linear(2, 4, rngs=nnx.Rngs(0))
    mesh = jax.make_mesh((1,), ("a",), axis_types=(jax.sharding.AxisType.Auto,))
    split, whole = (
        jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*p)) for p in [(None, "a"), ()]
    )
    chosen = nnx.prefix(model, {nnx.PathContains("kernel"): split, ...: whole})
    placed = nnx.jit(lambda: nnx.Linear(2, 4, rngs=nnx.Rngs(0)), out_shardings=chosen)()
    assert (placed.kernel.sharding, placed.bias.sharding) == (split, whole)


def test_filters_of_prefix_decide_for_variables_that_are_new():
    model = nnx.Linear(2, 4, rngs=nnx.Rngs(0))
    axes = nnx.prefix(model, {nnx.Intermediate: 0, ...: None})

    def run(model, x):
        model.sow(nnx.Intermediate, "y", x)

    nnx.vmap(run, in_axes=(axes, 0))(model, jnp.ones((3, 2)))
    assert model.y[0].shape == (3, 2)


def test_prefix_names_the_variable_that_no_filter_matches():
    with pytest.raises(liftnn.FilterError) as error:
        nnx.prefix({"a": nnx.Linear(2, 4, rngs=nnx.Rngs(0))}, {nnx.BatchStat: 0})
    assert str(error.value) == (
        "No filter matched a.kernel (a Param) in nnx.prefix.\n"
        "Add a filter for it, or `...: value` as the last entry."
    )


@pytest.mark.parametrize("only, other", [("in_axes", "out_axes"), ("out_axes", "in_axes")])
def test_a_scan_with_half_a_carry_is_an_error_when_it_is_wrapped(only, other):
    with pytest.raises(liftnn.ArgumentError) as error:
        nnx.scan(**{only: (nnx.Carry, 0), other: 0})(lambda x: x)
    assert str(error.value) == (
        f"If one of in_axes or out_axes has Carry, the other must also have Carry; here it is only in `{only}`.\n"
        "Mark with Carry what a step takes from the step before in `in_axes`, and what it passes on in `out_axes`."
    )


def test_a_rule_cannot_get_cotangents_of_what_is_written():
    f = nnx.custom_vjp(lambda m: m.w[...], graph_updates=False)
    with pytest.raises(liftnn.ArgumentTypeError) as error:
        f.defvjp(lambda m: (f(m), None), lambda res, g, *, updates_g: (None,))
    assert str(error.value) == (
        "bwd of custom_vjp has a parameter `updates_g`, but liftnn does not differentiate written values.\n"
        "Return every value that is to be differentiated, and leave `updates_g` out."
    )


def test_the_number_of_compiled_programs_is_read_as_in_flax():
    assert_equal_in_both(
        WEIGHTS
        + """
step = nnx.jit(f)
result = []
for args in ((m, x), (m, x), (m, 2.0)):
    step(*args)
    result.append(step.jitted_fn._cache_size())
"""
    )
