from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import liftnn
from liftnn import errors


def build(library):
    rngs = library.Rngs(0)
    return library.Sequential(
        library.Linear(3, 8, rngs=rngs),
        library.relu,
        library.Dropout(0.5, rngs=rngs),
        library.Linear(8, 2, rngs=rngs),
    )


@pytest.mark.thorough
def test_layers_and_functions_are_applied_in_order_as_in_flax(rand, close):
    close(build(liftnn)(rand(4, 3)), build(nnx)(rand(4, 3)))


def test_tuples_are_passed_on_as_positional_and_dicts_as_keyword_arguments():
    model = liftnn.Sequential(
        lambda x: (x, 2 * x), lambda a, b: {"c": a + b}, lambda c: [c], lambda sequence: sequence[0] + 1
    )
    assert model(1) == 4


def test_the_first_function_gets_all_arguments():
    assert liftnn.Sequential(lambda a, *, b: a - b)(5, b=2) == 3


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    "args, kwargs, result",
    [((1,), {}, 1), ((1, 2), {}, (1, 2)), ((), {"a": 1}, {"a": 1}), ((), {}, None), ((0,), {}, 0)],
)
def test_without_functions_the_arguments_come_back_as_in_flax(args, kwargs, result):
    assert liftnn.Sequential()(*args, **kwargs) == result
    assert nnx.Sequential()(*args, **kwargs) == result


def test_rngs_goes_to_the_functions_that_take_it(rand, close):
    model, flax = (
        library.Sequential(library.relu, library.Dropout(0.5), jnp.sin, library.Dropout(0.5))
        for library in (liftnn, nnx)
    )
    close(model(rand(64), rngs=liftnn.Rngs(0)), flax(rand(64), rngs=nnx.Rngs(0)))


def test_rngs_is_not_given_to_functions_without_a_signature():
    rngs = liftnn.Rngs(0)
    assert liftnn.Sequential(max, lambda x, **kwargs: (x, kwargs))(3, 4, rngs=rngs) == (4, {"rngs": rngs})


class Scaled(liftnn.Module):
    def __call__(self, x, mask=None, *, scale=1.0):
        return scale * (x if mask is None else x * mask)


def test_keyword_arguments_go_to_all_functions_that_have_such_a_parameter(rand, close):
    """Oracle: the calls one after the other. An outer Sequential asks the functions of an inner one."""
    layer, linear = Scaled(), liftnn.Linear(3, 3, rngs=liftnn.Rngs(0))
    x, mask = rand(4, 3), jnp.arange(3) % 2
    expected = layer(linear(layer(x, mask, scale=2.0)), mask, scale=2.0)
    flat = liftnn.Sequential(layer, linear, jnp.array, layer)
    nested = liftnn.Sequential(liftnn.Sequential(layer, linear), liftnn.Sequential(jnp.array, layer))
    for model in (flat, nested):
        close(model(x, mask=mask, scale=2.0), expected)
        close(liftnn.jit(lambda m, x, mask: m(x, mask=mask, scale=2.0))(model, x, mask), expected)


def test_a_parameter_that_has_a_positional_argument_gets_no_keyword_argument(rand, close):
    linear = liftnn.Linear(3, 3, rngs=liftnn.Rngs(0))
    close(liftnn.Sequential(linear, linear)(inputs=rand(2, 3)), linear(linear(rand(2, 3))))
    with pytest.raises(TypeError, match="got multiple values for argument 'x'"):
        liftnn.Sequential(lambda x: x, lambda y: y)(1, x=2)


def test_functions_with_any_keyword_arguments_get_all_that_are_left():
    seen = []

    def consume(a, b, **others):
        seen.append(others)
        return a + b

    model = liftnn.Sequential(lambda x, *, scale=1: {"a": x * scale, "b": 1}, consume)
    assert model(3, scale=2, tag="t") == 7
    assert seen == [{"scale": 2, "tag": "t"}]


def test_a_keyword_argument_that_no_function_has_raises_before_any_is_called():
    calls = []
    model = liftnn.Sequential(liftnn.Linear(3, 3, rngs=liftnn.Rngs(0)), lambda x, mask=None: calls.append(x))
    with pytest.raises(errors.ArgumentTypeError, match="unexpected keyword argument 'maks'"):
        model(jnp.ones((1, 3)), maks=1)
    with pytest.raises(errors.ArgumentTypeError, match="unexpected keyword argument 'deterministic'"):
        liftnn.Sequential(model, liftnn.relu)(jnp.ones((1, 3)), deterministic=True)
    assert not calls


def test_an_argument_from_a_dict_and_from_the_call_is_refused():
    model = liftnn.Sequential(lambda x: {"x": x, "scale": 3.0}, lambda x, scale=1.0: x * scale)
    assert model(2) == 6
    with pytest.raises(errors.ArgumentTypeError) as info:
        model(2, scale=2.0)
    assert str(info.value) == (
        "Got multiple values for arguments ['scale'] in Sequential[1]: both the output of the previous function and "
        "the call have them.\nPass one of the two under another name."
    )


def test_layers_is_a_list_that_can_be_changed():
    model = liftnn.Sequential(lambda x: x + 1)
    model.layers.append(lambda x: 10 * x)
    assert model(1) == 20
    del model.layers[0]
    assert model(1) == 10


