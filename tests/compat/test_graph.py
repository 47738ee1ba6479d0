"""Functions on trees of modules do what Flax's do: iterate, map, pop, unpack, and compute prefixes of axes."""

import collections
import copy
import pickle

import jax
import jax.numpy as jnp
import optax
import pytest
from flax.nnx import ids as flax_ids
from tests.compat.oracle import assert_equal_in_both
from tests.raising import raises

import liftnn
from liftnn.compat import nnx
from liftnn.compat.nnx import ids

SETUP = """
class Model(nnx.Module):
    def __init__(self, *, rngs):
        self.second = nnx.Linear(2, 3, rngs=rngs)
        self.first = nnx.Linear(3, 2, rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.tied = self.first
    def __call__(self, x):
        return self.first(self.norm(self.second(x)))
model = Model(rngs=nnx.Rngs(0))
x = jnp.arange(6.0).reshape(3, 2)
"""

PROGRAMS = {
    "iter_modules has children before what holds them, sorted": """
result = [[(path, type(m).__name__) for path, m in nnx.iter_modules(model, graph=True)],
          [(path, type(m).__name__) for path, m in nnx.compat.iter_modules(model)],
          [(path, type(m).__name__) for path, m in nnx.module.iter_modules(model)]]
""",
    "iter_children has modules and Variables, sorted": """
result = [[(key, type(c).__name__) for key, c in nnx.iter_children(model, graph=True)],
          [(key, type(c).__name__) for key, c in nnx.compat.iter_children(model.second)],
          [(key, type(c).__name__) for key, c in nnx.iter_module_children(model)]]
""",
    "recursive_map visits the attributes by name, and a shared object by its first path": """
class Net(nnx.Module):
    def __init__(self, rngs):
        self.lin, self.conv = nnx.Linear(2, 3, rngs=rngs), nnx.Conv(1, 2, 2, rngs=rngs)
        self.also, self.held = self.lin, nnx.List([self.conv, nnx.Dropout(0.5)])

log = []
def note(path, x):
    if isinstance(x, (nnx.Module, nnx.Variable)) and "held" not in path:
        log.append((path, type(x).__name__))
    return x

new = nnx.recursive_map(note, Net(nnx.Rngs(0)))
result = [log, new.also is new.lin, new.held[0] is new.conv, sorted(vars(new).keys() & {"lin", "conv", "also", "held"})]
""",
    "iter_graph has each object once, and each array for each path": """
array = jnp.ones(2)
root = nnx.Module()
root.b, root.a = nnx.Module(), nnx.Param(jnp.zeros(1))
root.b.y = root.b.x = root.c = array
root.b.v = root.a
keep = lambda x: isinstance(x, (nnx.Module, nnx.Variable, jax.Array))
result = [(path, type(x).__name__) for path, x in nnx.iter_graph(root, graph=True) if keep(x)]
""",
    "recursive_map replaces, once for a shared object": """
calls = []
def double(path, x):
    if isinstance(x, nnx.Param):
        calls.append(path[-1])
        return nnx.Param(2 * x[...])
    return x
new = nnx.recursive_map(double, model, graph=True)
result = [new.first.kernel[...], new.tied is new.first, sorted(calls), new(x)]
""",
    "pop takes arrays too, and deletes from modules and dicts": """
tree = {'a': {'x': jnp.array(1.0), 'y': nnx.Param(jnp.array(2.0))}, 'b': jnp.array(3.0)}
popped, rest = nnx.pop(tree, nnx.Param, lambda path, v: path[-1] == 'b')
module = nnx.Module()
module.x, module.y = jnp.ones(2), nnx.Param(jnp.ones(3))
everything = nnx.pop(module, ...)
result = [popped, rest, tree, everything, hasattr(module, 'x'), hasattr(module, 'y')]
""",
    "map without new Variables": """
plain = nnx.map(lambda path, v: v[...] + 1, model, recreate_variables=False)
usual = nnx.map(lambda path, v: v[...] + 1, model)
result = [plain.first.bias, usual.first.bias[...], isinstance(usual.first.bias, nnx.Param), plain.tied is plain.first]
""",
    "merge without new Variables": """
graphdef, state = nnx.split(model)
plain = nnx.merge(graphdef, nnx.as_pure(state), recreate_variables=False)
result = [plain.first.bias, isinstance(plain.norm.mean, jax.Array), plain.tied is plain.first]
""",
    "as_pure of modules": """
linear, rngs = nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Rngs(1)
pure, [same, value] = nnx.as_pure(linear), nnx.pure([linear, nnx.Param(nnx.Param(jnp.ones(1)))])
module = nnx.merge(nnx.graphdef(linear), nnx.pure(nnx.state(linear)), recreate_variables=False)
result = [pure.kernel, pure(jnp.ones(2)), same(jnp.ones(2)), value, isinstance(linear.kernel, nnx.Param),
          nnx.state(pure), module(jnp.ones(2)), nnx.pure(rngs).default.key, pure is linear]
""",
    "a GraphState has the key paths of a State": """
flat, _ = jax.tree_util.tree_flatten_with_path(nnx.state(model, nnx.BatchStat))
unpacked = nnx.unpack(model, nnx.BatchStat, ...)[0]
same, _ = jax.tree_util.tree_flatten_with_path(unpacked)
doubled = jax.tree.map(lambda v: 2 * v, unpacked)
result = [[a[:-1] == b[:-1] or a == b for (a, _), (b, _) in zip(flat, same)], len(same), type(doubled).__name__,
          doubled.norm.var[...]]
""",
    "States of a model are types, too": """
def step(pair: nnx.PureState[Model]):
    return nnx.call(pair)(x)
result = [step(nnx.split(model))[0]]
""",
    "updates are arrays, like as_pure": """
optimizer = nnx.Optimizer(model, optax.sgd(0.5), wrt=nnx.Param)
grads = nnx.grad(lambda m: m(x).sum())(model)
before = nnx.as_pure(nnx.state(model, nnx.Param))
updates = optimizer.update(model, grads)
expected = jax.tree.map(lambda p, u: p + u, before, updates)
result = [expected, nnx.as_pure(nnx.state(model, nnx.Param)), updates]
""",
    "metrics split with the GraphDef first": """
metrics = nnx.MultiMetric(loss=nnx.metrics.Average('loss'), accuracy=nnx.metrics.Accuracy())
metrics.update(loss=jnp.arange(3.0), logits=jnp.eye(3), labels=jnp.array([0, 1, 1]))
graphdef, state = metrics.split()
welford = nnx.metrics.Welford()
welford.update(values=jnp.arange(3.0))
_, mean, rest = welford.split(lambda path, v: path == ('mean',), ...)
result = [nnx.merge(graphdef, state).compute(), list(mean), sorted(rest), isinstance(metrics.loss, nnx.Metric)]
""",
    "metadata by name and value, and as a whole": """
v = nnx.Param(jnp.ones(2), note='a', hijax=False, ref=False, eager_sharding=True)
v.set_metadata('note', 'b')
v.set_metadata('other', 1)
first = v.get_metadata()
v.set_metadata({'more': 2, 'hijax': False, 'ref': False, 'eager_sharding': True})
result = [first, v.get_metadata()]
""",
    "prefixes by filter": """
axes = nnx.prefix({'m': model, 'v': nnx.Param(jnp.ones(3))}, {nnx.Param: 0, ...: None}, graph=False)
result = [axes['v'], axes['m'].first.kernel, axes['m'].norm.mean, axes['m'].second.bias]
""",
    "prefixes by function, as axes of vmap": """
keys = jax.random.split(jax.random.key(0), 4)
models = nnx.vmap(lambda key: Model(rngs=nnx.Rngs(key)), graph=True, graph_updates=True)(keys)
models.first.bias.value = models.first.bias.value.T
axes = nnx.prefix(models, lambda path, v: 1 if path[-2:] in [('first', 'bias'), ('tied', 'bias')] else 0, graph=True)
result = [nnx.vmap(lambda m, x: m(x), in_axes=(axes, None), graph=True, graph_updates=False)(models, x)]
""",
    "rules of a Variable and of the context": """
with nnx.use_eager_sharding(False):
    w = nnx.with_partitioning(nnx.initializers.ones, ('rows', 'cols'), sharding_rules=(('rows', 'x'),))
    layer = nnx.Linear(2, 3, kernel_init=w, rngs=nnx.Rngs(0))
with nnx.logical_axis_rules((('cols', 'y'), ('rows', 'x'))):
    inside = nnx.get_partition_spec(nnx.state(layer))
outside = nnx.get_partition_spec(nnx.state(layer))
try:
    with nnx.logical_axis_rules((('rows', 'z'),)):
        nnx.get_partition_spec(nnx.state(layer))
except ValueError:
    outcome = 'raises'
result = [inside.kernel.value, outside.kernel.value, outside.bias.value, outcome]
""",
    "metadata without the mapped axis": """
@nnx.transform_metadata(in_axes=(0, None), out_axes=1, partition='layers')
def f(v, other):
    seen.append((v.out_sharding, other.out_sharding))
    v[...] += 1
    return nnx.Param(jnp.ones(2), out_sharding=('a', 'b'), eager_sharding=False)
seen = []
make = lambda names: nnx.Param(jnp.ones(2), out_sharding=names, eager_sharding=False)
v, other = make(('layers', 'in')), make(('out',))
new = f(v, other=other)
result = [seen, v[...], v.out_sharding, other.out_sharding, new.out_sharding]
""",
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.sample(4)
def test_the_same_text_gives_the_same_result(name):
    assert_equal_in_both(SETUP + PROGRAMS[name])


def test_iter_modules_with_cycles_ends():
    model = nnx.Module()
    model.child = nnx.Module()
    model.child.parent = model
    assert [path for path, _ in nnx.iter_modules(model)] == [("child",), ()]


def test_an_array_of_an_immutable_object_cannot_be_popped_and_nothing_is_changed():
    model = nnx.Module()
    model.pair, model.w = (jnp.ones(2), 1), nnx.Param(jnp.ones(3))
    with pytest.raises(liftnn.StructureError) as error:
        nnx.pop(model, ...)
    assert str(error.value) == (
        "pair[0] cannot be removed: it is held by a tuple, which is immutable.\n"
        "Hold it in a Module, list or dict, or pass a filter that does not match it."
    )
    assert model.w.shape == (3,)


POPPED_POSITIONS = [(0,), (2,), (0, 1), (1, 2), (0, 3), (1, 3, 4), (0, 1, 2, 3, 4)]
HOLDERS = {
    "list": list,
    "nnx.List": nnx.List,
    "deque": collections.deque,
    "dict": lambda elements: dict(enumerate(elements)),
    "nnx.Dict": lambda elements: nnx.Dict({f"e{i}": x for i, x in enumerate(elements)}),
}


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("positions", POPPED_POSITIONS)
def test_all_popped_elements_of_a_container_are_removed_and_no_other(holder, positions):
    elements = [nnx.Param(0.0), jnp.ones(1), "static", jnp.ones(2), nnx.BatchStat(4.0)]
    model = nnx.Module()
    model.elements = nnx.data(HOLDERS[holder](elements))
    popped = nnx.pop(model, nnx.BatchStat, lambda path, _: int(str(path[-1]).removeprefix("e")) in positions)
    found = {int(str(path[-1]).removeprefix("e")): x for state in popped for path, x in state.flat().items()}
    chosen = {*positions, 4} - {2}  # what is static is not popped
    assert found.keys() == chosen
    assert all(type(x) is type(elements[i]) for i, x in found.items())
    held = model.elements.values() if "ict" in holder else model.elements
    left = [x for i, x in enumerate(elements) if i not in chosen]
    assert len(held) == len(left)
    assert all(x is y for x, y in zip(held, left, strict=True))


@pytest.mark.parametrize(
    "filters", ["nnx.Param", "nnx.BatchStat, nnx.Param", "...", "lambda path, x: 'bias' in path"]
)
def test_entries_are_popped_from_a_state(filters):
    code = f"state = nnx.state(model)\nresult = nnx.pop(state, {filters}), nnx.to_pure_dict(state)"
    assert_equal_in_both(SETUP + code)


def test_an_array_in_the_closure_of_a_function_cannot_be_popped_and_a_variable_in_it_is_emptied():
    x, v = jnp.ones(2), nnx.Param(jnp.ones(1))
    model = nnx.Module()
    model.f, model.w = (lambda: x), nnx.Param(jnp.ones(3))
    with raises(
        liftnn.StructureError,
        "f.x cannot be removed: it is held by the closure of a function.\n"
        "Hold it in a Module, list or dict, or pass a filter that does not match it.",
    ):
        nnx.pop(model, ...)
    assert model.w.shape == (3,)
    model.f = lambda: v
    assert [y.get_value().shape for y in nnx.pop(model, ...).flat().values()] == [(1,), (3,)]
    assert model.f() is v
    assert v.get_raw_value() is liftnn.Empty
    assert not hasattr(model, "w")


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_of_a_graph_state_knows_the_structure(duplicate):
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    state = duplicate(nnx.unpack(model))
    assert (nnx.merge(state)(jnp.ones(2)) == model(jnp.ones(2))).all()
    state["bias"] = nnx.Param(jnp.ones(3))
    assert (model.bias == 0).all()


def test_an_array_of_a_captured_module_cannot_be_popped():
    model = nnx.Module()
    model.x = jnp.ones(2)
    with pytest.raises(liftnn.TraceContextError, match="the attribute 'x'"):
        jax.jit(lambda y: nnx.pop(model, ...) and y)(1.0)
    assert model.x.shape == (2,)


def test_graph_states_of_different_models_cannot_be_merged():
    one, other = (
        nnx.unpack(nnx.Linear(2, 3, rngs=nnx.Rngs(0))),
        nnx.unpack(nnx.BatchNorm(2, rngs=nnx.Rngs(0))),
    )
    with pytest.raises(liftnn.StructureError) as error:
        nnx.merge(one, other)
    assert str(error.value) == (
        "The GraphDef must be the same in all GraphStates that nnx.merge gets, and that of argument 1 differs from "
        "that of argument 0.\nPass all values of one call of `nnx.unpack`."
    )
    with pytest.raises(liftnn.ArgumentTypeError) as error:
        nnx.merge(one, nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0))))
    assert str(error.value) == (
        "nnx.merge got a GraphState, and a State as argument 1.\n"
        "Pass all values of one call of `nnx.unpack`, or a GraphDef and States."
    )


