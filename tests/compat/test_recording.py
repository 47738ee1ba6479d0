"""`capture_noop` of `sow` and `perturb`: recorded in `capture` only. Oracle: Flax NNX, where it has the argument."""

from __future__ import annotations

import inspect

import flax
import numpy as np
import pytest
from flax import nnx as flax_nnx

from liftnn.compat import nnx

KNOWN = "capture_noop" in inspect.signature(flax_nnx.Module.sow).parameters
LIBRARIES = [
    nnx,
    pytest.param(flax_nnx, marks=pytest.mark.skipif(not KNOWN, reason="not in this version of Flax")),
]


def new_model(library):
    class Model(library.Module):
        def __call__(self, x, **options):
            self.sow(library.Intermediate, "y", x + 1, **options)
            return 3 * self.perturb("gradient", x, **options)

    return Model()


@pytest.mark.parametrize("library", LIBRARIES)
def test_nothing_is_recorded_outside_of_capture(library):
    model = new_model(library)
    assert model(2.0, capture_noop=True) == 6
    assert not hasattr(model, "y")
    assert not hasattr(model, "gradient")
    out, found = library.capture(model, library.Intermediate)(2.0, capture_noop=True)
    assert (out, found["y"].get_value()) == (6, (3,))
    out, zeros = library.capture(model, library.Perturbation)(2.0, capture_noop=True)
    assert (out, zeros["gradient"].get_value()) == (6, 0)
    assert not hasattr(model, "y")


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.filterwarnings("ignore:Using 'Module:DeprecationWarning")
def test_by_default_and_with_false_the_module_records(library):
    for options in ({}, {"capture_noop": False}):
        model = new_model(library)
        assert model(2.0, **options) == 6
        assert model.y.get_value() == (3,)
        assert model.gradient.get_value() == 0


@pytest.mark.skipif(not KNOWN, reason="this version of Flax does not have the setting")
def test_the_setting_of_flax_is_followed():
    flax.config.update("nnx_sow_capture_noop", True)
    try:
        model = new_model(nnx)
        assert model(2.0) == 6
        assert not hasattr(model, "y")
        assert model(2.0, capture_noop=False) == 6
        assert model.y.get_value() == (3,)
    finally:
        flax.config.update("nnx_sow_capture_noop", False)


def test_jitted_calls_record_nothing():
    model = new_model(nnx)
    run = nnx.jit(lambda model, x: model(x, capture_noop=True))
    np.testing.assert_array_equal(run(model, 2.0), 6)
    assert not hasattr(model, "y")
