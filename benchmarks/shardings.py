"""What shardings on two devices add to a call: a process of its own, which has two CPU devices.

    python benchmarks/shardings.py [--quick] [--rounds N]

The devices must be made before JAX is imported, so `dispatch.py` runs this file and reads its JSON.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import jax
import numpy as np
import steps
from compare import compare
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from measure import Row, Run, Times, options

import liftnn

TWO_DEVICES = "--xla_force_host_platform_device_count=2"
FORMS = {"in_shardings": "in_shardings", "both": "in_shardings and out_shardings"}


def sharding_rows(rounds: int) -> Iterator[Row]:
    """What `in_shardings` and `out_shardings` add to a call of liftnn's whose arguments are on two devices."""
    flags = " ".join((os.environ.get("XLA_FLAGS", ""), TWO_DEVICES)).strip()
    command = [sys.executable, str(pathlib.Path(__file__)), "--rounds", str(rounds)]
    environ = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environ)
    found = json.loads(done.stdout)
    for form, title in FORMS.items():
        times = Times(found[form]["seconds"])
        figure = times.excess("liftnn", "without", 1e6)
        name = f"infer, depth 2, {title} on two devices, overhead over no shardings"
        row = Row(name, figure, 3.0, "us", {}, times.microseconds(), found[form]["retraces"])
        row.note = f"JAX: {times.excess('jax', 'jax, without', 1e6).value:.2f} us"
        yield row


def contenders(form: str) -> dict[str, Run]:
    """The smallest call with and without shardings, in liftnn and by hand; the arguments are placed alike in all."""
    mesh = Mesh(np.array(jax.devices()), ("data",))
    whole, split = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
    x = jax.device_put(steps.batch()[0], split)
    model = steps.STACKS[liftnn](2)
    liftnn.update(model, jax.device_put(liftnn.state(model), whole))
    params = jax.device_put(steps.nested_params(2), whole)
    infer, hand = steps.functions(liftnn, "liftnn")[0], steps.hand_written("jax")[0]
    given = {"in_shardings": (whole, split)}
    if form == "both":
        given["out_shardings"] = split
    return {
        "liftnn": steps.calls(liftnn.jit(infer, **given), model, x),
        "without": steps.calls(liftnn.jit(infer), model, x),
        "jax": steps.calls(jax.jit(hand, **given), params, x),
        "jax, without": steps.calls(jax.jit(hand), params, x),
    }


def main() -> None:
    """Measures, and prints the seconds of each round and the retraces."""
    rounds = options(__doc__).rounds
    if jax.device_count() != 2:
        sys.exit(f"set XLA_FLAGS={TWO_DEVICES}: this needs two devices, and finds {jax.device_count()}")
    found = {}
    for form in FORMS:
        times, retraces = compare(contenders(form), rounds)
        found[form] = {"seconds": dict(times.seconds), "retraces": retraces}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
