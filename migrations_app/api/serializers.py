"""How rows are shown.  Nothing is written here: the verbs are calls of the services."""

from __future__ import annotations

from typing import Any

from django.urls import reverse
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from backends import services as inventory
from backends.models import Attachment, Backend, Pool, Volume, VolumeType
from migrations_app import presentation
from migrations_app.models import JournalEntry, VolumeMigration
from migrations_app.states import MigrationStatus, State


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


class VolumeLinksSerializer(serializers.Serializer):
    """Paths of what belongs to a volume."""

    self = serializers.CharField()
    destinations = serializers.CharField()
    migrate = serializers.CharField()
    migrations = serializers.CharField()


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
        }


class JournalEntrySerializer(serializers.ModelSerializer):
    """One line of a migration's journal."""

    class Meta:
        model = JournalEntry
        fields = ["id", "at", "epoch", "step", "kind", "output", "text", "actor"]


class ProgressSerializer(serializers.Serializer):
    """How far it is.  Null is unknown; numbers are never made up."""

    state_text = serializers.CharField()
    phase_label = serializers.CharField()
    done_bytes = serializers.IntegerField(allow_null=True)
    total_bytes = serializers.IntegerField(allow_null=True)
    percent = serializers.IntegerField(allow_null=True, help_text="Of the phase; 100 only when it has moved.")
    bytes_per_second = serializers.IntegerField(allow_null=True)
    eta_seconds = serializers.FloatField(allow_null=True)
    attempts = serializers.IntegerField()
    is_resumed = serializers.BooleanField()


class StepSerializer(serializers.Serializer):
    """One step of the migration."""

    name = serializers.CharField()
    label = serializers.CharField()
    status = serializers.ChoiceField(choices=["waiting", "running", "done", "failed", "undone"])
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)
    text = serializers.CharField()


class ErrorSerializer(serializers.Serializer):
    """What went wrong last."""

    code = serializers.CharField()
    text = serializers.CharField()


class MigrationLinksSerializer(serializers.Serializer):
    """Paths of what belongs to a migration."""

    self = serializers.CharField()
    events = serializers.CharField()
    cancel = serializers.CharField()
    volume = serializers.CharField(allow_null=True)


class MigrationSerializer(serializers.Serializer):
    """A migration: what was asked, how far it is, where the data is."""

    id = serializers.UUIDField()
    volume = serializers.UUIDField(allow_null=True)
    volume_name = serializers.CharField()
    size_bytes = serializers.IntegerField()
    source = serializers.CharField(help_text="HOST@BACKEND#POOL")
    source_object_name = serializers.CharField()
    destination = serializers.CharField(help_text="HOST@BACKEND#POOL")
    destination_object_name = serializers.CharField()
    state = serializers.ChoiceField(choices=[s.value for s in State])
    migration_status = serializers.ChoiceField(choices=[s.value for s in MigrationStatus], allow_null=True)
    method = serializers.CharField(help_text="`generic copy`, or how the storage moved it; empty: not yet.")
    progress = ProgressSerializer()
    steps = StepSerializer(many=True)
    error = ErrorSerializer(allow_null=True)
    data_location = serializers.CharField(help_text="Where the data is, in a sentence.")
    source_state = serializers.ChoiceField(choices=VolumeMigration.Source.values)
    purge_after = serializers.DateTimeField(allow_null=True, help_text="When a kept source is deleted.")
    verify = serializers.ChoiceField(choices=VolumeMigration.Verify.values)
    source_digest = serializers.CharField()
    destination_digest = serializers.CharField()
    data_bytes = serializers.IntegerField(allow_null=True)
    zero_bytes = serializers.IntegerField(allow_null=True)
    hole_bytes = serializers.IntegerField(allow_null=True)
    force_host_copy = serializers.BooleanField()
    delete_source = serializers.BooleanField()
    bandwidth_bytes_per_second = serializers.IntegerField(allow_null=True)
    requested_by = serializers.CharField()
    requested_via = serializers.ChoiceField(choices=VolumeMigration.Via.values)
    cancel_requested_at = serializers.DateTimeField(allow_null=True)
    retry_at = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)
    _links = MigrationLinksSerializer()

    def to_representation(self, instance: VolumeMigration) -> dict[str, Any]:
        links = {
            "self": reverse("migration-detail", args=[instance.pk]),
            "events": reverse("migration-events", args=[instance.pk]),
            "cancel": reverse("migration-cancel", args=[instance.pk]),
            "volume": reverse("volume-detail", args=[instance.volume_id]) if instance.volume_id else None,
        }
        return super().to_representation({**presentation.summary(instance), "_links": links})
