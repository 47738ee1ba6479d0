"""The examples in the docstrings of Flax NNX give with liftnn's stand-in what they give with Flax."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

DIFFERENCES = {
    "flax.nnx.module.Module.eval": "the method returns the module",
    "flax.nnx.module.Module.train": "the method returns the module",
    "flax.nnx.nn.normalization.BatchNorm": "train and eval return the module",
    "flax.nnx.nn.stochastic.Dropout": "train and eval return the module",
    "flax.nnx.transforms.autodiff.custom_vjp": "what a function writes has no derivatives, so no rule has `updates_g`",
    "flax.nnx.module.view_info": "the descriptions of arguments are liftnn's",
    "flax.nnx.rnglib.Rngs": "the text of an error",
    "flax.nnx.training.metrics.MultiMetric": "the repr of a module",
}
"""Docstrings with examples whose output differs on purpose."""
SCRIPT = pathlib.Path(__file__).with_name("flax_docstrings.py")


def run(*arguments):
    done = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.thorough
def test_the_examples_of_flax_run():
    """Examples that fail in Flax itself, such as those of newer or older versions of JAX, do not count."""
    theirs, ours = run(), run("--stand-in")
    assert len(theirs) > 90
    found = {name: failed for name, failed in ours.items() if failed and not theirs[name]}
    assert {name: failed for name, failed in found.items() if name not in DIFFERENCES} == {}
    assert {*found} == {name for name in DIFFERENCES if not theirs[name]}
