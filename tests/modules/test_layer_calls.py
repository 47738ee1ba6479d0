"""Layers are named scopes in traces, and cost nothing elsewhere."""

from __future__ import annotations

import dataclasses
import dis
import functools
import inspect
import itertools
import re
import types

import jax
import jax.numpy as jnp
import pytest

import liftnn

X = jnp.ones((2, 3))


class Block(liftnn.Module):
    """A layer of the user's, with a docstring."""

    def __init__(self, rngs):
        self.linear = liftnn.Linear(3, 3, rngs=rngs)
        self.norms = {"after": liftnn.LayerNorm(3, rngs=rngs)}

    def __call__(self, x, scale: float = 2.0):
        """Apply the block."""
        return scale * self.norms["after"](self.linear(x))


def model():
    return liftnn.Sequential(*[Block(liftnn.Rngs(0)) for _ in range(2)])


def scopes(f, *args):
    """The name stacks of the operations of a function, without repetitions."""
    jaxpr = jax.make_jaxpr(f)(*args).jaxpr
    return list(dict.fromkeys(str(eqn.source_info.name_stack) for eqn in jaxpr.eqns))


def by_hand(x):
    """What the names should be, written with JAX's own function."""
    with jax.named_scope("Sequential"):
        for i in range(2):
            with jax.named_scope(f"layers[{i}]"):
                for name in ("linear", "norms['after']"):
                    with jax.named_scope(name):
                        x = x + 1
                x = x * 2
    return x


def test_operations_have_the_attributes_of_their_layers_as_scope():
    assert scopes(model(), X) == scopes(by_hand, X)


class Holder(liftnn.Module):
    """A layer that calls others, in any order, by functions that find them."""

    def __init__(self):
        self.made = {"first": [liftnn.Linear(3, 3, rngs=liftnn.Rngs(0)) for _ in range(3)]}
        self.layers = [liftnn.Linear(3, 3, rngs=liftnn.Rngs(0)) for _ in range(3)]
        self.shared = self.layers[2]

    def __call__(self, x, *calls):
        for call in calls:
            x = call(self)(x)
        return x


def made_now(holder):
    holder.new = liftnn.Linear(3, 3, rngs=liftnn.Rngs(0))
    return holder.new


def put_into_a_dict(holder):
    holder.made["second"] = liftnn.Linear(3, 3, rngs=liftnn.Rngs(0))
    return holder.made["second"]


CALLED = {
    "layers[0]": lambda h: h.layers[0],
    "layers[1]": lambda h: h.layers[1],
    "layers[2]": lambda h: h.shared,  # the first attribute that holds it
    "new": made_now,
    "made['second']": put_into_a_dict,
    "Linear": lambda h: h.made["first"][1],  # deeper than an entry of an attribute
}


@pytest.mark.parametrize("names", list(itertools.permutations(CALLED, 2)), ids=" ".join)
def test_layers_have_their_names_in_any_order_of_calls(names):
    calls = [CALLED[name] for name in names]
    step = liftnn.jit(lambda holder, x: holder(x, *calls))
    text = str(step.lower(Holder(), X).as_text(debug_info=True))
    found = re.findall(r"Holder/(.*?)/dot_general", text)
    assert list(dict.fromkeys(found)) == list(names)


def test_profiles_show_the_layers():
    text = liftnn.jit(lambda model, x: model(x)).lower(model(), X).compile().as_text()
    assert "Sequential/layers[1]/linear/dot_general" in text


def test_a_layer_without_a_caller_has_the_name_of_its_class():
    assert scopes(liftnn.Linear(3, 3, rngs=liftnn.Rngs(0)), X) == ["Linear"]


def test_a_call_of_the_base_class_opens_no_second_scope():
    class Special(Block):
        def __call__(self, x):
            return super().__call__(x, 1.0)

    assert scopes(Special(liftnn.Rngs(0)), X)[0] == "Special/linear"


def test_an_exception_closes_the_scopes():
    def fails(x):
        with pytest.raises(liftnn.ArgumentError):
            model()(x)
        return jnp.sin(x)

    assert scopes(fails, X[:, :2]) == [""]


def test_a_call_keeps_its_names_signature_and_docstring():
    assert Block.__call__.__name__ == "__call__"
    assert Block.__call__.__qualname__ == "Block.__call__"
    assert Block.__call__.__doc__ == "Apply the block."
    assert list(inspect.signature(Block.__call__).parameters) == ["self", "x", "scale"]
    assert "self.norms" in inspect.getsource(Block.__call__)


def test_calls_of_every_form_work():
    class Forms(liftnn.Module):
        @liftnn.jit
        def __call__(self, x):
            return x + 1

    class Static(liftnn.Module):
        __call__ = staticmethod(lambda x: x + 2)

    class Partial(liftnn.Module):
        __call__ = functools.partialmethod(lambda self, n, x: x + n, 3)

    class Late(liftnn.Module):
        pass

    Late.__call__ = lambda self, x: x + 4
    assert [float(cls()(jnp.array(0.0))) for cls in (Forms, Static, Partial, Late)] == [1, 2, 3, 4]


