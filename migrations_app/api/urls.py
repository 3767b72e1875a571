"""Addresses of the API."""

from django.contrib.admin.views.decorators import staff_member_required
from django.urls import include, path, re_path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView
from rest_framework.routers import SimpleRouter

from migrations_app.api import views
from migrations_app.api.doctor import DoctorViewSet
from migrations_app.api.migrations import MigrationViewSet
from migrations_app.api.permissions import StaffWithPermission
from migrations_app.api.volumes import SnapshotViewSet, VolumeViewSet

router = SimpleRouter()
router.register("backends", views.BackendViewSet)
router.register("pools", views.PoolViewSet)
router.register("volume-types", views.VolumeTypeViewSet, basename="volume-type")
router.register("volumes", VolumeViewSet)
router.register("snapshots", SnapshotViewSet)
router.register("migrations", MigrationViewSet, basename="migration")

urlpatterns = [
    path("", include(router.urls)),
    path("doctor/", DoctorViewSet.as_view({"get": "examine"}), name="doctor"),
    path("doctor/mend/", DoctorViewSet.as_view({"post": "mend"}), name="doctor-mend"),
    path("schema/", SpectacularAPIView.as_view(permission_classes=[StaffWithPermission]), name="api-schema"),
    path(
        "docs/",
        staff_member_required(SpectacularSwaggerView.as_view(url_name="api-schema")),
        name="api-docs",
    ),
    re_path(r"", views.UnknownPath.as_view(), name="api-unknown"),
]
