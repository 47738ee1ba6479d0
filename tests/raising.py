"""Errors in tests: the whole text is compared."""

from __future__ import annotations

import contextlib

import pytest


@contextlib.contextmanager
def raises(cls, text):
    """`pytest.raises` for an error of exactly this class whose text is exactly this."""
    with pytest.raises(cls) as caught:
        yield caught
    assert type(caught.value) is cls
    assert str(caught.value) == text