def test_scopes_change_no_trace():
    block = Block(liftnn.Rngs(0))
    traces = 0

    @jax.jit
    def f(x):
        nonlocal traces
        traces += 1
        return x + 1

    class User(liftnn.Module):
        def __call__(self, x):
            return f(x)

    liftnn.jit(lambda a, b, x: a(x) + b(block(x)))(User(), liftnn.Sequential(User()), X)
    assert traces == 1


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit, jax.grad, liftnn.jit, liftnn.grad])
def test_the_call_of_a_layer_works_on_an_object_with_its_attributes(transform):
    """As bijx does, to call a convolution with a kernel that it has computed."""
    layer = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
    names = ("kernel", "bias", "dtype", "promote_dtype", "dot_general", "precision", "preferred_element_type")

    def loss(kernel, call):
        stand_in = types.SimpleNamespace(**{name: getattr(layer, name) for name in names})
        stand_in.kernel = liftnn.Param(kernel)
        return call(stand_in).sum()

    def plain(kernel):
        return (jnp.ones((1, 2)) @ kernel + layer.bias.value).sum()

    def borrowed(kernel):
        return loss(kernel, lambda x: liftnn.Linear.__call__(x, jnp.ones((1, 2))))

    kernel = layer.kernel.value
    assert (transform(borrowed)(kernel) == transform(plain)(kernel)).all()


def test_an_error_of_a_borrowed_call_is_the_error_itself():
    with pytest.raises(AttributeError, match="no attribute 'kernel'"):
        jax.jit(lambda x: liftnn.Linear.__call__(types.SimpleNamespace(), x))(jnp.ones((1, 2)))


def told(method):
    """Decorate a method."""

    @functools.wraps(method)
    def wrapper(*args, **kwargs):
        return method(*args, **kwargs)

    return wrapper


def twice(method):
    """Transform a method of arrays by a transform that is defined by `lift`."""
    return liftnn.lift(method, bind=lambda plan, pure: jax.checkpoint(pure), name="twice")


DECORATORS = {
    "remat": liftnn.remat,
    "remat with options": liftnn.remat(policy=jax.checkpoint_policies.dots_saveable),
    "jit": liftnn.jit,
    "jit of remat": lambda f: liftnn.jit(liftnn.remat(f)),
    "remat of a decorated function": lambda f: liftnn.remat(told(f)),
    "a decorator of remat": lambda f: told(liftnn.remat(f)),
    "vmap": liftnn.vmap(in_axes=(None, 0)),
    "lift": twice,
}


def nest(block_call):
    """Return a model of two blocks, of which a function is `__call__`."""

    class Decorated(liftnn.Module):
        def __init__(self):
            self.linear = liftnn.Linear(3, 3, rngs=liftnn.Rngs(0))

        __call__ = block_call

    return liftnn.Sequential(Decorated(), Decorated())


def cos_of_linear(self, x):
    """Call a layer, and compute something."""
    return jnp.cos(self.linear(x))


cos_of_linear.__name__ = "__call__"


def layers_of(f, *args):
    """The layers of the matrix products in a program, as the last scopes of each."""
    text = liftnn.jit(f).lower(*args).compile().as_text()
    return set(re.findall(r"Sequential/(layers\[\d\])[^\"]*linear[^\"]*/dot_general", text))


@pytest.mark.parametrize("decorate", DECORATORS.values(), ids=DECORATORS)
def test_layers_whose_call_is_decorated_have_their_names(decorate):
    """Oracle: the layers without decorator."""
    expected = layers_of(lambda m, x: m(x), nest(cos_of_linear), X)
    assert expected == {"layers[0]", "layers[1]"}
    assert layers_of(lambda m, x: m(x), nest(decorate(cos_of_linear)), X) == expected


INSIDE = {
    "remat": lambda layer, x: liftnn.remat(lambda layer, x: layer(x))(layer, x),
    "jit": lambda layer, x: liftnn.jit(lambda layer, x: layer(x))(layer, x),
    "a captured layer": lambda layer, x: liftnn.remat(lambda x: layer(x))(x),
    "two levels": lambda layer, x: liftnn.remat(lambda a, x: liftnn.remat(lambda b, x: b(x))(a, x))(layer, x),
    "vmap": lambda layer, x: liftnn.vmap(lambda layer, x: layer(x), in_axes=(None, 0))(layer, x),
    "scan": lambda layer, x: liftnn.scan(lambda layer, x: layer(x), in_axes=(None, 0), out_axes=0)(layer, x),
    "cond": lambda layer, x: liftnn.cond(
        x.sum() > 0, lambda layer, x: layer(x), lambda layer, x: x, layer, x
    ),
}


@pytest.mark.parametrize("call", INSIDE.values(), ids=INSIDE)
def test_layers_have_their_names_in_a_transform_inside_the_call(call):
    class Outer(liftnn.Module):
        def __init__(self):
            self.layers = [liftnn.Linear(3, 3, rngs=liftnn.Rngs(0)) for _ in range(2)]

        def __call__(self, x):
            for layer in self.layers:
                x = call(layer, x)
            return x

    text = liftnn.jit(lambda m, x: m(x)).lower(Outer(), X).compile().as_text()
    assert set(re.findall(r"Outer/[^\"]*(layers\[\d\])[^\"/]*/dot_general", text)) == {
        "layers[0]",
        "layers[1]",
    }


def test_a_decorated_call_of_another_class_works():
    """Oracle: the plain call."""

    @jax.tree_util.register_dataclass
    @dataclasses.dataclass
    class Plain:
        w: jax.Array

        @liftnn.jit
        def __call__(self, x, *, scale=2.0):
            return self.w * x * scale

    assert Plain(X)(X, scale=3.0).tolist() == (3 * X * X).tolist()
    assert liftnn.remat(Plain.__call__)(Plain(X), X).tolist() == (2 * X * X).tolist()


def test_the_method_in_the_class_has_the_globals_of_its_module():
    # IPython's autoreload stores new code in the function that it finds in the class; the globals cannot be set.
    class Net(liftnn.Module):
        def __call__(self, x):
            return jnp.add(x, 1)

    function = vars(Net)["__call__"]
    assert function.__globals__ is globals()
    assert not [x for x in dis.get_instructions(function) if x.opname == "LOAD_GLOBAL"]
