"""Driver options: declared once as a dataclass, used by the form, the validation, the masking and the docs."""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Mapping
from typing import Any

from backends.drivers.errors import BadOptions
from backends.drivers.types import is_object_name


def option(
    help_text: str, *, default: Any = dataclasses.MISSING, secret: bool = False, example: str = ""
) -> Any:
    """Return a dataclass field for one driver option; without *default* the option is required."""
    return dataclasses.field(
        default=default, metadata={"help": help_text, "secret": secret, "example": example}
    )


@dataclasses.dataclass(frozen=True)
class Options:
    """Base of every driver's options."""


@dataclasses.dataclass(frozen=True, slots=True)
class OptionInfo:
    """One declared option, for forms and docs."""

    name: str
    type_name: str
    help_text: str
    is_secret: bool
    is_required: bool
    default: Any
    example: str


def describe_options(options_class: type[Options]) -> list[OptionInfo]:
    """Return what the driver declares, in order."""
    hints = typing.get_type_hints(options_class)
    return [
        OptionInfo(
            name=f.name,
            type_name=getattr(hints[f.name], "__name__", str(hints[f.name])),
            help_text=f.metadata["help"],
            is_secret=f.metadata["secret"],
            is_required=f.default is dataclasses.MISSING,
            default=None if f.default is dataclasses.MISSING else f.default,
            example=f.metadata["example"],
        )
        for f in dataclasses.fields(options_class)
    ]


def _convert(name: str, wanted: type, value: Any) -> Any:
    if wanted is bool:
        if isinstance(value, bool):
            return value
        text = str(value).strip().lower()
        if text in ("true", "yes", "on", "1"):
            return True
        if text in ("false", "no", "off", "0"):
            return False
        raise ValueError(f"{name}: '{value}' is neither true nor false")
    if wanted is int:
        try:
            return int(str(value).strip())
        except ValueError:
            raise ValueError(f"{name}: '{value}' is not a whole number") from None
    return str(value)


def build_options(options_class: type[Options], values: Mapping[str, Any]) -> Any:
    """
    Return the driver's options object made from *values* (strings or JSON values).

    Raises:
        BadOptions: Names every unknown, missing or ill-typed option at once.
    """
    declared = {info.name: info for info in describe_options(options_class)}
    hints = typing.get_type_hints(options_class)
    problems = [f"unknown option '{name}'" for name in values if name not in declared]
    converted: dict[str, Any] = {}
    for name, info in declared.items():
        if name not in values or values[name] in (None, ""):
            if info.is_required:
                problems.append(f"missing option '{name}' ({info.help_text})")
            continue
        try:
            converted[name] = _convert(name, hints[name], values[name])
        except ValueError as error:
            problems.append(str(error))
    if not problems:
        try:
            return options_class(**converted)
        except ValueError as error:
            problems.append(str(error))
    known = ", ".join(declared) or "none"
    raise BadOptions(f"Driver options refused: {'; '.join(problems)}. Known options: {known}.")


def check_directory_options(path: str, pool: str, *, example: str) -> None:
    """
    Return when *path* and *pool* can be the options of a driver that keeps its volumes in one directory.

    Raises:
        ValueError: Names everything that is wrong; *example* is a path as it should be.
    """
    problems = []
    if not os.path.isabs(path):
        problems.append(f"path: '{path}' is not an absolute path, such as {example}")
    if not is_object_name(pool):
        problems.append(f"pool: '{pool}' cannot be the name of a pool")
    if problems:
        raise ValueError("; ".join(problems))
