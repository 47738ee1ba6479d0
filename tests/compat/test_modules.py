"""Functions on modules, and streams of keys, compute the same under both imports, bit for bit."""

import textwrap

import jax
import jax.numpy as jnp
import pytest
from tests.compat.oracle import assert_equal_in_both

import liftnn
from liftnn.compat import nnx

SETUP = """
class Block(nnx.Module):
    def __init__(self, *, rngs):
        self.linear = nnx.Linear(2, 4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
class Model(nnx.Module):
    def __init__(self, *, rngs):
        self.body = nnx.data([{'b': nnx.Linear(4, 1, rngs=rngs), 'a': nnx.Param(jnp.ones(2))}, Block(rngs=rngs)])
        self.head = nnx.Dict(norm=nnx.BatchNorm(4, rngs=rngs), again=self.body[1])
        self.size = 3
model = Model(rngs=nnx.Rngs(0))
kinds = (nnx.Variable, nnx.Linear, nnx.BatchNorm, nnx.Dropout, nnx.Dict, Block, Model)
def describe(pairs):
    return [(path, type(x).__name__) for path, x in pairs]
"""

PROGRAMS = {
    "modules: children first, sorted, each once, without streams of keys": """
        result = [describe(nnx.iter_modules(model)), describe(nnx.iter_modules(model, graph=True))]
        """,
    "the graph: children first, sorted": """
        result = describe((path, x) for path, x in nnx.iter_graph(model) if isinstance(x, kinds))
        """,
    "children: modules and Variables": """
        nodes = [model, model.body[1], model.head, model.head.norm, model.body[0], nnx.List([model, 3])]
        result = [describe(nnx.iter_children(x, graph=True)) for x in nodes]
        result += [describe(nnx.iter_module_children(x)) for x in nodes]
        """,
    "a recursive map": """
        paths = []
        def f(path, x):
            if isinstance(x, kinds):
                paths.append(path)
            return x.replace(x + 1) if isinstance(x, nnx.Param) else x
        model.head.pop('again')
        result = [nnx.state(nnx.recursive_map(f, model, graph=True), nnx.Param), sorted(paths, key=str)]
        """,
    "a view, with a mode": """
        copy = nnx.view(model, deterministic=True, use_running_average=True, graph=True)
        part = nnx.view(model, only=nnx.Dropout, deterministic=True, graph=True)
        result = [m.body[1].dropout.deterministic for m in (model, copy, part)]
        result += [m.head.norm.use_running_average for m in (model, copy, part)]
        result += [copy.head.norm.mean is model.head.norm.mean, copy.head.again is copy.body[1]]
        """,
    "other attributes, with a mode": """
        copy = nnx.with_attributes(model, size=5, rate=0.25, graph=True)
        result = [copy.size, model.size, copy.body[1].dropout.rate]
        result += [copy.body[0]['b'].kernel is model.body[0]['b'].kernel]
        """,
    "attributes set in place, with a mode": """
        model.set_attributes(deterministic=True, graph=True)
        model.set_attributes(nnx.BatchNorm, use_running_average=True, graph=True)
        result = [model.body[1].dropout.deterministic, model.head.norm.use_running_average]
        """,
    "a table of views names the same classes": """
        lines = nnx.view_info(model, graph=True).split('\\n')
        result = [line for line in lines if not line.startswith(' ')]
        """,
    "new streams": """
        def draw(rngs):
            return {name: [jax.random.key_data(stream.key[...]), stream.count[...]] for name, stream in rngs.items()}
        rngs = nnx.Rngs(params=0, dropout=1, noise=2)
        options = [
            {'split': 3}, {'split': (2, 3)}, {'fork': ...}, {'broadcast': 2}, {'split': {'params': 4, ...: 2}},
            {'split': {'params': 4}, 'fork': ...}, {'split': {'params': 4}, 'fork': 'noise'},
            {'split': {...: 2}, 'fork': 'noise'}, {'fork': ['noise', 'params'], 'broadcast': {'dropout': 5}},
            {'split': 3, 'only': 'noise'}, {'split': 3, 'only': nnx.Not('noise')}, {'fork': nnx.RngStream}, {},
        ]
        result = []
        for given in options:
            new = nnx.with_rngs(rngs, **given, graph=True, graph_updates=False)
            result += [draw(new), draw(rngs)]
        """,
    "new streams in a model share its other Variables": """
        new = nnx.with_rngs(model, split={'dropout': 3}, graph=True, graph_updates=False)
        result = [new.body[1].linear.kernel is model.body[1].linear.kernel, new.body[1] is new.head.again,
                  nnx.state(new, nnx.RngState), nnx.state(model, nnx.RngState)]
        """,
    "new streams in the arguments": """
        @nnx.with_rngs(split=4, graph=True, graph_updates=False)
        def f(rngs, *, other):
            return jax.random.key_data(rngs.params.key[...]), other.key.shape
        rngs = nnx.Rngs(params=0)
        other = nnx.RngStream(1, tag='a')
        result = [f(rngs, other=other), f(rngs, other=other), rngs.params.count[...], other.count[...]]
        """,
    "gradients with respect to modules without parameters": """
        loss = lambda a, b, x: (b(x) ** 2).sum()
        empty, other = nnx.Dropout(0.5, rngs=nnx.Rngs(0)), nnx.Linear(2, 3, rngs=nnx.Rngs(1))
        grads = nnx.grad(loss, argnums=(0, 1))(empty, other, jnp.ones((1, 2)))
        value, again = nnx.value_and_grad(loss, argnums=(0, 1))(empty, other, jnp.ones((1, 2)))
        result = [list(grads[0]), grads[1], value, list(again[0])]
        """,
    "gradients with respect to what is recorded": """
        class Scale(nnx.Module):
            def __call__(self, x):
                x = self.perturb('before', x)
                self.sow(nnx.Intermediate, 'after', 3 * x)
                return 3 * x
        class Chain(nnx.Module):
            def __init__(self):
                self.parts = nnx.List([Scale(), Scale()])
            def __call__(self, x):
                return self.parts[1](self.parts[0](x)).sum()
        chain, x = Chain(), jnp.arange(3.0)
        _, perturbations = nnx.capture(chain, nnx.Perturbation)(x)
        def loss(chain, perturbations, x):
            return nnx.capture(chain, nnx.Intermediate, init=perturbations)(x)
        (_, grads), seen = nnx.jit(nnx.grad(loss, argnums=(0, 1), has_aux=True))(chain, perturbations, x)
        result = nnx.merge_state(grads, seen)
        """,
    "types of recorded values by name": """
        class Named(nnx.Module):
            def __call__(self, x):
                self.sow('intermediates', 'a', x)
                self.sow('heat', 'b', 2 * x)
                return self.perturb('c', x, 'perturbations')
        named, x = Named(), jnp.ones(2)
        named(x)
        heat = nnx.variable_type_from_name('heat')
        result = [type(named.b) is heat, named.c[...], *nnx.capture(Named(), nnx.Intermediate, heat)(x)]
        """,
    "the class of a GraphDef takes the class of the module": """
        def f(graphdef: nnx.GraphDef[Model], state: nnx.State):
            return nnx.merge(graphdef, state).size
        result = f(*nnx.split(model))
        """,
    "attributes with the names of methods": """
        class Names(nnx.Module):
            def __init__(self):
                self.variables = nnx.Param(jnp.ones(2))
                self.state, self.split, self.clone, self.update, self.pop = jnp.zeros(2), 1, 2, 3, None
        m = Names()
        step = nnx.jit(lambda m, x: m.variables * x + m.state + m.split)
        result = [step(m, 2.0), step(nnx.clone(m), 3.0), nnx.state(m), m.clone, nnx.merge(*nnx.split(m)).update]
        """,
    "fields with the names of methods": """
        import dataclasses
        @dataclasses.dataclass
        class Fields(nnx.Module):
            state: nnx.Variable
            variables: int
            split: int = 5
            size: int = 6
        m = Fields(nnx.Param(jnp.ones(2)), 2)
        result = [nnx.state(m), m.variables, m.split, m.size, nnx.clone(m).variables]
        """,
    "sequences in reverse": """
        x = jnp.arange(24.0).reshape(2, 4, 3)
        flip = nnx.nn.recurrent.flip_sequences
        result = [flip(x, jnp.array([2, 4]), 1, False), flip(x, None, 1, False),
                  flip(jnp.swapaxes(x, 0, 1), jnp.array([2, 3]), 1, True)]
        """,
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.sample(4)
def test_the_same_text_gives_the_same_result(name):
    assert_equal_in_both(SETUP + textwrap.dedent(PROGRAMS[name]))


def test_a_stream_that_two_rules_select_is_an_error():
    rngs = nnx.Rngs(params=0)
    with pytest.raises(liftnn.LiftError) as error:
        nnx.with_rngs({"a": rngs}, split={"params": 3}, fork=["params"], broadcast={...: 2})
    assert str(error.value) == (
        "The stream a.params matches multiple rules of nnx.with_rngs: split by 'params', fork by 'params'.\n"
        "Select each stream by one of them; `...` selects those that are left."
    )
    assert int(rngs.params.count) == 0


def test_new_streams_need_a_number_of_keys():
    with pytest.raises(liftnn.LiftError) as error:
        nnx.with_rngs(nnx.Rngs(0), broadcast={"default": "many"})
    assert str(error.value) == (
        "`broadcast` must be a number of keys or a shape, not 'many'.\n"
        "Pass the number of keys, such as 8, or their shape, such as (2, 4)."
    )


def test_new_streams_work_with_changes_of_structure_and_in_a_vmap():
    rngs = nnx.Rngs(params=0)
    drawn = nnx.vmap(lambda r: r.params.uniform(()))(
        nnx.with_rngs(rngs, split=3, graph=True, graph_updates=True)
    )
    keys = jax.random.split(jax.random.fold_in(jax.random.key(0), 0), 3)
    expected = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 0), ()))(keys)
    assert drawn.tolist() == expected.tolist()


