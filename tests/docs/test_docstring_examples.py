"""Every example in the docstring of a public object, or of one of its methods, runs and prints what it shows."""

import doctest
import types

import pytest

import liftnn

PUBLIC = {
    name: x
    for name, x in vars(liftnn).items()
    if not name.startswith("_") and not isinstance(x, types.ModuleType)
}
INITIALIZERS = {"zeros_init": liftnn.initializers.zeros_init, "ones_init": liftnn.initializers.ones_init}


def find_examples():
    """One parameter for each docstring with examples; JAX's own functions are JAX's to test."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name, x in {**PUBLIC, **INITIALIZERS}.items():
        if getattr(x, "__module__", "").startswith("liftnn"):
            for found in finder.find(x, name, globs={"__name__": "example"}):
                if found.examples:
                    yield pytest.param(found, id=found.name)


@pytest.mark.sample(28)
@pytest.mark.parametrize("example", list(find_examples()))
def test_the_example_runs(example):
    text = []
    result = doctest.DocTestRunner(verbose=False).run(example, out=text.append)
    assert result.failed == 0, "".join(text)
