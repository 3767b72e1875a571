"""
Cinder's `filter_function` and `goodness_function`: an expression over `stats`, `capabilities`, `volume`,
`extra` and `qos`.

The language is Cinder's (source: cinder `scheduler/evaluator/evaluator.py`), with its precedence, from tight
to loose::

    abs() max() min()
    ^
    unary + -
    * /
    + -
    ! not NOT
    < <= > >= == != <>
    ? :
    && and AND
    || or OR

so `?:` binds tighter than `and`; write parentheses around a condition of several parts.  Different from
Cinder:

* `and` and `or` look at every part of a chain, where Cinder looks at the first two only;
* a number keeps its fraction, where Cinder cuts 3.7 GiB to 3; `infinite` is more than any number;
* names may hold digits, a bare word is an error (quote texts), and a name that is not there is told by name.

An expression is split into words here and built into a syntax tree of the few Python nodes that it needs;
`simpleeval` evaluates the tree.  Nothing of the text is ever read as Python, so there is nothing of Python to
reach.
"""

from __future__ import annotations

import ast
import functools
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from simpleeval import InvalidExpression, SimpleEval

from migrations_app.scheduler.capabilities import INFINITE

MAX_LENGTH = 2000
ROOTS = ("stats", "capabilities", "volume", "extra", "qos")

_WORD = r"[A-Za-z_][A-Za-z0-9_]*"
_TOKEN = re.compile(
    rf"""\s*(?:
        (?P<number>\d+\.\d+|\d+|\.\d+)
      | (?P<text>"[^"]*"|'[^']*')
      | (?P<word>{_WORD}(?:\.{_WORD})*)
      | (?P<sign>&&|\|\||<=|>=|==|!=|<>|[-+*/^!<>?:(),])
    )""",
    re.VERBOSE,
)
_NUMBER_TEXT = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_SPELLINGS = {
    "&&": "and",
    "AND": "and",
    "||": "or",
    "OR": "or",
    "!": "not",
    "NOT": "not",
    "<>": "!=",
}
_KEYWORDS = frozenset({"and", "or", "not"})
_CONSTANTS = {"True": True, "true": True, "False": False, "false": False}
_COMPARISONS: dict[str, type[ast.cmpop]] = {
    "<": ast.Lt,
    "<=": ast.LtE,
    ">": ast.Gt,
    ">=": ast.GtE,
    "==": ast.Eq,
    "!=": ast.NotEq,
}
_ADDITIONS: dict[str, type[ast.operator]] = {"+": ast.Add, "-": ast.Sub}
_PRODUCTS: dict[str, type[ast.operator]] = {"*": ast.Mult, "/": ast.Div}
_SIGNS: dict[str, type[ast.unaryop]] = {"+": ast.UAdd, "-": ast.USub}
_END = ("end", "")


class ExpressionError(ValueError):
    """The expression cannot be evaluated; the text says why, without its final period."""


def evaluate(expression: str, variables: Mapping[str, Mapping[str, Any]]) -> Any:
    """
    Return the value of *expression*.

    Args:
        expression: As an administrator wrote it.
        variables: For each of `ROOTS` its names; a root that is not there has none.

    Raises:
        ExpressionError: It is no expression, names what is not there, or cannot be calculated.
    """
    tree = _parse(expression)

    def value_of(node: ast.Name) -> Any:
        return _value(_look_up(node.id, variables))

    evaluator = SimpleEval(operators=_OPERATORS, functions=_FUNCTIONS, names=value_of)
    try:
        return evaluator.eval(expression, previously_parsed=tree)
    except ExpressionError:
        raise
    except ZeroDivisionError:
        raise ExpressionError("it divides by zero") from None
    except OverflowError:
        raise ExpressionError("a number in it becomes too large") from None
    except RecursionError:
        raise ExpressionError("it is nested too deeply") from None
    except (TypeError, ValueError, InvalidExpression) as err:
        raise ExpressionError(str(err).strip().rstrip(".")) from err


