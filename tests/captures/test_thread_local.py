"""Modules that are reached through an object with attributes of its own in each thread."""

from __future__ import annotations

import threading

import pytest

import liftnn
from tests.user_modules import Holder


def model(scale):
    return Holder(scale=liftnn.Param(scale), count=liftnn.Variable(0))


class Mine(threading.local):
    def __init__(self):
        self.model = model(1.0)


@pytest.mark.parametrize("cls", [threading.local, Mine])
def test_each_thread_reads_and_writes_its_own_attributes(cls):
    local, found = cls(), []

    @liftnn.jit
    def f(x):
        local.model.count += 1
        return local.model.scale * x

    def run(scale):
        local.model = model(scale)
        found.append([(float(f(1.0)), int(local.model.count)) for _ in range(3)])

    for scale in (2.0, 3.0):
        thread = threading.Thread(target=run, args=(scale,))
        thread.start()
        thread.join()
    run(4.0)
    assert found == [[(scale, i) for i in (1, 2, 3)] for scale in (2.0, 3.0, 4.0)]
