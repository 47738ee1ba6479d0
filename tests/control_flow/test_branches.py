"""`cond` and `switch` against the branch called in plain Python."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import pytest
from tests.same import assert_same, has_tracer
from tests.user_modules import Affine, Holder, Pair

import liftnn

X = jnp.linspace(-1.0, 1.0, 3)


class Net(liftnn.Module):
    """A module whose methods write different things."""

    def __init__(self):
        self.a = liftnn.Param(jnp.ones(3))
        self.b = liftnn.BatchStat(jnp.zeros(3))
        self.c = liftnn.Param(jnp.full(3, 2.0))
        self.scale = jnp.ones(3)
        self.items = [jnp.zeros(2), {"k": jnp.ones(1)}]
        self.rngs = liftnn.Rngs(0)

    def write_a(self, x):
        self.a.value = self.a * x
        return x + self.c

    def write_b(self, x):
        self.b.value = self.b - x
        self.scale = self.scale * 3
        return x * 2

    def write_lists(self, x):
        self.items[0] = self.items[0] + 1
        self.items[1]["k"] = self.items[1]["k"] * 2
        return x + jax.random.normal(self.rngs(), (3,))

    def read(self, x):
        return x * self.a


METHODS = [Net.write_a, Net.write_b, Net.write_lists, Net.read]


@pytest.mark.parametrize("wrap", [lambda f: f, liftnn.jit], ids=["plain", "jit"])
@pytest.mark.parametrize("index", range(4))
@pytest.mark.sample(3)
def test_switch_is_the_branch_it_chooses(wrap, index):
    net, reference = Net(), Net()
    call = wrap(lambda net, index, x: liftnn.switch(index, METHODS, net, x))
    for _ in range(2):
        assert_same(call(net, jnp.array(index), X), METHODS[index](reference, X))
        assert_same(net, reference)


@pytest.mark.parametrize("disable", [False, True])
def test_switch_takes_an_iterator_of_branches(disable):
    net, reference = Net(), Net()
    with jax.disable_jit(disable):
        assert_same(liftnn.switch(1, iter(METHODS), net, X), METHODS[1](reference, X))
        assert_same(net, reference)
        assert_same(liftnn.switch(1, iter([jnp.sin, jnp.cos]), X), jnp.cos(X))


@pytest.mark.parametrize("pred", [True, False, 1, 0.0, jnp.array(True), liftnn.Variable(jnp.array(False))])
def test_cond_takes_any_scalar(pred):
    net, reference = Net(), Net()
    out = liftnn.cond(pred, Net.write_a, Net.write_b, net, X)
    chosen = Net.write_a if bool(pred) else Net.write_b
    assert_same(out, chosen(reference, X))
    assert_same(net, reference)


@pytest.mark.parametrize("index", [-3, 7])
def test_an_index_out_of_range_is_clamped(index):
    branches = [lambda: 0, lambda: 1, lambda: 2]
    assert int(liftnn.switch(index, branches)) == int(jax.lax.switch(index, branches))


def test_bound_methods_partials_and_modules_are_lifted():
    net, reference, model = Net(), Net(), Affine(2.0)
    for index in range(4):
        branches = [
            net.write_a,
            functools.partial(Net.write_b, net),
            functools.partial(net.write_lists, x=X),
            model,
        ]
        operands = () if index == 2 else (X,)
        branches = [branches[index], branches[index]]
        liftnn.switch(0, branches, *operands)
    for method in METHODS[:3]:
        method(reference, X)
    assert_same(net, reference)
    assert int(model.calls.value) == 1


def test_each_branch_may_be_another_module():
    experts = [Affine(1.0), Affine(2.0), Affine(3.0)]
    out = liftnn.switch(1, experts, X)
    assert out.tolist() == (2 * X).tolist()
    assert [int(e.calls.value) for e in experts] == [0, 1, 0]


@pytest.mark.parametrize("first", [True, False])
def test_a_clone_in_each_branch_returns_the_values_of_the_chosen_module(first):
    one, two = Affine(2.0), Affine(3.0)
    chosen = liftnn.cond(first, lambda: liftnn.clone(one), lambda: liftnn.clone(two))
    assert chosen.w.value.tolist() == (one if first else two).w.value.tolist()
    assert chosen is not one
    assert chosen is not two


def test_a_module_that_both_branches_share_is_one_object():
    pair, reference = Pair(), Pair()

    def check(pair, first):
        assert pair.first is first
        first.w.value = first.w * 2
        return pair, first

    out, first = liftnn.cond(True, check, lambda p, f: (p, f), pair, pair.first)
    assert out is pair
    assert first is pair.first
    reference.first.w.value = reference.first.w * 2
    assert_same(pair, reference)


def test_branches_that_change_structure_alike():
    def grow(value, net, x):
        net.layers.append(Affine(value))
        net.mode = "grown"
        net.layers[0].w.role = "first"
        del net.spare
        return net.layers[-1]

    net = Holder(layers=[Affine()], spare=liftnn.Param(1.0), mode="new")
    made = liftnn.cond(False, functools.partial(grow, 2.0), functools.partial(grow, 3.0), net, X)
    assert made is net.layers[1]
    assert made.w.value.tolist() == [3.0] * 3
    assert (net.mode, net.layers[0].w.role, hasattr(net, "spare")) == ("grown", "first", False)


@pytest.mark.sample(4)
@pytest.mark.parametrize("index", range(4))
def test_gradients_are_those_of_the_branch(index):
    def loss(net, x):
        return (liftnn.switch(index, METHODS, net, x) * net.a).sum()

    net, reference = Net(), Net()
    grads = liftnn.jit(liftnn.grad(loss))(net, X)
    expected = liftnn.grad(lambda net, x: (METHODS[index](net, x) * net.a).sum())(reference, X)
    assert_same(grads, expected)
    assert_same(net, reference)


def test_under_vmap_each_element_takes_its_own_branch():
    nets = liftnn.vmap(lambda _: Net(), axis_size=2, in_axes=None)(0)
    choose = liftnn.vmap(
        lambda index, net, x: liftnn.switch(index, METHODS[:2], net, x), in_axes=(0, 0, None)
    )
    out = choose(jnp.array([1, 0]), nets, X)
    for lane, method in enumerate([Net.write_b, Net.write_a]):
        reference = Net()
        assert_same(out[lane], method(reference, X))
        for name in ("a", "b"):
            assert_same(getattr(nets, name).value[lane], getattr(reference, name).value)
        assert_same(nets.scale[lane], reference.scale)


def test_what_no_branch_writes_does_not_come_out():
    net = Net()
    state, graphdef = liftnn.split(net)

    def f(pred, state):
        return liftnn.cond(pred, Net.read, Net.write_a, graphdef.merge(state), X)

    (cond,) = [e for e in jax.make_jaxpr(f)(True, state).jaxpr.eqns if e.primitive.name == "cond"]
    assert [v.aval.shape for v in cond.outvars] == [(3,), (3,)]


def test_a_branch_is_traced_once():
    traces = []

    def branch(net, x):
        traces.append(1)
        return net.write_a(x)

    nested = functools.partial(liftnn.cond, True, branch, Net.read)
    liftnn.jit(lambda net, x: liftnn.cond(x[0] > 0, nested, Net.read, net, x))(Net(), X)
    assert len(traces) == 1


def test_outer_tracers_may_be_closed_over():
    with jax.checking_leaks():
        f = lambda s: liftnn.cond(s > 0, lambda m: (m.w * s).sum(), lambda m: 0.0, Affine(2.0))  # noqa: E731
        assert float(liftnn.grad(f)(3.0)) == 6.0


def test_an_exception_in_a_branch_leaves_everything_as_it_was():
    net, reference = Net(), Net()

    def fails(net, x):
        net.write_b(x)
        raise KeyError("half way")

    with pytest.raises(KeyError, match="half way"):
        liftnn.cond(True, Net.write_a, fails, net, X)
    assert_same(net, reference)
    assert not has_tracer(net)


@pytest.mark.parametrize("pred", [jnp.ones(2), "text", None])
def test_what_is_no_scalar_is_refused_as_by_jax(pred):
    with pytest.raises(TypeError, match=r"Pred must be a scalar|cond predicate is None"):
        liftnn.cond(pred, lambda: 0, lambda: 1)


def test_what_branches_capture_is_written_like_an_operand():
    net, other = Net(), Affine(3.0)
    reference = Net()
    for pred in (True, False):
        liftnn.cond(pred, lambda x: net.write_a(x), lambda x: other(x), X)
    reference.write_a(X)
    assert_same(net, reference)
    assert int(other.calls.value) == 1


def test_a_captured_module_is_found_without_a_second_trace():
    net, traces = Affine(2.0), []

    def branch(x):
        traces.append(1)
        return net(x)

    assert liftnn.cond(True, branch, lambda x: x, X).tolist() == (2 * X).tolist()
    assert (len(traces), int(net.calls.value)) == (1, 1)


OLD_FORM = {
    "numbers": (3.0, lambda x: x * 3, 4.0, lambda x: x * 4),
    "trees": ({"a": X}, lambda tree: tree["a"].sum(), (X, 2.0), lambda pair: (pair[0] * pair[1]).sum()),
    "None": (None, lambda none: 1.0, X, lambda x: x.sum()),
    "functions of JAX's": (X, jnp.sin, X, jnp.cos),
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("pred", [True, False, jnp.array(1.0)])
@pytest.mark.parametrize("name", OLD_FORM)
def test_cond_takes_an_operand_for_each_function_as_in_jax(name, pred):
    assert_same(liftnn.cond(pred, *OLD_FORM[name]), jax.lax.cond(pred, *OLD_FORM[name]))


@pytest.mark.parametrize("pred", [True, False])
def test_with_an_operand_for_each_function_one_of_the_modules_is_changed(pred):
    def double(holder):
        holder.model.w.value = holder.model.w * 2
        return holder.model.w.value

    first, second = Holder(model=Affine(1.0)), Holder(model=Affine(1.0))
    out = jax.jit(lambda: jnp.full(3, 2.0))()
    assert_same(liftnn.cond(pred, first, double, second, double), out)
    changed, unchanged = (first, second) if pred else (second, first)
    assert changed.model.w.value.tolist() == [2.0] * 3
    assert unchanged.model.w.value.tolist() == [1.0] * 3


@pytest.mark.parametrize("operand", [X, None, (X, 1.0), {"a": X}], ids=["array", "None", "tuple", "dict"])
def test_the_keyword_operand_is_one_operand_as_in_jax(operand):
    f, g = (lambda tree: jax.tree.map(jnp.sin, tree)), (lambda tree: jax.tree.map(jnp.cos, tree))
    for pred in (True, False):
        assert_same(liftnn.cond(pred, f, g, operand=operand), jax.lax.cond(pred, f, g, operand=operand))
        ours, theirs = (of(int(pred), [f, g], operand=operand) for of in (liftnn.switch, jax.lax.switch))
        assert_same(ours, theirs)


@pytest.mark.parametrize(
    "call",
    [
        lambda of: of.cond(True, jnp.sin, jnp.cos, X, operand=X),
        lambda of: of.cond(True, X, jnp.sin, jnp.cos),
        lambda of: of.cond(True, X, jnp.sin, X, X),
        lambda of: of.cond(True, jnp.sin, X, X),
        lambda of: of.switch(0, [jnp.sin, jnp.cos], X, operand=X),
        lambda of: of.switch(0, [jnp.sin, X], X),
    ],
)
def test_functions_and_operands_that_jax_does_not_take_are_a_type_error(call):
    for of in (jax.lax, liftnn):
        with pytest.raises(TypeError):
            call(of)
