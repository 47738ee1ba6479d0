"""A Stack acts like the Python list of its layers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.quick import quick
from tests.raising import raises

import liftnn
from liftnn import Carry, errors

N = 3
X = jnp.sin(jnp.arange(12.0)).reshape(3, 4)


class Block(liftnn.Module):
    """Everything that differs between layers: weights, statistics, random streams."""

    def __init__(self, rngs, **metadata):
        self.linear = liftnn.Linear(4, 4, kernel_metadata=metadata, rngs=rngs)
        self.norm = liftnn.BatchNorm(4, rngs=rngs)
        self.dropout = liftnn.Dropout(0.5, rngs=rngs)

    def __call__(self, x, scale=1.0, *, residual=True):
        y = self.dropout(jnp.tanh(self.norm(self.linear(x))))
        return x + scale * y if residual else y


class Listed(liftnn.Module):
    """The oracle: a Python list of layers, with the weights that the documentation of Stack promises."""

    def __init__(self, make, rngs):
        keys = {name: jax.random.split(rngs[name](), N) for name in rngs}
        self.layers = [make(liftnn.Rngs({name: k[i] for name, k in keys.items()})) for i in range(N)]

    def __call__(self, x, *args, **kwargs):
        for layer in self.layers:
            x = layer(x, *args, **kwargs)
        return x


def pair(make=Block, **options):
    seeds = {"params": 0, "dropout": 1}
    return liftnn.Stack(N, make, rngs=liftnn.Rngs(seeds), **options), Listed(make, liftnn.Rngs(seeds))


def values(tree):
    """Arrays by path; keys as their data."""
    flat = {path: x.value for path, x in liftnn.state(tree).flat().items()}
    return {
        path: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        for path, x in flat.items()
    }


def assert_equal(stacked, layers, exact=True):
    """The values of a module with stacked layers, or their gradients, are those of a list."""
    for path, x in stacked.items():
        expected = np.stack([np.asarray(layer[path]) for layer in layers])
        assert x.shape == expected.shape
        if exact:
            np.testing.assert_array_equal(x, expected, err_msg=str(path))
        else:  # XLA fuses other operations in a loop than in plain code
            np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-6, err_msg=str(path))


def test_initial_values_are_those_of_a_list_made_with_split_keys():
    stack, listed = pair()
    assert_equal(values(stack.layers), [values(layer) for layer in listed.layers])


@pytest.mark.thorough
def test_outputs_statistics_and_dropout_masks_are_those_of_the_list():
    stack, listed = pair()
    run = liftnn.jit(lambda model, x: model(x, 0.3))
    for _ in range(2):
        np.testing.assert_array_equal(run(stack, X), run(listed, X))
    assert_equal(values(stack.layers), [values(layer) for layer in listed.layers], exact=False)
    assert stack.layers.dropout.rngs.count.value.tolist() == [2] * N
    stack.eval()
    listed.eval()
    np.testing.assert_allclose(run(stack, X), run(listed, X), rtol=1e-5)
    np.testing.assert_allclose(stack(X, 0.3), run(listed, X), rtol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "options",
    quick(
        [{"remat": jax.checkpoint_policies.dots_saveable}, {}, {"remat": True, "unroll": 2}, {"unroll": True}]
    ),
)
def test_gradients_are_those_of_the_list(options):
    stack, listed = pair(**options)
    grads = liftnn.jit(liftnn.grad(lambda model, x: (model(x, scale=0.3) ** 2).sum()))
    mine, theirs = grads(stack, X)["layers"], grads(listed, X)["layers"]
    assert_equal(
        {path: x.value for path, x in mine.flat().items()},
        [{path: x.value for path, x in theirs[i].flat().items()} for i in range(N)],
        exact=False,
    )
    assert_equal(values(stack.layers), [values(layer) for layer in listed.layers], exact=False)


class Cached(liftnn.Module):
    """A layer with an input and an output of its own, and a method besides the call."""

    def __init__(self, rngs):
        self.scale = liftnn.Param(rngs.params.normal((4,)))

    def __call__(self, x, cache, bias):
        cache = cache + x
        return jnp.tanh(x * self.scale + cache + bias), cache

    def decode(self, x):
        return x / self.scale


@pytest.mark.thorough
def test_inputs_and_outputs_of_each_layer_are_stacked():
    stack, listed = pair(Cached, in_axes=(Carry, 0), out_axes=(Carry, 0))
    caches = jnp.arange(N * 12.0).reshape(N, 3, 4)
    x, expected = X, []
    for layer, cache in zip(listed.layers, caches, strict=True):
        x, new = layer(x, cache, 0.5)
        expected.append(new)
    y, new = stack(X, caches, 0.5)
    np.testing.assert_allclose(y, x, rtol=1e-6)
    np.testing.assert_allclose(new, jnp.stack(expected), rtol=1e-6)


def test_another_method_or_function_is_applied_to_each_layer():
    stack, listed = pair(Cached)
    x, count = X, 0
    for layer in listed.layers:
        x = layer.decode(x)
    np.testing.assert_allclose(stack.apply(Cached.decode, X), x, rtol=1e-6)

    def double(layer, x):
        nonlocal count
        count += 1
        layer.scale *= 2
        return x

    stack.apply(double, X)
    assert_equal(values(stack.layers), [{("scale",): 2 * layer.scale.value} for layer in listed.layers])
    assert count == 1


def test_a_stream_that_all_layers_share_gives_each_its_own_key():
    stack = liftnn.Stack(N, lambda: liftnn.Dropout(0.5))
    ones = jnp.ones((50,))
    rngs, reference = liftnn.Rngs(0), liftnn.Rngs(0)
    y = stack(ones, rngs=rngs)
    layer, expected = liftnn.Dropout(0.5), ones
    for _ in range(N):
        expected = layer(expected, rngs=reference)
    np.testing.assert_array_equal(y, expected)
    assert int(rngs.default.count) == int(reference.default.count) == N


@pytest.mark.thorough
def test_a_layer_is_a_view():
    stack, listed = pair()
    for i, layer in enumerate(listed.layers):
        assert_equal({p: x[None] for p, x in values(stack[i]).items()}, [values(layer)])
    stack[1].linear.bias.value = jnp.arange(4.0)
    stack[-1].linear.bias[1] = 5.0
    np.testing.assert_array_equal(stack.layers.linear.bias.value, [[0, 0, 0, 0], [0, 1, 2, 3], [0, 5, 0, 0]])
    stack.eval()
    listed.eval()
    listed.layers[1].linear.bias.value = jnp.arange(4.0)
    np.testing.assert_array_equal(stack[1](X), listed.layers[1](X))
    assert [type(layer) for layer in stack] == [Block] * N
    assert len(stack) == len(stack[:]) == N


@pytest.mark.thorough
def test_a_view_is_read_and_written_in_transforms():
    stack, listed = pair()

    @liftnn.jit
    def step(model, x):
        y = model[1](x)
        model[0].linear.bias += 1.0
        return y

    y = step(stack, X)
    np.testing.assert_allclose(y, listed.layers[1](X), rtol=1e-6)
    assert stack.layers.dropout.rngs.count.value.tolist() == [0, 1, 0]
    assert stack.layers.linear.bias.value.sum(1).tolist() == [4, 0, 0]
    view = stack[2]
    liftnn.jit(lambda: view(X))()
    liftnn.jit(lambda view: view(X))(view)
    assert stack.layers.dropout.rngs.count.value.tolist() == [0, 1, 2]


@pytest.mark.thorough
def test_layers_are_assigned_and_converted():
    stack, listed = pair()
    stack.layers.linear.kernel.value = jnp.zeros((N, 4, 4))
    stack[0] = listed.layers[0]
    stack[1:] = listed.layers[1:]
    expected = [values(layer) for layer in listed.layers]
    assert_equal(values(stack.layers), expected)
    assert_equal(values(liftnn.Stack.from_list(listed.layers).layers), expected)
    copies = stack.to_list()
    copies[0].linear.bias.value = jnp.ones(4)
    copies[0].name = "a copy"
    assert float(stack.layers.linear.bias.value.sum()) == 0


@pytest.mark.thorough
def test_stacks_of_stacks():
    def make(rngs):
        return liftnn.Stack(2, Block, rngs=rngs)

    stack, listed = pair(make)
    run = liftnn.jit(lambda model, x: model(x, scale=0.3))
    np.testing.assert_allclose(run(stack, X), run(listed, X), rtol=1e-5)
    stack[1][0].linear.bias.value = jnp.ones(4)
    assert stack.layers.layers.linear.bias.value.sum(-1).tolist() == [[0, 0], [4, 0], [0, 0]]


def test_what_layers_record_is_stacked():
    class Recorder(liftnn.Module):
        def __call__(self, x):
            self.sow(liftnn.Intermediate, "seen", x)
            return 2 * x

    stack = liftnn.Stack(N, Recorder)
    stack(jnp.array(1.0))
    assert liftnn.pop(stack, liftnn.Intermediate)["layers"]["seen"].value[0].tolist() == [1, 2, 4]


def test_the_axis_of_the_layers_is_in_the_metadata():
    named = {liftnn.PARTITION_NAME: "layers"}

    def make(rngs):
        return Block(rngs, sharding=("in", "out"))

    stack = liftnn.Stack(N, make, rngs=liftnn.Rngs(0), transform_metadata=named)
    assert stack.layers.linear.kernel.sharding == ("layers", "in", "out")
    assert stack[0].linear.kernel.sharding == ("in", "out")
    seen = []
    stack.apply(lambda layer, x: seen.append(layer.linear.kernel.sharding) or x, X)
    assert seen == [("in", "out")]
    again = liftnn.Stack.from_list(stack.to_list(), transform_metadata=named)
    assert liftnn.split(again)[-1] == liftnn.split(stack)[-1]


def test_a_stack_of_any_depth_is_traced_in_one_step():
    counts = {}

    class Counted(liftnn.Module):
        def __init__(self, rngs):
            counts["made"] = counts.get("made", 0) + 1
            self.linear = liftnn.Linear(4, 4, rngs=rngs)

        def __call__(self, x):
            counts["called"] = counts.get("called", 0) + 1
            return self.linear(x)

    model = liftnn.eval_shape(lambda: liftnn.Stack(100, Counted, rngs=liftnn.Rngs(0)))
    assert model.layers.linear.kernel.value.shape == (100, 4, 4)
    liftnn.jit(lambda model, x: model(x)).trace(model, X)
    assert counts == {"made": 1, "called": 1}


def test_repeated_eager_calls_are_traced_once():
    count = 0

    class Counted(liftnn.Module):
        def __init__(self):
            self.calls = liftnn.Variable(jnp.array(0))

        def __call__(self, x, k):
            nonlocal count
            count += 1
            self.calls += 1
            return x * k

    stack = liftnn.Stack(N, Counted)
    assert [float(stack(jnp.array(1.0), 2)) for _ in range(3)] == [8, 8, 8]
    assert count == 1
    assert float(stack(jnp.array(1.0), 3)) == 27
    assert stack.layers.calls.value.tolist() == [4] * N


def test_a_failing_layer_leaves_the_stack_as_it_was():
    stack, _ = pair()
    before = values(stack)

    def fail(layer, x):
        layer.linear.bias += 1
        raise KeyError("half way")

    with pytest.raises(KeyError):
        stack.apply(fail, X)
    assert_equal({p: x[None] for p, x in values(stack).items()}, [before])


def test_attributes_of_a_view_cannot_be_assigned():
    stack, _ = pair()
    with raises(
        errors.TraceContextError,
        "Cannot change the attribute 'mode' of a Block here: it is one layer of a Stack, and the layers of a Stack "
        "differ only in the values of Variables and arrays.\n"
        "Change `stack.layers`, the module that holds all layers, or assign a layer: `stack[i] = layer`.",
    ):
        stack[0].mode = "eval"


def test_a_value_of_another_shape_is_refused():
    stack, _ = pair()
    with raises(
        errors.StructureError,
        "A layer of a Stack cannot be changed to float32[3]: in all its layers the value is float32[4].\n"
        "Assign a value of the same shape and dtype, or make a new Stack.",
    ):
        stack[0].linear.bias.value = jnp.ones(3)


def test_other_layers_are_refused():
    stack, listed = pair()
    listed.layers[1].dropout.rate = 0.25
    before = values(stack)
    message = (
        "{} differ in more than values:\n  dropout.rate: 0.5 -> 0.25\n"
        "The layers of a Stack have the same class, attributes and shapes. Use a list for other layers."
    )
    with raises(errors.StructureError, message.format("The layers of the Stack and the new layer 1")):
        stack[:] = listed.layers
    with raises(errors.StructureError, message.format("Layer 0 and layer 1")):
        liftnn.Stack.from_list(listed.layers)
    assert_equal({p: x[None] for p, x in values(stack).items()}, [before])


def test_shared_weights_are_refused():
    layer = liftnn.PReLU()
    with raises(
        errors.AliasingError,
        "The layers share a Param: layers[0].negative_slope is layers[1].negative_slope. Each layer of a Stack has its "
        "own values.\n"
        "Pass copies (`liftnn.clone`), or pass what the layers share as an argument of their call.",
    ):
        liftnn.Stack.from_list([layer, layer])


@pytest.mark.parametrize("n", [0, -1, True, 2.0, "3"])
def test_a_number_of_layers_that_is_not_positive_is_refused(n):
    with raises(
        errors.ArgumentError,
        f"A Stack needs at least one layer, but n is {n!r}.\nPass a positive int, such as 12.",
    ):
        liftnn.Stack(n, Block, rngs=liftnn.Rngs(0))


@pytest.mark.parametrize("first", [Block, lambda rngs: Block(rngs)])
def test_the_class_of_a_layer_in_place_of_their_number_is_refused(first):
    with raises(
        errors.ArgumentTypeError,
        "Stack got the class or function that creates a layer as its first argument.\n"
        "Write `Stack(n, make, rngs=rngs)`: the number of layers comes first.",
    ):
        liftnn.Stack(first, 3, rngs=liftnn.Rngs(0))


@pytest.mark.parametrize("kind", [list, tuple])
def test_layers_in_place_of_their_number_are_refused(kind):
    with raises(
        errors.ArgumentTypeError,
        f"The number of layers of a Stack must be an int, not a {kind.__name__}.\n"
        "Write `Stack.from_list(layers)` to stack existing layers.",
    ):
        liftnn.Stack(kind([Block(liftnn.Rngs(0))]), Block)


def test_wrong_arguments_are_refused():
    with raises(
        errors.ArgumentError,
        "Stack needs a liftnn.Rngs or one of its streams, but rngs is of type int.\n"
        "Pass rngs=liftnn.Rngs(0), where 0 is the seed.",
    ):
        liftnn.Stack(2, Block, rngs=0)
    with raises(
        errors.ArgumentError,
        "Stack needs a function that makes a module, but it returned an object of type ArrayImpl.\n"
        "Pass the class of the layer, or a function such as lambda rngs: Block(64, rngs=rngs).",
    ):
        liftnn.Stack(2, lambda: jnp.ones(3))
    stack = liftnn.Stack(2, liftnn.PReLU)
    with raises(
        errors.LayerIndexError,
        "This Stack has 2 layers, but layer -3 was accessed.\nUse a position from `-len(stack)` to `len(stack) - 1`.",
    ):
        stack[-3]
    with raises(
        errors.ArgumentError,
        "Cannot assign 1 layers to 2 layers of a Stack: its length is fixed.\n"
        "Assign as many layers as the slice has, or make a new Stack with Stack.from_list.",
    ):
        stack[:] = [liftnn.PReLU()]


def test_a_call_records_no_internal_methods():
    stack, _ = pair()
    _, found = liftnn.capture(stack, liftnn.Intermediate, method_outputs=liftnn.Intermediate)(X)
    assert ("__call__",) in found.flat()
    assert ("apply",) not in found.flat()
