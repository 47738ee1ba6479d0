"""A foreign attribute answers when it is read, and is absent in every other way."""

from __future__ import annotations

import abc
import copy
import dataclasses
import pickle

import jax.numpy as jnp
import optax
import pytest
from tests.user_modules import Affine

import liftnn
from liftnn._src.foreign_names.attributes import NAMES

CASES = [(where, name) for where, names in NAMES.items() for name in names]
SIZES = {
    "Conv": (2, 3, 3),
    "ConvTranspose": (2, 3, 3),
    "Embed": (5, 2),
    "GroupNorm": (4, 2),
    "Linear": (2, 3),
}


def make(where):
    if where in ("Module", "Optimizer"):
        return Affine() if where == "Module" else liftnn.Optimizer(Affine(), optax.sgd(0.1))
    if where == "Metric":
        return liftnn.Average()
    return getattr(liftnn, where)(
        *SIZES.get(where, (0.5,) if where == "Dropout" else (3,)), rngs=liftnn.Rngs(0)
    )


class Mixin:
    """A class of the user's with names of the table."""

    def fit(self, x):
        return self, x

    @property
    def weights(self):
        return "weights"

    @classmethod
    def init(cls):
        return cls()


class Mixed(liftnn.Module, Mixin):
    """The mixin comes last."""


class Own(liftnn.Module):
    """Names of the table as methods and attributes."""

    def __init__(self):
        self.apply = liftnn.Param(jnp.ones(2))

    def fit(self):
        return "own"

    def parameters(self):
        try:
            return super().parameters()
        except AttributeError:
            return "none above"


class Dynamic(liftnn.Module):
    """A class with `__getattr__`."""

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return name


class Broken(liftnn.Module):
    """A property that fails."""

    @property
    def forward(self):
        return self.absent


@pytest.mark.parametrize("where, name", CASES)
def test_hasattr_and_dir_do_not_see_it(where, name):
    x = make(where)
    assert not hasattr(x, name)
    assert not hasattr(type(x), name)
    assert getattr(x, name, "default") == "default"
    assert name not in dir(x)


@pytest.mark.parametrize("where, name", CASES)
@pytest.mark.filterwarnings("ignore::liftnn.AttributeWarning")
def test_it_can_be_set_read_and_deleted(where, name):
    x = make(where)
    setattr(x, name, 1)
    assert getattr(x, name) == 1
    assert name in dir(x)
    delattr(x, name)
    assert not hasattr(x, name)


def test_dir_shows_all_else():
    x = make("Module")
    assert {"w", "b", "calls", "mode", "loss", "train", "eval", "__call__", "split"} <= {*dir(x)}


def test_methods_attributes_and_super_are_the_users():
    own = Own()
    assert own.fit() == "own"
    assert own.parameters() == "none above"
    assert own.apply.shape == (2,)
    assert liftnn.state(own).flat().keys() == {("apply",)}


def test_a_class_further_up_is_asked_first():
    mixed = Mixed()
    assert mixed.fit(1) == (mixed, 1)
    assert mixed.weights == "weights"
    assert type(Mixed.init()) is Mixed
    assert type(mixed.init()) is Mixed
    assert "fit" in dir(mixed)


def test_getattr_of_the_user_is_asked():
    assert Dynamic().parameters == "parameters"


def test_the_error_of_a_property_is_its_own():
    with pytest.raises(AttributeError, match=r"^'Broken' object has no attribute 'absent'$"):
        Broken().forward  # noqa: B018


def test_an_abstract_method_is_abstract():
    class Base(liftnn.Module, abc.ABC):
        @abc.abstractmethod
        def init(self): ...

    with pytest.raises(TypeError, match="abstract"):
        Base()


def test_a_field_of_a_dataclass_may_have_the_name():
    @dataclasses.dataclass
    class Fields(liftnn.Module):
        init: int
        weights: str = "default"

    fields = Fields(3)
    assert (fields.init, fields.weights) == (3, "default")
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'init'"):
        Fields()


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x)), liftnn.clone]
)
def test_modules_are_copied_as_before(duplicate):
    x = duplicate(make("Module"))
    assert list(vars(x)) == ["w", "b", "calls", "mode"]
    assert not hasattr(x, "parameters")


class Forward(liftnn.Module):
    """A class as in PyTorch."""

    def forward(self, x):
        return 2 * x


class Callable(Forward):
    """Its subclass can be called."""

    def __call__(self, x):
        return self.forward(x)


def test_forward_is_an_ordinary_method():
    assert Forward().forward(1) == 2
    assert Callable()(1) == 2
    assert liftnn.jit(Callable())(jnp.ones(2)).tolist() == [2.0, 2.0]
    assert not hasattr(Forward(), "__call__")  # noqa: B004  # not whether it is callable


def test_jit_names_the_missing_call():
    with pytest.raises(AttributeError, match="Rename the method `forward` to `__call__`"):
        liftnn.jit(Forward())


class Renamed(liftnn.Linear):
    """A layer of the user's with the name of PyTorch."""

    @property
    def weight(self):
        return self.kernel.value.T


def test_a_layer_of_the_user_may_have_the_name():
    layer = Renamed(2, 3, rngs=liftnn.Rngs(0))
    assert layer.weight.shape == (3, 2)
    assert liftnn.jit(lambda layer: layer.weight.sum())(layer) == layer.kernel.sum()


def test_a_weight_is_named_as_in_liftnn():
    message = r"'Linear' object has no attribute 'weight', which is a name from PyTorch and Equinox"
    with pytest.raises(liftnn.AttributeNameError, match=message):
        _ = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)).weight
