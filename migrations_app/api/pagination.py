"""Pages of lists."""

from rest_framework.pagination import CursorPagination


class NewestFirst(CursorPagination):
    """Pages that stay stable while rows are added; `?limit=` up to 1000 rows."""

    ordering = ("-created_at", "-id")
    page_size_query_param = "limit"
    max_page_size = 1000


class ByName(NewestFirst):
    """For rows that have a unique name and no date."""

    ordering = ("name",)


class OldestFirst(NewestFirst):
    """For rows that are read as they were written."""

    ordering = ("id",)
