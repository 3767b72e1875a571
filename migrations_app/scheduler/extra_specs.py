"""
Cinder's extra specs: does what a pool reports meet what a type asks for?

Source: cinder `scheduler/filters/extra_specs_ops.py` and `capabilities_filter.py`.  The grammar is Cinder's,
its odd corners too: `=` means *at least*, `>` and `<` alone are not operators, and the word comparisons look
at one word only.

Different from Cinder, because there the same type that an administrator reads as met is silently refused:

* a boolean equals its word (`True` meets `True`, `true`, `yes`), where Cinder asks for `<is> True`;
* a number equals the same number as text (5 meets `5` and `5.0`), where Cinder compares a number with a text;
* `infinite` is more than any number, where Cinder cannot compare it;
* every alternative of `<or>` counts, where Cinder loses those that follow one of two words.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from migrations_app.scheduler.capabilities import INFINITE

_SCOPE = "capabilities"
_OR = "<or>"
_TRUE_WORDS = frozenset({"1", "t", "true", "on", "y", "yes"})
_FALSE_WORDS = frozenset({"0", "f", "false", "off", "n", "no"})
#: What people write although it is no operator, and what they mean.
_NOT_OPERATORS = {">": ">=", "<": "<=", "=>": ">=", "=<": "<=", "<>": "!="}

MISSING = object()


def is_capability(key: str) -> bool:
    """
    Tell whether the extra spec *key* is about a capability; keys of other scopes are for others to read.
    """
    scope, colon, _ = key.partition(":")
    return not colon or scope == _SCOPE


def look_up(capabilities: Mapping[str, Any], key: str) -> Any:
    """Return the capability that *key* names (`capabilities:a:b` goes inwards), or `MISSING`."""
    found: Any = capabilities
    path = key.split(":")
    for part in path[1:] if len(path) > 1 and path[0] == _SCOPE else path:
        if not isinstance(found, Mapping) or part not in found:
            return MISSING
        found = found[part]
    return found


def meets(capability: Any, requirement: Any) -> bool:
    """Tell whether *capability* meets *requirement*; of a list one member is enough."""
    if isinstance(capability, (list, tuple, set, frozenset)):
        return any(matches(member, requirement) for member in capability)
    return matches(capability, requirement)


def matches(value: Any, requirement: Any) -> bool:
    """Tell whether the single *value* meets *requirement*."""
    if requirement is None or not isinstance(requirement, str):
        return value is None if requirement is None else matches(value, str(requirement))
    words = requirement.split()
    name = words.pop(0) if words else ""
    if name != _OR and name not in _OPERATORS:
        return _equals(value, requirement)
    if value is None or not words:
        return False
    if name == _OR:
        return any(_equals(value, word) for word in _alternatives(words))
    try:
        return bool(_OPERATORS[name](value, words[0]))
    except (ValueError, TypeError):
        # A number was asked for and there is none, as in Cinder: not met.
        return False


def mistaken_operator(requirement: str) -> tuple[str, str] | None:
    """
    Return (what was written, what to write) when *requirement* begins with what only looks like an operator.
    """
    first = requirement.split(maxsplit=1)[:1]
    return (first[0], _NOT_OPERATORS[first[0]]) if first and first[0] in _NOT_OPERATORS else None


def _alternatives(words: list[str]) -> list[str]:
    """Return the first word after each `<or>`; *words* begins behind the first."""
    return words[:1] + [word for before, word in itertools.pairwise(words) if before == _OR]


def _equals(value: Any, text: str) -> bool:
    if isinstance(value, bool):
        word = text.strip().lower()
        return word in (_TRUE_WORDS if value else _FALSE_WORDS)
    if isinstance(value, (int, float)):
        try:
            return _number(text) == value
        except ValueError:
            return False
    return bool(value == text)


def _number(value: Any) -> float:
    return math.inf if value == INFINITE else float(value)


def _truth(value: Any) -> bool:
    """Read a boolean as `oslo_utils.strutils.bool_from_string` does: what is no word for true is false."""
    return value if isinstance(value, bool) else str(value).strip().lower() in _TRUE_WORDS


def _contains(value: Any, word: str) -> bool:
    return word in value


def _numbers(compare: Callable[[float, float], bool]) -> Callable[[Any, str], bool]:
    return lambda value, word: compare(_number(value), _number(word))


def _texts(compare: Callable[[str, str], bool]) -> Callable[[Any, str], bool]:
    return lambda value, word: compare(str(value), word)


_OPERATORS: dict[str, Callable[[Any, str], bool]] = {
    "=": _numbers(operator.ge),
    "==": _numbers(operator.eq),
    "!=": _numbers(operator.ne),
    ">=": _numbers(operator.ge),
    "<=": _numbers(operator.le),
    "s==": _texts(operator.eq),
    "s!=": _texts(operator.ne),
    "s<": _texts(operator.lt),
    "s<=": _texts(operator.le),
    "s>": _texts(operator.gt),
    "s>=": _texts(operator.ge),
    "<in>": _contains,
    "<is>": lambda value, word: _truth(value) is _truth(word),
}
