"""Every error that a user can cause is pinned with its whole text: what happened, where, and what to do.

The cases stand in `tests/messages/`. Layers, metrics, optimizers and `liftnn.compat` have theirs
beside their own tests.
"""

from __future__ import annotations

import ast
import pathlib
import pickle
import re
import sys
import traceback

import pytest

import liftnn
import tests.messages.autodiff
import tests.messages.captured
import tests.messages.checkpoints
import tests.messages.declared_shardings
import tests.messages.elsewhere
import tests.messages.exported
import tests.messages.foreign
import tests.messages.jit
import tests.messages.lifted
import tests.messages.looking
import tests.messages.loops
import tests.messages.maps
import tests.messages.objects
import tests.messages.sharding
import tests.messages.traces
import tests.messages.weights  # noqa: F401
from liftnn import errors
from tests.messages.registry import MESSAGES

SOURCE = pathlib.Path(liftnn.__file__).parent
TESTS = pathlib.Path(__file__).parent
ELSEWHERE = ("_src/nn/", "_src/metrics.py", "_src/multi_metric.py", "_src/optim/", "_src/compat/")
CLASSES = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.LiftError)]
INTERNAL = re.compile(r"liftnn\._|jax\._src|0x[0-9a-f]{4}|object at|Tracer|[^\w.]_[a-z]")


def raised(name):
    """The error that a case raises."""
    with pytest.raises(errors.LiftError) as caught:
        MESSAGES[name].cause()
    return caught.value


@pytest.mark.parametrize("name", MESSAGES)
def test_the_text_is_this_and_the_traceback_ends_in_the_users_line(name):
    error = raised(name)
    assert str(error) == MESSAGES[name].text
    assert type(error) is MESSAGES[name].cls
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    assert not any(file.startswith(str(SOURCE)) for file in files)
    assert files[-1].startswith(str(TESTS))


@pytest.mark.parametrize("name", MESSAGES)
def test_a_text_is_short_and_names_nothing_internal(name):
    text = MESSAGES[name].text
    assert len(text.splitlines()) <= 15
    assert not INTERNAL.search(text)
    assert all(
        line.endswith((".", ":")) or line.startswith(("  ", "args", "...")) for line in text.splitlines()
    )


@pytest.mark.parametrize("name", ["donated_variable_used_again", "split_that_leaves_something_over"])
def test_an_error_keeps_its_text_when_pickled(name):
    error = raised(name)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.cause, copy.remedy) == (
        type(error),
        MESSAGES[name].text,
        error.cause,
        error.remedy,
    )


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_pickles_with_and_without_a_remedy_of_its_own(cls):
    for error in (cls("What happened."), cls("What happened.", "What to do.")):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy)) == (cls, str(error))


@pytest.mark.parametrize("cls", [c for c in CLASSES if c is not errors.LiftError])
def test_every_class_is_raised_by_a_case_is_public_and_a_builtin_error_too(cls):
    assert any(message.cls is cls for message in MESSAGES.values())
    assert getattr(liftnn, cls.__name__) is cls
    assert issubclass(cls, (ValueError, TypeError, RuntimeError, LookupError, AttributeError, ImportError))


@pytest.mark.parametrize("cls", [c for c in CLASSES if c is not errors.LiftError])
def test_the_remedy_of_a_class_is_the_last_paragraph_of_its_docstring(cls):
    error = cls("What happened.")
    assert str(error) == f"What happened.\n{error.remedy}"
    assert error.remedy == " ".join(cls.__doc__.split("\n\n")[-1].split())


def find_sites():
    """File and lines of every place that makes an error."""
    sites = set()
    for file in sorted(SOURCE.rglob("*.py")):
        if file.relative_to(SOURCE).as_posix().startswith(ELSEWHERE) or file.name == "errors.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if is_call and isinstance(node.func.value, ast.Name) and node.func.value.id == "errors":
                sites.add((str(file.relative_to(SOURCE)), node.lineno, node.end_lineno))
    return sites


def test_every_place_that_makes_an_error_is_reached_by_a_case(monkeypatch):
    reached = set()
    init = errors.LiftError.__init__

    def note(self, *args):
        frame = sys._getframe(1)
        reached.add((frame.f_code.co_filename, frame.f_lineno))
        init(self, *args)

    monkeypatch.setattr(errors.LiftError, "__init__", note)
    for name in MESSAGES:
        raised(name)
    found = {
        (str(pathlib.Path(f).relative_to(SOURCE)), line) for f, line in reached if f.startswith(str(SOURCE))
    }
    missing = [
        f"{file}:{start}"
        for file, start, end in sorted(find_sites())
        if not any(file == f and start <= line <= end for f, line in found)
    ]
    assert missing == []