def test_a_filter_of_a_prefix_must_match():
    with pytest.raises(liftnn.FilterError) as error:
        nnx.prefix({"model": nnx.Linear(2, 3, rngs=nnx.Rngs(0))}, {nnx.BatchStat: 0})
    assert str(error.value) == (
        "No filter matched model.kernel (a Param) in nnx.prefix.\n"
        "Add a filter for it, or `...: value` as the last entry."
    )


def test_two_prefixes_of_a_shared_variable_raise():
    shared = nnx.Param(jnp.ones((2, 2)))
    a, b = nnx.Dict(v=shared), nnx.Dict(w=shared)
    axes = nnx.prefix((a, b), lambda path, x: path[0])
    with pytest.raises(liftnn.AliasingError):
        nnx.vmap(lambda a, b: a.v + b.w, in_axes=axes)(a, b)


def test_transform_metadata_restores_metadata_if_the_function_fails():
    v = nnx.Param(jnp.ones((3, 2)), sharding=("layers", "in"))

    @nnx.transform_metadata(partition="layers")
    def fail(v):
        assert v.sharding == ("in",)
        raise KeyError

    with pytest.raises(KeyError):
        fail(v)
    assert v.sharding == ("layers", "in")


def test_transform_metadata_within_vmap_is_the_argument_of_vmap():
    def create(x):
        return nnx.Param(x, sharding=("in",))

    x = jnp.ones((3, 2))
    one = nnx.vmap(nnx.transform_metadata(create, partition="layers"))(x)
    other = nnx.vmap(create, transform_metadata={nnx.PARTITION_NAME: "layers"})(x)
    assert one.sharding == other.sharding == ("layers", "in")