def _look_up(name: str, variables: Mapping[str, Mapping[str, Any]]) -> Any:
    root, *path = name.split(".")
    found: Any = variables.get(root, {})
    for part in path:
        if not isinstance(found, Mapping) or part not in found:
            raise ExpressionError(f"there is no '{name}'")
        found = found[part]
    return found


def _value(found: Any) -> Any:
    """
    Return *found* as expressions see it.

    A text that reads as a number is one, quoted or not, as in Cinder: extra specs are texts, and nobody could
    compare them otherwise.
    """
    if isinstance(found, str):
        if found in _CONSTANTS:
            return _CONSTANTS[found]
        if found == INFINITE:
            return math.inf
        if _NUMBER_TEXT.fullmatch(found):
            return float(found) if set(found) & set(".eE") else int(found)
    return found


# -- what the tree is calculated with ------------------------------------------------------------------------


def _of_numbers(name: str, calculate: Callable[..., Any]) -> Callable[..., Any]:
    """Guard *calculate*: Python multiplies texts and adds lists, which is no number and may be huge."""

    def guarded(*values: Any) -> Any:
        for value in values:
            if not isinstance(value, (int, float)):
                raise ExpressionError(f"'{name}' needs numbers, and {value!r} is none")
        return calculate(*values)

    return guarded


def _power(base: float, exponent: float) -> float:
    # As floats: whole numbers would grow without bound, and the page that asks would hang.
    result = float(base) ** float(exponent)
    if isinstance(result, complex):
        raise ExpressionError(f"{base:g} ^ {exponent:g} is not a number")
    return result


