"""Errors: a cause and a remedy, one base class, and each also the built-in that fits."""

from __future__ import annotations

import inspect
import pickle

import pytest

from liftnn import errors

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, errors.LiftError)]
OWN = [cls for cls in CLASSES if cls is not errors.LiftError]


@pytest.mark.parametrize("cls", OWN)
def test_every_error_is_a_lift_error_and_a_builtin(cls):
    bases = [base for base in cls.__mro__ if base.__module__ == "builtins"]
    assert issubclass(cls.__bases__[0], errors.LiftError)
    assert bases[0] is not Exception
    assert issubclass(bases[0], Exception)


@pytest.mark.parametrize("cls", OWN)
def test_the_remedy_is_the_last_paragraph_of_the_docstring(cls):
    paragraphs = inspect.getdoc(cls).split("\n\n")
    assert len(paragraphs) > 1
    assert str(cls("The cause.")) == "The cause.\n" + paragraphs[-1].replace("\n", " ")


@pytest.mark.parametrize("cls", OWN)
def test_a_better_remedy_replaces_it(cls):
    error = cls("The cause.", "The remedy.")
    assert str(error) == "The cause.\nThe remedy."
    assert (error.cause, error.remedy) == ("The cause.", "The remedy.")


def test_the_base_class_has_no_remedy():
    assert str(errors.LiftError("The cause.")) == "The cause."


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_is_pickled(cls):
    for error in (cls("The cause."), cls("The cause.", "The remedy.")):
        new = pickle.loads(pickle.dumps(error))
        assert type(new) is cls
        assert (str(new), new.cause, new.remedy) == (str(error), error.cause, error.remedy)


@pytest.mark.parametrize("cls", OWN)
def test_an_error_has_two_lines(cls):
    assert str(cls("The cause.")).count("\n") == 1
