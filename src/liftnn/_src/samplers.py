"""Samplers: methods of streams that draw a key and pass it to a function of `jax.random`, or to an initializer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import jax
from jax import random
from jax.nn import initializers

P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., Any])


class KeylessInitializer(Protocol):
    """The type of an initializer that draws its own key."""

    def __call__(self, shape: Any, dtype: Any = ..., out_sharding: Any = ...) -> jax.Array: ...


def _sampler(function: Callable[Concatenate[Any, P], jax.Array]) -> Callable[Concatenate[Any, P], jax.Array]:
    """Return the method that calls a function of `jax.random` with the next key."""

    @functools.wraps(function, assigned=("__name__",), updated=())  # its signature, which help() shows
    def sample(self: Any, *args: P.args, **kwargs: P.kwargs) -> jax.Array:
        return function(self(), *args, **kwargs)

    return _named(sample, function.__name__, "Return `jax.random.{}(key, ...)` for the next key.")


def _initializer(
    constructor: Callable[P, initializers.Initializer],
) -> Callable[Concatenate[Any, P], KeylessInitializer]:
    """Return the method that creates an initializer, which draws the next key in each call."""

    def create(self: Any, *args: P.args, **kwargs: P.kwargs) -> KeylessInitializer:
        initializer = constructor(*args, **kwargs)

        def initialize(*shape_and_dtype: Any, **options: Any) -> jax.Array:
            return initializer(self(), *shape_and_dtype, **options)

        return initialize

    text = (
        "Return `jax.nn.initializers.{}(...)` as a function of shape and dtype; each call draws the next key."
    )
    return _named(create, constructor.__name__, text)


def _named(method: F, name: str, text: str) -> F:
    """Set name and docstring of a method."""
    method.__name__, method.__qualname__, method.__doc__ = name, f"Samplers.{name}", text.format(name)
    return method


class Samplers:
    """Mixin: samplers and initializers for a class whose instances return the next key when they are called.

    `rngs.normal((2, 3))` is `jax.random.normal(rngs(), (2, 3))`. `rngs.lecun_normal()((2, 3))` is
    `jax.nn.initializers.lecun_normal()(rngs(), (2, 3))`.
    """

    ball = _sampler(random.ball)
    bernoulli = _sampler(random.bernoulli)
    beta = _sampler(random.beta)
    binomial = _sampler(random.binomial)
    bits = _sampler(random.bits)
    categorical = _sampler(random.categorical)
    cauchy = _sampler(random.cauchy)
    chisquare = _sampler(random.chisquare)
    choice = _sampler(random.choice)
    dirichlet = _sampler(random.dirichlet)
    double_sided_maxwell = _sampler(random.double_sided_maxwell)
    exponential = _sampler(random.exponential)
    f = _sampler(random.f)
    gamma = _sampler(random.gamma)
    generalized_normal = _sampler(random.generalized_normal)
    geometric = _sampler(random.geometric)
    gumbel = _sampler(random.gumbel)
    laplace = _sampler(random.laplace)
    loggamma = _sampler(random.loggamma)
    logistic = _sampler(random.logistic)
    lognormal = _sampler(random.lognormal)
    maxwell = _sampler(random.maxwell)
    multinomial = _sampler(random.multinomial)
    multivariate_normal = _sampler(random.multivariate_normal)
    normal = _sampler(random.normal)
    orthogonal = _sampler(random.orthogonal)
    pareto = _sampler(random.pareto)
    permutation = _sampler(random.permutation)
    poisson = _sampler(random.poisson)
    rademacher = _sampler(random.rademacher)
    randint = _sampler(random.randint)
    rayleigh = _sampler(random.rayleigh)
    t = _sampler(random.t)
    triangular = _sampler(random.triangular)
    truncated_normal = _sampler(random.truncated_normal)
    uniform = _sampler(random.uniform)
    wald = _sampler(random.wald)
    weibull_min = _sampler(random.weibull_min)

    delta_orthogonal = _initializer(initializers.delta_orthogonal)
    glorot_normal = _initializer(initializers.glorot_normal)
    glorot_uniform = _initializer(initializers.glorot_uniform)
    he_normal = _initializer(initializers.he_normal)
    he_uniform = _initializer(initializers.he_uniform)
    kaiming_normal = _initializer(initializers.kaiming_normal)
    kaiming_uniform = _initializer(initializers.kaiming_uniform)
    lecun_normal = _initializer(initializers.lecun_normal)
    lecun_uniform = _initializer(initializers.lecun_uniform)
    variance_scaling = _initializer(initializers.variance_scaling)
    xavier_normal = _initializer(initializers.xavier_normal)
    xavier_uniform = _initializer(initializers.xavier_uniform)
