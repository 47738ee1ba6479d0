"""Record the tensors and the outputs of the networks in `torch_cases.py` with PyTorch, in `recorded.npz`.

Run it as `python -m tests.weights.record_torch` in an environment with PyTorch.
"""

from __future__ import annotations

import pathlib
import zlib
from typing import Any

import numpy as np

from tests.weights.torch_cases import CASES, Case

FILE = pathlib.Path(__file__).parent / "recorded.npz"


def make_theirs(torch: Any, name: str, case: Case, seed: int = 0) -> Any:
    """Return a PyTorch module with random numbers in all tensors, in the mode of evaluation."""
    module = case.theirs(torch.nn).eval()
    random = np.random.default_rng(zlib.crc32(name.encode()) + seed)
    for key, x in module.state_dict().items():
        if x.is_floating_point():
            drawn = torch.from_numpy(random.normal(size=x.shape, scale=0.5).astype(np.float32)).reshape(
                x.shape
            )
            x.copy_(drawn.abs() + 0.1 if key.endswith("running_var") else drawn)
    return module


def run_theirs(torch: Any, module: Any, inputs: list[np.ndarray]) -> np.ndarray:
    """Return the output of a PyTorch module."""
    with torch.no_grad():
        return module(*map(torch.from_numpy, inputs)).numpy()


def record(torch: Any) -> dict[str, np.ndarray]:
    """Return all tensors, inputs and outputs by name."""
    found: dict[str, np.ndarray] = {}
    for name, case in CASES.items():
        module, inputs = make_theirs(torch, name, case), case.inputs()
        found |= {f"{name}/state/{key}": x.numpy() for key, x in module.state_dict().items()}
        found[f"{name}/output"] = run_theirs(torch, module, inputs)
    return found


if __name__ == "__main__":
    import torch

    np.savez_compressed(FILE, **record(torch))
