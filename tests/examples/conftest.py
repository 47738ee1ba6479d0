"""The MNIST example, run in the process of the tests, which has JAX loaded already."""

import functools
from collections.abc import Callable

import pytest

from tests.examples import example


@pytest.fixture
def run_here() -> Callable[..., example.Outcome]:
    """Runs the example in this process; what it imports is forgotten afterwards."""
    return functools.partial(example.run_here, "train_mnist")
