"""Errors for unknown names and arguments: they are raised for those only, and every error of the user is untouched."""

from __future__ import annotations

import inspect
import traceback

import jax.numpy as jnp
import pytest
from tests.user_modules import Affine

import liftnn

LAYERS = [
    cls
    for name in liftnn.__all__
    if isinstance(cls := getattr(liftnn, name), type) and issubclass(cls, liftnn.Module)
    if {"rngs", "in_features", "num_features"} & {*inspect.signature(cls.__init__).parameters}
    and not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(cls.__init__).parameters.values())
]


class Fails(liftnn.Module):
    """Calls that fail in the user's own code."""

    def __init__(self, option=None):
        self.option = option

    def __call__(self, x):
        return helper(x, training=True)


def helper(x):
    return x


@pytest.mark.parametrize("cls", LAYERS)
def test_every_layer_explains_the_arguments_of_others(cls):
    with pytest.raises(
        liftnn.ArgumentTypeError, match=r"unexpected keyword argument 'name', which is a name from Flax"
    ):
        cls(name="layer")


@pytest.mark.parametrize("cls", LAYERS)
def test_every_layer_lists_its_parameters_for_another_unknown_argument(cls):
    with pytest.raises(liftnn.ArgumentTypeError, match="The parameters are: "):
        cls(qqqq=1)


def test_python_raises_for_the_users_functions():
    for call in (lambda: Fails(qqqq=1), lambda: Fails()(1, qqqq=2), lambda: Affine()(jnp.ones(3), 1, 2)):
        with pytest.raises(TypeError) as caught:
            call()
        assert type(caught.value) is TypeError


def test_a_call_inside_the_call_of_a_layer_is_the_users():
    with pytest.raises(
        TypeError, match=r"^helper\(\) got an unexpected keyword argument 'training'"
    ) as caught:
        Fails()(1)
    assert type(caught.value) is TypeError


def test_import_of_a_name_that_exists_or_not():
    with pytest.raises(ImportError, match=r"^cannot import name 'qqq' from 'liftnn'"):
        from liftnn import qqq  # noqa: F401
    with pytest.raises(ImportError, match=r"(?s)^cannot import name 'Conv2d' from 'liftnn'.*liftnn\.Conv\("):
        from liftnn import Conv2d  # noqa: F401
    from liftnn import compat, nn

    assert (compat.__name__, nn.__name__) == ("liftnn.compat", "liftnn.nn")


@pytest.mark.parametrize("name", ["Conv2d", "qqq", "_private", "__wrapped__"])
def test_an_unknown_name_is_absent(name):
    assert not hasattr(liftnn, name)
    assert name not in dir(liftnn)


LOOKUPS = {
    "a foreign name": lambda: liftnn.graphdef,
    "a misspelt name": lambda: liftnn.Linea,
    "a foreign attribute": lambda: Affine().forward,
    "an attribute of a Variable": lambda: Affine().w.valu,
    "a metadata entry": lambda: Affine().w.del_metadata("nam"),
    "a stream": lambda: liftnn.Rngs(params=0).param,
    "an entry of a State": lambda: liftnn.split(Affine())[0].ww,
}


@pytest.mark.parametrize("look_up", LOOKUPS.values(), ids=LOOKUPS)
def test_what_python_suggests_does_not_follow_a_sentence_with_a_remedy(look_up):
    with pytest.raises(AttributeError) as caught:
        look_up()
    shown = "".join(traceback.format_exception_only(caught.value))
    assert ".. Did you mean" not in shown
    assert str(caught.value) in shown
