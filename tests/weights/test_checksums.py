"""Checksums of tensors: equal for equal bytes however they are cut, and different after each change."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from liftnn._src.weights.checksums import ROW_BYTES, add_to_checksum


def by_formula(content):
    """The formula of the docstring, in Python's integers."""
    sums = b""
    for start in range(0, len(content), ROW_BYTES):
        row = content[start : start + ROW_BYTES]
        row += bytes(-len(row) % 8)
        words = [int.from_bytes(row[i : i + 8], "little") for i in range(0, len(row), 8)]
        words = [x ^ x >> 37 for x in words]
        factors = [((i + 1) * 0x9E3779B97F4A7C15) % 2**64 | 1 for i in range(len(words))]
        sums += (sum(x * k for x, k in zip(words, factors, strict=True)) % 2**64).to_bytes(8, "little")
    return zlib.crc32(sums)


@pytest.mark.parametrize(
    "size", [0, 1, 7, 8, 9, 1000, ROW_BYTES - 1, ROW_BYTES, ROW_BYTES + 1, 3 * ROW_BYTES + 17]
)
def test_the_checksum_is_that_of_the_formula_whether_in_one_piece_or_in_rows(size):
    x = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    assert add_to_checksum(x) == by_formula(x.tobytes())
    crc = 0
    for start in range(0, size, ROW_BYTES):
        crc = add_to_checksum(x[start : start + ROW_BYTES], crc)
    assert crc == add_to_checksum(x)


def test_each_change_of_a_bit_changes_it():
    x = np.random.default_rng(0).integers(0, 256, 300, np.uint8)
    before = add_to_checksum(x)
    for at in range(len(x)):
        for bit in range(8):
            x[at] ^= 1 << bit
            assert add_to_checksum(x) != before
            x[at] ^= 1 << bit


def test_words_that_are_swapped_change_it():
    x = np.random.default_rng(0).integers(0, 2**63, 64, np.uint64)
    before = add_to_checksum(x.view(np.uint8))
    for i in range(64):
        for j in range(i):
            x[[i, j]] = x[[j, i]]
            assert add_to_checksum(x.view(np.uint8)) != before
            x[[i, j]] = x[[j, i]]


@pytest.mark.parametrize("dtype", [np.float64, np.complex64, np.float32, np.float16, np.int64])
@pytest.mark.parametrize("value", [1, 2, 4, -2, 2**12])
def test_a_zeroed_part_of_equal_numbers_changes_it(dtype, value):
    x = np.full(64, value).astype(dtype)
    if dtype == np.complex64:
        x *= 1j
    before = add_to_checksum(x.view(np.uint8))
    for start in range(64):
        for end in range(start + 1, 65):
            y = x.copy()
            y[start:end] = 0
            assert add_to_checksum(y.view(np.uint8)) != before
