"""The storage inventory: what lies where, and what may go where."""

from __future__ import annotations

import uuid
from typing import Any

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models

from backends.drivers.types import PoolAddress
from migrations_app.states import MigrationStatus

_name_part = RegexValidator(
    r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9_-])?$",
    "Letters, digits, '.', '_' and '-'; the first one a letter or a digit.",
)


class Backend(models.Model):
    """A storage system as one driver sees it, addressed `host@backend`."""

    host = models.CharField(
        max_length=128, validators=[_name_part], help_text="The machine whose worker reaches the storage."
    )
    name = models.CharField(max_length=128, validators=[_name_part])
    driver = models.CharField(max_length=64)
    options = models.JSONField(default=dict, blank=True, help_text="Driver options that are not secret.")
    secret_options = models.TextField(default="", blank=True, editable=False)
    availability_zone = models.CharField(max_length=128, blank=True, default="")
    is_enabled = models.BooleanField(
        "enabled", default=True, help_text="Volumes may move here. Moving away is always possible."
    )
    disabled_reason = models.CharField(max_length=255, blank=True, default="")
    reserved_percentage = models.PositiveSmallIntegerField(
        default=0,
        validators=[MaxValueValidator(100)],
        help_text="Per cent of the total that no volume may use.",
    )
    max_over_subscription_ratio = models.FloatField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1.0)],
        help_text="Provisioned over total that a thin pool may reach; empty means the site's default.",
    )
    max_bandwidth_bytes_per_second = models.BigIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="Bytes per second that all migrations from and to this backend may move together; "
        "empty means no limit. Running migrations follow a change within a second.",
    )
    filter_function = models.TextField(
        blank=True, default="", help_text="A volume fits when this is true, such as: volume.size < 100"
    )
    goodness_function = models.TextField(
        blank=True, default="", help_text="0 to 100, such as: 100 * capabilities.free_capacity_gb / 500"
    )
    extra_capabilities = models.JSONField(
        default=dict,
        blank=True,
        help_text='Capabilities that volume types can ask for, such as {"tier": "gold"}.',
    )
    reported_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_error = models.TextField(blank=True, default="", editable=False)
    last_error_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["host", "name"]
        constraints = [models.UniqueConstraint(fields=["host", "name"], name="backend_address_is_unique")]

    def __str__(self) -> str:
        return self.address

    @property
    def address(self) -> str:
        return f"{self.host}@{self.name}"


class Pool(models.Model):
    """
    A place for volumes, addressed `host@backend#pool`.

    Everything but the name is the driver's last report.  `storage_id` is what the place said of itself when it
    was registered; another one answering under the same name is refused by the driver.
    """

    backend = models.ForeignKey(Backend, on_delete=models.CASCADE, related_name="pools")
    name = models.CharField(max_length=128, validators=[_name_part])
    storage_id = models.CharField(max_length=255, blank=True, default="", db_index=True)
    total_bytes = models.BigIntegerField(null=True, blank=True)
    free_bytes = models.BigIntegerField(null=True, blank=True)
    provisioned_bytes = models.BigIntegerField(null=True, blank=True)
    volume_count = models.PositiveIntegerField(default=0)
    is_infinite = models.BooleanField(default=False)
    is_read_only = models.BooleanField(default=False)
    thin_provisioning_support = models.BooleanField(default=False)
    thick_provisioning_support = models.BooleanField(default=False)
    location_info = models.JSONField(default=dict, blank=True)
    capabilities = models.JSONField(default=dict, blank=True)
    reported_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["backend__host", "backend__name", "name"]
        constraints = [models.UniqueConstraint(fields=["backend", "name"], name="pool_name_is_unique")]

    def __str__(self) -> str:
        return str(self.address)

    @property
    def address(self) -> PoolAddress:
        """Needs the backend: use `select_related("backend")`."""
        return PoolAddress(self.backend.host, self.backend.name, self.name)


class VolumeType(models.Model):
    """What a class of volumes asks of its pool, in Cinder's extra specs."""

    name = models.CharField(max_length=255, unique=True)
    description = models.TextField(blank=True, default="")
    extra_specs = models.JSONField(
        default=dict, blank=True, help_text='Such as {"tier": "gold"} or {"free_capacity_gb": ">= 100"}.'
    )

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Volume(models.Model):
    """
    Somebody's disk.

    `pool` and `object_name` say where its data is; they change in one transaction, together with the lock.
    `locked_by_migration` is that lock: the id of the migration that owns the volume.
    """

    class Status(models.TextChoices):
        CREATING = "creating"
        AVAILABLE = "available"
        IN_USE = "in-use"
        DELETING = "deleting"
        ERROR = "error"
        ERROR_DELETING = "error_deleting"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=255)
    description = models.TextField(blank=True, default="")
    size_bytes = models.BigIntegerField(validators=[MinValueValidator(1)])
    pool = models.ForeignKey(Pool, on_delete=models.PROTECT, related_name="volumes")
    object_name = models.CharField(max_length=128)
    volume_type = models.ForeignKey(
        VolumeType, on_delete=models.PROTECT, null=True, blank=True, related_name="volumes"
    )
    availability_zone = models.CharField(max_length=128, blank=True, default="")
    status = models.CharField(max_length=16, choices=Status.choices, default=Status.AVAILABLE)
    migration_status = models.CharField(
        max_length=16, choices=[(s.value, s.value) for s in MigrationStatus], null=True, blank=True
    )
    locked_by_migration = models.UUIDField(null=True, blank=True, editable=False)
    error_text = models.TextField(blank=True, default="", editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["-created_at", "-id"]
        indexes = [
            models.Index(fields=["-created_at", "-id"], name="volume_newest"),
            models.Index(fields=["pool", "-created_at", "-id"], name="volume_pool_newest"),
            models.Index(fields=["status", "-created_at", "-id"], name="volume_status_newest"),
            models.Index(fields=["migration_status", "-created_at", "-id"], name="volume_migration_newest"),
            models.Index(fields=["name"], name="volume_name"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["pool", "object_name"], name="one_volume_per_stored_object"),
        ]
        permissions = [("attach_volume", "Can attach and detach volumes")]

    def __str__(self) -> str:
        return self.name


class Snapshot(models.Model):
    """A snapshot of a volume that is known here; those that only the storage knows are asked of the driver."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    volume = models.ForeignKey(Volume, on_delete=models.PROTECT, related_name="snapshots")
    name = models.CharField(max_length=255)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at", "-id"]

    def __str__(self) -> str:
        return self.name


class Attachment(models.Model):
    """Where a volume is attached; detached ones stay as history."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    volume = models.ForeignKey(Volume, on_delete=models.CASCADE, related_name="attachments")
    attached_to = models.CharField(max_length=255, help_text="The server or machine that uses the volume.")
    mountpoint = models.CharField(max_length=255, blank=True, default="")
    attached_at = models.DateTimeField(auto_now_add=True)
    detached_at = models.DateTimeField(null=True, blank=True)
    attached_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )

    class Meta:
        ordering = ["-attached_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["volume"], condition=models.Q(detached_at=None), name="one_attachment_at_a_time"
            )
        ]

    def __str__(self) -> str:
        return f"{self.attached_to} {self.mountpoint}".strip()


def split_options(values: dict[str, Any], secret_names: set[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return *values* parted into plain and secret ones."""
    plain = {k: v for k, v in values.items() if k not in secret_names}
    return plain, {k: v for k, v in values.items() if k in secret_names}