def test_children_of_a_variable_are_an_error():
    with pytest.raises(liftnn.LiftError) as error:
        nnx.iter_children(3)
    assert "takes a module or a container" in str(error.value)


def test_a_gradient_of_nothing_at_all_is_an_error():
    with pytest.raises(liftnn.LiftError, match=r"Nothing to differentiate: no Variable of args\[0\] matches"):
        nnx.grad(lambda m: jnp.zeros(()))(nnx.Dropout(0.5, rngs=nnx.Rngs(0)))


def test_a_number_in_a_field_of_data_may_change_without_a_new_trace():
    traces = []

    @nnx.dataclass
    class Counter(nnx.Pytree):
        step: nnx.Data[int]
        loss: float = nnx.data(default=0.5, metadata={"unit": "bit"})
        name: nnx.Static[str] = "a"
        size: int = nnx.static(default=3)

        def __post_init__(self):
            assert isinstance(self.step, int)

    @nnx.jit
    def count(x):
        traces.append(1)
        x.step += x.size
        x.loss *= 2

    x = Counter(1)
    for _ in range(3):
        count(x)
    assert (int(x.step), float(x.loss), x.size, len(traces)) == (10, 4.0, 3, 1)
    assert jax.tree.leaves(Counter(2)) == [0.5, 2]  # by name
