"""What one host asks another one to do with its storage: a row is the question, the answer, and the proof of life."""

from __future__ import annotations

import uuid

from django.db import models

from backends.models import Backend


class RemoteCall(models.Model):
    """
    One call of the driver contract, made on one host and answered by the worker of another one.

    `migration` and `epoch` are the right to change anything: they are compared with the migration's lease right before
    the driver is called, and again and again while a volume is served.  Without them only looking is allowed.
    `is_wanted` is the asker's word to go on serving an opened volume.  Times are the database's.
    """

    class State(models.TextChoices):
        ASKED = "asked"
        RUNNING = "running"
        SERVING = "serving"
        ENDED = "ended"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    host = models.CharField(max_length=128)
    backend = models.ForeignKey(Backend, on_delete=models.CASCADE, related_name="+")
    operation = models.CharField(max_length=32)
    arguments = models.JSONField(default=dict)
    secret = models.TextField(
        blank=True, default="", help_text="Encrypted; empty again when the call has ended."
    )
    migration = models.ForeignKey(
        "migrations_app.VolumeMigration", on_delete=models.CASCADE, null=True, related_name="remote_calls"
    )
    epoch = models.PositiveBigIntegerField(default=0)
    asked_by = models.CharField(max_length=255, blank=True, default="")
    state = models.CharField(max_length=16, choices=State.choices, default=State.ASKED)
    worker = models.CharField(max_length=255, blank=True, default="")
    is_wanted = models.BooleanField(default=True)
    result = models.JSONField(null=True)
    error = models.JSONField(null=True)
    asked_at = models.DateTimeField()
    heard_at = models.DateTimeField(null=True, help_text="When the answering worker was last heard of.")
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["asked_at", "id"]
        indexes = [models.Index(fields=["host", "state", "asked_at"], name="remote_call_waiting")]

    def __str__(self) -> str:
        return f"{self.operation} on {self.host}"
