"""Errors as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db import OperationalError
from django.http import Http404
from rest_framework import exceptions
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response
from rest_framework.views import set_rollback

from backends.drivers.errors import DriverError, InUse, NoSpace, Transient, Unsupported, VolmigError
from backends.services import UnknownName
from migrations_app.errors import KeyReused

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
_RETRY_SECONDS = "5"
#: Refusals that are no conflict with how things stand.
_STATUS: dict[type[VolmigError], int] = {UnknownName: 404, KeyReused: 422}


def as_problem(error: Exception, context: dict[str, Any]) -> Response:
    """
    Return the answer for *error*.

    An error that nobody foresaw is logged with its traceback and answered as 500 without any detail of it.
    """
    request = context.get("request")
    set_rollback()
    match error:
        case exceptions.ValidationError():
            in_query = request is not None and request.method in ("GET", "HEAD")
            fields = _validation(error, "parameter" if in_query else "pointer")
        case Http404():
            fields = _fields(404, "not_found", "There is nothing at this address.")
        case PermissionDenied():
            fields = _fields(403, "permission_denied", str(error) or "You may not do this.")
        case exceptions.APIException():
            fields = _api_exception(error)
        case VolmigError():
            fields = _refusal(error)
        case OperationalError():
            logger.error("the database did not answer", exc_info=error)
            fields = _fields(503, "database_unavailable", "The database did not answer. Try again.")
        case _:
            logger.error("unforeseen error in the API", exc_info=error)
            fields = _fields(500, "unexpected", "An unforeseen error; the log of the server has the details.")
    if request is not None:
        fields["instance"] = request.path
        # Whatever the view would have rendered (the schema is YAML): a problem is JSON.
        request.accepted_renderer, request.accepted_media_type = JSONRenderer(), JSONRenderer.media_type
    return Response(
        fields, fields["status"], headers=_headers(error, fields["status"]), content_type=CONTENT_TYPE
    )


def _fields(status: int, code: str, detail: str, title: str = "") -> dict[str, Any]:
    return {
        "type": f"urn:volmig:problem:{code}",
        "title": title or HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }


def _headers(error: Exception, status: int) -> dict[str, str]:
    headers = {}
    if header := getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = header
    wait = getattr(error, "wait", None)
    if wait or status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(int(wait)) if wait else _RETRY_SECONDS
    return headers


def _api_exception(error: exceptions.APIException) -> dict[str, Any]:
    codes = error.get_codes()
    code = codes if isinstance(codes, str) else error.default_code
    return _fields(error.status_code, code, str(error.detail))


def _refusal(error: VolmigError) -> dict[str, Any]:
    """Return the fields of a refusal, every reason included."""
    detail = getattr(error, "message", "") or str(error)
    if isinstance(error, DriverError):
        return {
            **_fields(_storage_status(error), error.code, str(error), "The storage refused"),
            "reasons": [],
        }
    status = _STATUS.get(type(error), 409)
    reasons = [reason.as_dict() for reason in getattr(error, "reasons", ())]
    fields = _fields(status, getattr(error, "code", "refused"), detail, getattr(error, "title", ""))
    return {**fields, "reasons": reasons}


def _storage_status(error: DriverError) -> int:
    if isinstance(error, Unsupported | NoSpace | InUse):
        # The storage is well: it cannot do this to this volume as it is.
        return 409
    return 503 if isinstance(error, Transient) else 502


def _validation(error: exceptions.ValidationError, where: str) -> dict[str, Any]:
    problems = [
        {where: _pointer(path) if where == "pointer" else "".join(path[:1]), "detail": text, "code": code}
        for path, text, code in _flatten(error.detail, ())
    ]
    return {
        **_fields(400, "invalid", "The request was not understood; `errors` says where.", "Invalid request"),
        "errors": problems,
    }


def _flatten(detail: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str, str]]:
    if isinstance(detail, Mapping):
        for name, inner in detail.items():
            yield from _flatten(inner, path if name == "non_field_errors" else (*path, str(name)))
    elif isinstance(detail, list | tuple):
        for index, inner in enumerate(detail):
            is_nested = isinstance(inner, Mapping | list | tuple)
            yield from _flatten(inner, (*path, str(index)) if is_nested else path)
    else:
        yield path, str(detail), getattr(detail, "code", "invalid")


def _pointer(path: tuple[str, ...]) -> str:
    """Return a JSON pointer as a URI fragment.  Source: RFC 6901 section 6."""
    return "#" + "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)
