"""How rows of the inventory are shown.  Nothing is written here: the verbs are calls of the services."""

from __future__ import annotations

from typing import Any

from django.urls import reverse
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from backends import services as inventory
from backends.models import Attachment, Backend, Pool, Snapshot, Volume, VolumeType


class HealthSerializer(serializers.Serializer):
    """Whether a backend can be a destination, and why not."""

    state = serializers.ChoiceField(choices=["up", "down"])
    reason = serializers.CharField(help_text="Why it is down; empty when it is up.")
    age_seconds = serializers.FloatField(allow_null=True, help_text="Age of the last report.")


def _health(health: inventory.Health) -> dict[str, Any]:
    return {
        "state": "up" if health.is_up else "down",
        "reason": health.down_reason,
        "age_seconds": health.age_seconds,
    }


class BackendSerializer(serializers.ModelSerializer):
    """A storage system as one driver sees it."""

    address = serializers.CharField(read_only=True, help_text="HOST@BACKEND")
    options = serializers.SerializerMethodField(help_text="Driver options; secret ones are masked.")
    health = serializers.SerializerMethodField()
    pools = serializers.SerializerMethodField(help_text="Addresses of its pools.")

    class Meta:
        model = Backend
        fields = [
            "id",
            "address",
            "host",
            "name",
            "driver",
            "options",
            "health",
            "pools",
            "availability_zone",
            "is_enabled",
            "disabled_reason",
            "reserved_percentage",
            "max_over_subscription_ratio",
            "max_bandwidth_bytes_per_second",
            "filter_function",
            "goodness_function",
            "extra_capabilities",
            "reported_at",
            "created_at",
        ]

    def get_options(self, backend: Backend) -> dict[str, Any]:
        return inventory.masked_options(backend)

    @extend_schema_field(HealthSerializer)
    def get_health(self, backend: Backend) -> dict[str, Any]:
        return _health(inventory.health(backend))

    def get_pools(self, backend: Backend) -> list[str]:
        return [f"{backend.address}#{pool.name}" for pool in backend.pools.all()]


class PoolSerializer(serializers.ModelSerializer):
    """A place for volumes, as its driver last reported it."""

    address = serializers.CharField(read_only=True, help_text="HOST@BACKEND#POOL")
    health = serializers.SerializerMethodField()

    class Meta:
        model = Pool
        fields = [
            "id",
            "address",
            "backend",
            "name",
            "health",
            "total_bytes",
            "free_bytes",
            "provisioned_bytes",
            "volume_count",
            "is_infinite",
            "is_read_only",
            "thin_provisioning_support",
            "thick_provisioning_support",
            "capabilities",
            "location_info",
            "reported_at",
        ]

    @extend_schema_field(HealthSerializer)
    def get_health(self, pool: Pool) -> dict[str, Any]:
        return _health(inventory.health(pool.backend, pool.reported_at))


class VolumeTypeSerializer(serializers.ModelSerializer):
    """What a class of volumes asks of its pool."""

    class Meta:
        model = VolumeType
        fields = ["id", "name", "description", "extra_specs"]


class AttachmentSerializer(serializers.ModelSerializer):
    """Where a volume is, or was, attached."""

    class Meta:
        model = Attachment
        fields = ["id", "attached_to", "mountpoint", "attached_at", "detached_at"]


class SnapshotSerializer(serializers.ModelSerializer):
    """A snapshot that was made here."""

    class Meta:
        model = Snapshot
        fields = ["id", "volume", "name", "created_at"]


class VolumeLinksSerializer(serializers.Serializer):
    """Paths of what belongs to a volume."""

    self = serializers.CharField()
    destinations = serializers.CharField()
    migrate = serializers.CharField()
    migrations = serializers.CharField()
    snapshots = serializers.CharField()


class VolumeSerializer(serializers.ModelSerializer):
    """Somebody's disk."""

    pool = serializers.CharField(read_only=True, help_text="HOST@BACKEND#POOL")
    volume_type = serializers.CharField(read_only=True, allow_null=True)
    active_migration = serializers.UUIDField(source="locked_by_migration", read_only=True, allow_null=True)
    attachments = AttachmentSerializer(source="current_attachments", many=True, read_only=True)
    _links = serializers.SerializerMethodField("get_links")

    class Meta:
        model = Volume
        fields = [
            "id",
            "name",
            "description",
            "size_bytes",
            "pool",
            "object_name",
            "volume_type",
            "availability_zone",
            "status",
            "migration_status",
            "active_migration",
            "attachments",
            "error_text",
            "created_at",
            "updated_at",
            "_links",
        ]

    @extend_schema_field(VolumeLinksSerializer)
    def get_links(self, volume: Volume) -> dict[str, str]:
        return {
            "self": reverse("volume-detail", args=[volume.pk]),
            "destinations": reverse("volume-destinations", args=[volume.pk]),
            "migrate": reverse("volume-migrate", args=[volume.pk]),
            "migrations": f"{reverse('migration-list')}?volume={volume.pk}",
            "snapshots": reverse("volume-snapshots", args=[volume.pk]),
        }
