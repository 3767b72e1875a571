"""Errors as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

from typing import Any

from rest_framework.response import Response
from rest_framework.views import exception_handler


def as_problem(error: Exception, context: dict[str, Any]) -> Response | None:
    """Return the answer for *error*; `None` leaves it to Django (a bug: 500)."""
    return exception_handler(error, context)
