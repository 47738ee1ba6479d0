"""Samplers of Rngs and streams: the numbers and counts of Flax NNX for the same seeds."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import liftnn
from liftnn import errors
from tests.raising import raises

ONE = jnp.ones(3)
SAMPLERS = {
    "ball": (2,),
    "bernoulli": (0.3, (4,)),
    "beta": (2.0, 3.0, (4,)),
    "binomial": (5, 0.5, (4,)),
    "bits": ((4,),),
    "categorical": (ONE, -1, (4,)),
    "cauchy": ((4,),),
    "chisquare": (2.0, (4,)),
    "choice": (5, (4,)),
    "dirichlet": (ONE, (2,)),
    "double_sided_maxwell": (1.0, 2.0, (4,)),
    "exponential": ((4,),),
    "f": (2.0, 3.0, (4,)),
    "gamma": (2.0, (4,)),
    "generalized_normal": (2.0, (4,)),
    "geometric": (0.5, (4,)),
    "gumbel": ((4,),),
    "laplace": ((4,),),
    "loggamma": (2.0, (4,)),
    "logistic": ((4,),),
    "lognormal": (1.0, (4,)),
    "maxwell": ((4,),),
    "multinomial": (5, ONE / 3),
    "multivariate_normal": (ONE, jnp.eye(3)),
    "normal": ((2, 3), jnp.bfloat16),
    "orthogonal": (3,),
    "pareto": (2.0, (4,)),
    "permutation": (jnp.arange(5),),
    "poisson": (2.0, (4,)),
    "rademacher": ((4,),),
    "randint": ((4,), 0, 10),
    "rayleigh": (2.0, (4,)),
    "t": (2.0, (4,)),
    "triangular": (0.0, 0.5, 1.0, (4,)),
    "truncated_normal": (-1.0, 1.0, (4,)),
    "uniform": ((4,),),
    "wald": (2.0, (4,)),
    "weibull_min": (1.0, 2.0, (4,)),
}
INITIALIZERS = {
    "delta_orthogonal": ((), (3, 4, 4)),
    "glorot_normal": ((), (3, 4)),
    "glorot_uniform": ((), (3, 4)),
    "he_normal": ((), (3, 4)),
    "he_uniform": ((), (3, 4)),
    "kaiming_normal": ((), (3, 4)),
    "kaiming_uniform": ((), (3, 4)),
    "lecun_normal": ((), (3, 4)),
    "lecun_uniform": ((), (3, 4)),
    "variance_scaling": ((2.0, "fan_out", "normal"), (3, 4)),
    "xavier_normal": ((), (3, 4)),
    "xavier_uniform": ((), (3, 4)),
}


def pair():
    """The same streams in both libraries; one key has been drawn already."""
    both = [library.Rngs(0, params=1) for library in (liftnn, nnx)]
    for rngs in both:
        rngs.params()
    return both


def assert_same(ours, theirs):
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    np.testing.assert_array_equal(np.asarray(ours, np.float64), np.asarray(theirs, np.float64))


def counts(rngs):
    return {name: int(rngs[name].count[...]) for name in rngs}


def test_the_samplers_are_those_of_flax():
    methods = {n for n in vars(nnx.Rngs) if not n.startswith("_")} - {"items", "split", "fork", "broadcast"}
    assert methods == {*SAMPLERS, *INITIALIZERS}


def first_parameter(f):
    try:
        return next(iter(inspect.signature(f).parameters), None)
    except (TypeError, ValueError):  # not a function, such as an alias of a type
        return None


def test_every_sampler_of_jax_is_there():
    public = {name: f for name, f in vars(jax.random).items() if not name.startswith("_")}
    with_key = [name for name, f in public.items() if first_parameter(f) == "key"]
    assert {*with_key} - {"fold_in", "clone", "split"} <= {*SAMPLERS}


@pytest.mark.thorough
@pytest.mark.parametrize("name, arguments", SAMPLERS.items(), ids=SAMPLERS)
@pytest.mark.sample(48)
def test_numbers_and_counts_of_a_sampler_are_those_of_flax(name, arguments):
    ours, theirs = pair()
    for _ in range(2):
        assert_same(getattr(ours, name)(*arguments), getattr(theirs, name)(*arguments))
        assert_same(getattr(ours.params, name)(*arguments), getattr(theirs.params, name)(*arguments))
        assert_same(getattr(ours.other, name)(*arguments), getattr(theirs.other, name)(*arguments))
    assert counts(ours) == counts(theirs) == {"default": 4, "params": 3}


@pytest.mark.sample(4)
@pytest.mark.parametrize("name, arguments", INITIALIZERS.items(), ids=INITIALIZERS)
def test_numbers_and_counts_of_an_initializer_are_those_of_flax(name, arguments):
    ours, theirs = pair()
    options, shape = arguments
    for streams in ((ours, theirs), (ours.params, theirs.params)):
        mine, flax = (getattr(x, name)(*options) for x in streams)
        assert_same(mine(shape), flax(shape))
        assert_same(mine(shape, jnp.float32), flax(shape, jnp.float32))
    assert counts(ours) == counts(theirs) == {"default": 2, "params": 3}


def test_the_shape_of_an_initializer_may_be_passed_by_name():
    a, b = liftnn.Rngs(0), liftnn.Rngs(0)
    assert_same(a.he_normal()(shape=(2, 3), dtype=jnp.float32), b.he_normal()((2, 3), jnp.float32))


def test_samplers_draw_under_transforms_what_the_plain_call_draws():
    def draw(rngs):
        return rngs.normal((2,)), rngs.dropout.uniform((3,)), rngs.params.lecun_normal()((2, 3))

    plain, jitted = liftnn.Rngs(0, dropout=1), liftnn.Rngs(0, dropout=1)
    step = liftnn.jit(draw)
    for _ in range(3):
        for expected, actual in zip(draw(plain), step(jitted), strict=True):
            assert_same(actual, expected)
    assert counts(plain) == counts(jitted)


def test_a_stream_may_have_the_name_of_a_sampler():
    ours, theirs = liftnn.Rngs(0, normal=1), nnx.Rngs(0, normal=1)
    assert ours.normal is ours["normal"]
    assert_same(ours.normal.uniform((2,)), theirs.normal.uniform((2,)))


def test_a_sampler_is_not_a_stream():
    rngs = liftnn.Rngs(0)
    assert "normal" not in rngs
    assert rngs["normal"] is rngs.default
    with raises(
        errors.AttributeNameError,
        "This Rngs has no stream 'normal' and no default stream; it has: params.\n"
        "Create the Rngs with this stream, Rngs(normal=seed), or with a default stream, Rngs(seed).",
    ):
        liftnn.Rngs(params=0)["normal"]
    with raises(
        errors.AttributeNameError,
        "This Rngs has no stream 'default' and no default stream; it has: params.\n"
        "Create the Rngs with this stream, Rngs(default=seed), or with a default stream, Rngs(seed).",
    ):
        liftnn.Rngs(params=0).normal((2,))


def test_a_sampler_shows_its_arguments():
    rngs = liftnn.Rngs(0)
    assert [*inspect.signature(rngs.normal).parameters][:2] == ["shape", "dtype"]
    assert rngs.normal.__name__ == "normal"
    assert rngs.normal.__doc__ == "Return `jax.random.normal(key, ...)` for the next key."
    assert rngs.he_normal.__name__ == "he_normal"


def test_a_wrong_argument_of_a_sampler_is_a_type_error():
    with pytest.raises(TypeError, match=r"got an unexpected keyword argument 'sahpe'"):
        liftnn.Rngs(0).normal(sahpe=(2,))
