"""A module class with abstract methods cannot be instantiated, without deriving from `abc.ABC`, as in Flax NNX."""

import pytest
from tests.compat.oracle import assert_equal_in_both

SETUP = """
import abc
def attempt(f):
    try:
        return type(f()).__name__
    except TypeError as error:
        return str(error).splitlines()[0]

class Base(nnx.Module):
    @abc.abstractmethod
    def forward(self, x): ...
    @property
    @abc.abstractmethod
    def size(self): ...
"""
PROGRAMS = {
    "the class itself": "result = attempt(Base)",
    "a subclass with one of the methods": """
class Half(Base):
    size = 3
result = [attempt(Half), sorted(Half.__abstractmethods__)]
""",
    "a subclass with all methods": """
class Whole(Base):
    size = 3
    def forward(self, x):
        return x
result = [attempt(Whole), Whole().forward(1), attempt(lambda: nnx.clone(Whole()))]
""",
    "a subclass of two classes": """
class Sized:
    size = 3
class Forward:
    def forward(self, x):
        return x
class Both(Sized, Forward, Base): pass
class One(Sized, Base): pass
result = [attempt(Both), attempt(One)]
""",
    "a subclass that makes a method abstract again": """
class Whole(Base):
    size = 3
    def forward(self, x):
        return x
class Again(Whole):
    @abc.abstractmethod
    def forward(self, x): ...
class Last(Again):
    def forward(self, x):
        return 2 * x
result = [attempt(Whole), attempt(Again), attempt(Last)]
""",
    "a class with arguments": """
class Layer(nnx.Module):
    def __init__(self, size):
        self.size = size
    @abc.abstractmethod
    def __call__(self, x): ...
class Scale(Layer):
    def __call__(self, x):
        return self.size * x
result = [attempt(lambda: Layer(2)), Scale(2)(3)]
""",
    "a class of dataclasses": """
@nnx.dataclass
class Layer(nnx.Pytree):
    size: int
    @abc.abstractmethod
    def __call__(self, x): ...
@nnx.dataclass
class Scale(Layer):
    def __call__(self, x):
        return self.size * x
result = [attempt(lambda: Layer(2)), Scale(2)(3)]
""",
    "a class of abc.ABC": """
class Layer(nnx.Module, abc.ABC):
    @abc.abstractmethod
    def __call__(self, x): ...
class Scale(Layer):
    def __call__(self, x):
        return x
result = [attempt(Layer), attempt(Scale)]
""",
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_a_class_is_abstract_as_in_flax(program):
    assert_equal_in_both(SETUP + program)
