"""Errors in tests: the whole text is compared, and the frames of the traceback."""

from __future__ import annotations

import contextlib
import pathlib
import traceback

import jax
import pytest

import liftnn

OURS = str(pathlib.Path(liftnn.__file__).parent)
JAX = str(pathlib.Path(jax.__file__).parent)


@contextlib.contextmanager
def raises(cls, text):
    """`pytest.raises` for an error of exactly this class whose text is exactly this."""
    with pytest.raises(cls) as caught:
        yield caught
    assert type(caught.value) is cls
    assert str(caught.value) == text


def caught(f, *args):
    """The error that a call raises."""
    try:
        f(*args)
    except Exception as error:
        return error
    pytest.fail("it does not raise")


def entries(error):
    """File and function of each frame, outermost first."""
    return [(s.filename, s.name) for s in traceback.extract_tb(error.__traceback__)]


def has(error, folder):
    return any(file.startswith(folder) for file, _ in entries(error))