def test_train_and_eval_reach_the_layers():
    model = build(liftnn)
    model.eval()
    assert model.layers[2].deterministic is True


def test_something_that_cannot_be_called_is_refused_with_its_position():
    with pytest.raises(errors.ArgumentError) as info:
        liftnn.Sequential(liftnn.relu, 3)
    assert str(info.value) == (
        "Entry 1 of a Sequential is not a function or module, but of type int.\n"
        "Pass the layers one by one, as in Sequential(layer, relu), or unpack a list with *."
    )


def test_something_that_cannot_be_called_added_later_is_refused_by_the_call():
    model = liftnn.Sequential(lambda x: x)
    model.layers.append(None)
    with pytest.raises(errors.ArgumentError, match="Entry 1 of a Sequential is not a function or module"):
        model(1)


def build_classifier(library, flatten):
    rngs = library.Rngs(0)
    return library.Sequential(
        library.Conv(1, 4, (3, 3), strides=2, rngs=rngs),
        library.BatchNorm(4, rngs=rngs),
        library.relu,
        library.Dropout(0.25, rngs=rngs),
        flatten,
        library.Linear(64, 3, rngs=rngs),
    )


def train(library, model, x, labels):
    """Losses of four steps of gradient descent."""

    @library.jit
    def step(model, x, labels):
        def loss_fn(model):
            return -(library.log_softmax(model(x)) * library.one_hot(labels, 3)).sum(-1).mean()

        loss, grads = library.value_and_grad(loss_fn)(model)
        params = library.state(model, library.Param)
        library.update(model, jax.tree.map(lambda p, g: p - 0.1 * g, params, grads))
        return loss

    return jnp.stack([step(model, x, labels) for _ in range(4)])


@pytest.mark.thorough
def test_a_network_trains_as_in_flax(rand):
    def flatten(x):
        return x.reshape(len(x), -1)

    x, labels = rand(6, 8, 8, 1), jnp.array([0, 1, 2, 0, 1, 2])
    ours, theirs = build_classifier(liftnn, flatten), build_classifier(nnx, flatten)
    losses = train(liftnn, ours, x, labels)
    np.testing.assert_allclose(losses, train(nnx, theirs, x, labels), rtol=1e-5)
    assert losses[-1] < losses[0]
    np.testing.assert_allclose(ours.layers[1].mean.value, theirs.layers[1].mean[...], rtol=1e-4, atol=1e-6)


def test_a_sequential_is_a_sequence_of_its_layers():
    model = build(liftnn)
    assert len(model) == 4
    assert list(model) == model.layers
    assert model[0] is model.layers[0]
    assert model[-1] is model.layers[3]
    assert list(reversed(model)) == model.layers[::-1]
    assert liftnn.relu in model
    with pytest.raises(IndexError):
        model[4]


def test_a_slice_is_a_sequential_of_the_same_layers(rand, close):
    model = build(liftnn).eval()
    head, tail = model[:2], model[2:]
    assert type(head) is type(tail) is liftnn.Sequential
    assert head[0] is model[0]
    x = rand(4, 3)
    close(tail(head(x)), model(x))
    liftnn.jit(lambda head: head[0].bias.set_value(jnp.ones(8)))(head)
    assert model[0].bias.value.tolist() == [1] * 8


def test_entries_and_slices_are_assigned_and_deleted_as_in_a_list(rand, close):
    """Oracle: the list `layers`."""
    model, x = build(liftnn), rand(4, 3)
    f = liftnn.jit(lambda model, x: model(x))
    model[2] = liftnn.tanh
    close(f(model, x), model.layers[3](jnp.tanh(jax.nn.relu(model.layers[0](x)))))
    model[1:3] = [liftnn.sigmoid]
    assert model.layers[1:] == [liftnn.sigmoid, model[2]]
    close(f(model, x), model.layers[2](jax.nn.sigmoid(model.layers[0](x))))
    del model[1:]
    assert len(model) == 1
    close(f(model, x), model[0](x))


def test_a_layer_that_cannot_be_called_is_not_assigned():
    model = build(liftnn)
    before = list(model)
    with pytest.raises(errors.ArgumentError, match="Entry 1 of a Sequential"):
        model[1] = 3
    with pytest.raises(errors.ArgumentError, match="Entry 2 of a Sequential"):
        model[1:2] = [liftnn.relu, "relu"]
    assert list(model) == before


def test_a_sequential_is_assigned_inside_a_transform():
    model = build(liftnn)

    @liftnn.jit
    def f(model):
        model[0] = liftnn.Linear(3, 8, rngs=liftnn.Rngs(1))
        del model[3]

    f(model)
    assert len(model) == 3
    assert (model[0].kernel.value == liftnn.Linear(3, 8, rngs=liftnn.Rngs(1)).kernel.value).all()


def test_a_class_in_place_of_a_layer_is_refused():
    with pytest.raises(errors.ArgumentError) as info:
        liftnn.Sequential(liftnn.relu, liftnn.Linear)
    assert str(info.value) == (
        "Entry 1 of a Sequential is the class Linear, not a layer.\n"
        "Create the layer: `Linear(...)` in place of `Linear`."
    )
