"""Each convention of Flax NNX: the same text under both imports gives the same result, bit for bit."""

import pytest
from tests.compat.oracle import assert_equal_in_both
from tests.quick import quick

SETUP = """
class Block(nnx.Module):
    def __init__(self, din, dout, *, rngs):
        self.linear = nnx.Linear(din, dout, rngs=rngs)
        self.norm = nnx.BatchNorm(dout, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
    def __call__(self, x):
        return self.dropout(nnx.relu(self.norm(self.linear(x))))
class Model(nnx.Module):
    def __init__(self, *, rngs):
        self.blocks = nnx.List([Block(2, 4, rngs=rngs), Block(4, 4, rngs=rngs)])
        self.heads = nnx.Dict({'a': nnx.Linear(4, 1, rngs=rngs), 'b': nnx.Linear(4, 2, rngs=rngs)})
    def __call__(self, x):
        for block in self.blocks:
            x = block(x)
        return {name: head(x) for name, head in self.heads.items()}
model = Model(rngs=nnx.Rngs(0))
x = jnp.arange(6.0).reshape(3, 2)
"""

PROGRAMS = {
    "split returns the GraphDef first, and keys in order": """
        graphdef, state = nnx.split(model)
        result = [state, list(state), list(state['blocks']), list(state['blocks'][0])]
        """,
    "split by filters": """
        graphdef, params, stats, rest = nnx.split(model, nnx.Param, nnx.BatchStat, ...)
        result = [params, stats, rest, graphdef == nnx.graphdef(model), hash(graphdef) == hash(nnx.graphdef(model))]
        """,
    "a State holds the module's Variables": """
        state = nnx.state(model, nnx.Param)
        state['heads']['a']['bias'][...] = 5.0
        state.heads.b.bias.value = jnp.arange(2.0)
        result = [nnx.state(model), state.heads.a.bias is model.heads.a.bias,
                  nnx.split(model)[1].heads.a.bias is model.heads.a.bias]
        """,
    "variables is state": "result = [nnx.variables(model, nnx.BatchStat), *nnx.variables(model, nnx.Param, ...)]",
    "merge shares the Variables of the State, and copies on request": """
        graphdef, params, rest = nnx.split(model, nnx.Param, ...)
        shared, copied = nnx.merge(graphdef, params, rest), nnx.merge(graphdef, params, rest, copy=True)
        shared.heads.a.bias[...] = 3.0
        copied.heads.a.bias[...] = 4.0
        result = [model.heads.a.bias[...], nnx.state(shared), nnx.state(copied)]
        """,
    "merge of pure values": """
        graphdef, state = nnx.split(model)
        pure = jax.tree.map(lambda x: x, nnx.as_pure(state))
        made = nnx.merge(graphdef, pure)
        result = [nnx.state(made), type(made.heads.a.kernel).__name__, made(x)]
        """,
    "merge of a list of leaves": """
        graphdef, state = nnx.split(model)
        variables = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, nnx.Variable))
        shared, made = nnx.merge(graphdef, variables), nnx.merge(graphdef, jax.tree.leaves(state))
        copied = nnx.merge(graphdef, nnx.to_flat_state(state).leaves, copy=True)
        model.heads.a.bias[...] = 3.0
        result = [nnx.state(shared), nnx.state(made), nnx.state(copied), made(x),
                  shared.heads.a.bias is model.heads.a.bias, graphdef.apply(variables)(x)[0]]
        """,
    "clone, with and without Variables of its own": """
        own, shared = nnx.clone(model), nnx.clone(model, variables=False)
        model.heads.a.bias[...] = 2.0
        result = [own.heads.a.bias[...], shared.heads.a.bias[...], shared.blocks is model.blocks]
        """,
    "functional training with jax.jit": """
        graphdef, params, rest = nnx.split(model, nnx.Param, ...)
        @jax.jit
        def step(params, rest):
            def loss(params):
                m = nnx.merge(graphdef, params, rest, copy=True)
                out = m(x)
                return (out['a'] ** 2).sum() + out['b'].sum(), nnx.split(m, nnx.Param, ...)[2]
            grads, rest_ = jax.grad(loss, has_aux=True)(params)
            return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), rest_
        for _ in range(3):
            params, rest = step(params, rest)
        nnx.update(model, params, rest)
        result = [params, rest, nnx.state(model)]
        """,
    "call and apply return output and pair": """
        pair = nnx.split(nnx.List([nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Dropout(0.5, rngs=nnx.Rngs(1))]))
        y, pair = nnx.call(pair)[0](x)
        z, (graphdef, state) = pair[0].apply(pair[1])[1](y)
        result = [y, z, state]
        """,
    "call of a method": """
        y, pair = nnx.call(nnx.split(model)).heads['a'](jnp.ones((1, 4)))
        result = [y, pair[1]]
        """,
    "pop deletes the attribute": """
        class Sower(nnx.Module):
            def __init__(self):
                self.inner = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
            def __call__(self, x):
                self.sow(nnx.Intermediate, 'y', x)
                return self.inner(x)
        m = Sower()
        m(x), m(2 * x)
        popped = nnx.pop(m, nnx.Intermediate)
        again = m(x)
        result = [popped, again, hasattr(nnx.pop(m, nnx.Intermediate), 'y'), hasattr(m, 'y'), nnx.state(m)]
        """,
    "pop inside jit": """
        class Sower(nnx.Module):
            def __call__(self, x):
                self.sow(nnx.Intermediate, 'y', x * 2)
                return x
        m = Sower()
        @nnx.jit
        def f(m, x):
            m(x)
            return nnx.pop(m, nnx.Intermediate)
        result = [f(m, x), f(m, x + 1), hasattr(m, 'y')]
        """,
    "map over a module and over a State": """
        doubled = nnx.map(lambda path, v: v.replace(2 * v) if path[-1] == 'kernel' else v, model)
        halved = nnx.map_state(lambda path, v: v.replace(v / 2), nnx.state(model, nnx.Param))
        result = [nnx.state(doubled), halved, nnx.map(lambda path, v: v.replace(v * 3), nnx.state(model, nnx.Param))]
        """,
    "find_duplicates": """
        shared = nnx.Dict(a=nnx.Linear(2, 2, rngs=nnx.Rngs(0)))
        shared.b = shared.a
        shared.c = shared.a.kernel
        result = [sorted(map(sorted, nnx.find_duplicates(shared))), nnx.find_duplicates(model),
                  sorted(map(sorted, nnx.find_duplicates(shared, only=nnx.Param)))]
        """,
    "set_metadata": """
        nnx.set_metadata(model, only=nnx.BatchStat, frozen=True)
        result = [model.blocks[0].norm.mean.frozen, hasattr(model.heads.a.kernel, 'frozen')]
        """,
    "flat States": """
        flat = nnx.to_flat_state(nnx.state(model))
        half = [(path, v) for path, v in flat if 'kernel' in path]
        nested = nnx.from_flat_state(half)
        a, b = flat.split(nnx.Param, ...)
        result = [list(flat.paths), flat.leaves, nested, nnx.from_flat_state(dict(half)), len(a), len(b),
                  list(flat.filter(nnx.BatchStat).paths), flat[0][0], flat[1:3].paths, jax.tree.leaves(flat),
                  nnx.FlatState.merge(b, a).paths == flat.paths, flat.to_nested_state()]
        """,
    "pure dicts": """
        state = nnx.state(model)
        pure = nnx.to_pure_dict(state)
        params = nnx.to_pure_dict(nnx.state(model, nnx.Param), lambda v: v.shape)
        text = {'heads': {'a': {'bias': jnp.full(1, 9.0)}}, 'blocks': {'0': {'linear': {'bias': jnp.full(4, 7.0)}}}}
        nnx.replace_by_pure_dict(state, text)
        before = model.heads.a.bias[...]
        nnx.update(model, state)
        result = [pure, params, list(pure), state, before, nnx.state(model),
                  nnx.restore_int_paths({'a': {'0': 1, '10': {'x': 2}}, 3: 4})]
        """,
    "split_state, filter_state, merge_state, diff": """
        state = nnx.state(model)
        params, rest = nnx.split_state(state, nnx.Param, ...)
        stats = nnx.filter_state(state, nnx.BatchStat)
        result = [params, rest, stats, nnx.filter_state(state, nnx.Param, nnx.BatchStat), nnx.split_state(state, ...),
                  nnx.merge_state(params, rest), nnx.statelib.diff(state, params)]
        """,
    "traversals": """
        tree = {'a': {'b': 1, 'c': {}}, 'd': 2}
        flat = nnx.traversals.flatten_mapping(tree)
        result = [flat, nnx.traversals.unflatten_mapping(flat), nnx.traversals.flatten_mapping(tree, sep='/'),
                  nnx.traversals.unflatten_mapping({'a/b': 1}, sep='/'), nnx.traversals.flatten_to_sequence(tree),
                  nnx.traversals.flatten_mapping(tree, is_leaf=lambda path, x: path == ('a',)),
                  nnx.traversals.unflatten_mapping(nnx.traversals.flatten_mapping(tree, keep_empty_nodes=True)),
                  nnx.traversals.unflatten_mapping([(('x', 'y'), 3)])]
        """,
    "List": """
        l = nnx.List([nnx.Param(jnp.ones(2)), nnx.Param(jnp.zeros(3))])
        l.append(nnx.Linear(1, 2, rngs=nnx.Rngs(0)))
        l.insert(0, nnx.Param(jnp.ones(4)))
        l[1] = nnx.Param(2 * l[1])
        del l[2]
        l.extend([nnx.Param(jnp.ones(1)), nnx.relu, 5])
        last, first = l.pop(), l[0]
        l[0:2] = [l[1], l[0]]
        result = [len(l), nnx.state(l), last, first, [type(v).__name__ for v in l[-3:-1]], l[-1] is nnx.relu,
                  nnx.relu in l, l.index(nnx.relu), [v is l[i] for i, v in enumerate(l)]]
        """,
    "List in transforms": """
        l = nnx.List([nnx.Linear(2, 2, rngs=nnx.Rngs(0)), nnx.Linear(2, 2, rngs=nnx.Rngs(1))])
        @nnx.jit
        def f(l, x):
            l.append(nnx.Param(x.sum()))
            l[0], l[1] = l[1], l[0]
            return l[0](x)
        ys = [f(l, x), f(l, x)]
        grads = nnx.grad(lambda l: l[0](x).sum() + l[2])(l)
        result = [ys, nnx.state(l), grads, len(l)]
        """,
    "Dict": """
        d = nnx.Dict(a=nnx.Param(jnp.ones(2)), act='relu')
        d['b'] = jnp.zeros(3)
        d.update({'c': nnx.Linear(1, 1, rngs=nnx.Rngs(0))}, d=1)
        @nnx.jit
        def f(d):
            d['e'] = nnx.Param(d.a.sum())
            return d['a'] + 1
        y = f(d)
        removed = d.pop('act')
        del d['d']
        result = [y, list(d), nnx.state(d), len(d), 'a' in d, removed, d.get('zzz'), d.setdefault('b', 1)]
        """,
    "data and static": """
        class M(nnx.Module):
            names: nnx.Static[str]
            def __init__(self):
                self.items = nnx.data([jnp.ones(2), nnx.Param(jnp.zeros(1))])
                self.step = nnx.data(3)
                self.config = nnx.static({'a': 1})
        @nnx.dataclass
        class D(nnx.Pytree):
            w: nnx.Data[jax.Array]
            name: nnx.Static[str] = 'd'
            more: object = nnx.data(default=None)
        m, d = M(), D(jnp.ones(2))
        @nnx.jit
        def f(m, d):
            m.step = m.step + 1
            d.w = d.w * 2
            return m.items[0] + d.w
        result = [f(m, d), f(m, d), jnp.asarray(m.step), m.config, d.w, d.name, d.more,
                  nnx.is_data(jnp.ones(1)), nnx.is_data(1.0), nnx.is_data(m), len(nnx.has_data([m, 1, jnp.ones(1)]))]
        """,
    "pytree=False": """
        class M(nnx.Module, pytree=False):
            def __init__(self):
                self.layers = [nnx.Linear(2, 2, rngs=nnx.Rngs(0))]
        result = M().layers[0](x)
        """,
    "arguments for modes": """
        @nnx.jit(graph=True, graph_updates=True)
        def f(m, x):
            return m(x)
        loss = lambda m, x: m(x)['a'].sum()
        result = [f(model, x), nnx.grad(loss, graph=True, graph_updates=True)(model, x),
                  nnx.split(model, graph=True)[1], nnx.state(model, nnx.Param, graph=True),
                  nnx.clone(model, graph=True)(x), nnx.eval_shape(lambda: 1, graph=True) is None]
        """,
    "the settings of modes": """
        seen = [nnx.set_graph_mode.current_value(), nnx.set_graph_updates.current_value()]
        with nnx.set_graph_updates(True):
            seen.append(nnx.set_graph_updates.current_value())
            with nnx.use_eager_sharding(False):
                seen.append(nnx.using_eager_sharding())
            seen.append(nnx.using_eager_sharding())
        result = [*seen, nnx.set_graph_updates.current_value()]
        """,
    "cached_partial": """
        optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
        @nnx.jit
        def step(model, optimizer, x):
            loss, grads = nnx.value_and_grad(lambda m: (m(x)['a'] ** 2).mean())(model)
            optimizer.update(model, grads)
            return loss
        cached = nnx.cached_partial(step, model, optimizer)
        result = [cached(x), cached(x + 1), nnx.state(model)]
        """,
    "ModelAndOptimizer": """
        both = nnx.ModelAndOptimizer(model, optax.adam(1e-2))
        @nnx.jit
        def step(both, x):
            loss, grads = nnx.value_and_grad(lambda m: (m(x)['a'] ** 2).mean())(both.model)
            both.update(grads)
            return loss
        result = [step(both, x), step(both, x), nnx.state(model), both.model is model]
        """,
    "TrainState": """
        class TrainState(nnx.TrainState[nnx.Linear]):
            stats: nnx.State
        model.eval()
        graphdef, params, stats, rest = nnx.split(model, nnx.Param, nnx.BatchStat, ...)
        state = TrainState.create(graphdef, params=params, tx=optax.adam(1e-2), stats=stats)
        @jax.jit
        def step(state, x):
            def loss(params):
                y, updates = state.apply(params, 'stats', rest)(x)
                return (y['a'] ** 2).mean(), nnx.split_state(updates[1], nnx.BatchStat, ...)[0]
            grads, stats = jax.grad(loss, has_aux=True)(state.params)
            return state.apply_gradients(grads, stats=stats)
        state = step(step(state, x), x)
        result = [state.params, state.stats, state.step, nnx.merge(state.graphdef, state.params, state.stats, rest)(x)]
        """,
    "unpack": """
        params, rest = nnx.unpack(model, nnx.Param, ...)
        params = jax.tree.map(lambda p: 2 * p, params)
        result = [nnx.state(nnx.merge(params, rest)), nnx.merge(nnx.unpack(model))(x)]
        """,
    "flatten and unflatten": """
        graphdef, flat = nnx.graphlib.flatten(model)
        result = [list(flat.paths), flat.leaves, nnx.unflatten(graphdef, flat)(x),
                  nnx.flatten(model, with_paths=False)[1]]
        """,
    "a single Variable": """
        v = nnx.Param(jnp.ones(2))
        graphdef, state = nnx.split(v)
        nnx.update(v, nnx.Param(jnp.zeros(2)))
        result = [type(state).__name__, nnx.merge(graphdef, state)[...], v[...]]
        """,
    "trees of modules": """
        a = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
        graphdef, state = nnx.split({'x': a, 'y': [a, nnx.Param(jnp.ones(1))]})
        tree = nnx.merge(graphdef, state)
        result = [state, tree['x'] is tree['y'][0], nnx.state([a], nnx.Param)]
        """,
    "a State of a State": """
        grads = nnx.grad(lambda m: m(x)['a'].sum())(model)
        result = [nnx.state(grads), nnx.state(grads, nnx.Param), nnx.state(nnx.state(model), nnx.BatchStat)]
        """,
    "names of Variable types": """
        @nnx.register_variable_name('noise_of_' + str(id(nnx)))
        class Noise(nnx.Variable): pass
        result = [nnx.variable_name_from_type(nnx.Param), nnx.variable_type_from_name('cache') is nnx.Cache,
                  nnx.variable_type_from_name('noise_of_' + str(id(nnx))) is Noise]
        """,
    "filters": """
        f = nnx.filterlib.to_predicate(nnx.Any(nnx.BatchStat, nnx.PathContains('hea', exact=False)))
        flat = nnx.to_flat_state(nnx.state(model))
        result = [[f(p, v) for p, v in flat],
                  [nnx.filterlib.PathIn(('heads', 'a', 'bias'))(p, v) for p, v in flat],
                  [nnx.filterlib.filters_to_predicates((nnx.Param, ...))[0](p, v) for p, v in flat],
                  nnx.state(model, nnx.PathContains('norm')), nnx.Everything()((), 1), nnx.Nothing()((), 1)]
        """,
    "custom_vjp": """
        @nnx.custom_vjp
        def f(m, x):
            return m(x).sum()
        def fwd(m, x):
            return f(m, x), (m, x)
        def bwd(res, g):
            (m_g, x_g), out_g = g
            m, x = res
            m_g['bias'][...] = out_g * m.bias + 1
            m_g['kernel'][...] = 2 * m.kernel
            return m_g, 2 * x * out_g
        f.defvjp(fwd, bwd)
        m = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
        result = [f(m, x), nnx.grad(lambda m, x: 3 * f(m, x), argnums=(0, 1))(m, x)]
        """,
    "custom_vjp without updates": """
        @nnx.custom_vjp(nondiff_argnums=(1,), graph_updates=False)
        def f(m, n):
            return n * m.bias.sum()
        def fwd(m, n):
            return f(m, n), m
        def bwd(n, m, g):
            return (jax.tree.map(lambda p: n * g + p, nnx.state(m)),)
        m = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
        f.defvjp(fwd, bwd)
        result = [f(m, 2)]
        """,
    "partition specs under rules": """
        with nnx.use_eager_sharding(False):
            m = nnx.Linear(2, 4, rngs=nnx.Rngs(0),
                           kernel_init=nnx.with_partitioning(nnx.initializers.lecun_normal(), ('embed', None)))
        with nnx.logical_axis_rules([('embed', 'model')]):
            specs = nnx.get_partition_spec(nnx.state(m))
        result = [m.kernel.out_sharding, specs.kernel.value, specs.bias.value, m.kernel[...]]
        """,
    "abstract models": """
        mesh = jax.make_mesh((1, 1), ('data', 'model'), axis_types=(jax.sharding.AxisType.Auto,) * 2)
        make = lambda: nnx.Linear(2, 4, rngs=nnx.Rngs(0),
                                  kernel_init=nnx.with_partitioning(nnx.initializers.lecun_normal(), (None, 'model')))
        graphdef, abstract = nnx.get_abstract_model(make, mesh)
        with jax.set_mesh(mesh):
            other = nnx.as_abstract(nnx.eval_shape(make))
        describe = lambda v: (v.shape, str(v.dtype), v.sharding.spec)
        result = [describe(abstract.kernel.value), describe(abstract.bias.value), describe(other.kernel.value)]
        """,
}


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", quick(PROGRAMS, most=12))
def test_the_same_text_gives_the_same_result(name):
    program = PROGRAMS[name]
    lines = program if program.startswith("\n") else f"\n{program}\n"
    indent = next(len(line) - len(line.lstrip()) for line in lines.split("\n") if line.strip())
    body = "\n".join(line[indent:] for line in lines.split("\n"))
    assert_equal_in_both(SETUP + body)
