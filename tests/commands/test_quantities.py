"""Sizes as people write them."""

from __future__ import annotations

import pytest

from backends.drivers.types import GIB, KIB, MIB, TIB
from backends.quantities import parse_bytes, parse_count, parse_speed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        ("4096", 4096),
        ("4096B", 4096),
        ("1KiB", KIB),
        ("512MiB", 512 * MIB),
        ("512 mib", 512 * MIB),
        ("10GiB", 10 * GIB),
        ("1.5TiB", 3 * TIB // 2),
        ("10GB", 10**10),
        ("0.5kb", 500),
        (" 7B ", 7),
    ],
)
def test_sizes_are_exact(text, expected):
    assert parse_bytes(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("10G", "Write 10GiB (1024s) or 10GB (1000s)"),
        ("1.5m", "Write 1.5MiB"),
        ("", "not a size"),
        ("-1", "not a size"),
        ("ten", "not a size"),
        ("1e9", "not a size"),
        ("10GiB/s", "not a size"),
        ("5 gigs", "not a unit"),
        ("0", "out of range"),
        ("0GiB", "out of range"),
        ("8192PiB", "out of range"),
        ("1.5", "whole number of bytes"),
        ("0.0001KiB", "whole number of bytes"),
    ],
)
def test_what_is_no_size_says_what_to_write(text, says):
    with pytest.raises(ValueError) as caught:
        parse_bytes(text)
    assert says in str(caught.value)


def test_speeds():
    assert parse_speed("100MiB") == parse_speed("100MiB/s") == 100 * MIB


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.0", ""])
def test_counts_are_whole_and_positive(text):
    assert parse_count("12") == 12
    with pytest.raises(ValueError, match="whole number"):
        parse_count(text)
