"""The machine and the versions that figures are from, as one line says them."""

from __future__ import annotations

import os
import pathlib
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

PACKAGES = ("jax", "jaxlib", "optax", "flax", "equinox", "brainstate", "spectrax-lib", "numpy")

# Vendor, family and model numbers of a server's CPU -> its generation.
GENERATIONS = {
    ("AuthenticAMD", 23, 1): 'Zen 1 "Naples"',
    ("AuthenticAMD", 23, 49): 'Zen 2 "Rome"',
    ("AuthenticAMD", 25, 1): 'Zen 3 "Milan"',
    ("AuthenticAMD", 25, 17): 'Zen 4 "Genoa"',
    ("AuthenticAMD", 25, 160): 'Zen 4c "Bergamo"',
    ("AuthenticAMD", 26, 2): 'Zen 5 "Turin"',
    ("AuthenticAMD", 26, 17): 'Zen 5c "Turin Dense"',
    ("GenuineIntel", 6, 79): "Broadwell",
    ("GenuineIntel", 6, 85): "Skylake, Cascade Lake or Cooper Lake",  # the stepping tells them apart
    ("GenuineIntel", 6, 106): "Ice Lake",
    ("GenuineIntel", 6, 143): "Sapphire Rapids",
    ("GenuineIntel", 6, 173): "Granite Rapids",
    ("GenuineIntel", 6, 175): "Sierra Forest",
    ("GenuineIntel", 6, 207): "Emerald Rapids",
}

SAYS_NOTHING = ("AMD EPYC", "AMD EPYC Processor", "Intel(R) Xeon(R) Processor")
"""Model names that hypervisors give to any CPU of a vendor."""


def environment(left_out: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The machine and the versions, as a report has to state them.

    Args:
      left_out: The peers that could not be imported, and why. The default, None, means none.
    """
    return {
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in PACKAGES if _installed(name)},
        "left_out": dict(left_out or {}),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def environment_line(record: Mapping[str, Any]) -> str:
    """What `environment()` found, in one sentence.

    Args:
      record: The environment, with the load average `before` and `after` the measurements.
    """
    versions = ", ".join(f"{package} {version}" for package, version in record["versions"].items())
    parts = [
        f"{record['cores']} cores of {record['cpu']}, {record['system']}, Python {record['python']}",
        versions,
        *(f"without {name} ({why})" for name, why in record["left_out"].items()),
    ]
    load = record["load"]
    if load["before"] is not None:
        parts.append(f"load average {load['before']:.1f} before and {load['after']:.1f} after")
    return "; ".join(parts) + "."


def cpu(info: str | None = None) -> str:
    """The CPU's name, its generation, and the numbers that tell it.

    Args:
      info: The text of `/proc/cpuinfo`. The default, None, reads it where there is one.
    """
    fields = _first_cpu(_read_cpuinfo() if info is None else info)
    name = fields.get("model name") or platform.processor() or platform.machine()
    if not {"vendor_id", "cpu family", "model"} <= fields.keys():
        return name
    vendor, family, model = fields["vendor_id"], int(fields["cpu family"]), int(fields["model"])
    numbers = f"{vendor} family {family} model {model}"
    generation = GENERATIONS.get((vendor, family, model))
    known = [x for x in (None if name in SAYS_NOTHING else name, generation) if x is not None]
    return f"{', '.join(known)} ({numbers})" if known else numbers


def _read_cpuinfo() -> str:
    path = pathlib.Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""


def _first_cpu(info: str) -> dict[str, str]:
    lines = [line.partition(":") for line in info.partition("\n\n")[0].splitlines()]
    return {name.strip(): value.strip() for name, _, value in lines}


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
