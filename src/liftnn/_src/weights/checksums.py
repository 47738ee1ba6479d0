"""Checksums of tensors, faster than those of the standard library, which would take longer than reading.

The bytes are rows of 64-bit words. Round numbers, such as 2.0, have only high bits, of which a product modulo 2^64
keeps few, so the high bits of each word are first added to its low bits, by exclusive or. The sum of a row is that of
these words, each times an odd number of its position, modulo 2^64, so a change of one word always changes it. The
checksum is the CRC-32 of the sums.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

ROW_BYTES = 1 << 18
"""The number of bytes of a row; small enough that a row and the factors stay in the cache of a processor."""
_SHIFT = np.uint64(37)
"""By how many bits the high bits are moved: odd, since the words of arrays repeat after 8, 16 or 32 bits."""
_GOLDEN = 0x9E3779B97F4A7C15
_FACTORS = np.arange(1, ROW_BYTES // 8 + 1, dtype="<u8") * np.uint64(_GOLDEN) | np.uint64(1)


def add_to_checksum(content: Any, crc: int = 0) -> int:
    """Return the checksum of bytes that come after others.

    Args:
      content: The bytes, as a numpy array of bytes. What follows must start with a row.
      crc: The checksum of the bytes before; 0 by default, if there are none.

    Returns:
      The checksum.
    """
    whole = len(content) // ROW_BYTES * ROW_BYTES
    if whole:
        folded = np.empty(len(_FACTORS), "<u8")  # which stays in the cache, too
        sums = [_sum(row, folded) for row in content[:whole].view("<u8").reshape(-1, len(_FACTORS))]
        crc = zlib.crc32(np.array(sums, "<u8").tobytes(), crc)
    if whole == len(content):
        return crc
    rest = np.zeros(-(-(len(content) - whole) // 8) * 8, np.uint8)
    rest[: len(content) - whole] = content[whole:]
    words = rest.view("<u8")
    return zlib.crc32(_sum(words, np.empty_like(words)).tobytes(), crc)


def _sum(words: Any, folded: Any) -> Any:
    """Return the sum of a row; `folded` is an array of its size to work in."""
    np.right_shift(words, _SHIFT, out=folded)
    np.bitwise_xor(words, folded, out=folded)
    return folded @ _FACTORS[: len(words)]
