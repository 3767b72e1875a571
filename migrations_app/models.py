"""A migration: its row is the truth, its journal is what was done."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q

from backends.models import Pool, Volume

# Django looks for models in this module only.
from migrations_app.idempotency import ApiRequest as ApiRequest
from migrations_app.remote_call import RemoteCall as RemoteCall
from migrations_app.states import WORKING, State

#: `method` of a migration that copies port to port; any other value is the driver's name for its own move.
GENERIC = "generic copy"


class VolumeMigration(models.Model):
    """
    "Move this volume to that pool": what was asked, where it stands, who works on it.

    `state` moves by compare-and-set under the lease (`owner`, `epoch`).  `locks_volume` is true from the request until
    the volume is free again; only one migration of a volume may have it.  The `*_requested` fields are wishes of
    administrators that the worker reads while it works.
    """

    class Verify(models.TextChoices):
        FULL = "full", "read back and compare"
        NONE = "none", "do not verify"

    class Via(models.TextChoices):
        ADMIN = "admin"
        API = "api"
        COMMAND = "command"

    class Source(models.TextChoices):
        IN_PLACE = "in_place", "in place"
        KEPT = "kept", "kept"
        DELETED = "deleted", "deleted"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    volume = models.ForeignKey(Volume, on_delete=models.SET_NULL, null=True, related_name="migrations")
    volume_name = models.CharField(max_length=255)
    size_bytes = models.BigIntegerField()
    source_pool = models.ForeignKey(Pool, on_delete=models.PROTECT, related_name="migrations_away")
    source_object_name = models.CharField(max_length=128)
    destination_pool = models.ForeignKey(Pool, on_delete=models.PROTECT, related_name="migrations_here")
    destination_is_thin = models.BooleanField(default=True)
    needed_bytes = models.BigIntegerField(help_text="Room that the copy takes at the destination.")

    # What was asked, by whom.
    force_host_copy = models.BooleanField(default=False)
    delete_source = models.BooleanField(default=False)
    verify = models.CharField(max_length=8, choices=Verify.choices, default=Verify.FULL)
    bandwidth_bytes_per_second = models.BigIntegerField(
        null=True, blank=True, validators=[MinValueValidator(1)]
    )
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    requested_by_name = models.CharField(max_length=255, blank=True, default="")
    requested_via = models.CharField(max_length=16, choices=Via.choices, default=Via.COMMAND)
    retry_of = models.ForeignKey(
        "self", on_delete=models.SET_NULL, null=True, blank=True, related_name="retries"
    )
    verdict = models.JSONField(default=dict, help_text="The scheduler's answer when it was accepted.")

    # Where it stands.
    state = models.CharField(max_length=24, choices=[(s.value, s.value) for s in State], default=State.QUEUED)
    locks_volume = models.BooleanField(default=True)
    method = models.CharField(
        max_length=64, blank=True, default="", help_text="reflink, rename, generic copy ..."
    )
    error_code = models.CharField(max_length=64, blank=True, default="")
    error_text = models.TextField(blank=True, default="")
    data_location = models.TextField(blank=True, default="", help_text="Where the data is, in a sentence.")
    source_state = models.CharField(max_length=16, choices=Source.choices, default=Source.IN_PLACE)
    purge_after = models.DateTimeField(null=True, blank=True)

    # Who works on it.  Times are the database's.
    owner = models.CharField(max_length=255, blank=True, default="")
    epoch = models.PositiveBigIntegerField(default=0)
    lease_expires_at = models.DateTimeField(null=True, blank=True)
    retry_at = models.DateTimeField(null=True, blank=True)
    failures = models.PositiveIntegerField(default=0, help_text="Failures in a row that may pass.")
    rung_at = models.DateTimeField(null=True, blank=True)

    # The owner whose lease ran out last: it may be frozen and still hold the destination open.
    former_owner = models.CharField(max_length=255, blank=True, default="")
    former_owner_at = models.DateTimeField(null=True, blank=True)

    # Wishes.
    cancel_requested_at = models.DateTimeField(null=True, blank=True)
    cancel_requested_by = models.CharField(max_length=255, blank=True, default="")
    pause_requested_at = models.DateTimeField(null=True, blank=True)

    # Progress of the copy.  `copied_up_to_bytes` is flushed at the destination.
    copied_up_to_bytes = models.BigIntegerField(default=0)
    phase_done_bytes = models.BigIntegerField(default=0)
    phase_total_bytes = models.BigIntegerField(null=True, blank=True)
    speed_bytes_per_second = models.BigIntegerField(null=True, blank=True)
    data_bytes = models.BigIntegerField(null=True, blank=True)
    zero_bytes = models.BigIntegerField(null=True, blank=True)
    hole_bytes = models.BigIntegerField(null=True, blank=True)
    source_digest = models.CharField(max_length=128, blank=True, default="")
    destination_digest = models.CharField(max_length=128, blank=True, default="")
    destination_made_at = models.DateTimeField(null=True, blank=True)

    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    progress_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at", "-id"]
        verbose_name = "migration"
        constraints = [
            models.UniqueConstraint(
                fields=["volume"], condition=Q(locks_volume=True), name="one_active_migration_per_volume"
            )
        ]
        indexes = [
            models.Index(fields=["-created_at", "-id"], name="migration_newest"),
            models.Index(fields=["state", "-created_at", "-id"], name="migration_state_newest"),
            models.Index(fields=["volume", "-created_at", "-id"], name="migration_volume_newest"),
        ]
        permissions = [
            ("migrate_volume", "Can migrate volumes"),
            ("cancel_migration", "Can cancel migrations"),
            ("skip_verification", "Can migrate without verifying the copy"),
            (
                "decide_migration",
                "Can roll back, finish and resolve migrations, and purge or keep their sources",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.volume_name} to {self.destination_pool}"

    @property
    def destination_object_name(self) -> str:
        """Derived from the id alone, so that it can be found without any memory of what was done."""
        return f"volmig-{self.id}"

    @property
    def is_working(self) -> bool:
        return self.state in WORKING

    @property
    def host(self) -> str:
        """The host whose worker does the next step."""
        return self.source_pool.backend.host


class JournalEntry(models.Model):
    """One line of a migration's journal.  Append-only; written in the transaction of what it tells."""

    class Kind(models.TextChoices):
        REQUESTED = "requested"
        STARTED = "started"
        DONE = "done"
        INTERRUPTED = "interrupted"
        FAILED = "failed"
        UNDO_DECIDED = "undo_decided"
        UNDO_STARTED = "undo_started"
        UNDONE = "undone"
        UNDO_FAILED = "undo_failed"
        PAUSED = "paused"
        ENDED = "ended"
        DECISION = "decision"
        WISH = "wish"
        WAITING = "waiting"

    migration = models.ForeignKey(VolumeMigration, on_delete=models.CASCADE, related_name="journal")
    at = models.DateTimeField(auto_now_add=True)
    epoch = models.PositiveBigIntegerField(default=0)
    step = models.CharField(max_length=64, blank=True, default="")
    kind = models.CharField(max_length=16, choices=Kind.choices)
    output = models.JSONField(default=dict)
    text = models.TextField(blank=True, default="")
    actor = models.CharField(max_length=255, blank=True, default="")

    class Meta:
        ordering = ["id"]
        verbose_name_plural = "journal entries"

    def __str__(self) -> str:
        return f"{self.step} {self.kind}".strip()


