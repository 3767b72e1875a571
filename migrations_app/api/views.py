"""What is only looked at, and addresses that do not exist."""

from __future__ import annotations

from typing import Any

from django.urls import Resolver404, resolve, reverse
from rest_framework.exceptions import NotFound
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from backends.models import Backend, Pool, VolumeType
from migrations_app.api import filters, permissions, serializers
from migrations_app.api.pagination import ByName, OldestFirst
from migrations_app.api.resource import Resource


class BackendViewSet(ListModelMixin, RetrieveModelMixin, Resource):
    """Storage systems, with their health."""

    queryset = Backend.objects.prefetch_related("pools")
    serializer_class = serializers.BackendSerializer


class PoolViewSet(ListModelMixin, RetrieveModelMixin, Resource):
    """Places for volumes, with their capacity."""

    queryset = Pool.objects.select_related("backend")
    serializer_class = serializers.PoolSerializer
    filterset_class = filters.PoolFilter
    pagination_class = OldestFirst


class VolumeTypeViewSet(ListModelMixin, RetrieveModelMixin, Resource):
    """Classes of volumes."""

    queryset = VolumeType.objects.all()
    serializer_class = serializers.VolumeTypeSerializer
    pagination_class = ByName


class UnknownPath(APIView):
    """Answers for every address under `/api/` that does not exist."""

    permission_classes = [permissions.StaffWithPermission]
    schema = None

    def _answer(self, request: Request, **kwargs: Any) -> Response:
        raise NotFound(f"There is nothing at {request.path}.{_hint(request.path)}")

    get = post = put = patch = delete = _answer


def _hint(path: str) -> str:
    try:
        is_known = resolve(f"{path}/").url_name != "api-unknown"
    except Resolver404:
        is_known = False
    if is_known:
        return f" Did you mean {path}/ (with the slash)?"
    return f" What there is stands at {reverse('api-docs')}."
