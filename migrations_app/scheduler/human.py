"""Numbers and lists as people read them.  Used by the sentences of the scheduler and by every page."""

from __future__ import annotations

from collections.abc import Sequence

_STEP = 1024
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_MINUTE = 60
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR
_SHOWN = 3


def bytes_text(number: int | None) -> str:
    """Return *number* bytes in binary units with one decimal: `512 B`, `1.0 GiB`; `unknown` for `None`."""
    return "unknown" if number is None else _in_units(number, round_up=False)


def at_least_text(number: int) -> str:
    """Return *number* bytes rounded up: who frees what this says has freed enough."""
    return _in_units(number, round_up=True)


def differing_texts(first: int, second: int) -> tuple[str, str]:
    """Return two sizes so that they can be told apart: "needs 4.0 GiB, 4.0 GiB are free" would puzzle."""
    texts = bytes_text(first), bytes_text(second)
    if first != second and texts[0] == texts[1]:
        return f"{first} B", f"{second} B"
    return texts


def _in_units(number: int, *, round_up: bool) -> str:
    sign, size = ("-", -number) if number < 0 else ("", number)
    if size < _STEP:
        return f"{sign}{size} B"
    power = 1
    while power < len(_UNITS) - 1 and _tenths(size, power, round_up=round_up) >= _STEP * 10:
        power += 1
    tenths = _tenths(size, power, round_up=round_up)
    return f"{sign}{tenths // 10}.{tenths % 10} {_UNITS[power]}"


def _tenths(size: int, power: int, *, round_up: bool) -> int:
    # In whole numbers: 1023.96 KiB must become 1.0 MiB, not 1024.0 KiB, and large sizes must not lose bytes.
    unit = _STEP**power
    return -(-size * 10 // unit) if round_up else (size * 20 + unit) // (2 * unit)


def duration_text(seconds: float | None) -> str:
    """Return a duration as coarsely as it is known: `about 3 min`; `unknown` for `None`."""
    if seconds is None:
        return "unknown"
    if seconds < 1:
        return "less than 1 s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"about {whole} s"
    minutes = round(whole / _MINUTE)
    if minutes * _MINUTE < _HOUR:
        return f"about {minutes} min"
    if minutes * _MINUTE < _DAY:
        return f"about {minutes * _MINUTE // _HOUR} h" + _rest(minutes % (_HOUR // _MINUTE), "min")
    hours = round(whole / _HOUR)
    days = hours * _HOUR // _DAY
    return f"about {days} {'day' if days == 1 else 'days'}" + _rest(hours % (_DAY // _HOUR), "h")


def _rest(number: int, unit: str) -> str:
    return f" {number} {unit}" if number else ""


def list_text(items: Sequence[str], *, shown: int = _SHOWN) -> str:
    """Return `a, b and c`; of a long list the first *shown* and how many more there are."""
    rest = len(items) - shown
    if rest > 1:
        return f"{', '.join(items[:shown])} and {rest} more"
    return ", ".join(items[:-1]) + f" and {items[-1]}" if len(items) > 1 else "".join(items)


def count_text(number: int, noun: str) -> str:
    """Return `1 snapshot`, `2 snapshots`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def sentence(text: str) -> str:
    """Return *text* with an end: drivers and people end their sentences now with a period, now without."""
    plain = " ".join(text.split())
    return plain if plain.endswith((".", "?", "!")) else f"{plain}."


def without_period(text: str) -> str:
    """
    Return *text* so that it can go on: drivers and people end their sentences now with a period, now without.
    """
    return " ".join(text.split()).rstrip(".")