class MigrationSegment(models.Model):
    """Digests of one segment of the volume: made while copying, compared when read back, kept as proof."""

    migration = models.ForeignKey(VolumeMigration, on_delete=models.CASCADE, related_name="segments")
    index = models.PositiveIntegerField()
    source_digest = models.CharField(max_length=64)
    destination_digest = models.CharField(max_length=64, blank=True, default="")
    data_bytes = models.BigIntegerField(default=0)
    zero_bytes = models.BigIntegerField(default=0)

    class Meta:
        ordering = ["migration", "index"]
        constraints = [models.UniqueConstraint(fields=["migration", "index"], name="one_digest_per_segment")]

    def __str__(self) -> str:
        return f"segment {self.index}"


class WorkerHost(models.Model):
    """A host whose worker is running: written by its supervisor every few seconds, and believed only while fresh."""

    host = models.CharField(max_length=128, unique=True)
    started_at = models.DateTimeField()
    heartbeat_at = models.DateTimeField()
    pid = models.PositiveIntegerField()
    slots = models.PositiveIntegerField(help_text="Migrations that it works on at the same time.")
    restarts = models.PositiveIntegerField(
        default=0, help_text="How often its cluster had to be started again."
    )
    note = models.TextField(
        blank=True, default="", help_text="What the supervisor did last, when it did something."
    )
    is_draining = models.BooleanField(default=False)
    storage_address = models.CharField(
        max_length=255,
        blank=True,
        default="",
        help_text="Where it serves volumes to other hosts; empty when none can come here from another host.",
    )

    class Meta:
        ordering = ["host"]

    def __str__(self) -> str:
        return self.host
