"""Sizes and speeds as people write them."""

from __future__ import annotations

import re

_FACTORS = {
    "": 1,
    "b": 1,
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgtp", start=1)},
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgtp", start=1)},
}
_QUANTITY = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[a-z]*)(?P<per_second>/s)?", re.IGNORECASE)
_EXAMPLES = "Write bytes, or a number with a unit: 512MiB, 10GiB, 1.5TiB (1024s) or 10GB (1000s)."
_LARGEST = 2**63 - 1


def parse_bytes(text: str) -> int:
    """
    Return the bytes that *text* means, 1 or more: `10GiB`, `10GB` (10^9 each), or plain bytes.

    Raises:
        ValueError: It means nothing, is ambiguous (`10G`), not whole, or too large; it says what to write.
    """
    return _parse(text, is_speed=False)


def parse_speed(text: str) -> int:
    """Return the bytes a second that *text* means: `100MiB/s`, `100MiB`.  Errors as `parse_bytes`."""
    return _parse(text, is_speed=True)


def _parse(text: str, *, is_speed: bool) -> int:
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or (match["per_second"] and not is_speed):
        raise ValueError(f"'{text}' is not a size. {_EXAMPLES}")
    unit = match["unit"].lower()
    if len(unit) == 1 and f"{unit}ib" in _FACTORS:
        number, letter = match["number"], unit.upper()
        raise ValueError(
            f"'{text}' is ambiguous. Write {number}{letter}iB (1024s) or {number}{letter}B (1000s)."
        )
    if unit not in _FACTORS:
        raise ValueError(f"'{match['unit']}' in '{text}' is not a unit. {_EXAMPLES}")
    whole, _, fraction = match["number"].partition(".")
    # In whole numbers: 1.5TiB must be exact to the byte.
    scaled, remainder = divmod(int(whole + fraction) * _FACTORS[unit], 10 ** len(fraction))
    if remainder:
        raise ValueError(f"'{text}' is not a whole number of bytes. {_EXAMPLES}")
    if not 1 <= scaled <= _LARGEST:
        raise ValueError(f"'{text}' is out of range: 1 byte or more, and less than 8 EiB.")
    return scaled


def parse_count(text: str) -> int:
    """Return the whole number 1 or more in *text*.  Raises `ValueError`."""
    if not text.strip().isdecimal() or int(text) < 1:
        raise ValueError(f"'{text}' is not a whole number of 1 or more")
    return int(text)