def _ordered(name: str, compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def guarded(left: Any, right: Any) -> bool:
        try:
            return compare(left, right)
        except TypeError:
            raise ExpressionError(f"'{name}' cannot compare {left!r} with {right!r}") from None

    return guarded


_OPERATORS = {
    ast.Add: _of_numbers("+", operator.add),
    ast.Sub: _of_numbers("-", operator.sub),
    ast.Mult: _of_numbers("*", operator.mul),
    ast.Div: _of_numbers("/", operator.truediv),
    ast.Pow: _of_numbers("^", _power),
    ast.UAdd: _of_numbers("+", operator.pos),
    ast.USub: _of_numbers("-", operator.neg),
    ast.Not: operator.not_,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: _ordered("<", operator.lt),
    ast.LtE: _ordered("<=", operator.le),
    ast.Gt: _ordered(">", operator.gt),
    ast.GtE: _ordered(">=", operator.ge),
}


def _largest(*values: float) -> float:
    return max(values)


def _smallest(*values: float) -> float:
    return min(values)


_FUNCTIONS = {
    "abs": _of_numbers("abs", abs),
    "max": _of_numbers("max", _largest),
    "min": _of_numbers("min", _smallest),
}


# -- from the text to the tree -------------------------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def _parse(expression: str) -> ast.expr:
    if len(expression) > MAX_LENGTH:
        raise ExpressionError(f"it is longer than {MAX_LENGTH} characters")
    try:
        return _Parser(expression).tree()
    except RecursionError:
        raise ExpressionError("it is nested too deeply") from None


def _tokens(expression: str) -> Iterator[tuple[str, str]]:
    position, end = 0, len(expression.rstrip())
    while position < end:
        match = _TOKEN.match(expression, position)
        if match is None:
            rest = expression[position:].strip()
            hint = "; write '==' to compare" if rest.startswith("=") else ""
            raise ExpressionError(f"it cannot be read from '{rest[:20]}' on{hint}")
        kind = str(match.lastgroup)
        text = match[kind]
        if kind in ("word", "sign"):
            text = _SPELLINGS.get(text, text)
            kind = "sign" if text in _KEYWORDS else kind
        yield kind, text
        position = match.end()


class _Parser:
    """One method for each level of precedence, loosest first; each returns the tree of what it has read."""

    def __init__(self, expression: str) -> None:
        self._tokens = [*_tokens(expression), _END]
        self._next = 0

    def tree(self) -> ast.expr:
        tree = self._or()
        if self._tokens[self._next] != _END:
            raise ExpressionError(f"'{self._tokens[self._next][1]}' is not expected there")
        return tree

    def _take(self, *signs: str) -> str:
        """Return the sign that comes next and go past it, or nothing when it is none of *signs*."""
        kind, text = self._tokens[self._next]
        if kind == "sign" and text in signs:
            self._next += 1
            return text
        return ""

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            found = self._tokens[self._next][1]
            raise ExpressionError(f"'{sign}' is missing" + (f" before '{found}'" if found else " at the end"))

    def _or(self) -> ast.expr:
        parts = [self._and()]
        while self._take("or"):
            parts.append(self._and())
        return ast.BoolOp(ast.Or(), parts) if len(parts) > 1 else parts[0]

    def _and(self) -> ast.expr:
        parts = [self._ternary()]
        while self._take("and"):
            parts.append(self._ternary())
        return ast.BoolOp(ast.And(), parts) if len(parts) > 1 else parts[0]

    def _ternary(self) -> ast.expr:
        condition = self._comparison()
        if not self._take("?"):
            return condition
        chosen = self._ternary()
        self._expect(":")
        return ast.IfExp(condition, chosen, self._ternary())

    def _comparison(self) -> ast.expr:
        first = self._negation()
        signs, others = [], []
        while sign := self._take(*_COMPARISONS):
            signs.append(_COMPARISONS[sign]())
            others.append(self._negation())
        return ast.Compare(first, signs, others) if signs else first

    def _negation(self) -> ast.expr:
        if self._take("not"):
            return ast.UnaryOp(ast.Not(), self._negation())
        return self._addition()

    def _addition(self) -> ast.expr:
        return self._from_left(self._product, _ADDITIONS)

    def _product(self) -> ast.expr:
        return self._from_left(self._sign, _PRODUCTS)

    def _from_left(self, part: Callable[[], ast.expr], signs: Mapping[str, type[ast.operator]]) -> ast.expr:
        tree = part()
        while sign := self._take(*signs):
            tree = ast.BinOp(tree, signs[sign](), part())
        return tree

    def _sign(self) -> ast.expr:
        if sign := self._take(*_SIGNS):
            return ast.UnaryOp(_SIGNS[sign](), self._sign())
        return self._power()

    def _power(self) -> ast.expr:
        base = self._operand()
        # From the right, and the exponent may have a sign.
        return ast.BinOp(base, ast.Pow(), self._sign()) if self._take("^") else base

    def _operand(self) -> ast.expr:
        if self._take("("):
            tree = self._or()
            self._expect(")")
            return tree
        kind, text = self._tokens[self._next]
        if kind not in ("number", "text", "word"):
            raise ExpressionError(
                f"a value is missing before '{text}'" if text else "a value is missing at the end"
            )
        self._next += 1
        if kind == "number":
            return ast.Constant(_value(text))
        if kind == "text":
            return ast.Constant(_value(text[1:-1]))
        return self._call(text) if text in _FUNCTIONS else self._name(text)

    def _call(self, function: str) -> ast.expr:
        self._expect("(")
        arguments = [self._or()]
        while self._take(","):
            arguments.append(self._or())
        self._expect(")")
        return ast.Call(ast.Name(function, ast.Load()), arguments, [])

    def _name(self, text: str) -> ast.expr:
        if text in _CONSTANTS:
            return ast.Constant(_CONSTANTS[text])
        root, dot, _ = text.partition(".")
        if dot and root in ROOTS:
            return ast.Name(text, ast.Load())
        names = ", ".join(f"{name}.…" for name in ROOTS)
        raise ExpressionError(f"'{text}' is not a name ({names}); put a text between quotes")