@pytest.mark.parametrize("name", ["Accuracy", "Average", "Welford"])
def test_what_the_stand_in_replaces_is_pickled_by_its_name(name):
    x = getattr(nnx, name)
    made = x()
    assert type(pickle.loads(pickle.dumps(made))) is type(copy.deepcopy(made)) is x
    assert isinstance(made, getattr(liftnn, name))


def test_an_identifier_is_equal_to_itself_only():
    for uuid in (ids.uuid, flax_ids.uuid):
        one = uuid()
        different = [uuid(), copy.copy(one), copy.deepcopy(one)]
        assert {one: 1}[one] == 1
        assert all(x != one and hash(x) != hash(one) for x in different)


MODEL = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
CALLS = {
    "EMA": lambda **modes: nnx.EMA(MODEL, 0.9, **modes),
    "Optimizer": lambda **modes: nnx.Optimizer(MODEL, optax.sgd(0.1), wrt=nnx.Param, **modes),
    "iter_children": lambda **modes: nnx.iter_children(MODEL, **modes),
    "iter_graph": lambda **modes: nnx.iter_graph(MODEL, **modes),
    "iter_module_children": lambda **modes: nnx.iter_module_children(MODEL, **modes),
    "iter_modules": lambda **modes: nnx.iter_modules(MODEL, **modes),
    "prefix": lambda **modes: nnx.prefix(MODEL, {...: 0}, **modes),
    "recursive_map": lambda **modes: nnx.recursive_map(lambda path, x: x, MODEL, **modes),
    "transform_metadata": lambda **modes: nnx.transform_metadata(lambda x: x, partition="x", **modes),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_the_mode_is_a_bool_or_none(call):
    for value in (True, False, None):
        call(graph=value)
    with pytest.raises(liftnn.ArgumentTypeError, match="`graph` must be True, False or None, not a str"):
        call(graph="tree")


def test_a_prefix_of_shardings_is_an_option_of_jit():
    whole = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    placed = nnx.prefix(MODEL, lambda path, x: whole)
    assert nnx.jit(lambda m: m.kernel.sum(), in_shardings=(placed,))(MODEL) == MODEL.kernel.sum()


def test_iter_modules_goes_through_containers_that_flattening_creates():
    @jax.tree_util.register_pytree_node_class
    class Wrapper:
        def __init__(self, module):
            self.module = module

        def tree_flatten(self):
            return ([self.module],), None

        @classmethod
        def tree_unflatten(cls, static, children):
            return cls(children[0][0])

    model = nnx.Module()
    for i in range(20):
        setattr(model, f"w{i}", Wrapper(nnx.Module()))
    assert len(list(nnx.iter_modules(model))) == 21
