"""Errors of the functions that look inside modules."""

from __future__ import annotations

import liftnn
from liftnn import errors
from tests.messages.registry import message


@message(errors.ArgumentTypeError, "tabulate takes a module, not a list.", "Pass the module itself.")
def tabulate_of_a_list():
    liftnn.tabulate([liftnn.Module()])


@message(errors.ArgumentError, "draw has no format 'png'.", "Pass one of 'mermaid', 'dot'.")
def draw_as_a_picture():
    liftnn.draw(liftnn.Module(), "png")
