"""Checksums of the files of a folder: a CRC over sums of rows and columns of their bytes, at the speed of memory."""

from __future__ import annotations

import concurrent.futures
import os
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

_BLOCK = 1 << 18
"""The number of bytes of a block."""
_ROW = 512
"""The number of 64-bit words of a row of a block."""
_READ = 16 * _BLOCK
"""The number of bytes that are read at once. With fewer, a thread waits for Python's lock more often."""


def list_files(folder: Any, prefix: str = "") -> Iterator[str]:
    """Yield the paths of all files below a folder, from there, with `/` between names."""
    for child in sorted(folder.iterdir(), key=lambda child: child.name):
        name = f"{prefix}{child.name}"
        if child.is_dir():
            yield from list_files(child, f"{name}/")
        else:
            yield name


def checksum(file: Any) -> list[int]:
    """Return the length and the checksum of a file.

    A block is a matrix of 64-bit words. The sums of its rows and of its columns are computed several times as fast as a
    CRC of all bytes. Any flipped bit changes them, and so do any two values that change places. What does not fill a
    row is part of the CRC itself.

    Args:
      file: The path, with the method `open`.

    Returns:
      The number of bytes, and the checksum.
    """
    length = crc = 0
    buffer: Any = np.empty(_READ, np.uint8)
    with file.open("rb") as stream:
        while size := _fill(stream, memoryview(buffer)):
            length += size
            whole = size // _BLOCK * _BLOCK
            crc = _add_blocks(buffer[:whole].view("<u8").reshape(-1, _BLOCK // 8 // _ROW, _ROW), crc)
            if whole < size:
                rows = (size - whole) // (8 * _ROW)
                end = whole + rows * 8 * _ROW
                crc = _add_blocks(buffer[whole:end].view("<u8").reshape(1, rows, _ROW), crc)
                crc = zlib.crc32(buffer[end:size], crc)
    return [length, crc]


def _add_blocks(words: Any, crc: int) -> int:
    """Return the CRC of the sums of the columns and rows of blocks, after what came before.

    Args:
      words: Blocks of 64-bit words, of shape `(blocks, rows, columns)`.
      crc: The CRC so far.

    Returns:
      The CRC.
    """
    sums = np.concatenate([words.sum(1, dtype="<u8"), words.sum(2, dtype="<u8")], axis=1)
    return zlib.crc32(sums.tobytes(), crc)


def _fill(stream: Any, buffer: memoryview) -> int:
    """Read until a buffer is full or the file ends; return the number of bytes."""
    size = 0
    while size < len(buffer) and (count := stream.readinto(buffer[size:])):
        size += count
    return size


def checksums(folder: Any, names: list[str]) -> dict[str, list[int]]:
    """Return length and checksum of files by path from a folder; several files at a time."""
    with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return dict(zip(names, pool.map(lambda name: checksum(folder / name), names), strict=True))
