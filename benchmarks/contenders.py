"""Everyone that the calls of the dispatch benchmark are compared with, peers that are not installed left out."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import numpy as np
import steps
from measure import Run

OPTIONAL = {"brainstate": "brainstate_steps", "spectrax-lib": "spectrax_steps"}
"""The file with the steps of each package that may be missing."""


def find_contenders() -> tuple[dict[str, Callable[..., Run | None]], dict[str, str]]:
    """The contenders by name, and why each package that cannot be imported is left out."""
    found, left_out = dict(steps.CONTENDERS), {}
    for package, file in OPTIONAL.items():
        try:
            peer = importlib.import_module(file)
        except Exception as error:  # a package that does not fit the installed JAX may raise anything
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            left_out[package] = reason.partition(" (/")[0]  # without the file of an ImportError
        else:
            found[peer.NAME] = peer.compiled
    return found, left_out


CONTENDERS, LEFT_OUT = find_contenders()


def make(depth: int, *, train: bool, donate: bool) -> dict[str, Run]:
    """Fresh contenders; those that cannot donate are left out of what donates."""
    made = {name: compiled(depth, train=train, donate=donate) for name, compiled in CONTENDERS.items()}
    return {name: run for name, run in made.items() if run is not None}


def check_agreement(fresh: dict[str, Run]) -> None:
    """Asserts that after three calls each contender gives what hand-written JAX does: the output, or the loss.

    Args:
      fresh: Contenders of which none has been called yet.
    """
    outputs = {name: run(3) for name, run in fresh.items()}
    for name, output in outputs.items():
        np.testing.assert_allclose(
            np.asarray(output), np.asarray(outputs["jax"]), rtol=1e-5, atol=1e-6, err_msg=name
        )
