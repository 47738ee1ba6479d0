"""A disk that is full when a process tells the others that it could not write."""

from __future__ import annotations

import pathlib

import orbax.checkpoint as ocp
import pytest

import liftnn
from liftnn._src.checkpoints.failures import SharedOutcome


@pytest.fixture
def barriers(monkeypatch) -> list[str]:
    """The keys of the barriers that were reached."""
    reached: list[str] = []
    monkeypatch.setattr(
        ocp.multihost, "get_barrier_sync_fn", lambda: lambda key, timeout_ms: reached.append(key)
    )
    return reached


def test_a_file_without_text_is_enough(tmp_path, monkeypatch, barriers):
    def write_text(path: pathlib.Path, text: str) -> None:
        path.touch()
        raise OSError("no space left")

    monkeypatch.setattr(pathlib.Path, "write_text", write_text)
    failed = SharedOutcome(str(tmp_path), (), ValueError("the cause"))

    with pytest.raises(ValueError, match="the cause"):
        failed.result()

    assert len(barriers) == 1
    other = SharedOutcome(str(tmp_path), ())
    next(tmp_path.iterdir()).rename(other._file)  # both are of one save
    with pytest.raises(liftnn.CheckpointError, match="not in another process, whose own error says why"):
        other.result()


def test_without_the_file_nobody_takes_the_checkpoint_for_complete(tmp_path, barriers):
    failed = SharedOutcome(str(tmp_path / "missing"), (), ValueError("the cause"))

    with pytest.raises(ValueError, match="the cause"):
        failed.result()

    assert not barriers
