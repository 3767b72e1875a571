"""Pages of lists."""

from rest_framework.pagination import CursorPagination


class NewestFirst(CursorPagination):
    """Pages that stay stable while rows are added; `?limit=` up to 1000 rows."""

    ordering = ("-created_at", "-id")
    page_size_query_param = "limit"
    max_page_size = 1000
