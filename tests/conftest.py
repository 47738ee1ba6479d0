"""What holds for the whole suite: devices, Hypothesis profiles, and that no test leaves a frame open."""

from __future__ import annotations

import collections
import gc
import importlib.metadata
import os
import pathlib
import zlib

# Before JAX starts: several devices, so that shardings can be told apart; and as the programs of the tests are tiny and
# run once, little of the compiler's effort. The emitters of fused loops alone take half of the time of the suite; only
# the oldest jaxlib has the flag for those without MLIR, and an unknown flag ends the process.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        "--xla_cpu_parallel_codegen_split_count=1",
        *["--xla_cpu_use_fusion_emitters=false"] * importlib.metadata.version("jaxlib").startswith("0.10."),
    ]
).strip()

import hypothesis
import jax
import pytest

from liftnn._src.variables import frames

hypothesis.settings.register_profile(
    "quick",
    max_examples=40,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "thorough", parent=hypothesis.settings.get_profile("quick"), max_examples=2000
)
hypothesis.settings.register_profile(
    "random", parent=hypothesis.settings.get_profile("quick"), max_examples=500, derandomize=False
)
hypothesis.settings.register_profile(
    "brief", parent=hypothesis.settings.get_profile("quick"), max_examples=15
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def pytest_addoption(parser):
    parser.addoption(
        "--checking-leaks", action="store_true", help="run every test under jax.checking_leaks()"
    )


def pytest_configure(config):
    """Let properties draw fewer examples in `make test`, which leaves the thorough tables out."""
    if config.option.markexpr.startswith("not thorough") and "HYPOTHESIS_PROFILE" not in os.environ:
        hypothesis.settings.load_profile("brief")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark rows of tables as thorough or slow, as `sample(n)` and `part(n)` say; mark the tests of the site."""
    counts: dict[object, int] = collections.Counter()
    for item in items:
        marker = item.get_closest_marker("sample")
        if marker is not None:
            if counts[item.function] % marker.args[0]:
                item.add_marker("thorough")
            counts[item.function] += 1
        marker = item.get_closest_marker("part")
        is_left_out = marker is not None and zlib.crc32(item.name.encode()) % marker.args[0]
        if is_left_out and item.get_closest_marker("thorough") is not None:
            item.add_marker("slow")
        if "site" in item.fixturenames:
            item.add_marker("site")


@pytest.fixture(autouse=True)
def _no_frame_stays_open():
    """Every transform closes its frame, whatever was raised inside."""
    yield
    assert frames.current_frame() is frames.PLAIN
    assert frames.open_frames == 0


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Collect the tests without the garbage collector, which takes a quarter of that time and finds nothing."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish():
    """Keep the garbage collector from going through what was imported and collected, which lives until the end."""
    gc.collect()
    gc.freeze()


_MAPS = pathlib.Path("/proc/self/maps")
_MOST_MAPS = 20_000
"""Linux ends a process that needs more than 65,530 memory maps; a compiled program has dozens, and JAX keeps it."""
_n_tests = 0


@pytest.fixture(autouse=True)
def _what_jax_keeps_does_not_pile_up():
    """Drop JAX's compiled programs when they use many memory maps; spare the garbage collector those that stay.

    By the end of the suite the collector would go through millions of objects again and again.
    """
    yield
    global _n_tests
    _n_tests += 1
    if _n_tests % 100:
        return
    if _MAPS.exists() and _MAPS.read_bytes().count(b"\n") > _MOST_MAPS:
        jax.clear_caches()
        gc.unfreeze()
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _leaks(request):
    if not request.config.getoption("--checking-leaks"):
        yield
        return
    with jax.checking_leaks():
        yield
