"""Small things that several admin classes use."""

from __future__ import annotations

import hashlib
from typing import Any

from django.core.paginator import Paginator
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.cache import get_conditional_response
from django.utils.functional import cached_property
from django.utils.safestring import SafeString, mark_safe

from backends.models import Pool

#: Nobody turns a hundred pages; counting a million rows for the page numbers costs more than the page.
_COUNTED_ROWS = 10_001


class CappedPaginator(Paginator):
    """Counts no further than anybody would turn the pages."""

    @cached_property
    def count(self) -> int:
        return self.object_list.order_by()[:_COUNTED_ROWS].count()


class ReadOnlyAdmin:
    """Mixin: rows that only services write."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class PlainTitle:
    """
    Mixin: a page is called what it shows, not what can be done with it.

    `empty_title` and `empty_text` stand in place of a list without any rows.
    """

    change_list_template = "volmig/list.html"
    empty_title = ""
    empty_text = ""

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        title = str(self.opts.verbose_name_plural).capitalize()
        return super().changelist_view(request, {"title": title, "page": self, **(extra_context or {})})

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, obj: Any = None, **kwargs: Any
    ) -> HttpResponse:
        if obj is not None:
            context |= {"title": str(obj), "subtitle": None}
        return super().render_change_form(request, context, *args, obj=obj, **kwargs)


def piece(template: str, **context: Any) -> SafeString:
    """Return a rendered template as a cell of a list."""
    return mark_safe(render_to_string(template, context))  # noqa: S308  the template has escaped everything


def live_response(request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
    """
    Return a part of a page for the script that polls it: 304 while it is the same.

    By hand, because Django's own middleware leaves out what the admin marks as not to be stored.
    """
    html = render_to_string(template, context, request)
    etag = f'"{hashlib.sha256(html.encode()).hexdigest()[:32]}"'
    answer = HttpResponse(html, headers={"ETag": etag})
    return get_conditional_response(request, etag=etag, response=answer)


def change_url(row: Model) -> str:
    """Return the address of the page of *row*."""
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])


def pool_cell(pool: Pool) -> SafeString:
    """Return a pool's room as a bar."""
    return piece("volmig/capacity_cell.html", pool=pool)
